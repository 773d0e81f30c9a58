"""The stored form of profiles: a line a profiled cell in ``profiles.jsonl``, traces beside it.

Traces lie in ``traces/<session>/``, as torch-tb-profiler looks for them:
``<worker>.<milliseconds>.pt.trace.json.gz``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError
from bertopt_bench.measure.operator_costs import Point  # noqa: TC001 - pydantic reads it
from bertopt_bench.measure.trace_tables import TraceTables  # noqa: TC001 - pydantic reads it
from bertopt_bench.results.reading import in_words, read_folder, read_lines
from bertopt_bench.results.record import SCHEMA_VERSION, Status
from bertopt_bench.results.store import AppendOnlyFile, told
from bertopt_bench.results.stored import Number, Stored

if TYPE_CHECKING:
    from bertopt_bench.results.record import Session

PROFILES, TRACES = "profiles.jsonl", "traces"
_WORKER_LETTERS = 60


class Profile(Stored):
    """A cell whose steps were profiled, and what its trace says in sum.

    ``counted`` are points that a device's counters gave (ncu). ``trace_file`` is relative to the
    folder. ``modules_marked`` is false where the model was compiled, and so called no module.
    """

    schema_version: int = SCHEMA_VERSION
    session: str
    cell_id: str
    cell: dict[str, Any]
    label: str
    seed: int
    first_step: int = 2
    profiled_steps: int
    status: Status
    reason: str = ""
    started_utc: str
    elapsed_seconds: Number
    trace_file: str | None = None
    trace_bytes: int | None = None
    resident_bytes: int | None = None
    modules_marked: bool = True
    kernels_ran: tuple[str, ...] = ()
    tables: TraceTables | None = None
    counted: tuple[Point, ...] = ()

    @property
    def which(self) -> str:
        """Say which steps of the training were profiled."""
        last = self.first_step + self.profiled_steps - 1
        return f"step {last}" if self.profiled_steps == 1 else f"steps {self.first_step} to {last}"


@dataclass(frozen=True)
class Profiles:
    """What a folder of profiles holds."""

    path: Path
    sessions: tuple[Session, ...]
    profiles: tuple[Profile, ...]
    warnings: tuple[str, ...]

    @property
    def latest(self) -> tuple[Profile, ...]:
        """Give the profiles of the last session that has any."""
        last = self.profiles[-1].session if self.profiles else ""
        return tuple(profile for profile in self.profiles if profile.session == last)


def has_profiles(folder: Path | str) -> bool:
    """Say whether a folder is one of profiles."""
    return (Path(folder) / PROFILES).is_file()


def load_profiles(folder: Path | str) -> Profiles:
    """Read a folder of profiles.

    Raises:
        UserError: there is none, a line is damaged, or a newer version wrote it.
    """
    from pydantic import ValidationError

    from bertopt_bench.results.record import check_version

    path = Path(folder)
    contents, lines = read_folder(path), read_lines(path / PROFILES)
    profiles = []
    for number, fields in enumerate(lines.objects, start=1):
        where = f"{path / PROFILES}, line {number}"
        try:
            check_version(fields)
            profiles.append(Profile.model_validate(fields))
        except ValidationError as error:
            raise UserError(f"{where}: {in_words(error)}") from error
        except UserError as error:
            raise UserError(f"{where} {error}") from error
    return Profiles(path, contents.sessions, tuple(profiles), contents.warnings + lines.warnings)


def append_profile(folder: Path, profile: Profile) -> None:
    """Write a profile's line; the caller holds the folder (``store.ResultsFolder``)."""
    file = AppendOnlyFile(folder / PROFILES)
    try:
        file.append(profile.line())
    finally:
        file.close()


def trace_place(folder: Path, session: str, worker: str, milliseconds: int) -> Path:
    """Make the folder of a session's traces and name a trace in it.

    Raises:
        UserError: it cannot be made.
    """
    place = folder / TRACES / session
    with told(place):
        place.mkdir(parents=True, exist_ok=True)
    return place / f"{worker}.{milliseconds}.pt.trace.json.gz"


def worker_name(label: str, cell_id: str) -> str:
    """Name a cell as torch-tb-profiler names workers: its label as a file may be called, and id.

    >>> worker_name("lion · fp32", "0123456789ab")
    'lion-fp32-01234567'
    """
    plain = re.sub(r"[^A-Za-z0-9_=]+", "-", label).strip("-")[:_WORKER_LETTERS]
    return f"{plain}-{cell_id[:8]}"
