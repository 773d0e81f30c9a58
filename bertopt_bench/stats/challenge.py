"""Where a newcomer stands among a protocol's published arms: losses, paired, and steps to targets.

Losses and steps join across machines; seconds never do, and there are none here.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertopt_bench.stats.convergence import (
    Share,
    final_target,
    loss_margin,
    steps_to_target,
    success_share,
)
from bertopt_bench.stats.speedups import ALPHA, FAMILY_ERROR, UNPAIRED
from bertopt_bench.stats.verdicts import Comparison, Rule, judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.results.duels import Finding

REPRODUCTION_CONFIDENCE = 0.99


@dataclass(frozen=True)
class Run:
    """One trial's curve: evaluated steps and losses, the planned end, whether it was lost."""

    steps: tuple[int, ...]
    losses: tuple[float, ...]
    planned: int
    lost: bool = False

    @property
    def final(self) -> float:
        """Give the loss after the last planned step, +inf where the run did not get there."""
        return self.after(self.planned)

    def after(self, step: int) -> float:
        """Give the loss after a step, +inf where the run was lost or not evaluated there."""
        loss = dict(zip(self.steps, self.losses, strict=True)).get(step, math.inf)
        return loss if math.isfinite(loss) and not self.lost else math.inf


@dataclass(frozen=True)
class Reproduction:
    """A published loss that was run again: inside the band of its seeds, and bit for bit or not."""

    seed: int
    published: float
    again: float
    low: float
    high: float
    identical: bool

    @property
    def holds(self) -> bool:
        """Say whether results of this machine may be joined to the published ones."""
        return self.identical or self.low <= self.again <= self.high


@dataclass(frozen=True)
class Reached:
    """A target: the loss, the median of steps to it over seeds (inf counts), and who got there."""

    target: float
    median_steps: float
    share: Share


@dataclass(frozen=True)
class Standing:
    """An arm: final losses by seed, what is found against the baseline, its targets.

    ``finding`` pairs by seed, below 0 nats where the arm ends lower, corrected over all arms by
    Holm; None for the baseline itself.
    """

    arm: str
    finals: Mapping[int, float]
    finding: Finding | None
    reached: tuple[Reached, ...]

    @property
    def median(self) -> float:
        """Give the median of the final losses; lost runs count as infinite."""
        return statistics.median(self.finals.values())


def baseline_targets(runs: Mapping[int, Run], shares: Sequence[float]) -> tuple[float, ...]:
    """Give the losses that the baseline has after shares of its steps: medians over its seeds.

    After all of them it is the loss that three quarters of its seeds reach (``final_target``).

    Raises ValueError where too few seeds were evaluated there and finished.
    """
    found = []
    for share in shares:
        at = round(share * max((run.planned for run in runs.values()), default=0))
        losses = [run.after(at) for run in runs.values()] or [math.inf]
        found.append(final_target(losses) if share == 1 else statistics.median(losses))
        if not math.isfinite(found[-1]):
            raise ValueError(f"too few seeds of the baseline have a loss after {at} steps")
    return tuple(found)


def reproduction(
    published: Mapping[int, Run], seed: int, again: Run, *, identical: bool
) -> Reproduction:
    """Hold a run against the published ones: a new one lies in their prediction interval.

    Source: the interval of one further observation, mean -+ t s sqrt(1 + 1/n), at 99 %.
    """
    from scipy.stats import t

    finals = [run.final for run in published.values()]
    if len(finals) < 3 or not all(map(math.isfinite, finals)):
        raise ValueError("a band takes three published runs or more, all finished")
    n, mean = len(finals), statistics.fmean(finals)
    quantile = float(t.ppf((1 + REPRODUCTION_CONFIDENCE) / 2, n - 1))
    reach = quantile * statistics.stdev(finals) * math.sqrt(1 + 1 / n)
    return Reproduction(
        seed, published[seed].final, again.final, mean - reach, mean + reach, identical
    )


def standings(
    arms: Mapping[str, Mapping[int, Run]], baseline: str, targets: Sequence[float]
) -> list[Standing]:
    """Rank arms by their median final loss; each is judged against the baseline, seed by seed.

    All arms are one family. The margin is a quarter of the baseline's standard deviation over seeds
    (``loss_margin``).
    """
    finals = {
        name: {seed: run.final for seed, run in sorted(runs.items())} for name, runs in arms.items()
    }
    finite = [loss for loss in finals[baseline].values() if math.isfinite(loss)]
    margin = loss_margin(finite) if len(finite) > 1 else 0.0
    comparisons = [
        _compared(baseline, name, finals[baseline], theirs)
        for name, theirs in finals.items()
        if name != baseline
    ]
    findings = judge(comparisons, Rule("loss", ALPHA, FAMILY_ERROR, margin))
    found = {finding.arm: finding for finding in findings}
    rows = [
        Standing(
            arm=name,
            finals=finals[name],
            finding=found.get(name),
            reached=tuple(_reached(runs, target) for target in targets),
        )
        for name, runs in arms.items()
    ]
    return sorted(rows, key=lambda one: one.median)


def _compared(
    baseline: str, name: str, ours: Mapping[int, float], theirs: Mapping[int, float]
) -> Comparison:
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return Comparison(baseline, name, (), UNPAIRED)
    of_both = ([side[seed] for seed in seeds] for side in (ours, theirs))
    return Comparison.paired("loss", baseline, name, *of_both)


def _reached(runs: Mapping[int, Run], target: float) -> Reached:
    steps = [
        math.inf if run.lost else steps_to_target(run.steps, run.losses, target)
        for run in runs.values()
    ]
    return Reached(target, statistics.median(steps), success_share(steps))
