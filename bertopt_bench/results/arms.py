"""Read a result set as arms: the cells of a run, or the arms of one session of a duel."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.labels import cell_labels
from bertopt_bench.results.duels import CONTROL, Declaration, Verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bertopt_bench.results.duels import ArmRun, DeclaredArm, Replicate
    from bertopt_bench.results.record import Record, Session
    from bertopt_bench.results.tables import Results

INSTALLED = frozenset({"torch", "numpy"})
"""Modules whose version says all: nobody edits them in place."""


@dataclass(frozen=True)
class Run:
    """One process of an arm in a duel's replicate."""

    session: str
    replicate: int
    seed: int
    process: ArmRun

    @property
    def key(self) -> tuple[int, int]:
        """Give what pairs it: seed and replicate."""
        return self.seed, self.replicate


@dataclass(frozen=True)
class RecordedArm:
    """What a set holds of one cell, or of one arm of a duel.

    ``label`` is the arm's own in a duel; cells of a run are labelled by what varies over them.
    ``code`` is what its workers proved to have imported, empty for runs (records name their code).
    """

    label: str
    cell_id: str
    cell: Mapping[str, Any]
    injected_share: float = 0.0
    records: tuple[Record, ...] = ()
    runs: tuple[Run, ...] = ()
    code: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class RecordedSet:
    """A result set, ready to be paired with another.

    Of a duel's sessions the one with most whole replicates and trials counts (the later of two
    equal ones): times are never pooled over sessions.
    """

    sessions: Mapping[str, Session]
    arms: tuple[RecordedArm, ...]
    replicates: tuple[Replicate, ...] = ()
    duel: Session | None = None
    declaration: Declaration | None = None
    other_duels: int = 0

    @cached_property
    def last_verdicts(self) -> Verdicts | None:
        """Give what the duel itself said at its last look; None where it ended before one."""
        if self.duel is None or not self.duel.verdicts:
            return None
        return Verdicts.model_validate(self.duel.verdicts[-1])


def recorded_set(results: Results) -> RecordedSet:
    """Sort what a results folder holds by arm; a duel's A/A arm is a control, and none of them."""
    sessions = {session.session: session for session in results.sessions}
    duels = [session for session in results.sessions if "duel" in session.declared]
    if not duels:
        return RecordedSet(sessions, _cells(results.counted))
    duel = max(duels, key=lambda one: (_size(results, one), one.started_utc, one.session))
    declaration = Declaration.model_validate(duel.declared["duel"])
    return RecordedSet(
        sessions=sessions,
        arms=_arms(declaration, results, duel.session),
        replicates=tuple(sorted(_whole(results, duel), key=lambda one: one.replicate)),
        duel=duel,
        declaration=declaration,
        other_duels=len(duels) - 1,
    )


def union_labels(sets: Sequence[RecordedSet]) -> dict[str, str]:
    """Label every cell of all sets, by cell id, by what varies over them together."""
    cells = {arm.cell_id: arm.cell for one in sets for arm in one.arms}
    ordered = sorted(cells)
    return dict(zip(ordered, cell_labels([cells[name] for name in ordered]), strict=True))


def _cells(records: Iterable[Record]) -> tuple[RecordedArm, ...]:
    grouped: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        grouped[record.cell_id].append(record)
    labels = cell_labels([group[0].cell for group in grouped.values()])
    return tuple(
        RecordedArm(label, cell_id, group[0].cell, records=tuple(group))
        for label, (cell_id, group) in zip(labels, grouped.items(), strict=True)
    )


def _arms(declaration: Declaration, results: Results, session: str) -> tuple[RecordedArm, ...]:
    runs: dict[str, list[Run]] = defaultdict(list)
    for replicate in results.replicates:
        for process in replicate.arms if replicate.session == session else ():
            run = Run(session, replicate.replicate, replicate.seed, process)
            runs[process.arm].append(run)
    records: dict[str, list[Record]] = defaultdict(list)
    for record in results.counted:
        if record.session == session and record.arm is not None:
            records[record.arm].append(record)
    return tuple(
        RecordedArm(
            label=arm.label,
            cell_id=arm.cell_id,
            cell=arm.cell,
            injected_share=arm.injected_share,
            records=tuple(records[arm.label]),
            runs=tuple(sorted(runs[arm.label], key=lambda run: run.key)),
            code=_code(arm, runs[arm.label]),
        )
        for arm in declaration.arms
        if arm.label != CONTROL
    )


def _code(arm: DeclaredArm, runs: Sequence[Run]) -> tuple[tuple[str, str], ...]:
    """Give the facts that name an arm's code; one that changed from process to process is all."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, value in (("commit", arm.commit), ("python", arm.python)):
        if value is not None:
            found[name].add(value)
    for run in runs:
        for name, value in _imported(run.process.imported):
            found[name].add(value)
    return tuple((name, " and ".join(sorted(values))) for name, values in sorted(found.items()))


def _imported(proof: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Pick what a module is: version and sources, else commit; never where it lay."""
    for name in ("python", "implementation"):
        if proof.get(name) is not None:
            yield name, str(proof[name])
    for name, module in (proof.get("modules") or {}).items():
        if module is None:
            continue
        if module.get("version") is not None:
            yield f"{name}.version", str(module["version"])
        if name in INSTALLED:
            continue
        if module.get("sources") is not None:  # a commit that leaves them as they were is no change
            yield f"{name}.sources", str(module["sources"])
        elif module.get("commit") is not None:
            yield f"{name}.commit", module["commit"] + " with changes" * bool(module.get("dirty"))


def _whole(results: Results, session: Session) -> list[Replicate]:
    return [
        replicate
        for replicate in results.replicates
        if replicate.session == session.session and replicate.status == "ok"
    ]


def _size(results: Results, session: Session) -> int:
    trained = [record for record in results.records if record.session == session.session]
    return len(_whole(results, session)) + sum(record.status == "ok" for record in trained)
