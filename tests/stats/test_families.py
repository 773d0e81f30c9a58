"""Corrections over a family and exact shares, against R, SciPy and definitions."""

from __future__ import annotations

import math

import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from bertopt_bench.stats.families import benjamini_hochberg, clopper_pearson, holm

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def test_holm_equals_rs_p_adjust() -> None:
    """Oracle: R's p.adjust(method = "holm"), as stdlib-js publishes it for its padjust."""
    assert holm([0.319, 0.201, 0.4, 0.374, 0.113]) == pytest.approx(
        [0.957, 0.804, 0.957, 0.957, 0.565]
    )


def test_benjamini_hochberg_equals_rs_p_adjust() -> None:
    """Oracle: R's p.adjust(method = "BH"), as stdlib-js publishes it for its padjust."""
    assert benjamini_hochberg([0.008, 0.03, 0.123, 0.6, 0.2]) == pytest.approx(
        [0.04, 0.075, 0.205, 0.6, 0.25]
    )


@settings(deadline=None)
@given(p_values)
def test_q_values_equal_scipys(values) -> None:
    """Oracle: scipy.stats.false_discovery_control."""
    assert benjamini_hochberg(values) == pytest.approx(scipy.stats.false_discovery_control(values))


@settings(deadline=None)
@given(p_values, st.floats(0.001, 0.5))
def test_holm_rejects_what_the_steps_of_its_definition_reject(values, level) -> None:
    """Oracle: Holm 1979: compare the k-th smallest with level / (m - k + 1) until one is larger."""
    rejected: set[float] = set()
    for k, p in enumerate(sorted(values)):
        if (len(values) - k) * p > level:
            break
        rejected.add(p)

    assert {p for p, a in zip(values, holm(values), strict=True) if a <= level} == rejected


@settings(deadline=None)
@given(p_values, st.randoms(use_true_random=False))
def test_the_order_of_a_family_changes_nothing(values, random) -> None:
    shuffled = values[:]
    random.shuffle(shuffled)

    for correct in (holm, benjamini_hochberg):
        assert sorted(zip(shuffled, correct(shuffled), strict=True)) == sorted(
            zip(values, correct(values), strict=True)
        )


def test_the_empty_family_and_what_is_no_p_value() -> None:
    assert holm([]) == benjamini_hochberg([]) == []
    for bad in (math.nan, -0.1, 1.1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            holm([0.5, bad])


def test_a_share_has_the_interval_that_r_prints() -> None:
    """Oracle: the example of R's ?binom.test, 682 of 925: 0.7076683 to 0.7654066."""
    assert clopper_pearson(682, 925) == pytest.approx((0.7076683, 0.7654066), abs=5e-8)


def test_299_clean_duels_bound_the_false_alarm_rate_by_one_per_cent() -> None:
    """Oracle: measurement.md 4.3: 0.99^299 < 0.05 < 0.99^298, one-sided."""
    assert clopper_pearson(0, 299, 0.90)[1] < 0.01 < clopper_pearson(0, 298, 0.90)[1]


@settings(deadline=None)
@given(st.integers(1, 400), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
def test_shares_equal_scipys_exact_intervals(trials, data, confidence) -> None:
    """Oracle: scipy.stats.binomtest(...).proportion_ci(method="exact")."""
    successes = data.draw(st.integers(0, trials))
    theirs = scipy.stats.binomtest(successes, trials).proportion_ci(confidence, method="exact")

    assert clopper_pearson(successes, trials, confidence) == pytest.approx(
        (theirs.low, theirs.high), abs=1e-9
    )


def test_a_share_of_nothing_is_refused() -> None:
    for successes, trials in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="no share"):
            clopper_pearson(successes, trials)
