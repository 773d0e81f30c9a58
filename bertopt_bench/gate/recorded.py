"""Get the gate's sessions from two recorded result sets: the first of each, then the second.

Two sets confirm a regression only where a second pair of sessions, independent of the first,
rejects too; where there is none, what the first pair says stays unconfirmed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from bertopt_bench.errors import UserError
from bertopt_bench.gate.decide import Seen, refusal
from bertopt_bench.gate.result import GateSubject
from bertopt_bench.results.tables import load_results

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import date
    from pathlib import Path

    from bertopt_bench.gate.decide import Need, Row
    from bertopt_bench.gate.levels import Levels
    from bertopt_bench.gate.policy import GatedCell, Policy
    from bertopt_bench.results.duels import Finding
    from bertopt_bench.results.tables import Results

    Pair = tuple[Results, Results]


class SetComparison(Protocol):
    """What the gate reads of a comparison of two sets."""

    @property
    def findings(self) -> Sequence[Finding]:
        """One a metric and arm; a refused one says why."""
        ...


class Compare(Protocol):
    """Compare two recorded sets, B by A: ``stats.sets.compare_sets``."""

    def __call__(
        self,
        a: Results,
        b: Results,
        *,
        metrics: Sequence[str],
        margins: Mapping[str, float | None],
        alpha: float,
        family_error: float,
        differs: Sequence[str],
        anchor: str | None,
        cells: Collection[str] | None,
    ) -> SetComparison:
        """Compare them.

        Raises:
            UserError: they cannot be compared at all.
        """
        ...


@dataclass(slots=True)
class RecordedSessions:
    """Pairs of recorded sessions, each set's in the order in which they began."""

    policy: Policy
    levels: Levels
    subject: GateSubject
    pairs: Sequence[Pair]
    anchor: str | None
    today: date
    compare: Compare
    sets: tuple[Path, ...]
    mode: Literal["recorded"] = "recorded"
    warnings: list[str] = field(default_factory=list)
    compared: dict[str, dict[Row, Finding]] = field(default_factory=dict)
    """By cell, what the first pair says: which rows there are is known only then."""

    @classmethod
    def load(
        cls,
        policy: Policy,
        levels: Levels,
        sets: tuple[Path, ...],
        anchor: str | None,
        today: date,
        compare: Compare,
    ) -> RecordedSessions:
        """Read both sets, pair their sessions, compare the first pair.

        Raises:
            UserError: a set cannot be read or has no session with results, or they lack a cell.
        """
        old, new = (_sessions(path) for path in sets)
        pairs = list(zip(old, new, strict=False))
        subject = GateSubject(base=sets[0].name, anchor=anchor, head=sets[1].name)
        made = cls(policy, levels, subject, pairs, anchor, today, compare, sets)
        for cell in policy.cells:
            made.compared[cell.text] = made._compare(cell, pairs[0])
        return made

    def rows(self, cell: GatedCell) -> tuple[Row, ...]:
        """Name what is decided of a cell."""
        return tuple(self.compared[cell.text])

    def ask(self, cell: GatedCell, need: Need, seen: Sequence[Seen], waiting: int) -> Seen | str:  # noqa: ARG002 - pairs are there, none must wait
        """Compare the next pair of sessions, or say that there is none."""
        count = len(self.pairs)
        if len(seen) == count:
            pairs = f"{count} pair{'s' * (count != 1)}"
            return f"the sets hold {pairs} of sessions: no {need.purpose} one is left"
        pair = self.pairs[len(seen)]
        name = " and ".join(side.sessions[0].session for side in pair)
        try:
            found = self._compare(cell, pair) if seen else self.compared[cell.text]
        except Exception as error:  # noqa: BLE001 - a crash must never pass, nor read as a verdict
            reason = f"{type(error).__name__}: {error}"
            refused = {row: refusal(row, reason) for row in need.rows}
            return Seen(name, need.purpose, "invalid", (reason,), refused)
        none = "this pair of sessions does not judge it"
        findings = {row: found.get(row) or refusal(row, none) for row in need.rows}
        return Seen(name, need.purpose, "valid", (), findings)

    def folders(self) -> list[Path]:
        """Name the two sets."""
        return list(self.sets)

    def _compare(self, cell: GatedCell, pair: Pair) -> dict[Row, Finding]:
        compared = self.compare(
            *pair,
            metrics=self.policy.metrics,
            margins=self.policy.margins_of(cell.text, self.today),
            alpha=self.levels.family_error,
            family_error=self.levels.family_error,
            differs=self.policy.differs,
            anchor=self.anchor,
            cells=(cell.id,),
        )
        return {
            (one.metric, f"A: {one.baseline}", f"B: {one.arm}"): one for one in compared.findings
        }


def _sessions(path: Path) -> list[Results]:
    """Give a set's sessions that left results, each as a set of its own."""
    whole = load_results(path)
    used = {one.session for one in whole.records} | {one.session for one in whole.replicates}
    ordered = sorted(whole.sessions, key=lambda one: (one.started_utc, one.session))
    found = [_only(whole, one.session) for one in ordered if one.session in used]
    if not found:
        raise UserError(f"{path} has no session with results: there is nothing to compare.")
    return found


def _only(whole: Results, session: str) -> Results:
    return dataclasses.replace(
        whole,
        sessions=tuple(one for one in whole.sessions if one.session == session),
        records=tuple(one for one in whole.records if one.session == session),
        replicates=tuple(one for one in whole.replicates if one.session == session),
    )
