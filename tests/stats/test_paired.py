"""Exact signed-rank inference, against published values, SciPy and brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bertopt_bench.stats.paired import (
    hodges_lehmann,
    sign_flip,
    signed_rank,
    signed_rank_counts,
    tail_order,
    walsh_interval,
)

FIRST_VISIT = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
SECOND_VISIT = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
DEPRESSION = FIRST_VISIT - SECOND_VISIT

distinct = st.lists(st.integers(-(10**6), 10**6), min_size=6, max_size=14, unique=True)
tied = st.lists(st.integers(-4, 4), min_size=1, max_size=9)


def by_enumeration(values, shift=0.0) -> tuple[float, float]:
    """Enumerate all signs of the mid-ranks; zeros stand against each alternative."""
    moved = np.asarray(values, float) - shift
    ranks = scipy.stats.rankdata(np.abs(moved))
    sums = [
        sum(r for r, s in zip(ranks, signs, strict=True) if s)
        for signs in itertools.product((0, 1), repeat=len(ranks))
    ]
    more = np.mean(np.array(sums) >= ranks[moved > 0].sum())
    less = np.mean(np.array(sums) <= ranks[moved >= 0].sum())
    return float(more), float(less)


def test_the_depression_data_give_what_r_prints() -> None:
    """Oracle: the example of R's ?wilcox.test: V = 40, p-value = 0.01953 (one-sided)."""
    test = signed_rank(DEPRESSION)

    assert test.statistic == 40
    assert test.more == pytest.approx(0.01953125, abs=1e-12)
    assert test.any == pytest.approx(0.0390625, abs=1e-12)


def test_the_depression_data_give_hollander_and_wolfes_estimate_and_interval() -> None:
    """Oracle: Hollander & Wolfe, examples 3.3 and 3.4: 0.46 and (0.010, 0.786) at 96.1 %."""
    interval = walsh_interval(DEPRESSION, 0.95)

    assert hodges_lehmann(DEPRESSION) == pytest.approx(0.46)
    assert (interval.low, interval.high) == (pytest.approx(0.010), pytest.approx(0.786))
    assert interval.confidence == pytest.approx(0.961, abs=5e-4)


def test_counts_of_sign_patterns() -> None:
    """Oracle: by hand for n = 4; OEIS A053632 (partitions into distinct parts), sum 2^n."""
    assert signed_rank_counts(4).tolist() == [1, 1, 1, 2, 2, 2, 2, 2, 1, 1, 1]
    assert signed_rank_counts(0).tolist() == [1]
    assert signed_rank_counts(30).sum() == 2**30


@settings(deadline=None)
@given(distinct)
def test_p_values_equal_scipys_exact_ones(values) -> None:
    """Oracle: scipy.stats.wilcoxon(method="exact"), which has no ties and no zeros."""
    assume(len({abs(v) for v in values}) == len(values) and 0 not in values)
    test = signed_rank(values)

    for alternative, ours in (("greater", test.more), ("less", test.less), ("two-sided", test.any)):
        theirs = scipy.stats.wilcoxon(values, alternative=alternative, method="exact").pvalue
        assert ours == pytest.approx(theirs, rel=1e-12)


@settings(deadline=None)
@given(tied, st.integers(-2, 2))
def test_ties_and_zeros_are_exact_too(values, shift) -> None:
    """Oracle: enumeration of all 2^n sign patterns of the observed mid-ranks."""
    test = signed_rank(values, shift)

    assert (test.more, test.less) == pytest.approx(by_enumeration(values, shift), abs=1e-12)


@settings(deadline=None)
@given(tied)
def test_a_zero_never_makes_a_rejection(values) -> None:
    """Claim: whatever sign the zeros had had, no p-value would be larger."""
    test = signed_rank(values)
    largest = max(abs(v) for v in values) + 1

    for tiny in (1e-3 / largest, -1e-3 / largest):
        resolved = signed_rank([v or tiny for v in values])
        assert resolved.more <= test.more + 1e-12
        assert resolved.less <= test.less + 1e-12


@settings(deadline=None)
@given(distinct, st.sampled_from([0.9, 0.95, 0.96875, 0.99]), st.integers(0, 200))
def test_a_shift_lies_outside_the_interval_exactly_where_the_test_rejects(
    values, confidence, where
) -> None:
    """Claim: test and interval invert each other and so never disagree.

    Whole numbers have Walsh averages in halves; shifts in odd eighths never meet one. Two
    differences at equal distance from the shift (a tie) cannot be either.
    """
    interval = walsh_interval(values, confidence)
    averages = sorted((a + b) / 2 for a, b in itertools.combinations_with_replacement(values, 2))
    for near in (
        averages[where % len(averages)],
        *((interval.low, interval.high) if interval else ()),
    ):
        for shift in (near - 0.125, near + 0.125):
            rejects = signed_rank(values, shift).any <= 1 - confidence
            outside = interval is not None and not interval.low <= shift <= interval.high
            assert rejects == outside


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from([0, 1, 2, 2, 3, math.inf]), min_size=6, max_size=8))
def test_with_ties_zeros_and_infinities_the_interval_still_covers(sizes) -> None:
    """Oracle: enumeration: given the magnitudes, all signs are alike where the centre is 0."""
    covered = []
    for signs in itertools.product((-1, 1), repeat=len(sizes)):
        interval = walsh_interval([s * size for s, size in zip(signs, sizes, strict=True)], 0.9)
        covered.append(interval.low <= 0 <= interval.high)

    assert np.mean(covered) >= interval.confidence >= 0.9


@pytest.mark.parametrize(("n", "confidence"), [(5, 0.95), (7, 0.99), (0, 0.5), (1, 0.5)])
def test_too_few_differences_have_no_interval(n, confidence) -> None:
    """Oracle: the smallest two-sided p is 2 / 2^n (measurement.md 3.2)."""
    assert walsh_interval(np.arange(float(n)), confidence) is None


@pytest.mark.parametrize(("n", "confidence"), [(6, 0.95), (8, 0.99)])
def test_the_smallest_n_has_the_widest_interval(n, confidence) -> None:
    """Oracle: 2 / 2^n; the bounds are the smallest and the largest difference."""
    interval = walsh_interval(np.arange(float(n)), confidence)

    assert (interval.low, interval.high, interval.confidence) == (0, n - 1, 1 - 2 / 2**n)


def test_infinite_differences_rank_beyond_all_others() -> None:
    """Oracle: by hand: a very large number in their place ranks alike."""
    values = [0.3, -0.1, 0.7, math.inf, 0.2, 0.4, math.inf, 0.9]
    large = [min(v, 1e9 + i) for i, v in enumerate(values)]

    assert signed_rank(values).statistic == signed_rank(large).statistic
    assert hodges_lehmann(values) == pytest.approx(hodges_lehmann(large))
    assert walsh_interval(values, 0.95).low == pytest.approx(walsh_interval(large, 0.95).low)
    assert walsh_interval(values, 0.95).high == math.inf


def test_infinities_of_both_signs_cancel() -> None:
    """Oracle: by hand: their average stands on both sides of every centre."""
    assert hodges_lehmann([math.inf, -math.inf]) == 0
    assert hodges_lehmann([math.inf, -math.inf, 3.0]) == 3.0
    assert hodges_lehmann([5 + math.inf, -math.inf, 5.0]) == 5.0
    assert hodges_lehmann([math.inf, math.inf]) == math.inf
    wide = walsh_interval([math.inf, -math.inf, 1, 2, 3, 4, 5, 6], 0.95)
    assert wide.low == -math.inf


@settings(deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=9))
def test_sign_flips_are_enumerated(values) -> None:
    """Oracle: all 2^n sign patterns, with the same allowance for rounding."""
    observed = abs(math.fsum(values))
    allowance = 1e-12 * math.fsum(map(abs, values))
    sums = [
        abs(math.fsum(s * v for s, v in zip(signs, values, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(values))
    ]
    at_least = np.mean([s >= observed - 0.5 * allowance for s in sums])
    at_most = np.mean([s >= observed - 2 * allowance for s in sums])

    assert at_least <= sign_flip(values) <= at_most


def test_drawn_sign_flips_agree_with_scipys_and_repeat() -> None:
    """Oracle: scipy.stats.permutation_test, sign flips on the mean, 20,000 draws."""
    values = np.random.default_rng(3).normal(0.4, 1, 24)
    theirs = scipy.stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=20_000, rng=1
    ).pvalue

    assert sign_flip(values) == pytest.approx(theirs, abs=0.01)
    assert sign_flip(values) == sign_flip(-values[::-1])


def test_what_cannot_be_tested_is_said() -> None:
    with pytest.raises(ValueError, match="not a number"):
        signed_rank([1.0, math.nan])
    with pytest.raises(ValueError, match="no mean"):
        sign_flip([1.0, math.inf])
    with pytest.raises(ValueError, match="no differences"):
        hodges_lehmann([])
    with pytest.raises(ValueError, match="finite"):
        signed_rank([1.0], math.inf)
    with pytest.raises(ValueError, match="between 0 and 1"):
        walsh_interval([1.0], 95)


@settings(deadline=None)
@given(distinct)
def test_order_changes_nothing_and_swapped_signs_mirror(values) -> None:
    mirrored = [-v for v in reversed(values)]
    test, other = signed_rank(values, 3), signed_rank(mirrored, -3)
    interval, opposite = walsh_interval(values, 0.95), walsh_interval(mirrored, 0.95)

    assert (test.more, test.less, test.any) == (other.less, other.more, other.any)
    assert hodges_lehmann(values) == -hodges_lehmann(mirrored)
    assert (interval.low, interval.high) == (-opposite.high, -opposite.low)


def test_the_bounding_order_is_the_critical_value_of_the_tables() -> None:
    """Oracle: Wilcoxon's table, one-sided .025: critical T = 8 at n = 10, 52 at n = 20."""
    assert tail_order(10, 0.025) - 1 == 8
    assert tail_order(20, 0.025) - 1 == 52
    assert tail_order(5, 0.025) == 0
