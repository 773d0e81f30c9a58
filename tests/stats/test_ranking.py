"""Ranks over seeds and Pareto fronts, by hand and against SciPy."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from made_curves import set_of
from scipy.stats import rankdata

from bertopt_bench.stats.curves import Aim, checked, runs_of
from bertopt_bench.stats.fronts import fronts, is_on_front
from bertopt_bench.stats.ranking import ranks
from bertopt_bench.stats.resampling import interval

LOSS = Aim()


def ranked(finals: dict[str, list[float]], aim: Aim = LOSS) -> pd.DataFrame:
    return ranks(runs_of(checked(set_of(finals)), aim), aim).set_index("submission")


def test_ranks_are_those_of_medians_and_ties_share_the_middle() -> None:
    """Oracle: SciPy's rankdata of the medians."""
    finals = {"a": [3.0, 5.0, 4.0], "b": [4.0, 4.0, 9.0], "c": [1.0, 2.0, 3.0]}
    made = ranked(finals)
    expected = rankdata([np.median(values) for values in finals.values()])
    assert made.loc[list(finals), "rank"].tolist() == expected.tolist() == [2.5, 2.5, 1.0]
    assert made.loc["a", ["seed_low", "seed_high"]].tolist() == [2.0, 3.0]
    assert made["low"].isna().all()


def test_one_run_is_not_ranked_and_a_diverged_one_is_last() -> None:
    made = ranked({"a": [3.0, 3.1], "b": [2.0], "c": [math.nan, math.nan]})
    assert math.isnan(made.loc["b", "rank"])
    assert made.loc[["a", "c"], "rank"].tolist() == [1.0, 2.0]


def test_higher_may_be_better() -> None:
    made = ranked({"a": [3.0, 3.1], "b": [2.0, 2.1]}, Aim.of("accuracy"))
    assert made.loc[["a", "b"], "rank"].tolist() == [1.0, 2.0]


def test_a_clear_order_has_no_spread_and_a_coin_has_all_of_it() -> None:
    """Paired draws: what always leads by the same stays first; mirrored arms share the firsts."""
    clear = ranked({"a": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "b": [1.1, 2.1, 3.1, 4.1, 5.1, 6.1]})
    assert clear.loc["a", ["low", "high", "first"]].tolist() == [1.0, 1.0, 1.0]
    coin = ranked({"a": [1.0, 2.0, 1.0, 2.0, 1.0, 2.0], "b": [2.0, 1.0, 2.0, 1.0, 2.0, 1.0]})
    assert coin.loc["a", ["low", "high"]].tolist() == [1.0, 2.0]
    assert coin["first"].sum() == 1.0


def test_the_ends_of_an_interval_are_values_that_were_drawn() -> None:
    """Oracle: by hand; below 6 runs there is none."""
    draws = np.array([1.0] * 26 + [2.0] * 949 + [math.inf] * 25)
    assert interval(draws, 6) == (1.0, 2.0)
    assert interval(np.append(draws, [math.inf] * 5), 6) == (1.0, math.inf)
    assert all(math.isnan(end) for end in interval(draws, 5))


def test_a_front_holds_what_nothing_beats() -> None:
    """Oracle: by hand; equal points share it, infinite ones are never on it."""
    points = [(1.0, 9.0), (2.0, 5.0), (2.0, 6.0), (3.0, 5.0), (2.0, 5.0), (0.5, math.inf)]
    assert is_on_front(points) == [True, True, False, False, True, False]
    assert is_on_front([(1.0, math.nan)]) == [False]
    assert is_on_front([]) == []


def test_fronts_take_each_cost_that_is_there() -> None:
    cheap = set_of({"a": [4.0, 4.2, 4.4], "b": [3.0, 3.0, 3.0]}, peak_memory_bytes=100)
    dear = set_of({"c": [2.0, 2.0, 2.0], "d": [9.0, 9.0, 9.0]}, peak_memory_bytes=300)
    runs = runs_of(checked(pd.concat([cheap, dear])), LOSS)
    made = fronts(runs, LOSS)
    on = made[made["on_front"] & (made["cost"] == "peak_memory_bytes")]
    assert on["submission"].tolist() == ["b", "c"]
    a = made[(made["submission"] == "a") & (made["cost"] == "seconds")].iloc[0]
    assert a[["low", "median", "high", "n", "cost_median"]].tolist() == [4.0, 4.2, 4.4, 3, 20.0]


def test_a_submission_of_few_seeds_leaves_the_runs_of_others_whole() -> None:
    """Oracle: medians by hand: 9 of all five runs of a, 1 of the two seeds that b has too."""
    made = ranked({"a": [1.0, 1.0, 9.0, 9.0, 9.0], "b": [5.0, 5.0]})

    assert made.loc[["a", "b"], "n"].tolist() == [5, 2]
    assert made.loc[["a", "b"], "rank"].tolist() == [2.0, 1.0]
