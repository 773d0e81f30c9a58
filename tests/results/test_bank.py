"""The machine's bank of calibration entries: a line a duel, a session once, one writer."""

from __future__ import annotations

import fcntl
import json
import math
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from bertopt_bench.errors import UserError
from bertopt_bench.results import bank
from bertopt_bench.results.bank import SCHEMA_VERSION, bank_file, deposit, withdraw

if TYPE_CHECKING:
    from pathlib import Path

    from bertopt_bench.results.store import AppendOnlyFile

NOW = {"schema_version": SCHEMA_VERSION}
GUARD_SECONDS = 60.0  # how long a test that went wrong hangs before it fails


def test_what_is_deposited_comes_back_in_order(tmp_path: Path) -> None:
    """Oracle: the entries as they were given; numbers that are not finite as their words."""
    file = bank_file(tmp_path, "f1")
    deposit(file, {"session": "a", "estimate": 0.1, "false_alarm": False})
    deposit(file, {"session": "b", "estimate": math.inf, "injected": {"found": True}})

    assert withdraw(file) == (
        {**NOW, "session": "a", "estimate": 0.1, "false_alarm": False},
        {**NOW, "session": "b", "estimate": "inf", "injected": {"found": True}},
    )


def test_a_session_counts_once(tmp_path: Path) -> None:
    """Oracle: the first entry stands: a second one would be the same duel again."""
    file = bank_file(tmp_path, "f1")
    deposit(file, {"session": "a", "estimate": 0.1})
    deposit(file, {"session": "a", "estimate": 0.2})

    assert withdraw(file) == ({**NOW, "session": "a", "estimate": 0.1},)


def test_another_machine_has_another_bank(tmp_path: Path) -> None:
    """Oracle: another fingerprint is another instrument."""
    deposit(bank_file(tmp_path, "f1"), {"session": "a"})

    assert withdraw(bank_file(tmp_path, "f2")) == ()


def test_a_torn_last_entry_is_dropped_and_the_next_is_whole(tmp_path: Path) -> None:
    """Oracle: a file cut in the middle of its second line."""
    file = bank_file(tmp_path, "f1")
    deposit(file, {"session": "a"})
    deposit(file, {"session": "b"})
    file.write_bytes(file.read_bytes()[:-5])

    assert withdraw(file) == ({**NOW, "session": "a"},)
    deposit(file, {"session": "c"})
    assert withdraw(file) == ({**NOW, "session": "a"}, {**NOW, "session": "c"})


def test_a_bank_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Oracle: a regular file stands where the folder should be."""
    (tmp_path / "calibration").write_text("")

    with pytest.raises(UserError, match="cannot be written"):
        deposit(bank_file(tmp_path, "f1"), {"session": "a"})


# --- versions ---


def written(folder: Path, *entries: dict[str, Any]) -> Path:
    file = bank_file(folder, "f1")
    file.parent.mkdir()
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return file


def test_entries_from_before_versions_are_read_and_added_to(tmp_path: Path) -> None:
    """Oracle: the lines as they were written, one by a version that had no version."""
    file = written(tmp_path, {"session": "a", "false_alarm": True})
    deposit(file, {"session": "a"})
    deposit(file, {"session": "b"})

    assert withdraw(file) == ({"session": "a", "false_alarm": True}, {**NOW, "session": "b"})


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 0, "two", None])
def test_entries_of_an_unknown_version_are_refused(tmp_path: Path, version: Any) -> None:
    """Oracle: as everywhere: what a newer version wrote may mean something else."""
    file = written(tmp_path, {"session": "a"}, {"session": "b", "schema_version": version})

    with pytest.raises(UserError, match=rf"line 2: has schema version .*1 to {SCHEMA_VERSION}"):
        withdraw(file)


# --- two writers ---


def test_the_bank_is_held_from_before_it_is_read_until_after_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the kernel: nobody else gets the lock while an entry is read for and appended."""
    file, real, refused = bank_file(tmp_path, "f1"), bank.AppendOnlyFile, []

    def try_lock(moment: str) -> None:
        descriptor = os.open(file, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            refused.append(moment)
        finally:
            os.close(descriptor)

    class Watched(real):  # type: ignore[misc, valid-type]
        def __init__(self, path: Path) -> None:
            try_lock("before reading")
            super().__init__(path)

        def append(self, line: bytes) -> None:
            super().append(line)
            try_lock("after writing")

    monkeypatch.setattr(bank, "AppendOnlyFile", Watched)
    deposit(file, {"session": "a"})
    try_lock("afterwards")

    assert refused == ["before reading", "after writing"]


def test_a_second_depositor_waits_and_sees_what_the_first_one_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: one session deposited twice at once is one entry, the first one's.

    The first has read the empty bank when the second comes; without waiting both would write.
    """
    file, real_lock, real_file = bank_file(tmp_path, "f1"), fcntl.flock, bank.AppendOnlyFile
    first_has_read, second_asks = threading.Event(), threading.Event()

    def lock(descriptor: int, operation: int) -> None:
        if first_has_read.is_set():
            second_asks.set()
        real_lock(descriptor, operation)

    def opened(path: Path) -> AppendOnlyFile:
        made = real_file(path)
        if not first_has_read.is_set():
            first_has_read.set()
            assert second_asks.wait(GUARD_SECONDS)
        return made

    monkeypatch.setattr(bank.fcntl, "flock", lock)
    monkeypatch.setattr(bank, "AppendOnlyFile", opened)
    first = threading.Thread(target=deposit, args=(file, {"session": "a", "by": "first"}))
    first.start()
    assert first_has_read.wait(GUARD_SECONDS)
    deposit(file, {"session": "a", "by": "second"})
    first.join()

    assert withdraw(file) == ({**NOW, "session": "a", "by": "first"},)
