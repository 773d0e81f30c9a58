"""Every rule of advice: it speaks of the bad fact, and of nothing else.

Oracle: facts written by hand, on a machine that is otherwise well set.
"""

from __future__ import annotations

from typing import Any

import pytest

from bertopt_bench.measure.advice import Facts, machine_advice

GOOD: dict[str, Any] = {
    "affinity": [0, 1, 2, 3],
    "logical_cores": 4,
    "physical_cores": 4,
    "simultaneous_threads": "0",
    "numa_nodes": 1,
    "load": [0.2, 0.2, 0.2],
    "steal_share_since_boot": 0.0,
    "governor": "performance",
    "frequency_driver": "intel_pstate",
    "turbo": False,
    "cpu_mhz_now": 2500.0,
    "platform_profile": "performance",
    "on_battery": False,
    "cpu_quota": None,
    "swap_bytes": 0,
    "transparent_huge_pages": "madvise",
    "addresses_randomised": True,
    "nice": 0,
    "clock_source": "tsc",
    "variables": {"OMP_NUM_THREADS": "4", "OMP_PROC_BIND": "true"},
    "pressure": {"cpu": 0.5, "memory": 0.0, "io": 0.0},
    "virtualisation": {"hypervisor": False, "product": None, "container": False},
}
IDLE = {"foreign_cpu_share": 0.01, "steal_share": 0.0}


def advise(
    changes: dict[str, Any] | None = None,
    *,
    idle: dict[str, Any] | None = None,
    blocks: tuple[dict[str, Any], ...] = (),
) -> list[Any]:
    return machine_advice(Facts({**GOOD, **(changes or {})}, {**IDLE, **(idle or {})}, blocks))


def noted(**disturbance: object) -> dict[str, Any]:
    return {"disturbance": disturbance}


def test_a_well_set_machine_gets_no_advice() -> None:
    assert advise() == []


def test_a_machine_that_says_nothing_gets_no_advice() -> None:
    """Nothing is guessed: a system without /proc and /sys, as macOS."""
    silent = dict.fromkeys(GOOD)

    assert machine_advice(Facts({**silent, "logical_cores": 4})) == []
    assert machine_advice(Facts({})) == []


@pytest.mark.parametrize(
    ("changes", "topic", "fact", "command"),
    [
        ({"load": [2.1, 0, 0]}, "other processes", "2.10 on 4 cores", "ps -eo pcpu"),
        ({"steal_share_since_boot": 0.03}, "steal", "3.00% since boot", "dedicated cores"),
        ({"cpu_quota": 1.5}, "CPU quota", "1.5 cores", "--cpuset-cpus=0-0"),
        ({"on_battery": True}, "battery", "from its battery", "plug it in"),
        ({"governor": "powersave"}, "frequency governor", "'powersave'", "scaling_governor"),
        ({"turbo": True}, "turbo", "was not seen", "echo 1 | sudo tee"),
        ({"turbo": True, "frequency_driver": "acpi-cpufreq"}, "turbo", "", "echo 0 | sudo tee"),
        ({"platform_profile": "low-power"}, "platform profile", "'low-power'", "platform_profile"),
        ({"swap_bytes": 2 * 2**30}, "swap", "2.0 GiB", "swapoff -a"),
        (
            {"variables": {"OMP_NUM_THREADS": "8"}},
            "thread variables",
            "OMP_NUM_THREADS=8 on 4 cores",
            "export OMP_NUM_THREADS=4",
        ),
        (
            {"variables": {"OMP_PROC_BIND": "FALSE"}},
            "thread variables",
            "OMP_PROC_BIND=false",
            "unset",
        ),
        ({"cpu_quota": 8.0}, "affinity", "4 cores, and its quota pays for 8", "taskset -c 0-7"),
        (
            {"simultaneous_threads": "1", "physical_cores": 2},
            "simultaneous multithreading",
            "2 cores run 4 hardware threads",
            "smt/control",
        ),
        ({"nice": 10}, "nice", "nice 10", "without nice"),
        (
            {"addresses_randomised": False},
            "address-space randomisation",
            "not randomised",
            "randomize_va_space",
        ),
        (
            {"transparent_huge_pages": "always"},
            "transparent huge pages",
            "'always'",
            "echo madvise",
        ),
        ({"numa_nodes": 2}, "NUMA", "2 nodes", "--cpunodebind=0"),
        ({"clock_source": "hpet"}, "clock source", "'hpet'", "echo tsc"),
        (
            {"pressure": {"cpu": 0, "memory": 0.2, "io": 0.3}},
            "pressure",
            "memory 20%, io 30%",
            "iotop",
        ),
    ],
)
def test_a_bad_setting_gets_the_advice_that_mends_it(
    changes: dict[str, Any], topic: str, fact: str, command: str
) -> None:
    (advice,) = advise(changes)

    assert (advice.topic, advice.kind) == (topic, "change")
    assert fact in advice.fact
    assert command in advice.do
    assert advice.why


@pytest.mark.parametrize(
    "changes",
    [
        {"load": [2.0, 9, 9]},
        {"steal_share_since_boot": 0.0005},
        {"cpu_quota": 2.0},
        {"cpu_quota": 4.0},
        {"transparent_huge_pages": "never"},
        {"nice": -5},
        {"clock_source": "kvm-clock"},
        {"numa_nodes": 2, "logical_cores": 8},  # bound already to some of the cores
    ],
)
def test_what_is_good_enough_gets_none(changes: dict[str, Any]) -> None:
    assert advise(changes) == []


def test_an_idle_moment_tells_of_others_that_the_load_does_not_show() -> None:
    (busy,) = advise(idle={"foreign_cpu_share": 0.2})
    (stolen,) = advise(idle={"steal_share": 0.05})

    assert "20.0%" in busy.fact
    assert "5.00% in an idle moment" in stolen.fact
    # One tick of two cores in a second is 0.5 %: no sign of anything.
    assert advise(idle={"steal_share": 0.005}) == []


def test_steal_and_throttling_are_seen_while_timing() -> None:
    (stolen,) = advise(blocks=(noted(steal_share=0.01),))
    (held,) = advise({"cpu_quota": 4.0}, blocks=(noted(throttled_periods=3), noted()))

    assert "1.00% while timing" in stolen.fact
    assert "held back 3 times" in held.fact


def test_turbo_that_holds_its_clock_is_left_alone() -> None:
    """Oracle: 3000 to 3050 MHz is 1.7 %, to 3300 MHz is 10 %."""
    steady = (noted(cpu_mhz=3000.0), noted(cpu_mhz=3050.0))
    varying = (noted(cpu_mhz=3000.0), noted(cpu_mhz=3300.0))

    assert advise({"turbo": True}, blocks=steady) == []
    (advice,) = advise({"turbo": True}, blocks=varying)
    assert "3000 to 3300 MHz" in advice.fact


def test_a_virtual_machine_is_told_what_it_cannot_see() -> None:
    """Not visible is said, never taken for well set; a note, since nobody inside can change it."""
    guest = {"hypervisor": True, "product": "Example Cloud", "container": True}
    (note,) = advise({"virtualisation": guest, "governor": None, "turbo": None})

    assert note.kind == "note"
    assert "(Example Cloud); not visible from inside: governor, turbo" in note.fact
    assert "clock" not in note.fact
    assert "duel" in note.do


def test_changes_come_before_notes_and_the_gravest_first() -> None:
    guest = {"hypervisor": True}
    topics = [
        advice.topic
        for advice in advise(
            {"virtualisation": guest, "nice": 5, "load": [9.0], "on_battery": True}
        )
    ]

    assert topics == ["other processes", "battery", "nice", "virtual machine"]
