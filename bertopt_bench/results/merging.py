"""Join results folders of one matrix: the same bytes, whatever the order they are named in."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bertopt_bench.errors import UserError
from bertopt_bench.results.reading import RECORDS, SESSIONS, read_folder
from bertopt_bench.results.store import sync_folder, told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertopt_bench.results.reading import Contents
    from bertopt_bench.results.record import Record


def merge(folders: Sequence[Path], output: Path) -> tuple[str, ...]:
    """Write a new folder with the sessions and records of several; give the readers' warnings.

    Records are sorted by cell, seed, replicate and session; one that two folders share is kept
    once.

    Raises:
        UserError: the output exists, the folders hold different matrices, or one session name
            stands for two different sessions.
    """
    if output.exists():
        raise UserError(f"{output} exists already; name a folder that does not.")
    contents = [read_folder(folder) for folder in folders]
    _check_same_matrix(folders, contents)
    lines = {
        SESSIONS: _session_lines(contents),
        RECORDS: _record_lines([record for one in contents for record in one.records]),
    }
    with told(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
        try:
            made.chmod(0o755)
            for name, data in lines.items():
                _write(made / name, data)
            made.rename(output)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        sync_folder(output.parent)
    return tuple(sorted(warning for one in contents for warning in one.warnings))


def _check_same_matrix(folders: Sequence[Path], contents: Sequence[Contents]) -> None:
    digests = {
        str(session.matrix.get("digest")): folder
        for folder, one in zip(folders, contents, strict=True)
        for session in one.sessions
    }
    if len(digests) > 1:
        listed = ", ".join(f"{folder} ({digest})" for digest, folder in sorted(digests.items()))
        raise UserError(f"the folders hold different matrices: {listed}. Merge one matrix only.")


def _session_lines(contents: Sequence[Contents]) -> list[bytes]:
    """Write each session as its first line and its events, which are told apart by content."""
    import json

    from bertopt_bench.results.stored import to_json

    written: dict[str, list[bytes]] = {}
    for session in (session for one in contents for session in one.sessions):
        events = [{"kind": "ceilings", **event} for event in session.ceilings]
        events += [{"kind": "verdicts", **event} for event in session.verdicts]
        events += [{"kind": "end", **session.end}] if session.end is not None else []
        first = {"kind": "session", **json.loads(session.line())}
        lines = [
            json.dumps(to_json(line), separators=(",", ":")).encode() + b"\n"
            for line in (first, *events)
        ]
        if written.setdefault(session.session, lines) != lines:
            raise UserError(f"session {session.session} differs between the folders.")
    return [line for name in sorted(written) for line in written[name]]


def _record_lines(records: Sequence[Record]) -> list[bytes]:
    keyed = {
        (r.cell_id, r.seed, r.replicate, r.session, r.started_utc, line): line
        for r in records
        for line in (r.line(),)
    }
    return [keyed[key] for key in sorted(keyed)]


def _write(file: Path, lines: Sequence[bytes]) -> None:
    with file.open("wb") as stream:
        stream.writelines(lines)
        stream.flush()
        os.fsync(stream.fileno())
