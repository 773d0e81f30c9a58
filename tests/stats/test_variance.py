"""The analysis of variance, against statsmodels 0.15.0 and SciPy.

The first numbers are what ``anova_lm(ols("final ~ C(seed) + C(a) * C(b)").fit(), typ=2)`` printed
for these data; those of the incomplete table are differences of residual sums of squares of
``ols`` with and without the term. statsmodels is no dependency, so its figures stand here.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from bertopt_bench.stats.variance import BLOCK, ERROR, HIGHER, TIMES, variance

CELLS = [("x", "p"), ("x", "q"), ("x", "r"), ("y", "p"), ("y", "q"), ("y", "r")]
FINALS = {
    1: [5.1, 4.9, 5.6, 4.2, 4.8, 5.0],
    2: [5.3, 5.0, 5.9, 4.1, 4.9, 5.2],
    3: [5.0, 5.1, 5.5, 4.4, 4.6, 5.3],
}
AB = f"a{TIMES}b"


def runs(finals: dict[int, list[float]] = FINALS) -> pd.DataFrame:
    rows = [
        (seed, a, b, value)
        for seed, values in finals.items()
        for (a, b), value in zip(CELLS, values, strict=True)
    ]
    return pd.DataFrame(rows, columns=["seed", "a", "b", "final"])


def table(frame: pd.DataFrame) -> pd.DataFrame:
    found = variance(frame, ["a", "b"])
    assert found is not None
    return found.table.set_index("term")


def test_a_complete_factorial_agrees_with_statsmodels() -> None:
    made = table(runs())
    assert made["df"].to_dict() == {"a": 1, "b": 2, AB: 2, BLOCK: 2, ERROR: 10}
    sums = made["sum_of_squares"]
    assert sums["a"] == pytest.approx(1.33388888889)
    assert sums["b"] == pytest.approx(1.72444444444)
    assert sums[AB] == pytest.approx(0.337777777778)
    assert sums[BLOCK] == pytest.approx(0.0544444444444)
    assert sums[ERROR] == pytest.approx(0.238888888889)
    assert made.loc["a", "f"] == pytest.approx(55.8372093023)
    assert made.loc[AB, "p"] == pytest.approx(0.0121998786356)


def test_effect_sizes_follow_their_formulas() -> None:
    """Oracle: by hand from the sums of squares above."""
    made = table(runs()).loc["a"]
    assert made["partial_eta2"] == pytest.approx(1.33388888889 / (1.33388888889 + 0.238888888889))
    whole = 1.33388888889 + 0.238888888889 + 0.0544444444444
    assert made["generalised_eta2"] == pytest.approx(1.33388888889 / whole)
    mean = 0.0238888888889
    assert made["omega2"] == pytest.approx((1.33388888889 - mean) / (1.33388888889 + 17 * mean))


def test_an_incomplete_factorial_takes_sums_of_type_ii() -> None:
    """Oracle: differences of residual sums of squares of nested ``ols`` fits."""
    frame = runs()
    made = table(frame[~((frame["a"] == "y") & (frame["b"] == "r"))])
    assert made.loc["a", "sum_of_squares"] == pytest.approx(0.963333333333)
    assert made.loc["b", "sum_of_squares"] == pytest.approx(0.84)
    assert made.loc[AB, "sum_of_squares"] == pytest.approx(0.333333333333)
    assert made.loc[ERROR, "sum_of_squares"] == pytest.approx(0.198666666667)
    assert made.loc[ERROR, "df"] == 8


def test_two_arms_over_seeds_are_the_paired_t_test() -> None:
    """Oracle: SciPy: F is the square of the paired t, with the same p-value."""
    frame = runs()
    two = frame[frame["b"] == "p"]
    found = variance(two, ["a"])
    assert found is not None
    one = found.table.set_index("term").loc["a"]
    paired = scipy.stats.ttest_rel(*(g["final"].to_numpy() for _, g in two.groupby("a")))
    assert one["f"] == pytest.approx(paired.statistic**2)
    assert one["p"] == pytest.approx(paired.pvalue)


def test_cells_with_a_hole_or_a_divergence_are_left_out_and_named() -> None:
    frame = runs()
    frame.loc[5, "final"] = math.inf  # seed 1, y r
    frame = frame.drop(index=6)  # seed 2, x p
    found = variance(frame, ["a", "b"])
    assert found is not None
    assert set(found.left_out) == {"y · r", "x · p"}
    assert found.cells == 4


def test_one_seed_gives_shares_and_no_error() -> None:
    made = table(runs({1: FINALS[1]}))
    assert ERROR not in made.index
    assert made["omega2"].isna().all()
    assert made["generalised_eta2"].sum() == pytest.approx(1.0)  # the table is balanced


def test_what_does_not_vary_has_no_analysis() -> None:
    frame = runs()
    assert variance(frame[(frame["a"] == "x") & (frame["b"] == "p")], ["a", "b"]) is None
    found = variance(frame[frame["a"] == "x"], ["a", "b"])
    assert found is not None
    assert found.factors == ("b",)


def test_equal_values_have_no_analysis() -> None:
    """Oracle: no variance to divide: an eager and a compiled cell of one seed end on one loss."""
    frame = runs()
    one = frame[frame["seed"] == frame["seed"].min()]

    assert variance(one.assign(final=6.2293), ["a", "b"]) is None
    assert variance(frame.assign(final=6.2293), ["a", "b"]) is None


def test_interactions_of_three_axes_make_one_term() -> None:
    doubled = pd.concat([runs().assign(c="u"), runs().assign(c="v")], ignore_index=True)
    doubled["final"] += [0.01 * ((i * 37) % 11) for i in range(len(doubled))]
    found = variance(doubled, ["a", "b", "c"])
    assert found is not None
    made = found.table.set_index("term")
    assert made.loc[HIGHER, "df"] == 2
    assert made["sum_of_squares"].sum() == pytest.approx(
        ((doubled["final"] - doubled["final"].mean()) ** 2).sum()
    )


def test_from_six_seeds_on_effects_have_intervals() -> None:
    six = {
        seed: [v + 0.01 * ((seed * i) % 5) for i, v in enumerate(FINALS[1 + seed % 3])]
        for seed in range(6)
    }
    made = table(runs(six)).loc["a"]
    assert made["omega2_low"] <= made["omega2"] <= made["omega2_high"]
    assert table(runs())["omega2_low"].isna().all()
    for end, level in (("omega2_low", 0.975), ("omega2_high", 0.025)):
        noncentral = made[end] / (1 - made[end]) * 36  # six seeds of six cells
        found = scipy.stats.ncf.cdf(made["f"], 1, 25, noncentral)
        assert found == pytest.approx(level, abs=1e-6)


def test_of_noise_alone_the_interval_seldom_excludes_zero() -> None:
    """Oracle: its level: 2.5 % of 400 terms of normal noise; 24 would be beyond four sigma."""
    draw = np.random.default_rng(3)
    outside = 0
    for _ in range(133):
        noise = {seed: list(draw.standard_normal(6)) for seed in range(6)}
        outside += int((table(runs(noise))["omega2_low"] > 0).sum())
    assert outside < 24


def test_axes_that_move_together_are_named() -> None:
    """Four optimizers, each with a rate of its own: neither explains more than the other."""
    rows = [
        (seed, name, rate, float(rate) + 0.01 * ((seed * rate) % 3))
        for seed in range(3)
        for name, rate in (("p", 1), ("q", 2), ("r", 3), ("s", 4))
    ]
    frame = pd.DataFrame(rows, columns=["seed", "optimizer", "lr", "final"])
    found = variance(frame, ["optimizer", "lr"])

    assert found is not None
    assert found.confounded == ("optimizer", "lr")
