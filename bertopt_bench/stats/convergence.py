"""What training curves say, as numbers that pair: losses, steps and seconds to a target, shares.

Runs that did not get there stay in, as +inf: an average over survivors rewards an arm for failing
on the hard seeds (measurement.md 4.4). Ranks of the differences stay valid.
"""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertopt_bench.stats.families import clopper_pearson

if TYPE_CHECKING:
    from collections.abc import Sequence

AVERAGED_EVALUATIONS = 5
MARGIN_SHARE = 0.25
MOST = 0.75
"""The share of the baseline's runs that reach a target taken from their ends."""


@dataclass(frozen=True)
class Share:
    """How many runs got there, with Clopper and Pearson's 95 % interval."""

    reached: int
    n: int
    low: float
    high: float


def loss_at_end(
    steps: Sequence[int],
    losses: Sequence[float],
    planned: int,
    last: int = AVERAGED_EVALUATIONS,
    *,
    diverged: bool = False,
) -> float | None:
    """Average the last evaluations at or before the planned end, step 0 left out.

    A diverged run, or one with a loss that is not finite, is +inf; one that ended earlier has none.
    """
    seen = [(s, loss) for s, loss in _curve(steps, losses) if 0 < s <= planned]
    if diverged or any(not math.isfinite(loss) for _, loss in seen):
        return math.inf
    if last < 1 or not seen or max(steps) < planned:
        return None
    return statistics.fmean(loss for _, loss in seen[-last:])


def loss_margin(baseline_losses: Sequence[float]) -> float:
    """Give the margin of a loss that was declared without one: a quarter of the baseline's spread.

    The spread is the standard deviation over seeds; raises ValueError where there is none.
    """
    if len(baseline_losses) < 2 or not all(math.isfinite(loss) for loss in baseline_losses):
        raise ValueError("the spread over seeds takes two finite losses or more")
    return MARGIN_SHARE * statistics.stdev(baseline_losses)


def steps_to_target(steps: Sequence[int], losses: Sequence[float], target: float) -> float:
    """Find the step at which a loss first reached the target, or +inf.

    Between two evaluations the loss is taken as linear; a loss that is not finite never counts.
    """
    place = place_of_target([loss for _, loss in _curve(steps, losses)], target)
    return amount_at(steps, place)


def final_target(losses: Sequence[float]) -> float:
    """Give the lowest final loss that at least three quarters of the runs end at or below.

    An upper quartile as an order statistic: the median would be out of reach for half of them.
    Runs without an end are +inf, and so is the target where more than a quarter are.
    """
    return sorted(losses)[math.ceil(MOST * len(losses)) - 1]


def place_of_target(losses: Sequence[float], target: float) -> float:
    """Find where in a list of evaluations the target was first reached: 1.5 is amid 1 and 2.

    Linear between two finite losses, else the evaluation that reached it; +inf where none did.
    """
    before = math.inf
    for index, loss in enumerate(losses):
        if math.isfinite(loss) and loss <= target:
            share = (before - target) / (before - loss) if math.isfinite(before) else 1.0
            return index - 1 + share
        before = loss
    return math.inf


def amount_at(amounts: Sequence[float], place: float) -> float:
    """Give how much (steps, seconds, tokens) was spent at a place between evaluations."""
    if math.isinf(place):
        return math.inf
    low, share = divmod(place, 1)
    first = float(amounts[int(low)])
    return first + (amounts[int(low) + 1] - first) * share if share else first


def step_log_ratio(baseline_steps: float, arm_steps: float) -> float | None:
    """Give the log ratio of steps to a target; None where neither run reached it."""
    if baseline_steps == arm_steps:
        return None if math.isinf(arm_steps) else 0.0
    return _log(arm_steps) - _log(baseline_steps)


def combined_log_ratios(
    step_ratios_by_seed: Sequence[float | None],
    time_ratios_by_replicate: Sequence[float],
    seed: int,
) -> tuple[float, ...]:
    """Add log ratios of steps and of seconds a step: log ratios of seconds to the target.

    Seeds and replicates are matched at random, by a drawn order that knows no value, so the sums
    are independent and alike around the sum of both centres, and the exact test stays valid. Give
    both lists in the order of their seeds and replicate numbers: then the result repeats, and
    swapped arms negate it. There are as many as the shorter list has. Where neither run reached
    the target (None) the difference is 0, where one did it is infinite.
    """
    generator = np.random.default_rng(seed)
    n = min(len(step_ratios_by_seed), len(time_ratios_by_replicate))
    seeds = generator.permutation(len(step_ratios_by_seed))[:n]
    replicates = generator.permutation(len(time_ratios_by_replicate))[:n]
    sums = []
    for i, j in zip(seeds, replicates, strict=True):
        steps = step_ratios_by_seed[i]
        sums.append(0.0 if steps is None else float(steps + time_ratios_by_replicate[j]))
    return tuple(sums)


def success_share(values: Sequence[float]) -> Share:
    """Count the runs that got there (finite values) and bound their share."""
    _refuse_nan(values)
    reached = sum(math.isfinite(value) for value in values)
    return Share(reached, len(values), *clopper_pearson(reached, len(values)))


def probability_of_improvement(baseline: Sequence[float], arm: Sequence[float]) -> float:
    """Give the chance that a run of the arm ends below one of the baseline, ties counted half.

    Source: Agarwal et al. 2021 (rliable); Mann and Whitney's U over the number of pairs.
    """
    _refuse_nan((*baseline, *arm))
    if not baseline or not arm:
        raise ValueError("one of the arms has no run: there is no pair to compare")
    wins = sum((b < a) + (b == a) / 2 for a in baseline for b in arm)
    return wins / (len(baseline) * len(arm))


def _curve(steps: Sequence[int], losses: Sequence[float]) -> list[tuple[int, float]]:
    if len(steps) != len(losses):
        raise ValueError(f"{len(steps)} steps do not go with {len(losses)} losses")
    if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
        raise ValueError("the steps of a curve increase")
    return list(zip(steps, losses, strict=True))


def _log(steps: float) -> float:
    if not steps > 0:
        raise ValueError(f"{steps} steps have no ratio")
    return math.log(steps)


def _refuse_nan(values: Sequence[float]) -> None:
    if any(math.isnan(value) for value in values):
        raise ValueError("a value is not a number")
