"""What was noted over the bursts of a block, added up as if they had been one interval."""

from __future__ import annotations

from bertopt_bench.measure.bursts import merged
from bertopt_bench.measure.disturbance import Disturbance

ONE = {
    "observed_seconds": 1.0,
    "load1": 0.5,
    "runnable_threads": 1,
    "cpu_mhz": 2000.0,
    "steal_share": 0.1,
    "major_faults": 2,
    "throttled_seconds": 0.25,
    "memory_pressure_share": None,
    "swapped_pages": 0,
}
OTHER = {**ONE, "observed_seconds": 3.0, "load1": 2.0, "steal_share": 0.5, "major_faults": 5}


def test_counts_add_shares_weigh_by_time_and_states_are_the_last() -> None:
    """Oracle: by hand: (0.1 x 1 s + 0.5 x 3 s) / 4 s = 0.4."""
    assert merged([ONE, OTHER]) == {
        "observed_seconds": 4.0,
        "load1": 2.0,
        "runnable_threads": 1,
        "cpu_mhz": 2000.0,
        "steal_share": 0.4,
        "major_faults": 7,
        "throttled_seconds": 0.5,
        "memory_pressure_share": None,
        "swapped_pages": 0,
    }


def test_one_interval_is_itself() -> None:
    """Oracle: identity."""
    assert merged([ONE]) == ONE


def test_what_one_interval_does_not_tell_is_not_known_of_all() -> None:
    """Oracle: a count over two intervals of which one is unknown is unknown, not the other's."""
    for pair in ([{**ONE, "major_faults": None}, OTHER], [ONE, {**OTHER, "major_faults": None}]):
        assert merged(pair)["major_faults"] is None
    for pair in ([{**ONE, "steal_share": None}, OTHER], [ONE, {**OTHER, "steal_share": None}]):
        assert merged(pair)["steal_share"] is None


def test_real_notes_keep_their_names() -> None:
    """Oracle: the meter's own keys; a share of the whole lies between those of its parts."""
    meter, noted = Disturbance(), []
    for _ in range(3):
        meter.start()
        noted.append(meter.stop())
    whole = merged(noted)

    assert whole.keys() == noted[0].keys()
    assert whole["observed_seconds"] == sum(one["observed_seconds"] for one in noted)
    for key, value in whole.items():
        if key.endswith("_share") and value is not None:
            parts = [one[key] for one in noted]
            assert min(parts) <= value * (1 + 1e-12)
            assert value <= max(parts) * (1 + 1e-12)


def test_a_throttle_that_any_burst_saw_is_the_blocks() -> None:
    """Oracle: by hand; seconds that a GPU was throttled are no state and add."""
    gpu = {
        "gpu_throttle_reasons": ["idle"],
        "gpu_thermal_throttled_seconds": 0.5,
        "gpu_power_watts": 9,
    }
    other = {**gpu, "gpu_throttle_reasons": ["software_thermal"], "gpu_power_watts": 8}

    assert (
        merged([{**ONE, **gpu}, {**OTHER, **other}]).items()
        >= {
            "gpu_thermal_throttled_seconds": 1.0,
            "gpu_power_watts": 8,
        }.items()
    )
    assert merged([gpu, other])["gpu_throttle_reasons"] == ["idle", "software_thermal"]
