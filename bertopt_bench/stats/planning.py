"""Say before a duel whether its question can be answered: reach, power, cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertopt_bench.errors import OutOfBudget, UserError
from bertopt_bench.matrix.duels import PRESET_REPLICATES
from bertopt_bench.stats.power import (
    LEAST_REPLICATES,
    detectable,
    least_replicates,
    smallest_p,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertopt_bench.results.duels import Declaration

ASSUMED_SPREAD = 0.02  # between replicates, as a log ratio: what bound threads reach on two cores
START_SECONDS = 3.5  # a preloaded parent and its imports
UNITS = {"loss": "seeds", "time_to_target": "seeds and replicates"}
ARM_SECONDS = 3.0  # fork, assembly, burn-in, trace, two windows or more
BUDGET_ROOM = 1.2  # a machine may be slower than the forecast
COUNTED = "peak_memory"
"""The metric that is counted and not timed: what repeats exactly is judged without a test."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """What the declared comparisons of one metric can hope for.

    ``detectable`` is in the metric's unit (a log ratio), or None where alpha is out of reach; for
    losses, whose spread nobody knows before the first run, in standard deviations over seeds.
    ``needed_units`` are what a test takes, ``least_units`` what some outcome could do with.
    """

    metric: str
    comparisons: int
    units: int
    unit: str
    smallest_p: float
    needed_p: float
    needed_units: int
    detectable: float | None
    spread: float | None
    seconds: float | None
    trainings: int = 0

    @property
    def least_units(self) -> int:
        """Give the fewest units with which any outcome at all could give a verdict."""
        return LEAST_REPLICATES if self.metric == COUNTED else self.needed_units

    @property
    def reachable(self) -> bool:
        """Say whether any outcome at all could give a verdict."""
        tested = self.metric == COUNTED or self.smallest_p <= self.needed_p
        return tested and self.units >= LEAST_REPLICATES


def prospects(declaration: Declaration, spread: float | None = None) -> list[Prospect]:
    """Give what each declared metric's family can hope for.

    Args:
        declaration: what will be run.
        spread: standard deviation of this machine's step-time differences between replicates, as
            earlier duels here measured it; None for the assumed 2 %.
    """
    return [_prospect(declaration, metric, spread) for metric in declaration.metrics]


def _prospect(declaration: Declaration, metric: str, spread: float | None) -> Prospect:
    seeds, replicates = len(declaration.seeds), declaration.looks[-1]
    units = {"loss": seeds, "time_to_target": min(seeds, replicates)}.get(metric, replicates)
    looks, count = len(declaration.looks), max(1, len(declaration.comparisons))
    needed = min(declaration.alpha, declaration.family_error / count) / looks
    least = least_replicates(needed, declaration.sides)
    known = metric == "step_time"
    width = (spread or ASSUMED_SPREAD) if known else 1.0
    share = declaration.margins.get(metric) or 0.0
    margin = math.log1p(share) if known else 0.0
    found = detectable(units, needed, width, margin, declaration.sides) if units > 1 else None
    timed = metric != "loss"
    trained = metric in {"loss", "time_to_target"}
    return Prospect(
        metric=metric,
        comparisons=count,
        units=units,
        unit=UNITS.get(metric, "replicates"),
        smallest_p=smallest_p(units, declaration.sides),
        needed_p=needed,
        needed_units=least,
        detectable=found,
        spread=width if known else None,
        seconds=replicate_seconds(declaration) * replicates if timed else None,
        trainings=seeds * len(declaration.arms) if trained else 0,
    )


def replicate_seconds(declaration: Declaration) -> float:
    """Forecast what a replicate takes: starts, warm-ups, blocks."""
    arms = len(declaration.arms)
    blocks = declaration.rounds * arms * declaration.block_seconds * 1.25  # with re-warm steps
    return START_SECONDS + arms * ARM_SECONDS + blocks


def refuse_unreachable(found: Sequence[Prospect]) -> None:
    """Refuse a duel whose verdict no outcome could give.

    Raises:
        UserError: naming the metric, what is in reach and what it would take.
    """
    for one in found:
        if not one.reachable:
            raise UserError(f"no outcome could give a verdict on {one.metric}: {_shortage(one)}")


def refuse_short_budget(found: Sequence[Prospect], budget_seconds: float | None) -> None:
    """Refuse a budget that by forecast does not pay for the fewest replicates of any verdict.

    Raises:
        OutOfBudget: saying what that takes, and which budget does.
    """
    each = [one.seconds / one.units for one in found if one.seconds is not None]
    if budget_seconds is None or not each:
        return
    least = max(one.needed_units for one in found)
    pre_set = (*PRESET_REPLICATES, found[0].units)
    needed = min((n for n in pre_set if n >= least), default=least)
    seconds = needed * max(each)
    if seconds > budget_seconds:
        raise OutOfBudget(
            f"the budget of {budget_seconds:.0f} s is too small: {needed} replicates are needed "
            f"for the declared verdict, which take about {seconds:.0f} s, {max(each):.0f} s each. "
            f"Nothing was run. Give --budget {seconds * BUDGET_ROOM:.0f}s or more."
        )


def _shortage(one: Prospect) -> str:
    """Say what is in reach, and what it would take."""
    if one.metric == COUNTED or one.smallest_p <= one.needed_p:
        return (
            f"{one.units} {one.unit} are fewer than the {LEAST_REPLICATES} that the least verdict "
            f"stands on. Take {one.least_units} {one.unit} or more."
        )
    return (
        f"with {one.units} {one.unit} the smallest p is {one.smallest_p:.2g}, and "
        f"{one.needed_p:.2g} is needed for {_comparisons(one)}. Take {one.needed_units} {one.unit} "
        "or more, fewer comparisons, or a larger alpha."
    )


def describe(found: Sequence[Prospect]) -> str:
    """Write the plan, a line a metric."""
    return "\n".join(_line(one) for one in found)


def _line(one: Prospect) -> str:
    reach = f"smallest p {one.smallest_p:.2g}, needed {one.needed_p:.2g}"
    told = f"{reach} ({one.needed_units} {one.unit})"
    if one.metric == COUNTED:
        told = (
            "bytes that are the same in every replicate need no test, varying ones need "
            f"{one.needed_units} {one.unit} ({reach})"
        )
    if one.detectable is None:
        power = "" if one.metric == COUNTED else "; no difference can be found"
    elif one.spread is None:
        power = f"; 80 % power for {one.detectable:.2f} standard deviations over {one.unit}"
    else:
        power = (
            f"; 80 % power for {math.expm1(one.detectable):.1%} at a spread of {one.spread:.1%} "
            f"between {one.unit}"
        )
    cost = "" if one.seconds is None else f"; about {_duration(one.seconds)}"
    cost += f"; {one.trainings} training runs" if one.trainings else ""
    return f"plan: {one.metric}, {_comparisons(one)}, {one.units} {one.unit}: {told}{power}{cost}"


def _comparisons(one: Prospect) -> str:
    return f"{one.comparisons} comparison{'s' if one.comparisons > 1 else ''}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
