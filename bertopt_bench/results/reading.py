"""Read results folders: a torn last line is dropped and said, any other damage is an error."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from bertopt_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bertopt_bench.results.duels import Replicate
    from bertopt_bench.results.record import Record, Session
    from bertopt_bench.results.stored import Stored

Line = TypeVar("Line", bound="Stored")

RECORDS = "records.jsonl"
SESSIONS = "sessions.jsonl"
REPLICATES = "replicates.jsonl"
INTERRUPTED = "interrupted.jsonl"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a folder holds, in the order of its files."""

    sessions: tuple[Session, ...]
    records: tuple[Record, ...]
    warnings: tuple[str, ...]
    replicates: tuple[Replicate, ...] = ()


@dataclass(frozen=True, slots=True)
class Lines:
    """A file's JSON objects; ``good_bytes`` is where the last whole line ends."""

    objects: tuple[dict[str, Any], ...]
    good_bytes: int
    warnings: tuple[str, ...]


def read_folder(folder: Path) -> Contents:
    """Read a results folder.

    Raises:
        UserError: there is none, a line is damaged, or a newer version wrote it.
    """
    if not folder.exists():
        raise not_there(folder)
    if not (folder / SESSIONS).is_file():
        here = [str(file.parent) for file in folder.parent.glob(f"*/{SESSIONS}")]
        raise UserError(
            f"{folder} is no results folder: it has no {SESSIONS}.{nearest(str(folder), here)}"
        )
    sessions = read_lines(folder / SESSIONS)
    records, replicates = read_lines(folder / RECORDS), read_lines(folder / REPLICATES)
    return Contents(
        fold_sessions(folder / SESSIONS, sessions.objects),
        tuple(_records(folder / RECORDS, records.objects)),
        sessions.warnings + records.warnings + replicates.warnings,
        tuple(_replicates(folder / REPLICATES, replicates.objects)),
    )


def not_there(path: Path) -> UserError:
    """Say that there is no such path, with the nearest that results may be read from."""
    here = [file.parent for file in path.parent.glob(f"*/{SESSIONS}")]
    here += path.parent.glob("*.json")
    near = [str(one) for one in here if nearest(path.stem, [one.stem])]  # not by ".json" alone
    return UserError(f"there is no file or folder {path}.{nearest(str(path), near)}")


def read_lines(file: Path) -> Lines:
    """Read the lines of a file; one that does not exist has none.

    Raises:
        UserError: the file cannot be read, or a line that is not the torn last one is no JSON.
    """
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return Lines((), 0, ())
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}.") from error
    *whole, rest = data.split(b"\n")
    objects = [_parse(file, number, line) for number, line in enumerate(whole, start=1)]
    good = len(data) - len(rest)
    if not rest:
        return Lines(tuple(objects), good, ())
    try:  # an object that parses is complete, even where an editor took its last newline away
        last = json.loads(rest)
    except ValueError:
        last = None
    if isinstance(last, dict):
        return Lines((*objects, last), len(data), ())
    torn = f"{file}: the last line was torn ({len(rest):,} bytes) and is left out"
    return Lines(tuple(objects), good, (torn,))


def fold_sessions(file: Path, objects: tuple[dict[str, Any], ...]) -> tuple[Session, ...]:
    """Join the lines about each session into one."""
    from bertopt_bench.results.record import EVENTS

    folded: dict[str, dict[str, Any]] = {}
    for number, fields in enumerate(objects, start=1):
        fields = dict(fields)  # noqa: PLW2901 - popped from below
        kind, name = fields.pop("kind", None), fields.get("session")
        if kind == "session" and name not in folded:
            folded[str(name)] = {**fields, "ceilings": [], "verdicts": []}
        elif kind not in EVENTS or name not in folded:
            raise UserError(
                f"{file}, line {number}: kind {kind!r} of session {name!r} does not fit here; "
                f"a session begins with kind 'session' and goes on with {', '.join(EVENTS)}."
            )
        elif kind in {"ceilings", "verdicts"}:
            folded[str(name)][kind].append(fields)
        else:
            folded[str(name)]["end"] = fields
    return tuple(_session(file, fields) for fields in folded.values())


def _session(file: Path, fields: dict[str, Any]) -> Session:
    from bertopt_bench.results.record import Session

    return _validated(Session, f"{file}, session {fields['session']!r}", fields)


def _records(file: Path, objects: tuple[dict[str, Any], ...]) -> Iterator[Record]:
    if objects:
        from bertopt_bench.results.record import Record

        yield from _checked(Record, file, objects)


def _replicates(file: Path, objects: tuple[dict[str, Any], ...]) -> Iterator[Replicate]:
    if objects:
        from bertopt_bench.results.duels import Replicate

        yield from _checked(Replicate, file, objects)


def _checked(model: type[Line], file: Path, objects: tuple[dict[str, Any], ...]) -> Iterator[Line]:
    """Read a file's objects as one model; an error names file and line."""
    for number, fields in enumerate(objects, start=1):
        yield _validated(model, f"{file}, line {number}", fields)


def _validated(model: type[Line], where: str, fields: dict[str, Any]) -> Line:
    from pydantic import ValidationError

    from bertopt_bench.results.record import check_version

    try:
        check_version(fields)
        return model.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"{where}: {in_words(error)}") from error
    except UserError as error:
        raise UserError(f"{where} {error}") from error


def in_words(error: Any) -> str:
    """Write a validation error: the first few fields and what is wrong with each."""
    found = error.errors(include_url=False)
    said = [f"{'.'.join(map(str, one['loc'])) or 'line'}: {one['msg']}" for one in found[:3]]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(said) + more


def _parse(file: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UserError(
            f"{file}, line {number}: is no JSON object ({line[:40]!r}); the file is damaged. "
            "Restore it from a copy, or delete this line to lose this trial only."
        )
    return value
