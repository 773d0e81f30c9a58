"""Which steps are profiled, by the words of ``--steps``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bertopt_bench.errors import UserError
from bertopt_bench.profiling import Asked, read_steps

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "first", "count"), [("3", 2, 3), ("1", 2, 1), ("50-52", 50, 3), (" 7 - 7", 7, 1)]
)
def test_a_number_or_a_range(text: str, first: int, count: int) -> None:
    """Oracle: by hand; step 1 makes the optimizer's state, so that a number begins at 2."""
    assert read_steps(text) == (first, count)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0", "0 steps; allowed are 1 to 100"),
        ("101", "101 steps; allowed are 1 to 100"),
        ("9-8", "0 steps"),
        ("1-3", "Begin with step 2"),
        ("two", "as 3, or which, as 50-52"),
        ("-3", "as 3, or which, as 50-52"),
        ("3-", "as 3, or which, as 50-52"),
    ],
)
def test_a_mistake_says_what_is_allowed(text: str, words: str) -> None:
    """Oracle: the house rule on errors."""
    with pytest.raises(UserError, match=words):
        read_steps(text)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"steps": "9-11"}, r"ends at step 11, and 'adamw' trains 10.*workload\.steps=11"),
        ({"steps": 3, "tools": ("ncu",)}, "'adamw' runs on the CPU. Leave --ncu out"),
    ],
)
def test_what_the_cell_cannot_give_is_told_at_once(
    tmp_path: Path, asked: dict[str, object], words: str
) -> None:
    """Oracle: a matrix of one cell of 10 steps on a CPU."""
    file = tmp_path / "one.toml"
    file.write_text('name = "one"\n[workload]\nmodel = "tiny"\nsteps = 10\n')

    with pytest.raises(UserError, match=words):
        Asked.read(file, [], **asked)  # type: ignore[arg-type]
