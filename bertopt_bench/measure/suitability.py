"""Say from records whether a session's times may be leant on: too noisy, or not one machine.

Source of every threshold: the paired protocol (pyperf, nvbench and our own trials behind it), as
its lists of refused and suspect sessions state them.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

STEAL_SHARE = 0.02  # of all CPU time, over the session
PRESSURE_SHARE = 0.10  # of wall time, over the session, by others
SWAPPED_PAGES = 0  # in and out, over the session
THROTTLED_BLOCKS_SHARE = 0.05  # blocks that a limit held back: heat, a power brake, a CPU quota
SM_CLOCK_SHARE = 0.02  # between arms; nvbench judges in cycles for the same reason
FOREIGN_GPU_SHARE = 0.01  # of the device's time, over the session
BRAKES = frozenset(
    {"hardware_slowdown", "software_thermal", "hardware_thermal", "hardware_power_brake"}
)

# A change of one of these makes another machine of it. Names and words for a person.
_FIXED = {
    "boot_id_hash": "the boot",
    "cpu_model": "the processor",
    "cpu_stepping": "the processor's stepping",
    "microcode": "the microcode",
    "logical_cores": "the number of cores",
    "simultaneous_threads": "simultaneous multithreading",
    "kernel": "the kernel",
    "cpuset": "the control group's cpuset",
    "cpu_quota": "the control group's CPU quota",
    "affinity": "the affinity mask",
    "nice": "the nice value",
    "governor": "the frequency governor",
    "energy_preference": "the energy preference",
    "turbo": "turbo",
    "platform_profile": "the platform profile",
    "on_battery": "running from a battery",
    "clock_source": "the clock source",
    "transparent_huge_pages": "transparent huge pages",
    "addresses_randomised": "the randomisation of addresses",
}
_FIXED_OF_GPU = {
    "uuid_hash": "the GPU itself",
    "name": "the name",
    "driver": "the driver",
    "vbios": "the VBIOS",
    "mig": "MIG",
    "ecc": "ECC",
    "persistence": "the persistence mode",
    "compute_mode": "the compute mode",
    "power_limit_watts": "the power limit",
    "sm_clock_application_mhz": "the application clock",
    "pcie_width": "the PCIe width",
}


def noise_reasons(blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say in words what makes a session too noisy; an empty list where nothing does.

    Args:
        blocks: mappings with ``arm``, ``disturbance`` (what `Disturbance.stop` gave), and
            ``wall_seconds`` and ``steps`` for the comparison of GPU clocks. What a system did not
            say raises no reason.
    """
    reasons = [rule(blocks) for rule in _RULES]
    return [*filter(None, reasons), *_clock_reasons(blocks)]


def invalid_reasons(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Say what of a machine changed between two descriptions of it: it was not one machine.

    Args:
        before: what `describe_machine` gave before the session.
        after: what it gave at a look.
    """
    reasons = list(_changes(before, after, _FIXED))
    if "gpus" not in before or "gpus" not in after:
        return reasons
    gpus, later = before["gpus"], after["gpus"]
    if len(gpus) != len(later):
        reasons.append(f"the number of GPUs changed during the session: {len(gpus)}, {len(later)}")
        return reasons
    for number, pair in enumerate(zip(gpus, later, strict=True)):
        reasons += _changes(*pair, {k: f"GPU {number}: {w}" for k, w in _FIXED_OF_GPU.items()})
    return reasons


def _changes(
    before: Mapping[str, Any], after: Mapping[str, Any], names: Mapping[str, str]
) -> Iterator[str]:
    for key, words in names.items():
        # An older description that lacks the name says nothing about it.
        if key in before and key in after and before[key] != after[key]:
            yield (
                f"{words} changed during the session: {_shown(before[key])} before, "
                f"{_shown(after[key])} after"
            )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not visible" if value is None else str(value)


def _steal(blocks: Sequence[Mapping[str, Any]]) -> str | None:
    share = mean_of(blocks, "steal_share")
    if share is None or share <= STEAL_SHARE:
        return None
    return (
        f"the hypervisor gave {share:.1%} of the CPU time to other machines "
        f"(at most {STEAL_SHARE:.0%})"
    )


def _pressure(blocks: Sequence[Mapping[str, Any]]) -> str | None:
    share = mean_of(blocks, "foreign_pressure_share")
    if share is None or share <= PRESSURE_SHARE:
        return None
    return (
        f"in {share:.1%} of the time something waited for a CPU while other processes ran "
        f"(at most {PRESSURE_SHARE:.0%})"
    )


def _swap(blocks: Sequence[Mapping[str, Any]]) -> str | None:
    pages = sum(_values(blocks, "swapped_pages"))
    if pages <= SWAPPED_PAGES:
        return None
    return f"the machine swapped {pages:.0f} pages while steps were timed"


def _quota(blocks: Sequence[Mapping[str, Any]]) -> str | None:
    return _held_back(
        blocks,
        "the control group's CPU quota",
        lambda noted: (noted.get("throttled_periods") or 0) > 0,
    )


def _brakes(blocks: Sequence[Mapping[str, Any]]) -> str | None:
    return _held_back(
        blocks,
        "heat or a power brake of the GPU",
        lambda noted: (
            bool(BRAKES & set(noted.get("gpu_throttle_reasons") or ()))
            or (noted.get("gpu_thermal_throttled_seconds") or 0) > 0
        ),
    )


def _held_back(
    blocks: Sequence[Mapping[str, Any]], what: str, happened: Callable[[Mapping[str, Any]], bool]
) -> str | None:
    count = sum(happened(block.get("disturbance") or {}) for block in blocks)
    if count <= THROTTLED_BLOCKS_SHARE * len(blocks):
        return None
    return (
        f"{what} held back {count} of {len(blocks)} blocks (at most {THROTTLED_BLOCKS_SHARE:.0%})"
    )


def _foreign_gpu(blocks: Sequence[Mapping[str, Any]]) -> str | None:
    share = mean_of(blocks, "gpu_foreign_utilisation_share")
    if share is None or share <= FOREIGN_GPU_SHARE:
        return None
    return (
        f"other processes used the GPU in {share:.1%} of the time (at most {FOREIGN_GPU_SHARE:.0%})"
    )


_RULES = (_steal, _pressure, _swap, _quota, _brakes, _foreign_gpu)


def _clock_reasons(blocks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Compare the arms' mean SM clocks: a difference in time within that of the clocks is no news.

    An arm that is slower by more than its clock is (more work draws more power) stays judged.
    """
    by_arm: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for block in blocks:
        by_arm[str(block.get("arm"))].append(block)
    seen = {
        arm: (clock, _log_seconds(own))
        for arm, own in by_arm.items()
        if (clock := mean_of(own, "gpu_sm_clock_mhz"))
    }
    for (arm, (clock, seconds)), (other, (clock_2, seconds_2)) in combinations(seen.items(), 2):
        apart = abs(math.log(clock_2 / clock))
        unexplained = seconds is None or seconds_2 is None or abs(seconds_2 - seconds) <= apart
        if apart > math.log1p(SM_CLOCK_SHARE) and unexplained:
            yield (
                f"the GPU's mean SM clock was {clock:.0f} MHz under '{arm}' and {clock_2:.0f} MHz "
                f"under '{other}', {math.expm1(apart):.1%} apart (at most {SM_CLOCK_SHARE:.0%}), "
                "which is as much as their times differ"
            )


def _log_seconds(blocks: Sequence[Mapping[str, Any]]) -> float | None:
    """Give the mean log of the seconds a step; None where the blocks do not tell."""
    logs = [
        math.log(block["wall_seconds"] / block["steps"])
        for block in blocks
        if block.get("wall_seconds") and block.get("steps")
    ]
    return statistics.fmean(logs) if logs else None


def mean_of(blocks: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Give the mean of what disturbed the blocks, each weighed by the time it was observed.

    None where no block tells.
    """
    weighed = [
        (noted[name], noted.get("observed_seconds") or block.get("wall_seconds") or 1.0)
        for block in blocks
        if (noted := block.get("disturbance") or {}).get(name) is not None
    ]
    total = sum(weight for _, weight in weighed)
    return sum(value * weight for value, weight in weighed) / total if total else None


def _values(blocks: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    noted = (block.get("disturbance") or {} for block in blocks)
    return [one[name] for one in noted if one.get(name) is not None]
