"""Differences of counters between two written states of a machine."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from bertopt_bench.measure import disturbance
from bertopt_bench.measure.disturbance import Disturbance

if TYPE_CHECKING:
    from pathlib import Path


def write_state(root: Path, *, stat: str, pressure: int, swapped: int, load: str) -> None:
    (root / "proc/pressure").mkdir(parents=True, exist_ok=True)
    (root / "proc/stat").write_text(f"cpu  {stat}\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    (root / "proc/loadavg").write_text(f"{load} 0.2 0.1 1/89 8903\n")
    (root / "proc/vmstat").write_text(f"nr_free_pages 5\npswpin {swapped}\npswpout 1\n")
    (root / "proc/pressure/cpu").write_text(
        f"some avg10=0.00 avg60=0.00 avg300=0.00 total={pressure}\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=77\n"
    )


def test_shares_are_differences_over_the_time_between(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Oracle: sums by hand.

    10 s of wall time; 2,000 ticks of 1/100 s, 100 of them stolen and 900 busy, of which this
    process used 4 s; 0.5 s of pressure; 3 pages swapped.
    """
    walls = iter([100.0, 110.0])
    own = iter([{"own_seconds": 1.0}, {"own_seconds": 5.0}])
    rest = {"involuntary_switches": 0, "major_faults": 0}
    monkeypatch.setattr(disturbance.time, "monotonic", lambda: next(walls))
    monkeypatch.setattr(disturbance, "_process_counters", lambda: {**rest, **next(own)})
    monkeypatch.setattr(disturbance.os, "sysconf", lambda _name: 100)
    write_state(tmp_path, stat="100 0 50 800 50 0 0 10 9 9", pressure=1_000, swapped=2, load="0.3")
    meter = Disturbance(tmp_path)

    meter.start()
    write_state(
        tmp_path, stat="900 0 150 1700 150 0 0 110 99 99", pressure=501_000, swapped=5, load="1.5"
    )
    seen = meter.stop()

    assert seen["observed_seconds"] == 10.0
    assert seen["load1"] == 1.5
    assert seen["steal_share"] == pytest.approx(1.0 / 20.0)
    assert seen["foreign_cpu_share"] == pytest.approx((9.0 - 4.0) / 20.0)
    assert seen["cpu_pressure_share"] == pytest.approx(0.05)
    assert seen["swapped_pages"] == 3


def test_a_system_without_proc_gives_none_and_the_process_own_counts(tmp_path: Path) -> None:
    meter = Disturbance(tmp_path)

    meter.start()
    gc.collect()
    gc.collect()
    seen = meter.stop()

    for key in ("load1", "steal_share", "foreign_cpu_share", "cpu_pressure_share", "swapped_pages"):
        assert seen[key] is None
    assert (seen["gc_collections"] or 0) >= 2
    assert seen["involuntary_switches"] is not None


def test_a_foreign_share_is_never_negative(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine counts in ticks, the process finer: 4 s of its own against 0 ticks seen busy."""
    own = iter([0.0, 4.0])
    monkeypatch.setattr(
        disturbance,
        "_process_counters",
        lambda: {
            "own_seconds": next(own),
            "involuntary_switches": 0,
            "major_faults": 0,
        },
    )
    write_state(tmp_path, stat="1 0 1 100 0 0 0 0 0 0", pressure=0, swapped=0, load="0")
    meter = Disturbance(tmp_path)

    meter.start()
    write_state(tmp_path, stat="1 0 1 900 0 0 0 0 0 0", pressure=0, swapped=0, load="0")

    assert meter.stop()["foreign_cpu_share"] == 0.0


def test_a_stop_needs_a_start() -> None:
    with pytest.raises(RuntimeError, match="start"):
        Disturbance().stop()
