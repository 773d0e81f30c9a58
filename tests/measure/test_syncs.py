"""Host syncs are counted on CUDA by torch's own warnings; a CPU has none."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch

from bertopt_bench.measure.syncs import count_host_syncs


def test_a_cpu_step_runs_once_and_has_no_sync() -> None:
    """Oracle: a CPU's results are there when the call returns."""
    calls: list[int] = []

    assert count_host_syncs(lambda: calls.append(1), SimpleNamespace(type="cpu")) == 0
    assert calls == [1]


def test_torchs_warnings_are_counted_and_the_mode_is_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Oracle: a scripted torch.cuda that warns twice, as its documentation words it."""
    modes = ["default"]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[0])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def step() -> None:
        for _ in range(2):
            warnings.warn("called a synchronizing CUDA operation (Triggered ...)", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    assert count_host_syncs(step, SimpleNamespace(type="cuda")) == 2
    assert modes == ["default", "warn", "default"]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_item_is_a_sync_on_cuda() -> None:
    """Oracle: ``item`` copies to the host, which waits."""
    value = torch.ones((), device="cuda")

    assert count_host_syncs(value.item, SimpleNamespace(type="cuda")) == 1
