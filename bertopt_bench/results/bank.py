"""Bank what every duel's A/A arm said, by machine: the calibration grows with use.

Schema versions:
    1: the first; its entries do not say so.
    2: alarms and refusals are those at the calibration's own alpha, and not at the duel's.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError
from bertopt_bench.results.reading import read_lines
from bertopt_bench.results.store import AppendOnlyFile, told

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SCHEMA_VERSION = 2


def bank_file(cache: Path, fingerprint: str) -> Path:
    """Give the file of a machine: another fingerprint is another instrument."""
    return cache / "calibration" / f"{fingerprint}.jsonl"


def deposit(file: Path, entry: Mapping[str, Any]) -> None:
    """Add a duel's entry; one session counts once.

    Raises:
        UserError: the file cannot be written.
    """
    from bertopt_bench.results.stored import to_json

    stamped = {"schema_version": SCHEMA_VERSION, **entry}
    text = json.dumps(to_json(stamped), allow_nan=False, separators=(",", ":"))
    with _locked(file):
        opened = AppendOnlyFile(file)
        try:
            if all(one.get("session") != entry["session"] for one in opened.objects):
                opened.append(text.encode() + b"\n")
        finally:
            opened.close()


def withdraw(file: Path) -> tuple[dict[str, Any], ...]:
    """Give all entries of a machine; none where nothing was banked.

    Raises:
        UserError: the file is damaged, or a newer version of the package wrote into it.
    """
    entries = read_lines(file).objects
    for number, entry in enumerate(entries, start=1):
        version = entry.get("schema_version", 1)
        if version not in range(1, SCHEMA_VERSION + 1):
            raise UserError(
                f"{file}, line {number}: has schema version {version!r}; this bertopt-bench reads "
                f"1 to {SCHEMA_VERSION}. Install a newer one, or move the file away."
            )
    return entries


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold a machine's bank; another process waits until it is let go."""
    with told(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with told(file):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
