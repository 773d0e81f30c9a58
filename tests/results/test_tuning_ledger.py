"""The ledger of a tuning on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from made_ledgers import choice, ledger, outcome, point

from bertopt_bench.errors import UserError
from bertopt_bench.results.store import write_whole
from bertopt_bench.results.tuning import TUNING, LedgerFile, has_tuning, read_ledger

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_written_is_read_again_infinite_losses_too(tmp_path: Path) -> None:
    """Oracle: the ledger that was written."""
    made = ledger()
    with LedgerFile(tmp_path) as file:
        file.write([*made.points, *made.outcomes, *made.choices])

    assert read_ledger(tmp_path) == made
    assert has_tuning(tmp_path)


def test_the_last_outcome_of_a_point_counts_and_a_line_is_not_written_twice(
    tmp_path: Path,
) -> None:
    """Oracle: the number of lines, and the second outcome."""
    one = point("AdamW", 1, 0.001)
    with LedgerFile(tmp_path) as file:
        file.write([one, outcome(one, 5.0)])
        file.write([one, outcome(one, 5.0)])
        found = file.write([outcome(one, 4.0), choice(one, 4.0, 1)])

    assert found.outcome(one) == outcome(one, 4.0)
    assert len((tmp_path / TUNING).read_text().splitlines()) == 4


def test_a_torn_last_line_is_left_out_and_said(tmp_path: Path) -> None:
    """Oracle: the point before it, and the warning."""
    line = point("AdamW", 1, 0.001).line()
    (tmp_path / TUNING).write_bytes(line + line[: len(line) // 2])
    found = read_ledger(tmp_path)

    assert len(found.points) == 1
    assert "torn" in found.warnings[0]


def test_a_damaged_line_names_file_and_line(tmp_path: Path) -> None:
    """Oracle: the words of the error."""
    (tmp_path / TUNING).write_text('{"kind": "pint"}\n')

    with pytest.raises(UserError, match=r"tuning\.jsonl, line 1 has kind 'pint'"):
        read_ledger(tmp_path)


def test_a_round_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a disk that fails at the second wait for it: the first round stays, whole."""
    made, waits = ledger(), []

    def fails(descriptor: int) -> None:
        waits.append(descriptor)
        if len(waits) > 1:
            raise OSError(28, "No space left on device")

    with LedgerFile(tmp_path) as file:
        monkeypatch.setattr("os.fsync", fails)
        file.write(made.points)
        with pytest.raises(UserError, match="No space"):
            file.write(made.outcomes)

    assert read_ledger(tmp_path).points == made.points
    assert read_ledger(tmp_path).outcomes == ()


def test_a_file_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the text before, and no other file in the folder."""
    file = tmp_path / "tuned.toml"
    write_whole(file, "before")

    def fails(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match="No space"):
        write_whole(file, "after")
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]
