"""GPU facts through a scripted NVML and from the kernel module's files: no GPU is used."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from bertopt_bench.measure.gpus import describe_gpus

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class NVMLError(Exception):
    """The error that NVML's bindings raise."""


def unsupported(*_arguments: object) -> Any:
    raise NVMLError


def scripted_nvml(**changes: object) -> SimpleNamespace:
    """Answer as one GPU whose ECC and MIG queries are not supported."""
    answers: dict[str, object] = {
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: f"gpu {index}",
        "nvmlDeviceGetName": lambda _gpu: b"Example H",
        "nvmlDeviceGetUUID": lambda _gpu: "GPU-1234",
        "nvmlSystemGetDriverVersion": lambda: "550.54",
        "nvmlSystemGetCudaDriverVersion": lambda: 12040,
        "nvmlDeviceGetVbiosVersion": lambda _gpu: "96.00",
        "nvmlDeviceGetMemoryInfo": lambda _gpu: SimpleNamespace(total=80 * 2**30),
        "nvmlDeviceGetPowerManagementLimit": lambda _gpu: 700_000,
        "nvmlDeviceGetMaxClockInfo": lambda _gpu, _clock: 1980,
        "nvmlDeviceGetPersistenceMode": lambda _gpu: 1,
        "nvmlDeviceGetComputeMode": lambda _gpu: 0,
        "nvmlDeviceGetCurrPcieLinkGeneration": lambda _gpu: 5,
        "nvmlDeviceGetCurrPcieLinkWidth": lambda _gpu: 16,
        "nvmlDeviceGetEccMode": unsupported,
        "nvmlDeviceGetMigMode": unsupported,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
    }
    return SimpleNamespace(NVMLError=NVMLError, NVML_CLOCK_SM=1, **{**answers, **changes})


KERNEL_FILES = {
    "version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024\n",
    "gpus/0000:01:00.0/information": (
        "Model: \t\t Example H\nGPU UUID: \t GPU-1234\nVideo BIOS: \t 96.00\n"
    ),
}


def with_kernel_module(root: Path) -> Path:
    for name, text in KERNEL_FILES.items():
        file = root / "proc/driver/nvidia" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_nvml_answers_and_what_it_refuses_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the scripted answers; milliwatts become watts, the UUID is hashed."""
    monkeypatch.setitem(sys.modules, "pynvml", scripted_nvml())

    (gpu,) = describe_gpus()

    assert (gpu["name"], gpu["driver"]) == ("Example H", "550.54")
    assert (gpu["power_limit_watts"], gpu["memory_bytes"]) == (700.0, 80 * 2**30)
    assert (gpu["ecc"], gpu["mig"]) == (None, None)
    assert "1234" not in gpu["uuid_hash"]


def test_ecc_and_mig_tell_their_current_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML answers (current, pending)."""
    nvml = scripted_nvml(
        nvmlDeviceGetEccMode=lambda _gpu: [1, 0], nvmlDeviceGetMigMode=lambda _gpu: [0, 1]
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)

    (gpu,) = describe_gpus()

    assert (gpu["ecc"], gpu["mig"]) == (True, False)


def test_without_the_package_the_kernel_module_tells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Oracle: the files' words; a None in sys.modules makes the import fail."""
    monkeypatch.setitem(sys.modules, "pynvml", None)

    (gpu,) = describe_gpus(with_kernel_module(tmp_path))

    assert (gpu["name"], gpu["driver"], gpu["vbios"]) == ("Example H", "550.54.15", "96.00")


def test_a_package_without_its_library_is_no_crash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """nvidia-ml-py on a machine without a driver raises at nvmlInit."""
    monkeypatch.setitem(sys.modules, "pynvml", scripted_nvml(nvmlInit=unsupported))

    assert describe_gpus(tmp_path) == []
