"""The ledger of a tuning: a line a proposed point, a line what came of it, a line what was chosen.

``tuning.jsonl`` lies beside ``records.jsonl``, whose trials it names by their cells. It is
append-only; of outcomes and choices the last line counts.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bertopt_bench.errors import UserError
from bertopt_bench.results.reading import in_words, read_folder, read_lines
from bertopt_bench.results.record import SCHEMA_VERSION, check_version
from bertopt_bench.results.store import AppendOnlyFile
from bertopt_bench.results.stored import Number, Stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from bertopt_bench.results.record import Record, Session

TUNING = "tuning.jsonl"


class Point(Stored):
    """A point that was proposed, before any trial of it ran; numbers count from 1 in each arm.

    ``origin`` is default, grid, the sampler's name, or extension.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Literal["point"] = "point"
    arm: str
    number: int
    origin: str
    options: dict[str, float]
    cell_id: str
    at_utc: str = ""


class Outcome(Stored):
    """What the trials of a point gave: final losses and statuses by seed, and what they cost.

    ``loss`` is the mean over the tuning seeds, +inf where one diverged, failed or was pruned.
    Costs count every trial that was recorded, those that ran again too.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Literal["outcome"] = "outcome"
    arm: str
    number: int
    cell_id: str
    loss: Number
    losses: dict[str, Number]
    statuses: dict[str, str]
    pruned: bool = False
    trials: int
    steps: int
    seconds: Number


class Choice(Stored):
    """What was chosen for an arm: the best point (None: none finished), its edges, all costs."""

    schema_version: int = SCHEMA_VERSION
    kind: Literal["choice"] = "choice"
    arm: str
    number: int | None
    options: dict[str, float]
    cell_id: str | None = None
    loss: Number
    edges: tuple[str, ...] = ()
    points: int
    extensions: int
    trials: int
    steps: int
    seconds: Number


_KINDS: Mapping[str, type[Point | Outcome | Choice]] = {
    "point": Point,
    "outcome": Outcome,
    "choice": Choice,
}


@dataclass(frozen=True)
class Ledger:
    """The lines of a ledger: every point in order; the last outcome a point, the last choice."""

    points: tuple[Point, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    choices: tuple[Choice, ...] = ()
    warnings: tuple[str, ...] = ()

    def of(self, arm: str) -> tuple[Point, ...]:
        """Give an arm's points."""
        return tuple(point for point in self.points if point.arm == arm)

    def outcome(self, point: Point) -> Outcome | None:
        """Give what came of a point, None where it has not run to its end."""
        found = [one for one in self.outcomes if (one.arm, one.number) == (point.arm, point.number)]
        return found[0] if found else None

    def arms(self) -> list[str]:
        """List the arms in the order of their first points."""
        return list(dict.fromkeys(point.arm for point in self.points))


@dataclass(frozen=True)
class TuningResults:
    """A folder of tuning: its sessions and its ledger."""

    path: Path
    sessions: tuple[Session, ...]
    ledger: Ledger
    warnings: tuple[str, ...]
    sha256: str


class LedgerFile:
    """A ledger that this process writes; it holds the results folder."""

    def __init__(self, folder: Path) -> None:
        self._file = AppendOnlyFile(folder / TUNING)
        self.ledger = read_ledger(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, lines: Iterable[Point | Outcome | Choice]) -> Ledger:
        """Write what the ledger does not say yet, all of it or nothing; give the ledger then."""
        known = [*self.ledger.points, *self.ledger.outcomes, *self.ledger.choices]
        new = b"".join(line.line() for line in lines if line not in known)
        if new:
            self._file.append(new)
        self.ledger = read_ledger(self._file.path.parent)
        return self.ledger


def has_tuning(folder: Path | str) -> bool:
    """Say whether a folder has a ledger of tuning."""
    return (Path(folder) / TUNING).is_file()


def read_ledger(folder: Path) -> Ledger:
    """Read a folder's ledger; without a file it is empty.

    Raises:
        UserError: a line is damaged, or a newer version wrote it.
    """
    file = folder / TUNING
    lines = read_lines(file)
    found: dict[str, dict[tuple[str, int], Any]] = {kind: {} for kind in _KINDS}
    for number, fields in enumerate(lines.objects, start=1):
        line = _checked(f"{file}, line {number}", fields)
        key = (line.arm, 0 if isinstance(line, Choice) else line.number)
        found[line.kind].pop(key, None)
        found[line.kind][key] = line
    points, outcomes, choices = (tuple(found[kind].values()) for kind in _KINDS)
    return Ledger(points, outcomes, choices, lines.warnings)


def load_tuning(folder: Path | str) -> TuningResults:
    """Read a folder of tuning.

    Raises:
        UserError: there is none, a line is damaged, or a newer version wrote it.
    """
    path = Path(folder)
    contents, ledger = read_folder(path), read_ledger(path)
    warnings = contents.warnings + ledger.warnings
    return TuningResults(path, contents.sessions, ledger, warnings, ledger_sha256(path))


def ledger_sha256(folder: Path) -> str:
    """Hash a folder's ledger."""
    return hashlib.sha256((folder / TUNING).read_bytes()).hexdigest()


def final_loss(record: Record) -> float | None:
    """Give the held-out loss after a trial's last planned step, None where it has none."""
    whole = record.cell["workload"]["steps"]
    if record.status != "ok" or record.steps != whole:
        return None
    return next((seen.loss for seen in record.evaluations if seen.step == whole), None)


def _checked(where: str, fields: dict[str, Any]) -> Point | Outcome | Choice:
    from pydantic import ValidationError

    model = _KINDS.get(str(fields.get("kind")))
    if model is None:
        raise UserError(f"{where} has kind {fields.get('kind')!r}; known are {', '.join(_KINDS)}.")
    try:
        check_version(fields)
        return model.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"{where}: {in_words(error)}") from error
    except UserError as error:
        raise UserError(f"{where} {error}") from error
