"""Write results folders: append-only, one writer, each line safe on disk before the next trial."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bertopt_bench.errors import UserError
from bertopt_bench.results.pending import Pending, find_pending
from bertopt_bench.results.reading import (
    INTERRUPTED,
    RECORDS,
    REPLICATES,
    SESSIONS,
    in_words,
    read_folder,
    read_lines,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.matrix.cells import TrialPlan
    from bertopt_bench.results.duels import Replicate
    from bertopt_bench.results.record import Record

LOCK = "lock"
PARTIAL = "partial"


class AppendOnlyFile:
    """A file of lines that is whole after every append, or says why it is not."""

    def __init__(self, path: Path) -> None:
        """Open the file; a torn last line is cut off, a missing last newline is added."""
        lines = read_lines(path)
        self.path, self.warnings, self.objects = path, lines.warnings, lines.objects
        with told(path):
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self.length = lines.good_bytes
            os.ftruncate(self.descriptor, self.length)
            sync_folder(path.parent)
        if self.length and os.pread(self.descriptor, 1, self.length - 1) != b"\n":
            self.append(b"\n")

    def append(self, line: bytes) -> None:
        """Write a line and wait until it is on disk; what cannot be written whole is taken back.

        Raises:
            UserError: no space, or the folder went away; everything before is kept.
        """
        with told(self.path):
            try:
                written = 0
                while written < len(line):
                    written += os.write(self.descriptor, line[written:])
                os.fsync(self.descriptor)
            except OSError:
                with suppress(OSError):  # a reader drops a torn last line as well
                    os.ftruncate(self.descriptor, self.length)
                raise
        self.length += len(line)

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)


class ResultsFolder:
    """A results folder that this process alone may write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warnings: list[str] = []
        self._lock = _take_lock(path)
        try:
            self._sessions = AppendOnlyFile(path / SESSIONS)
            self._records = AppendOnlyFile(path / RECORDS)
            there = (path / REPLICATES).exists()
            self._replicates = AppendOnlyFile(path / REPLICATES) if there else None
            for file in (self._sessions, self._records, self._replicates):
                self.warnings += () if file is None else file.warnings
            self._keep_interrupted()
        except BaseException:
            os.close(self._lock)
            raise

    @classmethod
    def open(cls, path: Path, matrix_digest: str) -> Self:
        """Open a folder for a matrix, or make it.

        Raises:
            UserError: another run uses it, it holds another matrix, it is damaged or read-only.
        """
        folder = cls(path)
        try:
            folder._check_matrix(matrix_digest)
        except BaseException:
            folder.close()
            raise
        return folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files and let another run have the folder."""
        self._sessions.close()
        self._records.close()
        if self._replicates is not None:
            self._replicates.close()
        os.close(self._lock)

    @property
    def has_sessions(self) -> bool:
        """Say whether anything was ever run into this folder."""
        return self._sessions.length > 0

    def start_session(self, fields: Mapping[str, Any]) -> str:
        """Write a session's first line; give its name, a new one where none is given."""
        from bertopt_bench.results.record import Session

        now = datetime.now(UTC)
        given = {
            "session": f"{now:%Y-%m-%dT%H-%M-%SZ}-{secrets.token_hex(2)}",
            "started_utc": now.isoformat(timespec="seconds"),
            **fields,
        }
        line = json.loads(_validated(Session, given).line())
        self._append_session_line({"kind": "session", **line})
        return str(given["session"])

    def append_session_event(self, event: Mapping[str, Any]) -> None:
        """Write a later line of a session: ``kind`` is one of ``record.EVENTS``."""
        from bertopt_bench.results.record import EVENTS

        if event.get("kind") not in EVENTS or not event.get("session"):
            raise ValueError(f"an event has a session and a kind of {EVENTS}, not {dict(event)!r}")
        self._append_session_line(dict(event))

    def append(self, fields: Mapping[str, Any]) -> Record:
        """Write a trial's record; its partial curve is no longer needed then."""
        from bertopt_bench.results.record import Record

        record: Record = _validated(Record, fields)
        self._records.append(record.line())
        with suppress(OSError):  # the record is safe; what is left over is found by the next run
            self._partial(record.cell_id, record.seed, record.replicate).unlink(missing_ok=True)
            (self.path / PARTIAL).rmdir()
        return record

    def append_replicate(self, replicate: Replicate) -> None:
        """Write a duel's replicate; the file comes with the first one."""
        if self._replicates is None:
            self._replicates = AppendOnlyFile(self.path / REPLICATES)
        self._replicates.append(replicate.line())

    def append_partial(
        self, cell_id: str, seed: int, replicate: int, line: Mapping[str, Any]
    ) -> None:
        """Keep what a running trial has shown so far, in case that it never ends."""
        from bertopt_bench.results.stored import to_json

        file = self._partial(cell_id, seed, replicate)
        with told(file):
            file.parent.mkdir(exist_ok=True)
            with file.open("ab") as stream:
                stream.write(json.dumps(to_json(dict(line))).encode() + b"\n")

    def pending(
        self,
        trials: Sequence[TrialPlan],
        code: Mapping[str, Any],
        texts: Mapping[str, Mapping[str, Any] | None] | None = None,
    ) -> Pending:
        """Say which planned trials have no record, or a stale one.

        Args:
            trials: the plan.
            code: the package's version, commit and dirty_hash now.
            texts: the prepared text by cell id, where it is known (see ``find_pending``).
        """
        records = read_folder(self.path).records if self.has_sessions else ()
        return find_pending(trials, records, code, texts or {})

    def _check_matrix(self, digest: str) -> None:
        starts = [line for line in self._sessions.objects if line.get("kind") == "session"]
        there = starts[-1]["matrix"] if starts else {"digest": digest}
        if there.get("digest") != digest:
            raise UserError(
                f"{self.path} holds results of another matrix or of other code, or of this one "
                f"before it was changed ('{there.get('name')}', {there.get('digest')}; now "
                f"{digest}). Start another folder with --new, or name one with --results."
            )

    def _append_session_line(self, fields: dict[str, Any]) -> None:
        from bertopt_bench.results.stored import to_json

        text = json.dumps(to_json(fields), allow_nan=False, separators=(",", ":"))
        self._sessions.append(text.encode() + b"\n")

    def _partial(self, cell_id: str, seed: int, replicate: int) -> Path:
        return self.path / PARTIAL / f"{cell_id}-{seed}-{replicate}.jsonl"

    def _keep_interrupted(self) -> None:
        """Move what a killed run's last trial had shown to where it is kept for good."""
        left = sorted((self.path / PARTIAL).glob("*.jsonl"))
        if not left:
            return
        kept = AppendOnlyFile(self.path / INTERRUPTED)
        try:
            for file in left:
                lines = read_lines(file)
                cell_id, seed, replicate = file.stem.rsplit("-", 2)
                trial = {"cell_id": cell_id, "seed": int(seed), "replicate": int(replicate)}
                text = json.dumps({**trial, "lines": lines.objects}, separators=(",", ":"))
                kept.append(text.encode() + b"\n")
                self.warnings.append(
                    f"trial {file.stem} was interrupted after {len(lines.objects)} evaluations; "
                    f"its curve is kept in {kept.path}, and it runs again"
                )
                file.unlink()
        finally:
            kept.close()


class told:  # noqa: N801 - read as a word: `with told(path):`
    """Turn a system error about a file into text that says what to do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            raise UserError(
                f"{self.path} cannot be written: {error.strerror}. What was written before is "
                "kept. Free space or make the folder writable, and run again; or name another "
                "folder with --results."
            ) from error


def next_free(folder: Path) -> Path:
    """Give the folder, or the first of ``folder-2``, ``folder-3``, ... that does not exist."""
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free


def sync_folder(folder: Path) -> None:
    """Wait until a new file's name is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(target: Path, text: str) -> None:
    """Write a file beside its place, wait until it is on disk, and move it there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    beside = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(0o644)
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def _take_lock(path: Path) -> int:
    """Lock the folder for this process; the lock goes when the process does.

    Raises:
        UserError: another process has it, or the folder cannot be made.
    """
    with told(path):
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                raise UserError(
                    f"{path} is in use by another run (process {holder or 'unknown'}). Wait for "
                    "it, or name another folder with --results."
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def _validated(model: Any, fields: Mapping[str, Any]) -> Any:
    """Check what is to be written: a wrong field is a mistake of ours, never of the user's."""
    from pydantic import ValidationError

    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        raise ValueError(f"{model.__name__} refused: {in_words(error)}") from error
