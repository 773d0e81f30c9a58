"""Devices: random state, clocks and memory."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from bertopt_bench import catalogue
from bertopt_bench.axes import devices
from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator


def draw() -> tuple[float, float, float]:
    return torch.rand(()).item(), random.random(), float(np.random.rand())  # noqa: NPY002 - the global generator is meant


@pytest.fixture
def _threads() -> Iterator[None]:
    kept = torch.get_num_threads()
    yield
    torch.set_num_threads(kept)


def test_seed_makes_every_generator_repeat() -> None:
    """The same seed draws the same numbers from torch, Python and NumPy; another seed does not."""
    cpu = devices.cpu()
    cpu.seed(2**40 + 5)
    first = draw()
    cpu.seed(2**40 + 5)

    assert draw() == first
    cpu.seed(6)
    assert all(ours != theirs for ours, theirs in zip(draw(), first, strict=True))


def test_random_state_is_put_back() -> None:
    """What is drawn after a restore is what was drawn after the state was taken."""
    cpu = devices.cpu()
    state = cpu.random_state()
    first = draw()

    cpu.set_random_state(state)

    assert draw() == first


@pytest.mark.usefixtures("_threads")
def test_threads_are_set_only_where_asked() -> None:
    """threads=1 sets torch's threads, threads=0 leaves them."""
    torch.set_num_threads(2)
    devices.cpu()
    assert torch.get_num_threads() == 2

    devices.cpu(threads=1)

    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(("name", "option"), [("cpu", "threads"), ("cuda", "index")])
def test_negative_numbers_are_refused(name: str, option: str) -> None:
    with pytest.raises(UserError, match=f"{option} is -1"):
        catalogue.resolve("device", name)(**{option: -1})


def test_a_device_names_its_clock() -> None:
    """Queued devices are timed by events, the others by the host (measure.clock's two kinds)."""
    assert (devices.cpu().type, devices.cpu().clock_kind) == ("cpu", "perf_counter")
    assert (devices.cuda().type, devices.cuda().clock_kind) == ("cuda", "cuda_events")
    assert devices.cuda(index=1).torch_device == torch.device("cuda", 1)
    assert devices.cpu().torch_device == torch.device("cpu")


def test_cpu_keeps_no_peak() -> None:
    """The CPU's peak is said to be unknown, not 0."""
    devices.cpu().reset_peak_memory()
    devices.cpu().synchronize()

    assert devices.cpu().peak_memory_bytes() is None


def test_seeding_a_gpu_makes_it_the_current_one_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows without a device's name belongs to it; oracle: a torch.cuda that writes down."""
    calls: list[tuple[str, int]] = []
    for name in ("set_device", "manual_seed"):
        monkeypatch.setattr(torch.cuda, name, lambda value, name=name: calls.append((name, value)))
    monkeypatch.setattr(torch, "manual_seed", lambda value: calls.append(("host", value)))

    devices.cuda(index=1).seed(7)

    assert calls == [("set_device", 1), ("host", 7), ("manual_seed", 7)]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_restores_its_generator_and_counts_its_peak() -> None:
    """A restored GPU draws the same numbers; a megabyte allocated shows in the peak."""
    cuda = devices.cuda()
    cuda.seed(3)
    state = cuda.random_state()
    first = torch.rand(8, device=cuda.torch_device)
    cuda.set_random_state(state)
    cuda.reset_peak_memory()
    before = cuda.peak_memory_bytes() or 0
    block = torch.empty(2**20, dtype=torch.uint8, device=cuda.torch_device)

    assert torch.equal(torch.rand(8, device=cuda.torch_device), first)
    assert (cuda.peak_memory_bytes() or 0) >= before + block.numel()
