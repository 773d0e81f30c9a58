"""Submissions against a baseline: by hand, and against the exact statistics of pairs."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from made_curves import falling, frame, run, set_of

from bertopt_bench.stats.curves import Aim, checked, runs_of
from bertopt_bench.stats.paired import hodges_lehmann, walsh_interval
from bertopt_bench.stats.reaching import declared_targets, reach
from bertopt_bench.stats.speedups import _centres, combined_interval, final_findings, speed_ups

LOSS = Aim()
SEEDS = range(1, 9)


def judged(curves: pd.DataFrame) -> pd.DataFrame:
    curves = checked(curves)
    reached = reach(curves, declared_targets(curves, ["6"]), LOSS)
    return speed_ups(reached, runs_of(curves, LOSS), "base").set_index(["submission", "by"])


def spread(centre: float, scale: float = 0.01) -> list[float]:
    return [centre + scale * math.sin(seed * 7) for seed in SEEDS]


def test_the_difference_at_the_end_is_the_paired_one_with_its_exact_interval() -> None:
    """Oracle: Hodges-Lehmann and Walsh interval of the differences; a quarter of the spread."""
    base, arm = (
        spread(5.0, 0.1),
        [v - 0.3 + 0.01 * math.cos(i) for i, v in enumerate(spread(5, 0.1))],
    )
    runs = runs_of(checked(set_of({"base": base, "arm": arm})), LOSS)
    one = final_findings(runs, "base").iloc[0]
    differences = [a - b for a, b in zip(arm, base, strict=True)]
    shown = walsh_interval(differences, 0.95)
    assert shown is not None
    assert one["estimate"] == pytest.approx(hodges_lehmann(differences))
    assert (one["low"], one["high"]) == pytest.approx((shown.low, shown.high))
    assert one["verdict"] == "lower"
    assert one["margin"] == pytest.approx(0.25 * pd.Series(base).std())


def test_below_six_seeds_there_is_neither_interval_nor_verdict() -> None:
    runs = runs_of(checked(set_of({"base": [5.0, 5.1], "arm": [4.0, 4.2]})), LOSS)
    one = final_findings(runs, "base").iloc[0]
    assert (one["verdict"], one["n"]) == ("inconclusive", 2)
    assert math.isnan(one["low"])


def test_runs_that_name_no_seed_do_not_pair() -> None:
    curves = set_of({"base": spread(5.0), "arm": spread(4.0)}).drop(columns="seed")
    one = final_findings(runs_of(checked(curves), LOSS), "base").iloc[0]
    assert one["verdict"] == "refused"
    assert "no seed" in one["reason"]


def test_steps_and_seconds_each_have_their_speed_up() -> None:
    """Oracle: by hand: half the steps at twice the step time is no gain in seconds."""
    fast = [
        run("arm", falling(s), seed=i, step_seconds=1.0)
        for i, s in zip(SEEDS, spread(0.0), strict=True)
    ]
    slow = [run("base", falling(s), seed=i) for i, s in zip(SEEDS, spread(4.0), strict=True)]
    made = judged(frame(*fast, *slow))
    steps, seconds = made.loc[("arm", "steps")], made.loc[("arm", "seconds")]
    assert steps["speed_up"] == pytest.approx(2.0, rel=0.01)
    assert steps["verdict"] == "faster"
    assert steps["low"] < steps["speed_up"] < steps["high"]
    assert seconds["speed_up"] == pytest.approx(1.0, rel=0.01)
    assert seconds["low"] <= seconds["speed_up"] <= seconds["high"]


def test_what_never_got_there_has_no_speed_and_beats_nobody() -> None:
    made = judged(set_of({"base": spread(4.0), "arm": spread(7.0)}))
    assert made.loc[("arm", "steps"), "speed_up"] == 0.0
    assert made.loc[("arm", "steps"), "verdict"] == "slower"
    assert made.loc[("arm", "seconds"), "speed_up"] == 0.0
    both = judged(set_of({"base": spread(7.0), "arm": spread(7.0)}))
    assert both.loc[("arm", "steps"), "verdict"] == "refused"


def test_the_centres_of_draws_are_those_of_single_lists() -> None:
    """Oracle: ``paired.hodges_lehmann``, infinite differences among them."""
    rows = [[0.1, 0.5, -0.2], [math.inf, 0.1, 0.2], [-math.inf, math.inf, 1.0], [math.inf] * 3]
    expected = [hodges_lehmann(row) for row in rows]
    assert _centres(pd.DataFrame(rows).to_numpy()).tolist() == pytest.approx(expected)


def test_a_combined_interval_adds_centres_and_repeats() -> None:
    steps, times = [0.1, 0.2, 0.3, 0.2, 0.1, 0.3], [-0.1, -0.2, -0.1, -0.3, -0.2, -0.1]
    centre, low, high = combined_interval(steps, times)
    assert centre == pytest.approx(hodges_lehmann(steps) + hodges_lehmann(times))
    assert low < centre < high
    assert combined_interval(steps, times) == (centre, low, high)
    assert math.isnan(combined_interval(steps[:5], times)[1])


def test_where_every_run_diverged_nothing_is_judged_in_either_direction() -> None:
    """Oracle: no run has an end, so no verdict can stand, least of all that both are alike."""
    curves = checked(set_of({"base": [math.nan] * 8, "arm": [math.nan] * 8}))
    for aim in (LOSS, Aim.of("accuracy")):
        one = final_findings(runs_of(curves, aim), "base").iloc[0]
        assert one["verdict"] == "refused", aim
        assert "no run of either arm" in one["reason"]
