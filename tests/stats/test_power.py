"""What replicates can find, against the protocol's figures and plain simulation of the test."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from bertopt_bench.stats.paired import signed_rank
from bertopt_bench.stats.power import (
    detectable,
    least_replicates,
    needed_for_equivalence,
    needed_replicates,
    power_at,
    smallest_p,
)


@pytest.mark.parametrize(
    ("spread", "difference", "n", "power"),
    [
        (0.01, 0.02, 10, 0.98),
        (0.02, 0.03, 12, 0.94),
        (0.02, 0.02, 20, 0.91),
        (0.04, 0.05, 12, 0.81),
    ],
)
def test_power_agrees_with_the_protocols_figures(spread, difference, n, power) -> None:
    """Oracle: measurement.md 3.2, alpha .01: they are those of two sides against no difference.

    One-sided tests at .01 would find 1 to 9 points more.
    """
    assert power_at(difference, n, 0.01, spread) == pytest.approx(power, abs=0.02)


def test_power_is_what_the_test_itself_finds() -> None:
    """Oracle: 2,000 runs of signed_rank against the margin; 4 standard errors."""
    data = np.random.default_rng(11).normal(0.03, 0.015, (2000, 12))
    found = np.mean([signed_rank(row, 0.012).more <= 0.01 for row in data])

    expected = power_at(0.03, 12, 0.01, 0.015, 0.012, sides=1)
    assert found == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 2000))


def test_beyond_the_simulated_numbers_the_bound_still_holds() -> None:
    """Oracle: 300 runs of signed_rank at n = 100; 4 standard errors."""
    change = detectable(100, 0.01, 1.0)
    data = np.random.default_rng(12).normal(change, 1.0, (300, 100))
    found = np.mean([2 * signed_rank(row).more <= 0.01 for row in data])

    assert found == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 300))


@pytest.mark.parametrize(("n", "p"), [(5, 0.0625), (6, 0.03125), (8, 0.0078125), (10, 0.001953125)])
def test_the_smallest_p_in_reach(n, p) -> None:
    """Oracle: measurement.md 3.2: 2 / 2^n, two-sided."""
    assert smallest_p(n, 2) == p
    assert smallest_p(n, 1) == p / 2


def test_detectable_and_power_answer_each_other() -> None:
    change = detectable(12, 0.01, 0.016, 0.01, sides=1)

    assert power_at(change, 12, 0.01, 0.016, 0.01, sides=1) == pytest.approx(0.8, abs=0.001)
    assert detectable(12, 0.01, 0.016, 0.02, sides=1) == pytest.approx(change + 0.01)
    assert detectable(12, 0.01, 0.0, 0.02) == 0.02


def test_a_level_out_of_reach_detects_nothing() -> None:
    assert detectable(7, 0.01, 0.01) is None
    assert power_at(1.0, 7, 0.01, 0.01) == 0


def test_needed_replicates_are_the_fewest_that_suffice() -> None:
    needed = needed_replicates(0.03, 0.02, 0.01, 0.01, 2)

    assert detectable(needed, 0.01, 0.02, 0.01, 2) <= 0.03
    assert detectable(needed - 1, 0.01, 0.02, 0.01, 2) > 0.03
    assert needed_replicates(-0.03, 0.02, 0.01, 0.01, 2) == needed
    assert needed_replicates(math.inf, 0.02, 0.01, 0.01, 2) == 8


def test_what_no_number_of_replicates_shows() -> None:
    assert needed_replicates(0.01, 0.02, 0.01, 0.01, 2) is None
    assert needed_replicates(0.0101, 0.02, 0.01, 0.01, 2) is None
    assert needed_replicates(0.05, math.nan, 0.01, 0.01, 2) is None
    assert needed_for_equivalence(0.03, 0.02, 0.02) is None


def test_more_replicates_never_detect_less() -> None:
    changes = [detectable(n, 0.01, 1.0) for n in (8, 9, 10, 11, 12, 14, 20, 39, 40, 41, 90)]

    assert all(later <= earlier for earlier, later in itertools.pairwise(changes))


@pytest.mark.parametrize("centre", [0.0, 0.008])
def test_needed_for_equivalence_fits_the_interval_with_that_power(centre) -> None:
    """Oracle: 2,000 runs of two one-sided signed-rank tests at .025 (TOST)."""
    needed = needed_for_equivalence(centre, 0.016, 0.02)
    data = np.random.default_rng(13).normal(centre, 0.016, (2000, needed))
    inside = np.mean(
        [
            signed_rank(row, 0.02).less <= 0.025 and signed_rank(row, -0.02).more <= 0.025
            for row in data
        ]
    )

    assert 0.78 < inside < 0.95


def test_more_looks_make_equivalence_dearer_by_as_much_as_their_intervals_are_wider() -> None:
    """Oracle: 2,000 runs of two one-sided tests at .05 / 3 / 2, the share of one look of three."""
    needed = needed_for_equivalence(0.0, 0.016, 0.02, alpha=0.05 / 3)
    level = 0.05 / 3 / 2
    data = np.random.default_rng(14).normal(0.0, 0.016, (2000, needed))
    inside = np.mean(
        [
            signed_rank(row, 0.02).less <= level and signed_rank(row, -0.02).more <= level
            for row in data
        ]
    )

    assert needed > needed_for_equivalence(0.0, 0.016, 0.02)
    assert 0.78 < inside < 0.95


@pytest.mark.parametrize("level", [0.4, 0.05, 0.01, 0.01 / 3, 2 / 2**8])
@pytest.mark.parametrize("sides", [1, 2])
def test_the_fewest_replicates_for_a_level_reach_it_and_one_fewer_does_not(level, sides) -> None:
    """Oracle: counting up from six until the smallest p is at most the level."""
    fewest = next(n for n in itertools.count(6) if sides / 2**n <= level)

    assert least_replicates(level, sides) == fewest
