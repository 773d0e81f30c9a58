"""Meters of memory against buffers whose sizes are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch
from written_roots import write

from bertopt_bench.measure.memory import (
    allocation_peak,
    available_bytes,
    graph_pool_bytes,
    reset_resident_peak,
    resident_peak_bytes,
    storage_bytes,
)

if TYPE_CHECKING:
    from pathlib import Path

MIB = 2**20


@pytest.mark.parametrize(
    ("changes", "baseline", "expected"),
    [
        ([], 0, 0),
        ([], 7, 7),
        ([5, 3, -5, 4], 0, 8),
        ([-5, 4], 10, 10),
        ([-5, 9, -9], 10, 14),
    ],
)
def test_allocation_peak_is_the_highest_running_sum(
    changes: list[int], baseline: int, expected: int
) -> None:
    """Oracle: sums by hand; frees before the first allocation never raise the peak."""
    assert allocation_peak(changes, baseline) == expected


def test_storage_bytes_counts_views_and_tied_tensors_once() -> None:
    """Oracle: element counts times element sizes."""
    weight = torch.zeros(10, 4)
    vector = torch.zeros(3, dtype=torch.float64)

    assert storage_bytes([weight, weight[2:], weight.t(), vector, torch.empty(0)]) == 160 + 24


def test_what_graphs_keep_is_counted_by_whole_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: sums by hand over a snapshot in torch's words; (0, 0) is no graph's pool."""
    segments = [
        {"total_size": 20 * MIB, "active_size": MIB, "segment_pool_id": (0, 0)},
        {"total_size": 2 * MIB, "active_size": 0, "segment_pool_id": (0, 1)},
        {"total_size": 6 * MIB, "active_size": MIB, "segment_pool_id": (0, 2)},
    ]
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)

    assert graph_pool_bytes("cuda") == 8 * MIB
    assert graph_pool_bytes("cpu") == 0


def test_resident_peak_falls_after_a_reset() -> None:
    """A freed buffer counts until the reset and no longer (the kernel is the oracle)."""
    if not reset_resident_peak():
        pytest.skip("this system cannot reset the resident peak")
    before = resident_peak_bytes()
    buffer = b"\x01" * (256 * MIB)
    with_buffer = resident_peak_bytes()
    del buffer
    reset_resident_peak()
    after = resident_peak_bytes()

    assert before is not None
    assert with_buffer is not None
    assert after is not None
    assert with_buffer - before > 200 * MIB
    assert with_buffer - after > 200 * MIB


def test_resident_peak_is_read_from_the_status_file(tmp_path: Path) -> None:
    """Oracle: a status file written by hand; proc_pid_status(5) gives kibibytes."""
    (tmp_path / "status").write_text("Name:\tx\nVmPeak:\t  99 kB\nVmHWM:\t    2280 kB\n")

    assert resident_peak_bytes(tmp_path) == 2280 * 1024


def test_a_system_without_the_files_resets_nothing_and_still_answers(tmp_path: Path) -> None:
    """Without /proc the peak comes from getrusage, at least one page; the reset says no."""
    absent = tmp_path / "absent"

    assert reset_resident_peak(absent) is False
    assert (resident_peak_bytes(absent) or 0) > 4096


@pytest.mark.parametrize(("limit", "bytes_"), [("700", 600), ("5000", 2000), ("max", 2000)])
def test_processes_may_take_what_machine_and_control_group_both_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, bytes_: int
) -> None:
    """Oracle: by hand: the machine has 2000 bytes left, the group its limit less 100."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2000))
    group = {
        "proc/self/cgroup": "0::/job\n",
        "sys/fs/cgroup/job/memory.max": f"{limit}\n",
        "sys/fs/cgroup/job/memory.current": "100\n",
    }

    assert available_bytes("cpu", write(tmp_path, group)) == bytes_
