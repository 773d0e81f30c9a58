"""Describe torch as a process has it: how it was built, and every switch that changes numbers.

Nothing here touches CUDA or starts a thread, so a parent that forks may ask too; only
`gpu_state` needs a process that trains on the GPU.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.measure.gpus import GpuState
from bertopt_bench.measure.kernel_files import text

if TYPE_CHECKING:
    from bertopt_bench.measure.clock import MeasuredDevice

_MAPS = Path("/proc/self/maps")
_ALLOCATORS = ("jemalloc", "tcmalloc", "mimalloc")


def describe_torch(maps: Path = _MAPS) -> dict[str, Any]:
    """Describe version, build, libraries, matmul precision, determinism, attention and allocators.

    None stands where this torch does not say.
    """
    import torch

    return {
        "version": torch.__version__,
        "commit": torch.version.git_version,
        "debug": torch.version.debug,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "build": _without_folders(torch.__config__.show()),
        "libraries": _libraries(),
        "nvidia_packages": _nvidia_packages(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "precision": _precision(),
        "determinism": {
            "algorithms": torch.are_deterministic_algorithms_enabled(),
            "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
            "cudnn": _setting("cudnn.deterministic"),
            "cudnn_benchmark": _setting("cudnn.benchmark"),
            "mkldnn": _setting("mkldnn.deterministic"),
        },
        "attention": {
            name: _setting(f"cuda.{name}_sdp_enabled")
            for name in ("flash", "mem_efficient", "math", "cudnn")
        },
        "allocator": _allocators(maps),
    }


def gpu_state(device: MeasuredDevice) -> GpuState | None:
    """Open the meter of the GPU that this process trains on; None on a processor."""
    if device.type != "cuda":
        return None
    import torch

    uuid = getattr(torch.cuda.get_device_properties(torch.cuda.current_device()), "uuid", None)
    return None if uuid is None else GpuState.of(str(uuid))


def gpu_name(device: MeasuredDevice) -> str | None:
    """Name the GPU that this process trains on, as its driver does; None on a processor."""
    if device.type != "cuda":
        return None
    import torch

    return str(torch.cuda.get_device_name(torch.cuda.current_device()))


def _libraries() -> dict[str, Any]:
    import torch

    shown = torch.__config__.show()
    onednn = re.search(r"MKL-DNN (v[\d.]+)", shown)
    mkl = re.search(r"Math Kernel Library Version (\S+)", shown)
    return {
        "cpu_capability": _setting("cpu.get_cpu_capability"),
        "mkl": mkl[1] if mkl else None,
        "onednn": onednn[1] if onednn else None,
        "onednn_enabled": _setting("mkldnn.enabled"),
        "openmp": _setting("openmp.is_available"),
        "cudnn": _setting("cudnn.version"),
    }


def _nvidia_packages() -> dict[str, str]:
    """Give the versions of CUDA's libraries as packages: cuBLAS has no other name to ask by."""
    return {
        name: dist.version
        for dist in metadata.distributions()
        if (name := (dist.name or "").lower().replace("_", "-")).startswith("nvidia-")
    }


def _precision() -> dict[str, Any]:
    names = (
        "fp32_precision",
        "cuda.matmul.fp32_precision",
        "cuda.matmul.allow_fp16_reduced_precision_reduction",
        "cuda.matmul.allow_bf16_reduced_precision_reduction",
        "cudnn.fp32_precision",
        "mkldnn.matmul.fp32_precision",
    )
    return {name: _setting(name) for name in names}


def _setting(name: str) -> Any:
    """Read a setting below `torch.backends`, a property or a function; None where it is absent."""
    import torch

    value: Any = torch.backends
    try:
        for part in name.split("."):
            value = getattr(value, part)
        value = value() if callable(value) else value
    except (AttributeError, RuntimeError):  # of another year, or refused by this build
        return None
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


def _allocators(maps: Path) -> dict[str, Any]:
    """Tell who hands out memory: torch's for CUDA, a preloaded library for the host."""
    import torch

    loaded = text(maps)
    backend = None
    if hasattr(torch._C, "_cuda_getAllocatorBackend"):  # noqa: SLF001 - torch has no public way to ask without CUDA
        backend = str(torch.cuda.get_allocator_backend())
    return {
        "cuda": backend,
        "host": next((name for name in _ALLOCATORS if f"lib{name}" in loaded), "libc"),
    }


def _without_folders(words: str) -> str:
    """Leave the last part of every path: the builder's folders name a person, perhaps."""
    return re.sub(r"[^\s:,;=]*/", "", words)
