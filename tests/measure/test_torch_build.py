"""What a process says of its torch."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from bertopt_bench.measure import torch_build
from bertopt_bench.measure.torch_build import describe_torch, gpu_state

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_description_agrees_with_torch_and_is_json() -> None:
    """Oracle: torch itself, asked directly."""
    told = describe_torch()

    assert told["version"] == torch.__version__
    assert told["threads"] == torch.get_num_threads()
    assert told["libraries"]["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert json.loads(json.dumps(told)) == told


def test_switches_that_change_numbers_are_seen() -> None:
    """Oracle: each is set, and read back from the description."""
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        torch.use_deterministic_algorithms(True, warn_only=True)
        told = describe_torch()
    finally:
        torch.set_float32_matmul_precision(before)
        torch.use_deterministic_algorithms(False)

    assert told["matmul_precision"] == "high"
    assert (told["determinism"]["algorithms"], told["determinism"]["warn_only"]) == (True, True)
    assert describe_torch()["matmul_precision"] == before


def test_no_folder_leaves_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch built at home names the home of whoever built it."""
    flags = "CXX_COMPILER=/home/ann/gcc/bin/c++, CXX_FLAGS= -O2 -I/home/ann/include -DX"
    monkeypatch.setattr(torch.__config__, "show", lambda: flags)

    assert describe_torch()["build"] == "CXX_COMPILER=c++, CXX_FLAGS= -O2 include -DX"


def test_a_preloaded_allocator_is_named(tmp_path: Path) -> None:
    """Oracle: the form of /proc/self/maps, proc(5)."""
    maps = tmp_path / "maps"
    maps.write_text("7f00-7f01 r-xp 0 08:01 5 /usr/lib/libjemalloc.so.2\n")

    assert describe_torch(maps)["allocator"]["host"] == "jemalloc"
    assert describe_torch(tmp_path / "none")["allocator"]["host"] == "libc"


def test_asking_starts_no_thread_and_no_cuda() -> None:
    """A parent that forks trials may ask: oracle, the kernel's list of threads."""
    before = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0

    describe_torch()

    after = len(os.listdir("/proc/self/task")) if before else 0
    assert after == before
    assert not torch.cuda.is_initialized()


def test_a_gpus_meter_is_opened_by_the_uuid_of_the_current_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An index would not do: NVML and CUDA count GPUs in different orders."""
    properties = {1: SimpleNamespace(uuid="1234")}
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties.__getitem__)
    monkeypatch.setattr(torch_build.GpuState, "of", lambda uuid: f"meter of {uuid}")

    assert gpu_state(SimpleNamespace(type="cuda")) == "meter of 1234"
    assert gpu_state(SimpleNamespace(type="cpu")) is None
