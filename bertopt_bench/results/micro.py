"""Read what pytest-benchmark wrote: rows of calls, exploratory, which cannot gate.

Any file of pytest-benchmark's is read; those of ``benchmarks/micro`` say in ``extra_info`` what was
called, how it was timed, how exact it was and which share of the ceiling it reached.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError
from bertopt_bench.results.reading import RECORDS, REPLICATES, SESSIONS, not_there

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OPTIONS = (
    "batch_size",
    "heads",
    "seq_len",
    "head_size",
    "hidden_size",
    "vocabulary_size",
    "mask_rate",
    "padding",
    "mix",
    "parameters",
    "dtype",
    "direction",
    "cache",
    "device",
)
"""What tells cases of an operation apart, besides the implementation."""

NUMBERS = (
    "gb_per_second",
    "tflop_per_second",
    "share_of_ceiling",
    "error",
    "reference_error",
    "allowed_error",
    "host_us",
    "calls_a_batch",
)
_TEXTS = ("mix", "dtype", "direction", "cache", "device")
"""Options that are words; all others are numbers."""

_QUARTILES = ("median", "q1", "q3")
_MOST_BYTES = 500_000_000


@dataclass(frozen=True, slots=True)
class MicroRow:
    """One benchmark: seconds a call, with what was called.

    ``n`` counts the batches (pytest-benchmark's rounds); ``numbers`` are those of ``NUMBERS`` that
    the file has.
    """

    name: str
    operation: str
    implementation: str
    options: Mapping[str, Any]
    n: int
    median: float
    q1: float
    q3: float
    least: float
    numbers: Mapping[str, float]
    notes: Mapping[str, Any]
    host_bound: bool


@dataclass(frozen=True, slots=True)
class MicroFile:
    """A file of pytest-benchmark's."""

    path: Path
    at_utc: str
    version: str
    machine: Mapping[str, Any]
    commit: Mapping[str, Any]
    ceilings: tuple[Mapping[str, Any], ...]
    rows: tuple[MicroRow, ...]


def only_micro(paths: Sequence[Path | str]) -> bool:
    """Say whether a page is of pytest-benchmark's files; False: it is of results folders.

    Raises:
        UserError: some are and some are not, or are not there.
    """
    kinds = {Path(path): _is_file(Path(path)) for path in paths}
    if len(set(kinds.values())) > 1:
        file = next(path for path, micro in kinds.items() if micro)
        folder = next(path for path, micro in kinds.items() if not micro)
        if not folder.exists():
            raise not_there(folder)
        raise UserError(
            f"{file} is pytest-benchmark's and {folder} a results folder: one page shows either. "
            "Write two pages."
        )
    return all(kinds.values())


def refuse_exploratory(paths: Sequence[Path | str]) -> None:
    """Refuse pytest-benchmark's files where a verdict is asked for.

    Raises:
        UserError: one of them is such a file.
    """
    for path in map(Path, paths):
        if _is_file(path):
            read_micro(path)  # what it is not is told first
            raise _exploratory(path)


def refuse_as_policy(path: Path) -> None:
    """Refuse pytest-benchmark's file where a gate's policy is asked for.

    Raises:
        UserError: it is such a file; whatever else is no policy, the policy's own reader tells.
    """
    try:
        _document(path)
    except UserError:
        return
    raise _exploratory(path)


def _exploratory(path: Path) -> UserError:
    return UserError(
        f"{path} is pytest-benchmark's: one process, nothing paired, no A/A arm. It is exploratory "
        "and can neither gate nor be compared. For a verdict: bertopt-bench duel --micro OPERATION "
        "--arm A --arm B."
    )


def read_micro(path: Path | str) -> MicroFile:
    """Read a file of pytest-benchmark's.

    Raises:
        UserError: it cannot be read, is no JSON, or none of pytest-benchmark's; a row is damaged.
    """
    path = Path(path)
    document = _document(path)
    rows = []
    for number, row in enumerate(document["benchmarks"]):
        try:
            rows.append(_row(row))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{path}: benchmark {number} is damaged ({type(error).__name__}: {error}). Write "
                "the file again: pytest benchmarks/micro --benchmark-json FILE."
            ) from error
    if not rows:
        raise UserError(f"{path} holds no benchmark: none ran, or all failed.")
    _refuse_twice(path, rows)
    return MicroFile(
        path=path,
        at_utc=str(document.get("datetime", "")),
        version=str(document.get("version", "")),
        machine=_table(document.get("machine_info")),
        commit=_table(document.get("commit_info")),
        ceilings=_ceilings(path, document.get("ceilings") or []),
        rows=tuple(rows),
    )


def _refuse_twice(path: Path, rows: Sequence[MicroRow]) -> None:
    """Refuse one case twice: a file is one session's, and times of two are in no one table.

    Rows that are none of ``benchmarks/micro``'s are told apart by their names alone.
    """
    seen = set()
    for row in rows:
        case = (row.operation, row.implementation, *sorted(row.options.items()))
        if case in seen and row.implementation != row.name:
            told = ", ".join(f"{key} {value}" for key, value in row.options.items())
            raise UserError(
                f"{path} holds {row.operation} '{row.implementation}' twice ({told}): it was "
                "joined from several sessions, or a case ran twice. Times of two sessions are "
                "never in one table: give the files as pytest wrote them, each by itself."
            )
        seen.add(case)


def _ceilings(path: Path, given: Any) -> tuple[Mapping[str, Any], ...]:
    """Give the ceilings, whose rates are numbers."""
    try:
        for one in given:
            rates = [*(one.get("matmul_flops_per_second") or {}).values()]
            for rate in [*rates, one.get("bandwidth_bytes_per_second") or 1.0]:
                _seconds(rate)
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: its ceilings are damaged ({error}).") from error
    return tuple(given)


def _is_file(path: Path) -> bool:
    """Say whether a path is a file that may be pytest-benchmark's."""
    return path.is_file() and path.name not in {RECORDS, SESSIONS, REPLICATES}


def _document(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{path} is larger than {_MOST_BYTES:,} bytes.")
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(
            f"{path} is no JSON ({error}). A page takes results folders, or what pytest wrote "
            "with --benchmark-json."
        ) from error
    wanted = ("benchmarks", "machine_info", "version")
    ours = isinstance(document, dict) and isinstance(document.get("benchmarks"), list)
    if not ours or not document.keys() & set(wanted[1:]):
        raise UserError(
            f"{path} is JSON but none of pytest-benchmark's, which has {', '.join(wanted)}. Write "
            "one with: pytest benchmarks/micro --benchmark-json FILE."
        )
    found: dict[str, Any] = document
    return found


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _row(row: Mapping[str, Any]) -> MicroRow:
    stats, info = row["stats"], dict(row.get("extra_info") or {})
    known = {"operation", "implementation", "host_bound", *OPTIONS, *NUMBERS}
    params = info if "operation" in info else _fitting(dict(row.get("params") or {}))
    n, median, q1, q3 = int(stats["rounds"]), *map(_seconds, map(stats.get, _QUARTILES))
    if n < 1 or not q1 <= median <= q3:
        raise ValueError(f"{n} rounds, quartiles {q1} and {q3} about {median}")
    return MicroRow(
        name=str(row["name"]),
        operation=str(info.get("operation") or row.get("group") or "other"),
        implementation=str(info.get("implementation") or row["name"]),
        options={key: _option(key, params[key]) for key in OPTIONS if params.get(key) is not None},
        n=n,
        median=median,
        q1=q1,
        q3=q3,
        least=_seconds(stats["min"]),
        numbers={key: float(info[key]) for key in NUMBERS if _is_number(info.get(key))},
        notes={key: value for key, value in info.items() if key not in known},
        host_bound=bool(info.get("host_bound", False)),
    )


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{seconds} are no seconds")
    return seconds


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _option(key: str, value: Any) -> Any:
    """Give an option's value."""
    if isinstance(value, str) if key in _TEXTS else _is_number(value) and value >= 0:
        return value
    raise ValueError(f"{key} is {value!r}")


def _fitting(params: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of another suite's parameters those that mean here what their names say."""
    kept = {}
    for key, value in params.items():
        with suppress(ValueError):
            kept[key] = _option(key, value)
    return kept
