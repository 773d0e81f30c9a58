"""Folders of the cache: which of them stay, and that none goes while somebody uses it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bertopt_bench.dispatch import shelves
from bertopt_bench.dispatch.shelves import discard, evict, folders, hold

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import sys
from pathlib import Path
from bertopt_bench.dispatch.shelves import hold
hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _nothing_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let go at the end of a test of what this process holds."""
    monkeypatch.setattr(shelves, "_HELD", {})


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Make five folders that were used in the order of their names, the first one longest ago."""
    for number, name in enumerate("abcde"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        mark = tmp_path / f"{name}.used"
        mark.touch()
        os.utime(mark, (1000 + number, 1000 + number))
    return tmp_path


def left(shelf: Path) -> str:
    return "".join(sorted(folder.name for folder in folders(shelf)))


def let_go() -> None:
    """Let go of everything, as the end of a process does."""
    shelves._HELD.clear()


def test_the_most_recently_used_folders_stay(shelf: Path) -> None:
    """Oracle: the times of the marks, by hand; a use makes the oldest the newest."""
    hold(shelf / "a")
    let_go()
    gone = evict(folders(shelf), 3)

    assert left(shelf) == "ade"
    assert sorted(folder.name for folder in gone) == ["b", "c"]
    assert (shelf / "a/file").read_text() == "a"
    assert evict(folders(shelf), 3) == []


def test_a_folder_of_an_older_version_counts_by_its_own_time(shelf: Path) -> None:
    """Oracle: a folder without a mark, made before and after the others were used."""
    for name, seconds in (("older", 900), ("newer", 2000)):
        (shelf / name).mkdir()
        os.utime(shelf / name, (seconds, seconds))

    evict(folders(shelf), 2)

    assert left(shelf) == "enewer"


def test_what_this_process_uses_stays(shelf: Path) -> None:
    """Oracle: none of those held is gone, even where there are more of them than are kept."""
    for name in "abc":
        hold(shelf / name)
        hold(shelf / name)  # twice in use is still in use
    os.utime(shelf / "a.used", (1, 1))

    evict(folders(shelf), 1)
    assert left(shelf) == "abc"

    let_go()
    evict(folders(shelf), 1)
    assert len(left(shelf)) == 1


def test_what_another_process_uses_stays_until_it_is_killed(shelf: Path) -> None:
    """Oracle: the kernel: a lock lives as long as its process."""
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(shelf / "a")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdin is not None
    with other.stdout, other.stdin:
        assert other.stdout.readline() == "held\n"
        os.utime(shelf / "a.used", (1, 1))
        evict(folders(shelf), 2)
        assert left(shelf) == "ade"
        other.kill()
        other.wait()
    evict(folders(shelf), 2)

    assert left(shelf) == "de"


def test_whoever_wants_a_folder_waits_until_it_is_gone(shelf: Path) -> None:
    """Oracle: the lock, asked for in the midst of the removal as `hold` asks for it."""
    refused = []

    def remove(folder: Path) -> None:
        with (shelf / f"{folder.name}.used").open("a") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                refused.append(folder.name)
        discard(folder)

    evict(folders(shelf), 4, remove)

    assert refused == ["a"]
    hold(shelf / "a")
    assert left(shelf) == "bcde"


def test_what_cannot_be_removed_stays_and_the_rest_goes(shelf: Path) -> None:
    """Oracle: an error of the system for one folder."""

    def remove(folder: Path) -> None:
        if folder.name == "b":
            raise PermissionError
        discard(folder)

    gone = evict(folders(shelf), 2, remove)

    assert left(shelf) == "bde"
    assert sorted(folder.name for folder in gone) == ["a", "c"]


def test_what_is_half_thrown_away_is_no_folder_of_a_shelf(shelf: Path) -> None:
    """Oracle: the hidden name that `discard` gives it, and files beside."""
    (shelf / ".discarded-x").mkdir()
    (shelf / "a.lock").touch()

    assert left(shelf) == "abcde"
    discard(shelf / "a")
    discard(shelf / "a")
    assert left(shelf) == "bcde"
