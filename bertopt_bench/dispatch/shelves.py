"""Folders of the cache that several processes make and use: made once, and let go when unused.

Beside a folder lies a file ``NAME.used``: its time says when the folder was last used, and each
process that uses it holds a shared lock on it for as long as it lives. The kernel frees the lock of
one that is killed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from bertopt_bench.errors import UserError
from bertopt_bench.workload.cache import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Say = Callable[[str], None]

_HELD: dict[Path, TextIO] = {}


@contextmanager
def locked(file: Path, say: Say) -> Iterator[None]:
    """Let one process at a time do what follows; the kernel frees the lock of a dead one."""
    with _opened(file) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that prepares the same code")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def hold(folder: Path) -> None:
    """Mark a folder as used now, and as in use for as long as this process lives.

    Call it before the folder is looked at: what is being evicted is gone when this returns.
    """
    stream = _opened(_mark(folder))
    fcntl.flock(stream, fcntl.LOCK_SH)
    os.utime(stream.fileno())
    before, _HELD[folder] = _HELD.get(folder), stream
    if before is not None:
        before.close()


def folders(shelf: Path, pattern: str = "*") -> list[Path]:
    """Give the folders of a shelf; what is being made or thrown away is hidden."""
    return [one for one in shelf.glob(pattern) if one.is_dir() and not one.name.startswith(".")]


def evict(
    candidates: list[Path], keep: int, remove: Callable[[Path], None] | None = None
) -> list[Path]:
    """Remove the least recently used folders beyond ``keep``; give those removed.

    One that a process uses stays, and so does one that cannot be removed.
    """
    gone = []
    for folder in sorted(candidates, key=_last_used, reverse=True)[keep:]:
        with suppress(OSError, UserError), _opened(_mark(folder)) as stream:
            # Refused where any process holds it, this one too. The file stays: another process may
            # be waiting for its lock.
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (remove or discard)(folder)
            gone.append(folder)
    return gone


def discard(folder: Path) -> None:
    """Remove a folder, out of sight first: it is there whole or not at all."""
    if folder.exists():
        with tempfile.TemporaryDirectory(prefix=".discarded-", dir=folder.parent) as bin_:
            folder.rename(Path(bin_) / "folder")
            shutil.rmtree(Path(bin_) / "folder", ignore_errors=True)


def _mark(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.used")


def _last_used(folder: Path) -> float:
    """Give the time of the last use; of a folder without a mark, that of its making."""
    for place in (_mark(folder), folder):
        with suppress(OSError):
            return place.stat().st_mtime
    return 0.0


def _opened(file: Path) -> TextIO:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("a")
    except OSError as error:
        raise UserError(
            f"The cache {file.parent} cannot be written ({error.strerror}). "
            f"{ENVIRONMENT} names another folder."
        ) from None
