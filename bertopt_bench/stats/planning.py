"""Say before a duel whether its question can be answered: reach, power, cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertopt_bench.errors import UserError
from bertopt_bench.stats.power import LEAST_REPLICATES, detectable, smallest_p

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertopt_bench.results.duels import Declaration

ASSUMED_SPREAD = 0.02  # between replicates, as a log ratio: what bound threads reach on two cores
START_SECONDS = 3.5  # a preloaded parent and its imports
UNITS = {"loss": "seeds", "time_to_target": "seeds and replicates"}
ARM_SECONDS = 3.0  # fork, assembly, burn-in, trace, two windows or more


@dataclass(frozen=True, slots=True)
class Prospect:
    """What the declared comparisons of one metric can hope for.

    ``detectable`` is in the metric's unit (a log ratio), or None where alpha is out of reach; for
    losses, whose spread nobody knows before the first run, in standard deviations over seeds.
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

    @property
    def reachable(self) -> bool:
        """Say whether any outcome at all could give a verdict."""
        return self.units >= LEAST_REPLICATES and self.smallest_p <= self.needed_p


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
    least = max(LEAST_REPLICATES, math.ceil(math.log2(declaration.sides / needed)))
    known = metric == "step_time"
    width = (spread or ASSUMED_SPREAD) if known else 1.0
    share = declaration.margins.get(metric) or 0.0
    margin = math.log1p(share) if known else 0.0
    found = detectable(units, needed, width, margin, declaration.sides) if units > 1 else None
    timed = metric in {"step_time", "peak_memory"}
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
            raise UserError(
                f"no outcome could give a verdict on {one.metric}: with {one.units} {one.unit} the "
                f"smallest p is {one.smallest_p:.2g}, and {one.needed_p:.2g} is needed for "
                f"{one.comparisons} comparison{'s' if one.comparisons > 1 else ''}. Take "
                f"{one.needed_units} {one.unit} or more, fewer comparisons, or a larger alpha."
            )


def describe(found: Sequence[Prospect]) -> str:
    """Write the plan, a line a metric."""
    return "\n".join(_line(one) for one in found)


def _line(one: Prospect) -> str:
    if one.detectable is None:
        power = "no difference can be found"
    elif one.spread is None:
        power = f"80 % power for {one.detectable:.2f} standard deviations over {one.unit}"
    else:
        power = (
            f"80 % power for {math.expm1(one.detectable):.1%} at a spread of {one.spread:.1%} "
            f"between {one.unit}"
        )
    cost = "" if one.seconds is None else f"; about {_duration(one.seconds)}"
    return (
        f"plan: {one.metric}, {one.comparisons} comparison{'s' if one.comparisons > 1 else ''}, "
        f"{one.units} {one.unit}: smallest p {one.smallest_p:.2g}, needed {one.needed_p:.2g} "
        f"({one.needed_units} {one.unit}); {power}{cost}"
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
