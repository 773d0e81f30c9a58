"""Reasons against a session, from blocks and machines written by hand.

Oracle throughout: the protocol's list of refused and suspect sessions, and its thresholds.
"""

from __future__ import annotations

from typing import Any

import pytest

from bertopt_bench.measure.suitability import invalid_reasons, mean_of, noise_reasons

QUIET: dict[str, Any] = {
    "observed_seconds": 0.5,
    "steal_share": 0.0,
    "foreign_pressure_share": 0.0,
    "swapped_pages": 0,
    "throttled_periods": 0,
    "gpu_sm_clock_mhz": 1500,
    "gpu_throttle_reasons": ["power_cap", "idle"],
    "gpu_thermal_throttled_seconds": 0.0,
    "gpu_foreign_utilisation_share": 0.0,
}


def block(arm: str = "adamw", wall: float = 0.5, **noted: object) -> dict[str, Any]:
    return {"arm": arm, "wall_seconds": wall, "steps": 10, "disturbance": {**QUIET, **noted}}


def session(count: int, hit: int, **noted: object) -> list[dict[str, Any]]:
    """Give so many blocks, of which some were disturbed."""
    return [block(**(noted if number < hit else {})) for number in range(count)]


@pytest.mark.parametrize(
    ("noted", "word"),
    [
        ({"steal_share": 0.021}, "hypervisor"),
        ({"foreign_pressure_share": 0.11}, "waited for a CPU"),
        ({"swapped_pages": 1}, "swapped 4 pages"),
        ({"throttled_periods": 1}, "quota"),
        ({"gpu_throttle_reasons": ["hardware_thermal"]}, "heat"),
        ({"gpu_throttle_reasons": ["hardware_power_brake"]}, "power brake"),
        ({"gpu_thermal_throttled_seconds": 0.1}, "heat"),
        ({"gpu_foreign_utilisation_share": 0.02}, "other processes used the GPU"),
    ],
)
def test_each_disturbance_is_one_reason(noted: dict[str, Any], word: str) -> None:
    (reason,) = noise_reasons(session(4, 4, **noted))

    assert word in reason


@pytest.mark.parametrize(
    "noted",
    [
        {"steal_share": 0.02},
        {"foreign_pressure_share": 0.10},
        {"gpu_foreign_utilisation_share": 0.01},
        {"cpu_pressure_share": 0.9},  # our own threads, waiting for each other
        {"gpu_throttle_reasons": ["power_cap"]},  # every board under full load
    ],
)
def test_what_stays_within_its_threshold_is_no_reason(noted: dict[str, Any]) -> None:
    assert noise_reasons(session(4, 4, **noted)) == []


def test_quiet_blocks_and_no_blocks_give_no_reason() -> None:
    assert noise_reasons(session(9, 0)) == []
    assert noise_reasons([]) == []


def test_what_a_system_does_not_say_is_no_reason() -> None:
    """As on macOS, and of records that are older than a counter."""
    unknown = dict.fromkeys(QUIET)

    assert noise_reasons([{"arm": "a", "disturbance": unknown}]) == []
    assert noise_reasons([{"arm": "a", "disturbance": {}}, {"arm": "b"}]) == []


@pytest.mark.parametrize(("hit", "count"), [(1, 20), (5, 100)])
def test_five_per_cent_of_the_blocks_may_be_held_back_and_no_more(hit: int, count: int) -> None:
    brake = {"gpu_throttle_reasons": ["software_thermal"]}

    assert noise_reasons(session(count, hit, **brake)) == []
    assert len(noise_reasons(session(count, hit + 1, **brake))) == 1


def test_shares_are_weighed_by_the_time_observed() -> None:
    """Oracle: (0.5 x 0.1 + 4.5 x 0) / 5 = 1 %, though the mean of the two is 5 %."""
    blocks = [block(steal_share=0.1), block(observed_seconds=4.5)]

    assert mean_of(blocks, "steal_share") == pytest.approx(0.01)
    assert noise_reasons(blocks) == []


def test_clocks_apart_are_a_reason_where_times_differ_no_more_than_they() -> None:
    """Oracle: 1500 against 1440 MHz is 4.2 %; times of 2 % lie within, of 30 % do not.

    Source: nvbench compares in cycles. An arm that draws more power is slower by more than that.
    """
    base = [block("a", wall=0.5) for _ in range(3)]
    within = [block("b", wall=0.51, gpu_sm_clock_mhz=1440) for _ in range(3)]
    beyond = [block("b", wall=0.65, gpu_sm_clock_mhz=1440) for _ in range(3)]
    near = [block("b", wall=0.5, gpu_sm_clock_mhz=1480) for _ in range(3)]

    (reason,) = noise_reasons([*base, *within])

    assert "1500 MHz under 'a' and 1440 MHz under 'b', 4.2% apart" in reason
    assert noise_reasons([*base, *beyond]) == []
    assert noise_reasons([*base, *near]) == []


MACHINE: dict[str, Any] = {
    "boot_id_hash": "aa",
    "cpu_model": "Example 9",
    "cpuset": "0-3",
    "governor": "performance",
    "turbo": False,
    "load": [0.1],
    "gpus": [{"name": "G", "uuid_hash": "u", "driver": "1", "mig": False, "now": {"x": 1}}],
}


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ({"boot_id_hash": "bb"}, "the boot changed"),
        ({"cpu_model": "Example 8"}, "Example 9 before, Example 8 after"),
        ({"cpuset": None}, "0-3 before, not visible after"),
        ({"turbo": True}, "turbo changed during the session: no before, yes after"),
        ({"gpus": [{**MACHINE["gpus"][0], "driver": "2"}]}, "GPU 0: the driver changed"),
        ({"gpus": [{**MACHINE["gpus"][0], "mig": True}]}, "GPU 0: MIG changed"),
        ({"gpus": [{**MACHINE["gpus"][0], "uuid_hash": "v"}]}, "GPU 0: the GPU itself changed"),
        ({"gpus": []}, "the number of GPUs changed during the session: 1, 0"),
    ],
)
def test_a_machine_that_changed_is_named_with_both_values(
    after: dict[str, Any], words: str
) -> None:
    (reason,) = invalid_reasons(MACHINE, {**MACHINE, **after})

    assert words in reason


def test_what_varies_on_one_machine_is_no_change() -> None:
    """Load and a GPU's present clocks vary; a name that an older version lacks says nothing."""
    later = {**MACHINE, "load": [9.0], "gpus": [{**MACHINE["gpus"][0], "now": {"x": 2}}]}

    assert invalid_reasons(MACHINE, later) == []
    assert invalid_reasons({"boot_id_hash": "aa"}, MACHINE) == []
    assert invalid_reasons({"gpus": MACHINE["gpus"]}, MACHINE) == []
