"""Describe NVIDIA GPUs through NVML, or as far as the kernel module tells, never through CUDA."""

from __future__ import annotations

import hashlib
import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT = Path("/")


def describe_gpus(root: Path = _ROOT) -> list[dict[str, Any]]:
    """Describe every GPU; an empty list where there is none.

    With nvidia-ml-py installed (read only) this tells clocks, power limit, ECC and MIG as well.
    A fact that a GPU does not support is None.
    """
    try:
        pynvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return _from_kernel_module(root)
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return _from_kernel_module(root)
    try:
        return [_describe(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _describe(nvml: Any, index: int) -> dict[str, Any]:
    gpu = nvml.nvmlDeviceGetHandleByIndex(index)

    def ask(function: str, *arguments: int, per_gpu: bool = True) -> Any:
        """Call one query; None where this GPU or this driver does not answer it."""
        query: Callable[..., Any] = getattr(nvml, function)
        try:
            answer = query(gpu, *arguments) if per_gpu else query(*arguments)
        except nvml.NVMLError:
            return None
        # Older bindings answer in bytes.
        return answer.decode() if isinstance(answer, bytes) else answer

    memory, power = ask("nvmlDeviceGetMemoryInfo"), ask("nvmlDeviceGetPowerManagementLimit")
    ecc, mig = ask("nvmlDeviceGetEccMode"), ask("nvmlDeviceGetMigMode")
    return {
        "name": ask("nvmlDeviceGetName"),
        "uuid_hash": _hashed(ask("nvmlDeviceGetUUID")),
        "driver": ask("nvmlSystemGetDriverVersion", per_gpu=False),
        "cuda_driver": ask("nvmlSystemGetCudaDriverVersion", per_gpu=False),
        "vbios": ask("nvmlDeviceGetVbiosVersion"),
        "memory_bytes": memory and memory.total,
        "power_limit_watts": None if power is None else power / 1000,
        "sm_clock_limit_mhz": ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM),
        "ecc": None if ecc is None else bool(ecc[0]),
        "mig": None if mig is None else bool(mig[0]),
        "persistence": ask("nvmlDeviceGetPersistenceMode"),
        "compute_mode": ask("nvmlDeviceGetComputeMode"),
        "pcie_generation": ask("nvmlDeviceGetCurrPcieLinkGeneration"),
        "pcie_width": ask("nvmlDeviceGetCurrPcieLinkWidth"),
    }


def _from_kernel_module(root: Path) -> list[dict[str, Any]]:
    """Read names and driver from /proc/driver/nvidia."""
    folder = root / "proc/driver/nvidia"
    found = re.search(r"Kernel Module\D*?([\d.]+)\s", _text(folder / "version"))
    driver = found[1] if found else None
    gpus = []
    for file in sorted((folder / "gpus").glob("*/information")):
        pairs = (line.partition(":") for line in _text(file).splitlines())
        facts = {key.strip(): value.strip() for key, _, value in pairs}
        gpus.append(
            {
                "name": facts.get("Model"),
                "uuid_hash": _hashed(facts.get("GPU UUID")),
                "driver": driver,
                "vbios": facts.get("Video BIOS"),
            }
        )
    return gpus


def _hashed(text: str | None) -> str | None:
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
