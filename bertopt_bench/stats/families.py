"""Many p-values at once, and shares with their exact intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def holm(p_values: Iterable[float]) -> list[float]:
    """Adjust step-down, so that one false rejection in the whole family has the stated rate.

    Source: Holm 1979; R's ``p.adjust(method = "holm")``.
    """
    values = _checked(p_values)
    adjusted, largest = [1.0] * len(values), 0.0
    for passed, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - passed) * values[i]))
        adjusted[i] = largest
    return adjusted


def benjamini_hochberg(p_values: Iterable[float]) -> list[float]:
    """Give q-values: the expected share of false ones among all that are as small.

    Source: Benjamini and Hochberg 1995; R's ``p.adjust(method = "BH")``.
    """
    values = _checked(p_values)
    adjusted, smallest = [1.0] * len(values), 1.0
    falling = sorted(range(len(values)), key=values.__getitem__, reverse=True)
    for passed, i in enumerate(falling):
        smallest = min(smallest, values[i] * len(values) / (len(values) - passed))
        adjusted[i] = smallest
    return adjusted


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Bound a share exactly, both sides equally.

    Source: Clopper and Pearson 1934; R's ``binom.test``.
    """
    from scipy.special import betaincinv

    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} successes of {trials} trials make no share")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, not {confidence}")
    tail, failures = (1 - confidence) / 2, trials - successes
    low = float(betaincinv(successes, failures + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, failures, 1 - tail)) if failures else 1.0
    return low, high


def _checked(p_values: Iterable[float]) -> list[float]:
    values = [float(p) for p in p_values]
    for p in values:
        if math.isnan(p) or not 0 <= p <= 1:
            raise ValueError(f"a p-value lies between 0 and 1, not {p}")
    return values
