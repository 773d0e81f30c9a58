"""Read what sets the processor's clock: governor, turbo, limits, battery."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.measure.kernel_files import line, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ROOT = Path("/")
_CPUS = "sys/devices/system/cpu"
_CORES_ASKED = 8  # each costs some microseconds, and a block asks after every end


def describe_power(root: Path, cores: Iterable[int]) -> dict[str, Any]:
    """Describe what the kernel lets the clock do; None where it does not say, as in most VMs."""
    first = root / _CPUS / "cpu0/cpufreq"
    most = number(first / "cpuinfo_max_freq")
    return {
        "governor": line(first / "scaling_governor"),
        "frequency_driver": line(first / "scaling_driver"),
        "energy_preference": line(first / "energy_performance_preference"),
        "turbo": turbo(root),
        "cpu_mhz_now": mean_mhz(frequency_files(root, cores)),
        "cpu_mhz_most": None if most is None else most / 1e3,
        "on_battery": on_battery(root),
        "platform_profile": line(root / "sys/firmware/acpi/platform_profile"),
    }


def turbo(root: Path = _ROOT) -> bool | None:
    """Say whether the clock may exceed its nominal rate."""
    disabled = line(root / _CPUS / "intel_pstate/no_turbo")
    if disabled is not None:
        return disabled == "0"
    boost = line(root / _CPUS / "cpufreq/boost")
    return None if boost is None else boost == "1"


def frequency_files(root: Path, cores: Iterable[int]) -> tuple[Path, ...]:
    """Name the files that give the clocks of some of the cores now, in kHz."""
    asked = sorted(cores)[:_CORES_ASKED]
    files = (root / _CPUS / f"cpu{core}/cpufreq/scaling_cur_freq" for core in asked)
    return tuple(file for file in files if file.is_file())


def mean_mhz(files: Iterable[Path]) -> float | None:
    """Give the mean clock of the cores behind the files."""
    clocks = [clock for file in files if (clock := number(file)) is not None]
    return statistics.fmean(clocks) / 1e3 if clocks else None


def on_battery(root: Path = _ROOT) -> bool | None:
    """Say whether the machine runs from a battery of its own; None where it has no supply to ask.

    Source: the kernel's power_supply class: a mouse's battery has the scope `Device`.
    """
    supplies = list(_supplies(root))
    batteries = [words for kind, words in supplies if kind == "Battery"]
    mains = [words for kind, words in supplies if kind in {"Mains", "USB"}]
    if not batteries:
        return False if mains else None
    return "1" not in mains and "Discharging" in batteries


def _supplies(root: Path) -> Iterator[tuple[str | None, str | None]]:
    for folder in sorted((root / "sys/class/power_supply").glob("*")):
        if line(folder / "scope") != "Device":
            kind = line(folder / "type")
            yield kind, line(folder / ("status" if kind == "Battery" else "online"))
