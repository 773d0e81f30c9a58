"""What a check of results has to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bertopt_bench.results.record import Record


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not hold: ``error``, or ``warning`` where numbers stand but mean less."""

    severity: str
    where: str
    text: str


def error(record: Record, text: str) -> Finding:
    """Say what does not hold of a record."""
    return Finding("error", place(record), text)


def warning(record: Record, text: str) -> Finding:
    """Say what makes a record's numbers mean less."""
    return Finding("warning", place(record), text)


def place(record: Record) -> str:
    """Name a record to a person."""
    return f"{record.cell_id} seed {record.seed} replicate {record.replicate} ({record.session})"
