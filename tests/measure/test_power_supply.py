"""What sets the clock, on machines that the test writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from written_roots import write

from bertopt_bench.measure.power import describe_power, on_battery, turbo

if TYPE_CHECKING:
    from pathlib import Path

CPUS = "sys/devices/system/cpu"
SUPPLY = "sys/class/power_supply"


def test_clocks_are_read_in_mhz_and_averaged_over_the_cores_asked_for(tmp_path: Path) -> None:
    """Oracle: the kernel's cpufreq files are in kHz; core 2 is not asked for."""
    clocks = {0: 2_000_000, 1: 3_000_000, 2: 9_000_000}
    root = write(
        tmp_path,
        {
            f"{CPUS}/cpu0/cpufreq/scaling_governor": "schedutil\n",
            f"{CPUS}/cpu0/cpufreq/cpuinfo_max_freq": "3500000\n",
            f"{CPUS}/cpu0/cpufreq/scaling_driver": "acpi-cpufreq\n",
            **{f"{CPUS}/cpu{n}/cpufreq/scaling_cur_freq": f"{c}\n" for n, c in clocks.items()},
        },
    )

    power = describe_power(root, [0, 1])

    assert (power["cpu_mhz_now"], power["cpu_mhz_most"]) == (2500.0, 3500.0)
    assert (power["governor"], power["frequency_driver"]) == ("schedutil", "acpi-cpufreq")


def test_a_machine_that_shows_nothing_is_described_with_none(tmp_path: Path) -> None:
    """As in most virtual machines: not visible is not the same as well set."""
    assert set(describe_power(tmp_path, [0]).values()) == {None}


@pytest.mark.parametrize(
    ("files", "on"),
    [
        ({}, None),
        ({f"{CPUS}/intel_pstate/no_turbo": "0\n"}, True),
        ({f"{CPUS}/intel_pstate/no_turbo": "1\n"}, False),
        ({f"{CPUS}/cpufreq/boost": "1\n"}, True),
        ({f"{CPUS}/cpufreq/boost": "0\n"}, False),
    ],
)
def test_turbo_is_told_by_two_drivers_in_two_ways(
    tmp_path: Path, files: dict[str, str], on: bool | None
) -> None:
    """Oracle: the kernel's intel_pstate.rst and cpufreq.rst."""
    assert turbo(write(tmp_path, files)) is on


MAINS = {f"{SUPPLY}/AC/type": "Mains\n"}
BATTERY = {f"{SUPPLY}/BAT0/type": "Battery\n"}
MOUSE = {
    f"{SUPPLY}/mouse/type": "Battery\n",
    f"{SUPPLY}/mouse/scope": "Device\n",
    f"{SUPPLY}/mouse/status": "Discharging\n",
}
DISCHARGING = {f"{SUPPLY}/BAT0/status": "Discharging\n"}


@pytest.mark.parametrize(
    ("files", "battery"),
    [
        ({}, None),
        (MOUSE, None),
        ({**MAINS, f"{SUPPLY}/AC/online": "1\n"}, False),
        ({**BATTERY, **DISCHARGING}, True),
        ({**BATTERY, **DISCHARGING, **MAINS, f"{SUPPLY}/AC/online": "0\n"}, True),
        ({**BATTERY, **DISCHARGING, **MAINS, f"{SUPPLY}/AC/online": "1\n"}, False),
        ({**BATTERY, f"{SUPPLY}/BAT0/status": "Full\n"}, False),
    ],
)
def test_a_battery_counts_where_it_is_the_machines_own_and_discharges(
    tmp_path: Path, files: dict[str, str], battery: bool | None
) -> None:
    """Oracle: the kernel's power_supply class."""
    assert on_battery(write(tmp_path, files)) is battery
