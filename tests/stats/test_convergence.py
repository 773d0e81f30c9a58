"""Curves as numbers, against values by hand and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from bertopt_bench.stats.convergence import (
    combined_log_ratios,
    loss_at_end,
    loss_margin,
    probability_of_improvement,
    step_log_ratio,
    steps_to_target,
    success_share,
)

STEPS = [0, 10, 20, 30, 40, 50, 60]
LOSSES = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0]


def test_the_loss_at_the_end_is_the_mean_of_the_last_five() -> None:
    """Oracle: by hand."""
    assert loss_at_end(STEPS, LOSSES, 60) == pytest.approx(5.0)
    assert loss_at_end(STEPS, LOSSES, 50) == pytest.approx(6.0)
    assert loss_at_end(STEPS, LOSSES, 60, last=1) == 3.0


def test_the_untrained_loss_is_no_part_of_the_end() -> None:
    assert loss_at_end([0, 50, 100], [9.0, 6.0, 4.0], 100) == pytest.approx(5.0)


def test_an_early_end_has_no_loss_and_a_divergence_an_infinite_one() -> None:
    assert loss_at_end(STEPS, LOSSES, 100) is None
    assert loss_at_end([], [], 100) is None
    assert loss_at_end(STEPS, [*LOSSES[:-1], math.nan], 60) == math.inf
    assert loss_at_end(STEPS[:3], LOSSES[:3], 60, diverged=True) == math.inf


def test_a_margin_without_a_declaration_is_a_quarter_of_the_spread() -> None:
    """Oracle: by hand: the standard deviation of 1, 2, 3 is 1."""
    assert loss_margin([1.0, 2.0, 3.0]) == 0.25
    with pytest.raises(ValueError, match="two finite"):
        loss_margin([1.0, math.inf])


def test_the_first_crossing_is_interpolated() -> None:
    """Oracle: by hand; the later rise above the target does not matter."""
    assert steps_to_target(STEPS, LOSSES, 6.5) == pytest.approx(25.0)
    assert steps_to_target(STEPS, LOSSES, 7.0) == pytest.approx(20.0)
    assert steps_to_target([10, 20, 30, 40], [8, 4, 9, 1], 5.0) == pytest.approx(17.5)
    assert steps_to_target(STEPS, LOSSES, 9.5) == 0.0


def test_a_target_that_was_never_reached_is_infinite() -> None:
    assert steps_to_target(STEPS, LOSSES, 1.0) == math.inf
    assert steps_to_target([10, 20], [math.nan, math.nan], 1.0) == math.inf
    assert steps_to_target([10, 20], [math.nan, 0.5], 1.0) == 20.0


def test_curves_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="increase"):
        steps_to_target([10, 10], [1.0, 2.0], 1.0)
    with pytest.raises(ValueError, match="do not go with"):
        loss_at_end([10], [1.0, 2.0], 10)


def test_step_ratios_keep_censored_runs() -> None:
    """Oracle: by hand."""
    assert step_log_ratio(100.0, 200.0) == pytest.approx(math.log(2))
    assert step_log_ratio(100.0, math.inf) == math.inf
    assert step_log_ratio(math.inf, 100.0) == -math.inf
    assert step_log_ratio(math.inf, math.inf) is None
    assert step_log_ratio(100.0, 100.0) == 0.0


def test_every_seed_meets_one_replicate() -> None:
    """Oracle: powers of two: a sum names its two terms."""
    steps, times = [1.0, 2.0, 4.0, 8.0, 16.0], [32.0, 64.0, 128.0]

    sums = combined_log_ratios(steps, times, seed=1)

    assert len(sums) == 3
    assert sum(int(s) & 0b11100000 for s in sums) == 0b11100000
    assert all((int(s) & 0b11111).bit_count() == 1 for s in sums)
    assert len({int(s) & 0b11111 for s in sums}) == 3


def test_the_matching_repeats_mirrors_and_varies_with_its_seed() -> None:
    generator = np.random.default_rng(2)
    steps, times = generator.normal(size=9).tolist(), generator.normal(size=9).tolist()
    sums = combined_log_ratios(steps, times, seed=1)

    assert sums == combined_log_ratios(steps, times, seed=1)
    assert sums != combined_log_ratios(steps, times, seed=2)
    swapped = combined_log_ratios([-s for s in steps], [-t for t in times], seed=1)
    assert [-s for s in swapped] == list(sums)
    assert math.fsum(sums) == pytest.approx(math.fsum(steps) + math.fsum(times))


def test_what_neither_arm_reached_differs_by_nothing() -> None:
    assert combined_log_ratios([None, None], [0.3, 0.4], seed=1) == (0.0, 0.0)
    assert set(combined_log_ratios([math.inf, -math.inf], [0.3, 0.4], 1)) == {math.inf, -math.inf}


def test_the_share_of_runs_that_got_there() -> None:
    """Oracle: scipy.stats.binomtest, exact."""
    share = success_share([100.0, math.inf, 120.0, 90.0])
    theirs = scipy.stats.binomtest(3, 4).proportion_ci(method="exact")

    assert (share.reached, share.n) == (3, 4)
    assert (share.low, share.high) == pytest.approx((theirs.low, theirs.high))
    with pytest.raises(ValueError, match="not a number"):
        success_share([math.nan])


def test_the_probability_of_improvement_is_mann_and_whitneys() -> None:
    """Oracle: scipy.stats.mannwhitneyu's U over the number of pairs, ties included."""
    generator = np.random.default_rng(4)
    baseline = generator.integers(0, 9, 12).tolist()
    arm = [*generator.integers(0, 7, 10).tolist(), math.inf]
    u = scipy.stats.mannwhitneyu(baseline, [min(a, 1e9) for a in arm]).statistic

    assert probability_of_improvement(baseline, arm) == pytest.approx(u / (12 * 11))
    assert probability_of_improvement([math.inf], [math.inf]) == 0.5
