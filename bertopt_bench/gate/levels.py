"""Derive the gate's error rates from how many false alarms are bearable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertopt_bench.errors import UserError
from bertopt_bench.stats.planning import COUNTED
from bertopt_bench.stats.power import LEAST_REPLICATES, smallest_p

if TYPE_CHECKING:
    from bertopt_bench.gate.policy import Policy

MOST_SESSION_ERROR = 0.05
SIDES = 1
"""A gate asks for one direction only."""


@dataclass(frozen=True, slots=True)
class Levels:
    """The rates that hold in each session of a gate run.

    A false alarm needs two independent sessions that reject the same comparison though nothing is
    slower, so a rate of a session, squared, bounds that of a gate run.

    Attributes:
        session_error: chance that a session of the whole run rejects anything when all is alike.
        families: metrics x cells, among which it is split evenly.
        comparisons: of one duel, among which Holm splits a family's part.
    """

    session_error: float
    families: int
    comparisons: int

    @property
    def family_error(self) -> float:
        """Give the part of one metric of one cell."""
        return self.session_error / self.families

    @property
    def per_comparison(self) -> float:
        """Give the level that a p-value passes at whatever the others of its duel are."""
        return self.family_error / self.comparisons

    @property
    def false_alarms_per_1000_runs(self) -> float:
        """Bound the false alarms to expect in 1,000 gate runs."""
        return 1000 * self.session_error**2

    def needed_replicates(self) -> int:
        """Give the fewest replicates whose smallest p-value can reject."""
        count = LEAST_REPLICATES
        while smallest_p(count, SIDES) > self.per_comparison:
            count += 1
        return count


def derive(policy: Policy, comparisons: int) -> Levels:
    """Give the rates that keep to the policy's false alarms a year.

    Args:
        policy: what is gated, how often, and how many false alarms are bearable.
        comparisons: how many a duel has: two with an anchor, else one.
    """
    runs_a_year = 12 * policy.gate_runs_per_month
    rate = math.sqrt(policy.false_alarms_per_year / runs_a_year)
    families = len(policy.metrics) * len(policy.cells)
    return Levels(min(MOST_SESSION_ERROR, rate), families, comparisons)


def refuse_out_of_reach(policy: Policy, levels: Levels) -> None:
    """Refuse a policy that could never find a regression, before anything runs.

    Bytes that are the same in every replicate need no test, and are never out of reach.

    Raises:
        UserError: too few replicates, or seeds for the loss; it names how many are needed.
    """
    needed = levels.needed_replicates()
    for metric in policy.metrics:
        unit, n = ("seeds", policy.seeds) if metric == "loss" else ("replicates", policy.replicates)
        if n >= needed or metric == COUNTED:
            continue
        where = f"give the matrix {needed} seeds" if metric == "loss" else f"replicates = {needed}"
        raise UserError(
            f"{policy.file}: {n} {unit} cannot find a regression of {metric}: their smallest "
            f"p-value is {smallest_p(n, SIDES):.2g}, and {levels.per_comparison:.2g} is needed "
            f"({levels.session_error:.3g} over {levels.families} x {levels.comparisons} "
            f"comparisons). At least {needed} {unit} are needed: {where}, gate fewer cells, or "
            "accept more false_alarms_per_year."
        )
