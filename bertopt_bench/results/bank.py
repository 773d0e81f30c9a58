"""Bank what every duel's A/A arm said, by machine: the calibration grows with use."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bertopt_bench.results.reading import read_lines
from bertopt_bench.results.store import AppendOnlyFile, told

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def bank_file(cache: Path, fingerprint: str) -> Path:
    """Give the file of a machine: another fingerprint is another instrument."""
    return cache / "calibration" / f"{fingerprint}.jsonl"


def deposit(file: Path, entry: Mapping[str, Any]) -> None:
    """Add a duel's entry; one session counts once.

    Raises:
        UserError: the file cannot be written.
    """
    from bertopt_bench.results.record import to_json

    with told(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    opened = AppendOnlyFile(file)
    try:
        if all(one.get("session") != entry["session"] for one in opened.objects):
            text = json.dumps(to_json(dict(entry)), allow_nan=False, separators=(",", ":"))
            opened.append(text.encode() + b"\n")
    finally:
        opened.close()


def withdraw(file: Path) -> tuple[dict[str, Any], ...]:
    """Give all entries of a machine; none where nothing was banked."""
    return read_lines(file).objects
