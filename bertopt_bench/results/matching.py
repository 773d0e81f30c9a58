"""Say what of two recorded sets may be paired, and what differs between them.

Cells pair by content, never by name or place: a cell of A with the cell of B that is the same; a
duel's arms by their cell, injected delay and code, then by label, then where only one is left.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.results import differing
from bertopt_bench.results.arms import RecordedArm, RecordedSet, recorded_set, union_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

    from bertopt_bench.results.arms import Run
    from bertopt_bench.results.differing import Difference
    from bertopt_bench.results.record import Record
    from bertopt_bench.results.tables import Results

Item = TypeVar("Item")
MOST_NAMED = 5
MOST_KEYS = 2  # more of one group are declared by the group
COUNTED = ("ok", "diverged")
"""Statuses that say something of a cell: a diverged run has an infinite loss, and is no hole."""


@dataclass(frozen=True)
class Paired(Generic[Item]):
    """What A and B measured of one unit; ``same`` where it is one measurement, in both sets."""

    a: Item
    b: Item
    same: bool


@dataclass(frozen=True)
class ArmPair:
    """An arm of A and the same one of B."""

    label: str
    a: RecordedArm
    b: RecordedArm

    def trials(self) -> list[Paired[Record]]:
        """Pair the trials that count by seed and replicate, in their order."""
        return [
            Paired(a, b, a.line() == b.line()) for a, b in _joined(_trials(self.a), _trials(self.b))
        ]

    def trained(self) -> list[Paired[Record]]:
        """Pair one whole-length trial a seed: replicates of a seed are one trajectory."""
        return [
            Paired(a, b, a.line() == b.line())
            for a, b in _joined(_trained(self.a), _trained(self.b))
        ]

    def runs(self) -> list[Paired[Run]]:
        """Pair a duel's processes that ended well by seed and replicate."""
        return [
            Paired(a, b, a.session == b.session and a.process.line() == b.process.line())
            for a, b in _joined(_runs(self.a), _runs(self.b))
        ]


@dataclass(frozen=True)
class Matching:
    """Two sets, paired: what differs, what of it was not declared, what pairs with nothing."""

    a: RecordedSet
    b: RecordedSet
    pairs: tuple[ArmPair, ...]
    differences: tuple[Difference, ...]
    undeclared: tuple[Difference, ...]
    declared: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def refusal(self) -> str:
        """Say why nothing may be compared, empty where it may."""
        if not self.undeclared:
            return ""
        told = "; ".join(one.sentence() for one in self.undeclared)
        advice = []
        names = _least(self.undeclared)
        if names:
            options = " ".join(f"--differs {name}" for name in names)
            advice.append(f"Where that is what you compare, declare it: {options}.")
        if not all(one.fields for one in self.undeclared):
            advice.append("Numbers of two definitions do not compare: measure one set anew.")
        return f"{told}. {' '.join(advice)}"


def match(a: Results, b: Results, differs: Sequence[str] = ()) -> Matching:
    """Pair two sets and compare all that is recorded about what is paired.

    Raises:
        UserError: an unknown field in ``differs``, or no cell that both sets have.
    """
    sets = (recorded_set(a), recorded_set(b))
    differing.check_fields(differs, sets)
    labels = union_labels(sets)
    pairs = tuple(sorted(_paired(*sets, labels), key=lambda pair: pair.label))
    if not pairs:
        raise UserError(_nothing_common(sets, labels))
    found = differing.merged(_differences(*sets, pairs))
    return Matching(
        *sets,
        pairs=pairs,
        differences=found,
        undeclared=differing.undeclared(found, differs),
        declared=tuple(dict.fromkeys(differs)),
        notes=tuple(_notes(*sets, pairs, labels)),
    )


def unpinned(matching: Matching, pair: ArmPair) -> str:
    """Say why an arm is not the same cell and code in both sets, empty where it is.

    What its workers did not record is taken from their sessions.
    """
    found = [*differing.of_arms(pair.a, pair.b)]
    a, b = matching.a.duel, matching.b.duel
    modules = [any("." in name for name, _ in arm.code) for arm in (pair.a, pair.b)]
    if not all(modules) and a is not None and b is not None:
        named = {"torch", "python", "version", "commit"}
        found += [one for one in differing.of_sessions(a, b) if named & one.fields]
    theirs = {run.seed: run for run in _runs(pair.b).values()}
    for run in _runs(pair.a).values():
        if run.seed in theirs:
            place = f"seed {run.seed}"
            found += differing.of_hashes(run.process, theirs[run.seed].process, place)
    return "; ".join(one.sentence() for one in differing.merged(found))


def _paired(a: RecordedSet, b: RecordedSet, labels: Mapping[str, str]) -> Iterator[ArmPair]:
    """Pair arms by ever less: a pair needs a key that one arm alone has in either set."""
    left, right = list(a.arms), list(b.arms)
    keys: tuple[Callable[[RecordedArm], Hashable], ...] = (
        lambda arm: (arm.cell_id, arm.injected_share, arm.code),
        lambda arm: (arm.cell_id, arm.injected_share, arm.label),
        lambda arm: (arm.cell_id, arm.injected_share),
    )
    for key in keys:
        found = list(_joined(_single(left, key), _single(right, key)))
        for ours, theirs in found:
            left.remove(ours)
            right.remove(theirs)
            yield ArmPair(_label(ours, theirs, a, b, labels), ours, theirs)


def _label(
    ours: RecordedArm,
    theirs: RecordedArm,
    a: RecordedSet,
    b: RecordedSet,
    labels: Mapping[str, str],
) -> str:
    """Name a pair by its cell; in two duels by the arms' own labels."""
    if a.duel is None or b.duel is None:
        return labels[ours.cell_id]
    return ours.label if ours.label == theirs.label else f"{ours.label} / {theirs.label}"


def _single(
    arms: Sequence[RecordedArm], key: Callable[[RecordedArm], Hashable]
) -> dict[Hashable, RecordedArm]:
    counts = Counter(map(key, arms))
    return {key(arm): arm for arm in arms if counts[key(arm)] == 1}


def _joined(
    left: Mapping[Hashable, Item], right: Mapping[Hashable, Item]
) -> Iterator[tuple[Item, Item]]:
    return ((item, right[key]) for key, item in left.items() if key in right)


def _trials(arm: RecordedArm) -> dict[Hashable, Record]:
    counted = [record for record in arm.records if record.status in COUNTED]
    counted.sort(key=lambda record: (record.seed, record.replicate))
    return {(record.seed, record.replicate): record for record in counted}


def _trained(arm: RecordedArm) -> dict[Hashable, Record]:
    found: dict[Hashable, Record] = {}
    for record in _trials(arm).values():
        if record.steps == record.cell["workload"]["steps"]:
            found.setdefault(record.seed, record)
    return found


def _runs(arm: RecordedArm) -> dict[Hashable, Run]:
    return {run.key: run for run in arm.runs if run.process.status == "ok"}


def _differences(a: RecordedSet, b: RecordedSet, pairs: Iterable[ArmPair]) -> Iterator[Difference]:
    """Compare everything that stands behind the paired units, each pair of sessions once."""
    sessions: dict[tuple[str, str], None] = {}
    if a.duel is not None and b.duel is not None:
        sessions[a.duel.session, b.duel.session] = None
    if a.declaration is not None and b.declaration is not None:
        yield from differing.of_declarations(a.declaration, b.declaration)
    for pair in pairs:
        yield from differing.of_arms(pair.a, pair.b)
        for two in pair.trials():
            sessions[two.a.session, two.b.session] = None
            place = f"{pair.label} seed {two.a.seed}"
            yield from differing.of_codes(two.a.code, two.b.code)
            yield from differing.of_hashes(two.a, two.b, place)
        theirs = {run.seed: run for run in _runs(pair.b).values()}
        for run in {run.seed: run for run in _runs(pair.a).values()}.values():
            if run.seed in theirs:
                place = f"{pair.label} seed {run.seed}"
                yield from differing.of_hashes(run.process, theirs[run.seed].process, place)
    for ours, other in sessions:
        if ours in a.sessions and other in b.sessions:
            yield from differing.of_sessions(a.sessions[ours], b.sessions[other])


def _notes(
    a: RecordedSet, b: RecordedSet, pairs: Sequence[ArmPair], labels: Mapping[str, str]
) -> Iterator[str]:
    """Say what pairs with nothing, and what should give a reader pause."""
    for name, one, paired in (
        ("A", a, [pair.a for pair in pairs]),
        ("B", b, [pair.b for pair in pairs]),
    ):
        alone = [arm for arm in one.arms if arm not in paired]
        if alone:
            names = [labels[arm.cell_id] if one.duel is None else arm.label for arm in alone]
            share = f"{len(alone)} of {len(one.arms)} cells {'is' if len(alone) == 1 else 'are'}"
            yield f"{share} in {name} only: {_few(sorted(names))}"
        ended = Counter(r.status for arm in paired for r in arm.records if r.status not in COUNTED)
        for status, count in sorted(ended.items()):
            trials = "trial is" if count == 1 else "trials are"
            yield f"{count} {trials} {status.replace('_', ' ')} in {name}, which pairs with nothing"
        if one.other_duels:
            yield (
                f"{name} holds {one.other_duels + 1} sessions; the one with most replicates "
                "counts: times are never pooled over sessions"
            )
    yield from _lonely_seeds(pairs)
    yield from _changed_records(pairs)


def _lonely_seeds(pairs: Sequence[ArmPair]) -> Iterator[str]:
    """Say which seeds only one set has of a cell that both have."""
    found: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for pair in pairs:
        ours, theirs = ({r.seed for r in _trials(arm).values()} for arm in (pair.a, pair.b))
        for name, seeds in (("A", ours - theirs), ("B", theirs - ours)):
            if seeds and ours and theirs:
                found[name, tuple(sorted(seeds))].append(pair.label)
    for (name, alone), labels in sorted(found.items()):
        word = "seed" if len(alone) == 1 else "seeds"
        yield f"{word} {_few(list(map(str, alone)))} of {_few(labels)} in {name} only"


def _changed_records(pairs: Sequence[ArmPair]) -> Iterator[str]:
    names = set()
    for pair in pairs:
        names |= {t.a.session for t in pair.trials() if t.a.session == t.b.session and not t.same}
        names |= {r.a.session for r in pair.runs() if r.a.session == r.b.session and not r.same}
    for name in sorted(names):
        yield (
            f"session {name} is in both sets with contents that differ: one of them was changed "
            "after it was written"
        )


def _nothing_common(sets: Sequence[RecordedSet], labels: Mapping[str, str]) -> str:
    ours, theirs = (
        {labels[arm.cell_id] if one.duel is None else arm.label: arm for arm in one.arms}
        for one in sets
    )
    return (
        f"the sets have no cell in common. A has {_few(sorted(ours)) or 'none'}; B has "
        f"{_few(sorted(theirs)) or 'none'}.{_closest(ours, theirs)} Cells pair by their whole "
        "content, workload too: run one matrix for both."
    )


def _closest(ours: Mapping[str, RecordedArm], theirs: Mapping[str, RecordedArm]) -> str:
    """Say in what cells of one name differ; without such, which name is near another."""
    for name in sorted({*ours} & {*theirs}):
        found = [
            f"{key} ({a} and {b})"
            for key, a, b in differing.leaves(dict(ours[name].cell), dict(theirs[name].cell))
            if a != b
        ]
        return f" Those called '{name}' differ in {_few(found) or 'the injected delay'}."
    return next((text for name in sorted(ours) if (text := nearest(name, sorted(theirs)))), "")


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _least(found: Sequence[Difference]) -> list[str]:
    """Give the fewest fields that declare all that can be."""
    names = list(dict.fromkeys(_name(one) for one in found if one.fields))
    follow = {field for one in found for field in differing.implied(one, names)}
    names = [name for name in names if name not in follow]
    for group in ("machine", "packages"):
        inside = {_name(one) for one in found if group in one.fields} & {*names}
        if len(inside) > MOST_KEYS:
            names = [group, *(name for name in names if name not in inside)]
    return names


def _name(one: Difference) -> str:
    """Give the shortest word that declares a difference: its own key, else its group."""
    groups = [field for field in differing.GROUPS if field in one.fields]
    key = one.key.partition(".")[0]
    return key if key in one.fields and groups[:1] != ["torch"] else groups[0]
