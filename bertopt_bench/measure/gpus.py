"""Describe NVIDIA GPUs through NVML, nvidia-smi or the kernel module, never through CUDA.

Everything here reads; nothing changes a GPU's settings.
"""

from __future__ import annotations

import importlib
import os
import re
import statistics
import time
from pathlib import Path
from typing import Any, Self

from bertopt_bench.measure.kernel_files import hashed, text
from bertopt_bench.measure.nvidia_smi import describe_by_command

_ROOT = Path("/")
_NOT_FOUND = 6  # NVML_ERROR_NOT_FOUND: no sample since then, which is an answer
_THERMAL, _POWER = 1, 0  # nvmlPerfPolicyType_t
# Source: nvml.h, nvmlClocksEventReasons: why the clock is below what it could be.
THROTTLE_REASONS = {
    0x001: "idle",
    0x002: "application_clocks",
    0x004: "power_cap",
    0x008: "hardware_slowdown",
    0x010: "sync_boost",
    0x020: "software_thermal",
    0x040: "hardware_thermal",
    0x080: "hardware_power_brake",
    0x100: "display_clocks",
}


def describe_gpus(root: Path = _ROOT) -> list[dict[str, Any]]:
    """Describe every GPU; an empty list where there is none.

    With nvidia-ml-py installed this tells, under `now`, what goes on at this moment as well; with
    neither that nor nvidia-smi it tells no clock, no power limit and no memory. A fact that a GPU
    does not support is None.
    """
    nvml = _open_nvml()
    if nvml is None:
        return describe_by_command() or _from_kernel_module(root)
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        return [_describe(_Gpu(nvml, handle)) for handle in handles]
    finally:
        nvml.nvmlShutdown()


class GpuState:
    """Note the state of one GPU at the end of an interval, such as a block of steps.

    Some milliseconds an interval, outside of whatever is timed. `stop` gives plain JSON, None
    where this GPU or its driver does not answer:

    - `gpu_sm_clock_mhz`, `gpu_memory_clock_mhz`, `gpu_temperature_celsius`, `gpu_power_watts`,
      `gpu_power_limit_watts`: at the stop.
    - `gpu_throttle_reasons`: words of `THROTTLE_REASONS`, at the stop.
    - `gpu_thermal_throttled_seconds`, `gpu_power_throttled_seconds`: within the interval.
    - `gpu_foreign_processes`, `gpu_foreign_memory_bytes`: those of another session than ours; all
      arms of a duel that share a parent are ours.
    - `gpu_foreign_utilisation_share`: time in which others' kernels ran, within the interval.

    What is foreign is None where NVML counts processes by other numbers than this process does,
    as in most containers.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._gpu = nvml, _Gpu(nvml, handle)
        self._began_us = 0
        self._before: tuple[float | None, float | None] = (None, None)

    @classmethod
    def of(cls, uuid: str) -> Self | None:
        """Open the GPU of a UUID, as torch's device properties give it; None where NVML cannot.

        An index would not do: CUDA counts GPUs by speed and hides some, NVML counts them by slot.
        """
        nvml = _open_nvml()
        if nvml is None:
            return None
        prefixes = ("",) if uuid.startswith(("GPU-", "MIG-")) else ("GPU-", "MIG-")
        for prefix in prefixes:
            try:
                return cls(nvml, nvml.nvmlDeviceGetHandleByUUID(prefix + uuid))
            except nvml.NVMLError:
                continue
        nvml.nvmlShutdown()
        return None

    def start(self) -> None:
        """Begin the interval."""
        self._began_us = time.time_ns() // 1000
        self._before = self._throttled()

    def stop(self) -> dict[str, Any]:
        """End the interval and give its state."""
        spent = [_minus(*pair) for pair in zip(self._throttled(), self._before, strict=True)]
        state = {
            **_state(self._gpu),
            "thermal_throttled_seconds": spent[0],
            "power_throttled_seconds": spent[1],
            **self._foreign(),
        }
        return {f"gpu_{key}": value for key, value in state.items()}

    def sm_clock_mhz(self) -> float | None:
        """Give the clock of this moment."""
        clock: float | None = self._gpu.ask("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM)
        return clock

    def close(self) -> None:
        """Let go of NVML."""
        self._nvml.nvmlShutdown()

    def _throttled(self) -> tuple[float | None, float | None]:
        """Give the seconds since the driver was loaded in which heat, and power, held it back."""
        heat, power = (
            self._gpu.ask("nvmlDeviceGetViolationStatus", policy) for policy in (_THERMAL, _POWER)
        )
        return _violation_seconds(heat), _violation_seconds(power)

    def _foreign(self) -> dict[str, Any]:
        known, sizes = _processes(self._gpu), None
        if os.getpid() in known:
            sizes = [size for pid, size in known.items() if not _is_ours(pid)]
        return {
            "foreign_processes": None if sizes is None else len(sizes),
            "foreign_memory_bytes": None if sizes is None else sum(size or 0 for size in sizes),
            "foreign_utilisation_share": _foreign_utilisation(self._gpu, self._began_us),
        }


class _Gpu:
    """A GPU that answers None to what it, its driver or the bindings do not know."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self.nvml, self.handle = nvml, handle

    def ask(
        self, function: str, *arguments: int, per_gpu: bool = True, none_found: Any = None
    ) -> Any:
        """Call one query; ``none_found`` is the answer where NVML looked and found nothing."""
        query = getattr(self.nvml, function, None)
        if query is None:  # bindings of another year
            return None
        try:
            answer = query(self.handle, *arguments) if per_gpu else query(*arguments)
        except self.nvml.NVMLError as error:
            return none_found if getattr(error, "value", None) == _NOT_FOUND else None
        # Older bindings answer in bytes.
        return answer.decode() if isinstance(answer, bytes) else answer

    def watts(self, function: str) -> float | None:
        """Ask for a power, which NVML gives in milliwatts."""
        milliwatts = self.ask(function)
        return None if milliwatts is None else milliwatts / 1000


def _open_nvml() -> Any:
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml


def _describe(gpu: _Gpu) -> dict[str, Any]:
    memory, ecc, mig = (gpu.ask(f"nvmlDeviceGet{n}") for n in ("MemoryInfo", "EccMode", "MigMode"))
    sm_clock = gpu.nvml.NVML_CLOCK_SM
    return {
        "name": gpu.ask("nvmlDeviceGetName"),
        "uuid_hash": hashed(gpu.ask("nvmlDeviceGetUUID")),
        "driver": gpu.ask("nvmlSystemGetDriverVersion", per_gpu=False),
        "cuda_driver": gpu.ask("nvmlSystemGetCudaDriverVersion", per_gpu=False),
        "vbios": gpu.ask("nvmlDeviceGetVbiosVersion"),
        "memory_bytes": memory and memory.total,
        "power_limit_watts": gpu.watts("nvmlDeviceGetPowerManagementLimit"),
        "power_limit_default_watts": gpu.watts("nvmlDeviceGetPowerManagementDefaultLimit"),
        "sm_clock_limit_mhz": gpu.ask("nvmlDeviceGetMaxClockInfo", sm_clock),
        "sm_clock_application_mhz": gpu.ask("nvmlDeviceGetApplicationsClock", sm_clock),
        "sm_clock_default_mhz": gpu.ask("nvmlDeviceGetDefaultApplicationsClock", sm_clock),
        "ecc": None if ecc is None else bool(ecc[0]),
        "mig": None if mig is None else bool(mig[0]),
        "persistence": gpu.ask("nvmlDeviceGetPersistenceMode"),
        "compute_mode": gpu.ask("nvmlDeviceGetComputeMode"),
        "pcie_generation": gpu.ask("nvmlDeviceGetCurrPcieLinkGeneration"),
        "pcie_width": gpu.ask("nvmlDeviceGetCurrPcieLinkWidth"),
        "now": {**_state(gpu), **_occupation(gpu)},
    }


def _state(gpu: _Gpu) -> dict[str, Any]:
    """Give the clocks, heat and power of this moment, and what holds the clocks back."""
    nvml = gpu.nvml
    # The newer names replace the older ones in CUDA 14's bindings.
    reasons = gpu.ask("nvmlDeviceGetCurrentClocksEventReasons")
    if reasons is None:
        reasons = gpu.ask("nvmlDeviceGetCurrentClocksThrottleReasons")
    heat = gpu.ask("nvmlDeviceGetTemperatureV", nvml.NVML_TEMPERATURE_GPU)
    if heat is None:
        heat = gpu.ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU)
    return {
        "sm_clock_mhz": gpu.ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
        "memory_clock_mhz": gpu.ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
        "temperature_celsius": heat,
        "power_watts": gpu.watts("nvmlDeviceGetPowerUsage"),
        "power_limit_watts": gpu.watts("nvmlDeviceGetPowerManagementLimit"),
        "throttle_reasons": None if reasons is None else _reason_words(reasons),
    }


def _occupation(gpu: _Gpu) -> dict[str, Any]:
    """Tell how far the GPU is in use by whomever: the caller itself uses none of it yet."""
    processes, memory = _processes(gpu), gpu.ask("nvmlDeviceGetMemoryInfo")
    rates = gpu.ask("nvmlDeviceGetUtilizationRates")
    return {
        "processes": len(processes),
        "memory_used_bytes": getattr(memory, "used", None),
        "utilisation_share": None if rates is None else rates.gpu / 100,
    }


def _processes(gpu: _Gpu) -> dict[int, int | None]:
    """Give the processes on a GPU with the bytes that they hold."""
    kinds = ("Compute", "Graphics")
    asked = [gpu.ask(f"nvmlDeviceGet{kind}RunningProcesses") or () for kind in kinds]
    return {process.pid: process.usedGpuMemory for found in asked for process in found}


def _foreign_utilisation(gpu: _Gpu, since_us: int) -> float | None:
    """Add up the mean utilisation of each process that is not ours.

    NVML may give the processes' numbers of the host here and those of the container elsewhere, so
    this process must be among them before the others may be called foreign.
    """
    samples = gpu.ask("nvmlDeviceGetProcessUtilization", since_us, none_found=())
    if samples is None:
        return None
    utilisation: dict[int, list[int]] = {}
    for sample in samples:
        utilisation.setdefault(sample.pid, []).append(sample.smUtil)
    if utilisation and os.getpid() not in utilisation:
        return None
    means = (statistics.fmean(v) for pid, v in utilisation.items() if not _is_ours(pid))
    return sum(means) / 100


def _is_ours(pid: int) -> bool:
    """Say whether a process belongs to our session: the arms of a duel have one parent."""
    try:
        return os.getsid(pid) == os.getsid(0)
    except OSError:  # gone, or another user's
        return False


def _reason_words(reasons: int) -> list[str]:
    return [word for bit, word in THROTTLE_REASONS.items() if reasons & bit]


def _violation_seconds(status: Any) -> float | None:
    return None if status is None else status.violationTime / 1e9


def _minus(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def _from_kernel_module(root: Path) -> list[dict[str, Any]]:
    """Read names and driver from /proc/driver/nvidia."""
    folder = root / "proc/driver/nvidia"
    found = re.search(r"Kernel Module\D*?([\d.]+)\s", text(folder / "version"))
    driver = found[1] if found else None
    gpus = []
    for file in sorted((folder / "gpus").glob("*/information")):
        pairs = (words.partition(":") for words in text(file).splitlines())
        facts = {key.strip(): value.strip() for key, _, value in pairs}
        gpus.append(
            {
                "name": facts.get("Model"),
                "uuid_hash": hashed(facts.get("GPU UUID")),
                "driver": driver,
                "vbios": facts.get("Video BIOS"),
            }
        )
    return gpus
