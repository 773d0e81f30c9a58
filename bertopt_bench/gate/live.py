"""Get the gate's sessions live: duels of a base revision, and an anchor, with the working tree."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from bertopt_bench.errors import OutOfBudget, UserError
from bertopt_bench.gate.decide import Seen, refusal
from bertopt_bench.gate.duels import ArmSpec, DuelSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date
    from pathlib import Path

    from bertopt_bench.gate.decide import Need, Row
    from bertopt_bench.gate.duels import DuelOutcome, RunDuel
    from bertopt_bench.gate.levels import Levels
    from bertopt_bench.gate.policy import GatedCell, Policy
    from bertopt_bench.gate.result import GateSubject

BASE, ANCHOR, HEAD = "base", "anchor", "head"
FIRST_SHARE = 0.5
"""Of the budget, for the first sessions of all cells: the rest must be left to confirm."""


@dataclass(slots=True)
class LiveSessions:
    """Duels run on demand; each is a session of its own, in a folder of its own.

    Arms are the subject's commits, so that a branch that moves meanwhile changes nothing.
    """

    policy: Policy
    levels: Levels
    subject: GateSubject
    checkout: Path
    results: Path
    budget_seconds: float | None
    today: date
    run_duel: RunDuel
    mode: Literal["live"] = "live"
    warnings: list[str] = field(default_factory=list)
    spent_seconds: float = 0.0
    ran: list[Path] = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    def rows(self, cell: GatedCell) -> tuple[Row, ...]:  # noqa: ARG002 - all cells alike
        """Name what is decided of a cell."""
        baselines = (BASE,) if self.subject.anchor is None else (BASE, ANCHOR)
        return tuple((metric, one, HEAD) for metric in self.policy.metrics for one in baselines)

    def ask(self, cell: GatedCell, need: Need, seen: Sequence[Seen], waiting: int) -> Seen | str:
        """Run a session, or say why the budget has none; a crash of it is an invalid session.

        Raises:
            UserError: the very first session cannot be asked so.
        """
        allowed = self._allowance(need, seen, waiting)
        if isinstance(allowed, str):
            return allowed
        spec = self._spec(cell, need, len(seen) + 1, allowed)
        began = time.monotonic()
        try:
            outcome = self.run_duel(spec)
        except OutOfBudget as error:
            self.spent_seconds += time.monotonic() - began
            return f"'{cell.text}': {error}"
        except Exception as error:
            if isinstance(error, UserError) and not self.ran:
                raise
            return self._crashed(spec, need, error, time.monotonic() - began)
        self._note(spec, outcome.elapsed_seconds)
        self._warn_of_fewer(cell, spec, outcome)
        return self._heard(need, outcome)

    def folders(self) -> list[Path]:
        """Name the sessions' folders that were written."""
        return [folder for folder in self.ran if folder.is_dir()]

    def _allowance(self, need: Need, seen: Sequence[Seen], waiting: int) -> float | str | None:
        """Give the seconds that the next session may take; None: as many as it needs."""
        if self.budget_seconds is None:
            return None
        if not seen:
            return self.budget_seconds * FIRST_SHARE / len(self.policy.cells)
        left = self.budget_seconds - self.spent_seconds
        if left < seen[-1].seconds:
            return (
                f"the budget of {self.budget_seconds:.0f} s has {max(0.0, left):.0f} s left, the "
                f"last session took {seen[-1].seconds:.0f} s: no {need.purpose} session was run"
            )
        return max(left / waiting, seen[-1].seconds)

    def _spec(self, cell: GatedCell, need: Need, number: int, seconds: float | None) -> DuelSpec:
        pairs = tuple(dict.fromkeys((baseline, arm) for _, baseline, arm in need.rows))
        metrics = tuple(dict.fromkeys(metric for metric, _, _ in need.rows))
        told = self.subject
        revisions = {BASE: told.base_commit, ANCHOR: told.anchor_commit, HEAD: None}
        used = [name for name in revisions if any(name in pair for pair in pairs)]
        margins = self.policy.margins_of(cell.text, self.today)
        index = self.policy.cells.index(cell) + 1
        return DuelSpec(
            matrix=self.policy.matrix,
            base=(cell.text,),
            arms=tuple(
                ArmSpec(name, revision=revisions[name], checkout=self.checkout) for name in used
            ),
            comparisons=pairs,
            metrics=metrics,
            margins={metric: margins[metric] for metric in metrics},
            alpha=self.levels.family_error,
            family_error=self.levels.family_error,
            looks=(self.policy.replicates,),
            results=self.results / f"{index}-{cell.id}-session-{number}",
            budget_seconds=seconds,
            number=number,
        )

    def _note(self, spec: DuelSpec, seconds: float) -> None:
        self.spent_seconds += seconds
        self.ran.append(spec.results)

    def _warn_of_fewer(self, cell: GatedCell, spec: DuelSpec, outcome: DuelOutcome) -> None:
        """Say that a budget cut the replicates; of losses alone there are none to cut."""
        count, asked = outcome.verdicts.replicates, spec.looks[-1]
        cut = spec.budget_seconds is not None
        if cut and outcome.verdicts.state != "invalid" and count < asked:
            self.warnings.append(
                f"'{cell.text}': the budget paid for {count} of {asked} replicates in session "
                f"{outcome.session}"
            )

    def _heard(self, need: Need, outcome: DuelOutcome) -> Seen:
        """Take a session as it is, unless it is no new one or lacks an answer."""
        verdicts = outcome.verdicts
        state, reasons = verdicts.state, verdicts.reasons
        if outcome.session in self.known:
            state = "invalid"
            reasons = (*reasons, f"session {outcome.session} is not a new one")
        self.known.add(outcome.session)
        found = {(one.metric, one.baseline, one.arm): one for one in verdicts.findings}
        findings = {
            row: found.get(row) or refusal(row, "the session does not judge it")
            for row in need.rows
        }
        return Seen(
            outcome.session, need.purpose, state, reasons, findings, outcome.elapsed_seconds
        )

    def _crashed(self, spec: DuelSpec, need: Need, error: Exception, seconds: float) -> Seen:
        """Make an invalid session of one that raised: it must never pass, nor read as a verdict."""
        self._note(spec, seconds)
        reason = f"{type(error).__name__}: {error}"
        findings = {row: refusal(row, reason) for row in need.rows}
        return Seen(spec.results.name, need.purpose, "invalid", (reason,), findings, seconds)
