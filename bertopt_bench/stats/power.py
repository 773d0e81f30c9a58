"""What a number of replicates can find, before and after the run.

Differences are taken as normal with the stated spread (the standard deviation between replicates).
The one-sided test rejects exactly where the k-th smallest Walsh average exceeds the margin, and a
shift and a scale pass through an average: so one seeded simulation of that average for standard
normal data answers for every difference, spread and margin.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from bertopt_bench.stats.paired import tail_order

if TYPE_CHECKING:
    from bertopt_bench.stats.paired import Floats

LEAST_REPLICATES = 6
"""Below this many replicates there is no interval and no verdict."""
MOST_SIMULATED = 40
"""Beyond it the bounds shrink as (1 + SMALL_SAMPLE_LOSS / n) / sqrt(n) does, within 2 %."""
SMALL_SAMPLE_LOSS = 1.7
RUNS = 4096
SEED = 20_260_731


def smallest_p(n: int, sides: int) -> float:
    """Give the smallest p-value that n replicates can reach: every difference on one side."""
    return min(1.0, sides * 0.5**n)


def least_replicates(level: float, sides: int) -> int:
    """Give the fewest replicates with a verdict whose smallest p-value is at most a level."""
    return max(LEAST_REPLICATES, math.ceil(math.log2(sides / level)))


def detectable(
    n: int, alpha: float, spread: float, margin: float = 0.0, sides: int = 2, power: float = 0.8
) -> float | None:
    """Give the true difference that is found to exceed the margin with that power.

    None where n replicates cannot reject at alpha at all.
    """
    excess = _excess(n, alpha / sides, power)
    return None if excess is None else margin + spread * excess


def power_at(
    difference: float, n: int, alpha: float, spread: float, margin: float = 0.0, sides: int = 2
) -> float:
    """Give the chance that a true difference is found to exceed the margin in its own direction."""
    bounds = _bounds(n, alpha / sides)
    if bounds is None:
        return 0.0
    return float(np.mean(abs(difference) + spread * bounds > margin))


def needed_replicates(
    difference: float,
    spread: float,
    alpha: float,
    margin: float,
    sides: int,
    power: float = 0.8,
    most: int = 200,
) -> int | None:
    """Give the fewest replicates that find this difference beyond the margin with that power.

    None where the difference does not exceed the margin, or more than ``most`` are needed.
    """
    if not math.isfinite(spread) or abs(difference) <= margin:
        return None

    def suffices(n: int) -> bool:
        found = detectable(n, alpha, spread, margin, sides, power)
        return found is not None and found <= abs(difference)

    if not suffices(most):
        return None
    short, enough = LEAST_REPLICATES - 1, most
    while enough - short > 1:
        middle = (short + enough) // 2
        short, enough = (short, middle) if suffices(middle) else (middle, enough)
    return enough


def needed_for_equivalence(
    difference: float,
    spread: float,
    margin: float,
    power: float = 0.8,
    most: int = 200,
    *,
    alpha: float = 0.05,
) -> int | None:
    """Give the fewest replicates whose interval fits inside the margin with that power.

    The interval is of confidence 1 - ``alpha``. It must end short of the margin on either side, so
    each may miss with half of 1 - ``power``; the side that is nearer to the difference decides.
    """
    return needed_replicates(margin, spread, alpha, abs(difference), 2, (1 + power) / 2, most)


@lru_cache(maxsize=4096)
def _excess(n: int, level: float, power: float) -> float | None:
    """Give what is detectable beyond the margin, in units of the spread."""
    bounds = _bounds(n, level)
    return None if bounds is None else -float(np.quantile(bounds, 1 - power))


def _bounds(n: int, level: float) -> Floats | None:
    """Simulate the one-sided lower bound of n standard normal differences, or None without one."""
    simulated = min(n, MOST_SIMULATED)
    order = tail_order(simulated, level)
    if not order:
        return None
    loss = (1 + SMALL_SAMPLE_LOSS / n) / (1 + SMALL_SAMPLE_LOSS / simulated)
    return _simulated(simulated, order) * loss * math.sqrt(simulated / n)


@lru_cache(maxsize=256)
def _simulated(n: int, order: int) -> Floats:
    """Draw the order-th smallest Walsh average; the largest, mirrored, are draws as good."""
    # The same numbers for every n: more replicates then never look worse by chance.
    normal = np.random.default_rng(SEED).standard_normal((RUNS, MOST_SIMULATED))[:, :n]
    first, second = np.triu_indices(n)
    averages = (normal[:, first] + normal[:, second]) / 2
    averages.partition((order - 1, averages.shape[1] - order), axis=1)
    return np.concatenate((averages[:, order - 1], -averages[:, -order]))
