"""Centre, exact interval and exact tests of paired differences, valid by randomisation alone.

Infinite differences are legal: a run that never reached its target ranks beyond every other.
Sources: Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3.1 to 3.3; R's
``wilcox.test(exact = TRUE, conf.int = TRUE)``; Pratt 1959 for zeros.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

MOST_EXACT_FLIPS = 20
DRAWN_FLIPS = 1 << 16
FLIP_SEED = 20_260_731


@dataclass(frozen=True)
class Interval:
    """Bounds of a centre; ``confidence`` is what they achieve, never less than was asked for."""

    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class SignedRank:
    """The exact signed-rank test of "the centre is the shift".

    ``statistic`` is W+ (R calls it V); ``more`` is the p-value against a smaller or equal centre,
    ``less`` against a greater or equal one, ``any`` against the shift itself.
    """

    n: int
    statistic: float
    more: float
    less: float
    any: float


def signed_rank_counts(n: int) -> Floats:
    """Count the sign patterns of n untied ranks by their W+ (exact to n = 60, then rounded)."""
    return np.diff(_cumulative(_untied(n))[::2], prepend=0.0) * 2.0**n


def hodges_lehmann(differences: Iterable[float]) -> float:
    """Give the median of the Walsh averages (i <= j).

    The average of +inf and -inf stands on either side of any centre in equal parts and is left
    out. Where the two middle averages are -inf and +inf, nothing points either way: 0.
    """
    averages = _walsh(_values(differences))
    averages = averages[~np.isnan(averages)]
    if not averages.size:
        raise ValueError("no differences: there is no centre")
    low, high = float(averages[(averages.size - 1) // 2]), float(averages[averages.size // 2])
    if low == high:
        return low + 0.0
    return 0.0 if low == -math.inf and high == math.inf else low / 2 + high / 2 + 0.0


def walsh_interval(differences: Iterable[float], confidence: float) -> Interval | None:
    """Give the exact interval between ordered Walsh averages, or None where n is too small for it.

    Without ties the shifts outside it are exactly those that the two-sided signed-rank test rejects
    at 1 - ``confidence``. With ties, coverage holds but the two may differ by a tie. The average of
    +inf and -inf counts as -inf for the lower bound and as +inf for the upper one: never narrower.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, not {confidence}")
    values = _values(differences)
    tails = 2 * _cumulative(_untied(values.size))[::2]
    rejecting = int(np.searchsorted(tails, 1 - confidence, side="right"))
    if rejecting == 0:
        return None
    averages = _walsh(values)
    unordered = int(np.isnan(averages).sum())  # sorted to the end
    ordered = averages[: averages.size - unordered]
    low = -math.inf if rejecting <= unordered else float(ordered[rejecting - 1 - unordered])
    high = math.inf if rejecting <= unordered else float(ordered[unordered - rejecting])
    return Interval(low + 0.0, high + 0.0, 1 - float(tails[rejecting - 1]))


def signed_rank(differences: Iterable[float], shift: float = 0.0) -> SignedRank:
    """Test exactly whether the centre of the differences lies beyond ``shift``.

    Ties share their mid-rank, and the null distribution is the exact one given these ranks, by
    dynamic programming over doubled ranks. Differences that equal the shift keep the lowest ranks
    and take part in the null distribution (Pratt 1959 drops them from it), and they stand against
    each alternative in turn: no sign that they could have had gives a larger p-value, so a zero
    never makes a rejection.
    """
    if not math.isfinite(shift):
        raise ValueError(f"a shift is a finite number, not {shift}")
    moved = _values(differences) - shift
    doubled = _doubled_ranks(np.abs(moved))
    total, positive = int(doubled.sum()), int(doubled[moved > 0].sum())
    unsigned = int(doubled[moved == 0].sum())
    chances = _cumulative(tuple(sorted(doubled.tolist())))
    more = float(chances[total - positive])  # P(W+ >= w) is P(W+ <= total - w)
    less = float(chances[positive + unsigned])
    return SignedRank(moved.size, positive / 2, more, less, min(1.0, 2 * min(more, less)))


def sign_flip(differences: Iterable[float]) -> float:
    """Test by sign flips, two-sided, whether the mean is 0: exact to n = 20, else 65,536 draws.

    The draws are seeded and made over sorted magnitudes, so that neither the order of the
    differences nor their common sign matters. Raises ValueError for infinite differences, which
    have no mean. Source: Fisher 1935.
    """
    values = _values(differences)
    if not np.isfinite(values).all():
        raise ValueError("infinite differences have no mean")
    sizes = np.sort(np.abs(values))
    # Sums that rounding alone sets apart are equal, and equal ones count as extreme.
    threshold = abs(math.fsum(values.tolist())) - 1e-12 * math.fsum(sizes.tolist())
    if sizes.size <= MOST_EXACT_FLIPS:
        sums = sizes[:1] if sizes.size else np.zeros(1)  # flipping all signs changes no magnitude
        for size in sizes[1:]:
            sums = np.concatenate((sums - size, sums + size))
        return float(np.mean(np.abs(sums) >= threshold))
    flips = np.random.default_rng(FLIP_SEED).integers(0, 2, (DRAWN_FLIPS, sizes.size), dtype="int8")
    sums = 2 * (flips @ sizes) - sizes.sum()
    return float((1 + np.sum(np.abs(sums) >= threshold)) / (1 + DRAWN_FLIPS))


def tail_order(n: int, level: float) -> int:
    """Say which ordered Walsh average bounds the centre one-sidedly at this level; 0: none does."""
    return int(np.searchsorted(_cumulative(_untied(n))[::2], level, side="right"))


def _values(differences: Iterable[float]) -> Floats:
    values = np.asarray(tuple(differences), dtype=float)
    if values.ndim != 1:
        raise ValueError(f"differences are a list of numbers, not {values.ndim}-dimensional")
    if np.isnan(values).any():
        raise ValueError("a difference is not a number")
    return values


def _walsh(values: Floats) -> Floats:
    """Sort the averages of all pairs i <= j; NaN (of +inf and -inf) comes last."""
    first, second = np.triu_indices(values.size)
    with np.errstate(invalid="ignore"):
        return np.sort(values[first] / 2 + values[second] / 2)


def _doubled_ranks(sizes: Floats) -> NDArray[np.int64]:
    """Rank from 1, ties by the middle of their ranks, doubled so that all are whole."""
    _, which, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    doubled: NDArray[np.int64] = (2 * np.cumsum(counts) - counts + 1)[which]
    return doubled


def _untied(n: int) -> tuple[int, ...]:
    return tuple(range(2, 2 * n + 1, 2))


@lru_cache(maxsize=512)
def _cumulative(doubled: tuple[int, ...]) -> Floats:
    """Give P(sum of randomly chosen doubled ranks <= w) for every w, by dynamic programming."""
    chances = np.zeros(sum(doubled) + 1)
    chances[0] = 1.0
    for rank in doubled:
        chances *= 0.5
        chances[rank:] += chances[:-rank].copy()
    cumulative: Floats = np.minimum(np.cumsum(chances), 1.0)
    cumulative.setflags(write=False)
    return cumulative
