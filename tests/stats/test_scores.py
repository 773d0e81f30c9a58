"""Performance profiles and their score: by hand, and by properties. Source: Dahl et al. 2023."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_curves import set_of

from bertopt_bench.errors import UserError
from bertopt_bench.stats.curves import Aim, checked, runs_of
from bertopt_bench.stats.reaching import baseline_targets, declared_targets, reach
from bertopt_bench.stats.scores import profile, scores, scores_of, time_ratios

NEVER = math.inf


def table(**rows: list[float]) -> pd.DataFrame:
    """Make times: a row a submission, a column a workload."""
    return pd.DataFrame.from_dict(rows, orient="index")


def test_a_profile_counts_workloads_within_tau_of_the_fastest() -> None:
    """Oracle: by hand: ratios of a are 1 and 2, of b 3 and 1; their integrals are .833 and .667."""
    times = table(a=[10.0, 20.0], b=[30.0, 10.0])
    assert time_ratios(times).to_numpy().tolist() == [[1.0, 2.0], [3.0, 1.0]]
    corners = profile(times).set_index("submission")
    assert corners.loc["a"].to_numpy().tolist() == [[1.0, 0.5], [2.0, 1.0], [4.0, 1.0]]
    assert corners.loc["b"].to_numpy().tolist() == [[1.0, 0.5], [3.0, 1.0], [4.0, 1.0]]
    # (1 + 2/3) / 2 and (1/3 + 1) / 2: each step's height times the width that is left of 3.
    assert scores(times).tolist() == pytest.approx([5 / 6, 2 / 3])


def test_ties_are_all_fastest() -> None:
    assert scores(table(a=[5.0], b=[5.0], c=[10.0])).tolist() == pytest.approx([1, 1, 2 / 3])


def test_where_nobody_got_there_nobody_scores() -> None:
    times = table(a=[NEVER, 10.0], b=[NEVER, NEVER])
    assert scores(times).tolist() == [0.5, 0.0]
    assert scores(table(a=[NEVER], b=[NEVER])).tolist() == [0.0, 0.0]


def test_one_submission_is_fastest_wherever_it_got_there() -> None:
    assert scores(table(a=[7.0, 3.0, NEVER])).item() == pytest.approx(2 / 3)


def test_one_workload_scores_the_ratio_alone() -> None:
    """Oracle: by hand; a ratio of tau max or more gives nothing."""
    made = scores(table(a=[1.0], b=[2.5], c=[4.0], d=[9.0]))
    assert made.tolist() == pytest.approx([1.0, 0.5, 0.0, 0.0])


def test_a_workload_that_was_not_run_counts_as_never() -> None:
    assert scores(table(a=[1.0, math.nan], b=[1.0, 1.0])).tolist() == [0.5, 1.0]


def test_a_target_met_at_the_start_leaves_the_others_behind() -> None:
    assert scores(table(a=[0.0], b=[0.0], c=[1.0])).tolist() == [1.0, 1.0, 0.0]


def test_a_range_without_width_is_refused() -> None:
    for tau in (1.0, 0.5, math.inf, math.nan):
        with pytest.raises(UserError, match="above 1"):
            scores(table(a=[1.0]), tau)
    with pytest.raises(UserError, match="negative"):
        scores(table(a=[-1.0]))


def test_the_integral_agrees_with_trapezia_on_a_fine_grid() -> None:
    """Oracle: AlgoPerf's own way, NumPy's trapezia under the profile, with 200,001 points."""
    times = table(a=[10.0, 20.0, NEVER], b=[30.0, 10.0, 5.0], c=[11.0, 25.0, 16.0])
    ratios, grid = time_ratios(times).to_numpy(), np.linspace(1, 4, 200_001)
    heights = (ratios[:, :, np.newaxis] <= grid).mean(axis=1)
    assert scores(times).tolist() == pytest.approx(np.trapezoid(heights, grid) / 3, abs=1e-4)


sometimes = st.one_of(st.floats(0.01, 1e4), st.just(NEVER))
tables = (
    st.integers(1, 4)
    .flatmap(
        lambda width: st.lists(
            st.lists(sometimes, min_size=width, max_size=width), min_size=1, max_size=5
        )
    )
    .map(pd.DataFrame)
)


@settings(deadline=None)
@given(tables, st.integers(0, 4), st.integers(0, 3), st.floats(0.01, 1.0))
def test_a_faster_submission_never_scores_lower(
    times: pd.DataFrame, row: int, column: int, factor: float
) -> None:
    row, column = row % len(times), column % times.shape[1]
    faster = times.copy()
    faster.iloc[row, column] *= factor
    assert scores(faster)[row] >= scores(times)[row] - 1e-12
    better = (times.iloc[row] <= times).all(axis="columns")
    assert (scores(times)[better] <= scores(times)[row] + 1e-12).all()


@settings(deadline=None)
@given(tables, st.floats(0.01, 100.0))
def test_scaling_all_times_of_a_workload_changes_nothing(times: pd.DataFrame, by: float) -> None:
    scaled = times.copy()
    scaled[0] = scaled[0] * by
    assert scores(scaled).tolist() == pytest.approx(scores(times).tolist(), abs=1e-9)


@settings(deadline=None)
@given(tables)
def test_a_profile_never_falls_and_stays_a_share(times: pd.DataFrame) -> None:
    for _, one in profile(times).groupby("submission"):
        assert one["tau"].is_monotonic_increasing
        assert one["share"].is_monotonic_increasing
        assert one["share"].between(0, 1).all()


def test_scores_of_runs_take_medians_with_those_that_never_got_there() -> None:
    """Oracle: by hand: a takes 20 of 40 steps; b's median never comes; below 6 no interval."""
    curves = checked(set_of({"a": [4.0, 4.0, 7.0], "b": [4.0, 7.0, 7.0]}))
    made = scores_of(reach(curves, declared_targets(curves, ["6"]), Aim()), "steps")
    assert made["submission"].tolist() == ["a", "b"]
    assert made["score"].tolist() == [1.0, 0.0]
    assert made["n"].tolist() == [3, 3]
    assert made["low"].isna().all()


def test_from_six_seeds_on_a_score_has_an_interval_around_it() -> None:
    finals = {"a": [3.0, 3.1, 3.2, 3.3, 3.4, 3.5], "b": [2.0, 2.6, 3.6, 4.0, 4.4, 5.9]}
    curves = checked(set_of(finals))
    made = scores_of(reach(curves, declared_targets(curves, ["6"]), Aim()), "seconds")
    assert (made["low"] <= made["score"]).all()
    assert (made["score"] <= made["high"]).all()
    assert made["low"].min() < made["high"].min()


@pytest.mark.parametrize("name", ["loss", "accuracy"])
@pytest.mark.parametrize("n", [2, 3, 4, 5, 8])
def test_a_baseline_alone_reaches_its_own_target_and_scores_1(name: str, n: int) -> None:
    """Property: three quarters of its seeds get there, so that its median time is finite."""
    aim, finals = Aim.of(name), [3.0 + 0.1 * ((7 * i) % n) for i in range(n)]
    curves = checked(set_of({"base": finals}))
    curves["metric"] *= aim.sign
    targets = baseline_targets(curves, runs_of(curves, aim), "base", aim)
    reached = reach(curves, targets[:1], aim)

    assert (reached["steps"] < NEVER).mean() >= 0.75
    assert n < 4 or (reached["steps"] < NEVER).mean() < 1.0
    assert scores_of(reached, "steps")["score"].tolist() == [1.0]


def test_times_are_medians_of_all_runs_where_another_submission_has_fewer() -> None:
    """Oracle: by hand: three of five runs of a never get there, though both of its first do."""
    curves = checked(set_of({"a": [4.0, 4.0, 7.0, 7.0, 7.0], "b": [4.0, 4.0]}))
    made = scores_of(reach(curves, declared_targets(curves, ["6"]), Aim()), "steps")

    assert made.set_index("submission")["score"].to_dict() == {"b": 1.0, "a": 0.0}
