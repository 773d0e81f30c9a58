"""Every rule of advice on GPUs: it speaks of the bad fact, and of nothing else.

Oracle: facts written by hand, of a GPU that is otherwise well set.
"""

from __future__ import annotations

from typing import Any

import pytest

from bertopt_bench.measure.gpu_advice import gpu_advice

NOW = {
    "throttle_reasons": ["idle"],
    "processes": 0,
    "utilisation_share": 0.0,
    "temperature_celsius": 40,
}
GOOD: dict[str, Any] = {
    "name": "Example H",
    "persistence": 1,
    "compute_mode": 0,
    "mig": False,
    "power_limit_watts": 700.0,
    "power_limit_default_watts": 700.0,
    "sm_clock_limit_mhz": 1980,
    "sm_clock_application_mhz": 1410,
    "sm_clock_default_mhz": 1980,
    "now": NOW,
}


def advise(**changes: object) -> list[Any]:
    now = {**NOW, **{key: changes.pop(key) for key in tuple(changes) if key in NOW}}
    return gpu_advice([{**GOOD, **changes, "now": now}])


def test_a_well_set_gpu_and_no_gpu_get_no_advice() -> None:
    assert advise() == []
    assert gpu_advice([]) == []


def test_a_gpu_that_says_nothing_gets_no_advice() -> None:
    silent = {**dict.fromkeys(GOOD), "now": dict.fromkeys(NOW)}

    assert gpu_advice([silent]) == []


@pytest.mark.parametrize(
    ("changes", "topic", "fact", "command"),
    [
        ({"processes": 2}, "other processes", "2 processes", "CUDA_VISIBLE_DEVICES"),
        ({"utilisation_share": 0.3}, "other processes", "30%", "nvidia-smi -i 0"),
        (
            {"throttle_reasons": ["hardware_thermal", "idle"], "temperature_celsius": 91},
            "throttled",
            "hardware_thermal, at 91 degrees",
            "cooling",
        ),
        ({"power_limit_watts": 400.0}, "power limit", "400 W", "sudo nvidia-smi -i 0 -pl 700"),
        ({"persistence": 0}, "persistence", "off", "sudo nvidia-smi -i 0 -pm 1"),
        ({"compute_mode": 3}, "compute mode", "several processes", "-c DEFAULT"),
        (
            {"sm_clock_application_mhz": 1980},
            "clocks",
            "may rise to 1980 MHz",
            "sudo nvidia-smi -i 0 -lgc 1485",
        ),
        (
            {"sm_clock_application_mhz": None, "sm_clock_default_mhz": 1200},
            "clocks",
            "NVML does not tell",
            "-lgc 1200",
        ),
    ],
)
def test_a_bad_setting_gets_the_advice_that_mends_it(
    changes: dict[str, Any], topic: str, fact: str, command: str
) -> None:
    (advice,) = advise(**changes)

    assert (advice.topic, advice.kind) == (f"GPU 0: {topic}", "change")
    assert fact in advice.fact
    assert command in advice.do


def test_a_clock_that_the_driver_says_is_set_is_left_alone() -> None:
    """nvml.h: the reason tells that the clocks are held by a setting."""
    seen = advise(sm_clock_application_mhz=1980, throttle_reasons=["application_clocks"])

    assert seen == []


def test_slices_are_a_note() -> None:
    (note,) = advise(mig=True)

    assert note.kind == "note"


def test_without_the_bindings_they_are_asked_for_and_nothing_else() -> None:
    """The kernel module tells names alone."""
    (advice,) = gpu_advice([{"name": "Example H", "driver": "550"}])

    assert "pip install nvidia-ml-py" in advice.do


def test_what_nvidia_smi_told_is_judged_without_the_bindings() -> None:
    """Oracle: by hand: a limit of 650 of 700 W, next to the bindings that are missing."""
    told = {"name": "Example H", "power_limit_watts": 650.0, "power_limit_default_watts": 700.0}

    bindings, power = gpu_advice([told])

    assert "pip install nvidia-ml-py" in bindings.do
    assert power.do == "sudo nvidia-smi -i 0 -pl 700"


def test_each_gpu_is_named_by_its_number() -> None:
    seen = gpu_advice([GOOD, {**GOOD, "persistence": 0}])

    assert [advice.do for advice in seen] == ["sudo nvidia-smi -i 1 -pm 1"]


def test_throttling_while_timing_is_told_with_its_count() -> None:
    blocks = [
        {"disturbance": {"gpu_throttle_reasons": ["software_thermal"]}},
        {"disturbance": {"gpu_throttle_reasons": ["power_cap"]}},
        {"disturbance": {}},
    ]

    (advice,) = gpu_advice([GOOD], blocks)

    assert "1 of 3 blocks" in advice.fact
    assert gpu_advice([GOOD], blocks[1:]) == []
