"""GPU facts through a scripted NVML and from the kernel module's files: no GPU is used."""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from written_roots import write

from bertopt_bench.measure import gpus
from bertopt_bench.measure.gpus import GpuState, describe_gpus

if TYPE_CHECKING:
    from pathlib import Path

NOT_SUPPORTED, NOT_FOUND = 3, 6
FOREIGN, SIBLING = 4_000_001, 4_000_002


class NVMLError(Exception):
    """The error that NVML's bindings raise, with its code."""

    def __init__(self, value: int = NOT_SUPPORTED) -> None:
        super().__init__(value)
        self.value = value


def unsupported(*_arguments: object) -> Any:
    raise NVMLError


def nothing_found(*_arguments: object) -> Any:
    raise NVMLError(NOT_FOUND)


def process(pid: int, used: int | None = 2**30) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=used)


def sample(pid: int, share: int) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, smUtil=share)


def of_uuid(uuid: str) -> str:
    """Know one GPU, by the name that NVML has for it."""
    if uuid != "GPU-1234":
        raise NVMLError(NOT_FOUND)
    return "gpu 0"


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
        "nvmlDeviceGetMemoryInfo": lambda _gpu: SimpleNamespace(total=80 * 2**30, used=2**30),
        "nvmlDeviceGetPowerManagementDefaultLimit": lambda _gpu: 750_000,
        "nvmlDeviceGetHandleByUUID": of_uuid,
        "nvmlDeviceGetClockInfo": lambda _gpu, clock: {1: 1755, 2: 2619}[clock],
        "nvmlDeviceGetTemperatureV": lambda _gpu, _sensor: 61,
        "nvmlDeviceGetPowerUsage": lambda _gpu: 432_100,
        "nvmlDeviceGetCurrentClocksEventReasons": lambda _gpu: 0x44,
        "nvmlDeviceGetUtilizationRates": lambda _gpu: SimpleNamespace(gpu=25, memory=3),
        "nvmlDeviceGetComputeRunningProcesses": lambda _gpu: [process(FOREIGN)],
        "nvmlDeviceGetGraphicsRunningProcesses": lambda _gpu: [],
        "nvmlDeviceGetProcessUtilization": lambda _gpu, _since: [],
        "nvmlDeviceGetViolationStatus": lambda _gpu, _policy: SimpleNamespace(violationTime=0),
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
    constants = {"NVML_CLOCK_SM": 1, "NVML_CLOCK_MEM": 2, "NVML_TEMPERATURE_GPU": 0}
    return SimpleNamespace(NVMLError=NVMLError, **{**constants, **answers, **changes})


KERNEL_FILES = {
    "version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024\n",
    "gpus/0000:01:00.0/information": (
        "Model: \t\t Example H\nGPU UUID: \t GPU-1234\nVideo BIOS: \t 96.00\n"
    ),
}


def with_kernel_module(root: Path) -> Path:
    return write(root, {f"proc/driver/nvidia/{name}": text for name, text in KERNEL_FILES.items()})


def opened(monkeypatch: pytest.MonkeyPatch, **changes: object) -> GpuState:
    """Open the scripted GPU as torch names it; only this process belongs to our session."""
    monkeypatch.setitem(sys.modules, "pynvml", scripted_nvml(**changes))
    ours = {0, os.getpid(), SIBLING}
    monkeypatch.setattr(gpus.os, "getsid", lambda pid: 1 if pid in ours else 2)
    state = GpuState.of("1234")
    assert state is not None
    return state


def test_nvml_answers_and_what_it_refuses_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the scripted answers; milliwatts become watts, the UUID is hashed."""
    monkeypatch.setitem(sys.modules, "pynvml", scripted_nvml())

    (gpu,) = describe_gpus()

    assert (gpu["name"], gpu["driver"]) == ("Example H", "550.54")
    assert (gpu["power_limit_watts"], gpu["memory_bytes"]) == (700.0, 80 * 2**30)
    assert gpu["power_limit_default_watts"] == 750.0
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


ANSWER = (
    "Example H, GPU-1234, 550.54.15, 96.00, 81559, 650.00, 700.00, 1980, 1980, [N/A], Enabled, "
    "Disabled, Enabled, 5, 16\n"
)
"""As nvidia-smi writes it with --format=csv,noheader,nounits."""


def with_command(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Put a command of that name first on the path; the package is missing."""
    script = folder / "nvidia-smi"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setitem(sys.modules, "pynvml", None)


def test_without_the_package_nvidia_smi_tells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Oracle: a command that checks what it is asked for and gives an answer by hand."""
    asks = 'case "$1$2" in --query-gpu=name,uuid,*power.limit,*--format=csv,noheader,nounits) '
    with_command(tmp_path, monkeypatch, f"{asks} printf '{ANSWER}{ANSWER}';; esac")

    gpu, second = describe_gpus()

    assert gpu == second
    assert (gpu["name"], gpu["driver"], gpu["memory_bytes"]) == (
        "Example H", "550.54.15", 81559 * 2**20,
    )  # fmt: skip
    assert (gpu["power_limit_watts"], gpu["power_limit_default_watts"]) == (650.0, 700.0)
    assert (gpu["sm_clock_limit_mhz"], gpu["sm_clock_default_mhz"]) == (1980, None)
    assert (gpu["ecc"], gpu["mig"], gpu["persistence"]) == (True, False, 1)
    assert "1234" not in gpu["uuid_hash"]
    assert "now" not in gpu


def test_one_field_that_a_driver_does_not_know_takes_no_other_along(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Oracle: by hand: a command that fails as nvidia-smi does where any field is unknown."""
    body = """case "$1" in
*clocks.applications*) echo Field is not a valid field to query.; exit 2;;
*=name) printf 'Example H\\nExample H\\n';;
*=power.limit) printf '650.00\\n300.00\\n';;
*=name,*) echo Field is not a valid field to query.; exit 2;;
*) printf '[N/A]\\n[N/A]\\n';;
esac"""
    with_command(tmp_path, monkeypatch, body)

    gpus = describe_gpus()

    assert [(gpu["name"], gpu["power_limit_watts"]) for gpu in gpus] == [
        ("Example H", 650.0), ("Example H", 300.0),
    ]  # fmt: skip
    assert gpus[0]["sm_clock_application_mhz"] is None


@pytest.mark.parametrize("body", ["exit 9", "echo Field is not a valid field to query.; exit 2"])
def test_a_command_that_does_not_answer_leaves_it_to_the_kernel_module(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str
) -> None:
    with_command(tmp_path, monkeypatch, body)

    (gpu,) = describe_gpus(with_kernel_module(tmp_path))

    assert (gpu["name"], gpu["vbios"]) == ("Example H", "96.00")


def test_a_package_without_its_library_is_no_crash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """nvidia-ml-py on a machine without a driver raises at nvmlInit."""
    monkeypatch.setitem(sys.modules, "pynvml", scripted_nvml(nvmlInit=unsupported))

    assert describe_gpus(tmp_path) == []


def test_a_description_tells_what_goes_on_before_anything_of_ours_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Oracle: the scripted answers; 0x44 is nvml.h's software power cap and hardware thermal."""
    monkeypatch.setitem(sys.modules, "pynvml", scripted_nvml())

    (gpu,) = describe_gpus()

    assert gpu["now"] == {
        "sm_clock_mhz": 1755,
        "memory_clock_mhz": 2619,
        "temperature_celsius": 61,
        "power_watts": 432.1,
        "power_limit_watts": 700.0,
        "throttle_reasons": ["power_cap", "hardware_thermal"],
        "processes": 1,
        "memory_used_bytes": 2**30,
        "utilisation_share": 0.25,
    }


def test_older_bindings_are_asked_by_older_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: nvidia-ml-py 12 calls events throttle reasons and has one temperature query."""
    nvml = scripted_nvml(
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda _gpu: 0x80,
        nvmlDeviceGetTemperature=lambda _gpu, _sensor: 44,
    )
    del nvml.nvmlDeviceGetCurrentClocksEventReasons
    del nvml.nvmlDeviceGetTemperatureV
    monkeypatch.setitem(sys.modules, "pynvml", nvml)

    (gpu,) = describe_gpus()

    assert gpu["now"]["throttle_reasons"] == ["hardware_power_brake"]
    assert gpu["now"]["temperature_celsius"] == 44


def test_a_block_notes_state_and_what_throttled_within_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: scripted counters: heat from 2 s to 5 s, power not supported."""
    heat = iter([2_000_000_000, 5_000_000_000])

    def violation(_gpu: object, policy: int) -> SimpleNamespace:
        if policy == 0:
            raise NVMLError
        return SimpleNamespace(violationTime=next(heat))

    state = opened(monkeypatch, nvmlDeviceGetViolationStatus=violation)

    state.start()
    seen = state.stop()

    assert seen["gpu_sm_clock_mhz"] == 1755
    assert seen["gpu_throttle_reasons"] == ["power_cap", "hardware_thermal"]
    assert seen["gpu_thermal_throttled_seconds"] == 3.0
    assert seen["gpu_power_throttled_seconds"] is None
    assert all(key.startswith("gpu_") for key in seen)
    json.dumps(seen)


@pytest.mark.parametrize(
    ("pids", "expected"),
    [
        ([os.getpid()], (0, 0)),
        ([os.getpid(), SIBLING], (0, 0)),
        ([os.getpid(), SIBLING, FOREIGN], (1, 2**30)),
        # NVML tells other numbers than this process has: a container with numbers of its own.
        ([FOREIGN], (None, None)),
        ([], (None, None)),
    ],
)
def test_processes_of_another_session_are_foreign_if_ours_is_seen(
    monkeypatch: pytest.MonkeyPatch, pids: list[int], expected: tuple[int | None, int | None]
) -> None:
    """A duel's arms share a session; NVIDIA's driver gives host numbers inside containers."""
    state = opened(
        monkeypatch, nvmlDeviceGetComputeRunningProcesses=lambda _gpu: list(map(process, pids))
    )

    state.start()
    seen = state.stop()

    assert (seen["gpu_foreign_processes"], seen["gpu_foreign_memory_bytes"]) == expected


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([(os.getpid(), 90)], 0.0),
        ([(os.getpid(), 90), (FOREIGN, 10), (FOREIGN, 20)], 0.15),
        ([(os.getpid(), 90), (SIBLING, 50)], 0.0),
        ([(FOREIGN, 90)], None),  # this process just computed, so that number may be its own
        ([], 0.0),
    ],
)
def test_foreign_utilisation_is_the_mean_of_the_others_samples(
    monkeypatch: pytest.MonkeyPatch, samples: list[tuple[int, int]], expected: float | None
) -> None:
    """Oracle: by hand."""
    state = opened(
        monkeypatch,
        nvmlDeviceGetProcessUtilization=lambda _gpu, _since: [sample(*one) for one in samples],
    )

    state.start()

    assert state.stop()["gpu_foreign_utilisation_share"] == expected


@pytest.mark.parametrize(("query", "expected"), [(nothing_found, 0.0), (unsupported, None)])
def test_no_sample_is_no_use_and_no_support_is_not_known(
    monkeypatch: pytest.MonkeyPatch, query: object, expected: float | None
) -> None:
    """Oracle: NVML's documentation: NOT_FOUND where no sample is newer than the time given."""
    state = opened(monkeypatch, nvmlDeviceGetProcessUtilization=query)

    state.start()

    assert state.stop()["gpu_foreign_utilisation_share"] == expected


def test_only_samples_since_the_start_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a scripted clock; NVML counts microseconds since 1970."""
    asked: list[int] = []

    def utilisation(_gpu: object, since: int) -> list[object]:
        asked.append(since)
        return []

    monkeypatch.setattr(gpus.time, "time_ns", lambda: 1_700_000_000_123_456_789)
    state = opened(monkeypatch, nvmlDeviceGetProcessUtilization=utilisation)

    state.start()
    state.stop()

    assert asked == [1_700_000_000_123_456]


def test_a_gpu_is_opened_by_torchs_uuid_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch gives the digits alone, NVML wants GPU- before them; an unknown one is no crash."""
    ended: list[bool] = []
    nvml = scripted_nvml(nvmlShutdown=lambda: ended.append(True))
    monkeypatch.setitem(sys.modules, "pynvml", nvml)

    assert GpuState.of("1234") is not None
    assert GpuState.of("GPU-1234") is not None
    assert not ended
    assert GpuState.of("9999") is None
    assert ended
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert GpuState.of("1234") is None


def test_the_clock_of_this_moment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the scripted clock, of the streaming multiprocessors; None where NVML refuses."""
    assert opened(monkeypatch).sm_clock_mhz() == 1755
    assert opened(monkeypatch, nvmlDeviceGetClockInfo=unsupported).sm_clock_mhz() is None
