"""The machine's bank of calibration entries: a line a duel, a session once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from bertopt_bench.errors import UserError
from bertopt_bench.results.bank import bank_file, deposit, withdraw

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_deposited_comes_back_in_order(tmp_path: Path) -> None:
    """Oracle: the entries as they were given; numbers that are not finite as their words."""
    file = bank_file(tmp_path, "f1")
    deposit(file, {"session": "a", "estimate": 0.1, "false_alarm": False})
    deposit(file, {"session": "b", "estimate": math.inf, "injected": {"found": True}})

    assert withdraw(file) == (
        {"session": "a", "estimate": 0.1, "false_alarm": False},
        {"session": "b", "estimate": "inf", "injected": {"found": True}},
    )


def test_a_session_counts_once(tmp_path: Path) -> None:
    """Oracle: the first entry stands: a second one would be the same duel again."""
    file = bank_file(tmp_path, "f1")
    deposit(file, {"session": "a", "estimate": 0.1})
    deposit(file, {"session": "a", "estimate": 0.2})

    assert withdraw(file) == ({"session": "a", "estimate": 0.1},)


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

    assert withdraw(file) == ({"session": "a"},)
    deposit(file, {"session": "c"})
    assert withdraw(file) == ({"session": "a"}, {"session": "c"})


def test_a_bank_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Oracle: a regular file stands where the folder should be."""
    (tmp_path / "calibration").write_text("")

    with pytest.raises(UserError, match="cannot be written"):
        deposit(bank_file(tmp_path, "f1"), {"session": "a"})
