"""Say in what two recorded measurements differ, and under which name each may be declared to.

What changes from start to start by itself (load, boot id) is left out; what was not recorded on one
side is not known, and is no difference.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.matrix.identity import canonical_json
from bertopt_bench.results.stored import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from bertopt_bench.results.arms import RecordedArm, RecordedSet
    from bertopt_bench.results.duels import Declaration
    from bertopt_bench.results.record import Session
    from bertopt_bench.results.record_parts import Code

GROUPS = {
    "torch": "torch's version and build",
    "python": "Python's version and implementation",
    "packages": "every other recorded package, and the hash over all that are installed",
    "version": "bertopt-bench's version",
    "commit": "the commit of the code, and what was not committed",
    "outside": "sources of your own entries",
    "machine": "all that is recorded of the machine",
    "threads": "thread count, affinity, thread variables",
    "workload": "text, tokenizer, batches, held-out text",
    "weights": "the initial weights",
    "matrix": "the matrix that was run (cells that both have are compared)",
}
"""What `--differs` may name besides a single key of the machine or the versions."""

PASSING = frozenset(
    {
        "boot_id_hash",
        "fingerprint",
        "load",
        "memory_available_bytes",
        "pressure",
        "runnable_threads",
        "steal_share_since_boot",
        "swap_free_bytes",
        "throttled_periods",
    }
)
"""Of the machine's keys those that a boot or a moment changes."""

THREADS = frozenset({"affinity", "variables", "nice"})
GPU_FACTS = ("name", "uuid_hash", "driver", "vbios", "mig", "ecc", "power_limit_watts")
DATA_HASHES = ("text_sha256", "tokenizer_sha256", "batches_sha256", "evaluation_sha256")
MEANINGS = {1: 1, 2: 1}
"""Schema versions with one number mean the same by the same fields."""

PROTOCOL = (
    "design",
    "rounds",
    "block_seconds",
    "least_block_steps",
    "rewarm_steps",
    "alpha",
    "family_error",
    "target_loss",
)
"""What of a duel's declaration is its definition; replicates and looks may differ."""
MOST_CHARACTERS = 60
_VERSIONS = "recorded versions"


@dataclass(frozen=True)
class Difference:
    """A fact with two values. Without ``fields`` it can not be declared away.

    ``count`` is in how many places it was met, ``place`` the first of them ("" for all of a set).
    """

    key: str
    a: str
    b: str
    fields: frozenset[str]
    place: str = ""
    count: int = 1

    def sentence(self) -> str:
        """Name the fact with both values."""
        where = f" ({self.place}" if self.place else ""
        more = f" and {self.count - 1} more" if where and self.count > 1 else ""
        return f"{self.key} is {self.a} in A and {self.b} in B{where}{more}{')' if where else ''}"


def check_fields(differs: Sequence[str], sets: Iterable[RecordedSet]) -> None:
    """Refuse a declared field that is no group and no recorded key.

    Raises:
        UserError: there is none of this name; the text has the nearest.
    """
    keys = {
        key
        for one in sets
        for session in one.sessions.values()
        for source in (session.machine, session.versions)
        for key in source
    }
    allowed = [*GROUPS, *sorted(keys - PASSING - set(GROUPS))]
    for field in differs:
        if field not in allowed:
            raise UserError(
                f"--differs {field}: no such field. Fields: {', '.join(GROUPS)}, and any single "
                f"key of the recorded machine or versions.{nearest(field, allowed)}"
            )


def merged(found: Iterable[Difference]) -> tuple[Difference, ...]:
    """Count equal differences, and those that only differ in their hashes' values."""
    first: dict[tuple[str, ...], Difference] = {}
    counts: Counter[tuple[str, ...]] = Counter()
    for one in found:
        kind = (one.key,) if one.place else (one.key, one.a, one.b)
        first.setdefault(kind, one)
        counts[kind] += 1
    return tuple(
        Difference(one.key, one.a, one.b, one.fields, one.place, counts[kind])
        for kind, one in sorted(first.items())
    )


def undeclared(found: Sequence[Difference], differs: Collection[str]) -> tuple[Difference, ...]:
    """Give what differs and was not declared to, nor has to by what was."""
    declared = set(differs) | {field for one in found for field in implied(one, differs)}
    return tuple(one for one in found if not declared & one.fields)


def implied(one: Difference, differs: Collection[str]) -> frozenset[str]:
    """Give what can not but differ where this does, as declared.

    Another package makes another hash over all of them, another version of ours another commit.
    """
    if not one.fields & set(differs):
        return frozenset()
    if "version" in one.fields:
        return frozenset({"commit"})
    return frozenset({"installed_hash"}) if _VERSIONS in one.fields else frozenset()


def of_sessions(a: Session, b: Session) -> Iterator[Difference]:
    """Compare where and with what two sessions ran, and what they were to measure."""
    yield from _keys(a.machine, b.machine, _machine_fields)
    yield from _keys(a.versions, b.versions, _version_fields)
    yield from of_codes(a.code, b.code)
    threads = (a.declared.get("threads"), b.declared.get("threads"))
    yield from _one("threads", *threads, frozenset({"threads"}))
    yield from _definitions(a, b)


def of_codes(a: Code, b: Code, place: str = "") -> Iterator[Difference]:
    """Compare which bertopt-bench ran, and which entries of the user's own."""
    yield from _one("version", a.version, b.version, frozenset({"version"}), place)
    commit = frozenset({"commit"})
    yield from _one("commit", a.commit, b.commit, commit, place)
    dirty = (a.dirty_hash or "committed", b.dirty_hash or "committed")
    yield from _one("dirty_hash", *dirty, commit, place)
    for name in sorted({*a.outside, *b.outside}):
        hashes = (a.outside.get(name, "none"), b.outside.get(name, "none"))
        yield from _one(f"outside {name}", *hashes, frozenset({"outside"}), place)


def of_arms(a: RecordedArm, b: RecordedArm) -> Iterator[Difference]:
    """Compare what the workers of an arm imported, as far as both recorded it."""
    theirs = dict(b.code)
    for name, value in a.code:
        module, _, kind = name.rpartition(".")
        fields = {
            "version": {"version"} if module == "bertopt_bench" else _version_fields(module),
            "implementation": {"python"},
            "python": {"python"},
        }.get(kind, {"commit"})
        yield from _one(name, value, theirs.get(name), frozenset(fields), f"arm {a.label}")


def of_hashes(a: Any, b: Any, place: str) -> Iterator[Difference]:
    """Compare what two trials or processes of one seed were fed and began from."""
    for name in DATA_HASHES:
        values = (getattr(a, name, None), getattr(b, name, None))
        yield from _one(name, *values, frozenset({"workload"}), place)
    weights = (a.initial_weights_sha256, b.initial_weights_sha256)
    yield from _one("initial_weights_sha256", *weights, frozenset({"weights"}), place)


def of_declarations(a: Declaration, b: Declaration) -> Iterator[Difference]:
    """Compare how two duels were to measure and judge."""
    ours, theirs = a.model_dump(), b.model_dump()
    for name in PROTOCOL:
        yield from _one(name, _said(ours[name]), _said(theirs[name]), frozenset())
    for metric in sorted({*a.margins} & {*b.margins}):
        margins = (_said(a.margins[metric]), _said(b.margins[metric]))
        yield from _one(f"margin of {metric}", *margins, frozenset())


def _definitions(a: Session, b: Session) -> Iterator[Difference]:
    meanings = (MEANINGS.get(a.schema_version), MEANINGS.get(b.schema_version))
    yield from _one("schema_version", *meanings, frozenset())
    for name, ours, theirs in leaves(a.declared.get("timing"), b.declared.get("timing")):
        yield from _one(f"timing.{name}", ours, theirs, frozenset())
    kinds = ["a duel" if "duel" in one.declared else "a matrix" for one in (a, b)]
    if kinds == ["a duel", "a duel"]:  # its digest has the arms in it, which are paired by cell
        return
    if kinds[0] != kinds[1] or a.matrix.get("digest") != b.matrix.get("digest"):
        ours, theirs = (
            f"{kind} {one.matrix.get('name')} ({one.matrix.get('digest')})"
            for kind, one in zip(kinds, (a, b), strict=True)
        )
        yield from _one("matrix", ours, theirs, frozenset({"matrix"}))


def _keys(
    a: Mapping[str, Any], b: Mapping[str, Any], fields: Callable[[str], set[str]]
) -> Iterator[Difference]:
    """Compare the keys that both recorded, nested ones by name; None is a value here."""
    for key in sorted({*a} & {*b} - PASSING):
        for name, ours, theirs in leaves(_stable(key, a[key]), _stable(key, b[key])):
            full = f"{key}.{name}" if name else key
            yield from _one(full, _said(ours), _said(theirs), frozenset(fields(key)))


def _machine_fields(key: str) -> set[str]:
    return {key, "machine", "threads"} if key in THREADS else {key, "machine"}


def _version_fields(key: str) -> set[str]:
    if key == "installed_hash":
        return {key, "packages"}
    if key in {"python", "implementation"}:
        return {key, "python", _VERSIONS}
    return {key, "torch" if key.startswith("torch") else "packages", _VERSIONS}


def _stable(key: str, value: Any) -> Any:
    """Leave out what a boot or a moment changes."""
    if key == "memory_bytes" and value:
        return f"{round(value / 2**30)} GiB"  # the kernel's own share changes from boot to boot
    if key == "gpus":
        return [{name: gpu.get(name) for name in GPU_FACTS} for gpu in value or ()]
    return value


def leaves(a: Any, b: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Walk two nested mappings together; what one lacks is None there."""
    if not (isinstance(a, dict) and isinstance(b, dict)):
        yield name, a, b
        return
    for key in sorted({*a, *b}):
        yield from leaves(a.get(key), b.get(key), f"{name}.{key}" if name else str(key))


def _said(value: Any) -> Any:
    return "none" if value is None else value


def _one(key: str, a: Any, b: Any, fields: frozenset[str], place: str = "") -> Iterator[Difference]:
    if a is not None and b is not None and to_json(a) != to_json(b):
        yield Difference(key, _written(key, a), _written(key, b), fields, place)


def _written(key: str, value: Any) -> str:
    text = value if isinstance(value, str) else canonical_json(to_json(value))
    if key.endswith(("_sha256", "commit", ".sources")):
        return text[:12]
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 3]}..."
