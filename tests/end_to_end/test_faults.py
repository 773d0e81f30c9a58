"""Faults: every one gives a clear status or error and loses nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bertopt_bench import load_results

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Command = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.slow

MISBEHAVING = (
    "axes.optimizer=['own:Nan','own:Killed','own:Hangs','own:Greedy','own:Raises','own:Mine']"
)


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "records.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def misbehaved(command: Command, project: Path) -> dict[str, dict[str, Any]]:
    done = command(
        "run", "small.toml", "--set", MISBEHAVING, "--set", "name='faults'",
        "--set", "timing.timeout_seconds=3.0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    by_name = {row["cell"]["optimizer"]["name"]: row for row in rows(project / "results/faults")}
    assert len(by_name) == 6
    return by_name


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("own:Nan", "diverged", "step 5"),
        ("own:Killed", "failed", "SIGKILL"),
        ("own:Hangs", "timed_out", "timeout_seconds = 3"),
        ("own:Greedy", "out_of_memory", "memory"),
        ("own:Raises", "failed", "a bug"),
        ("own:Mine", "ok", ""),
    ],
)
def test_each_fault_is_a_status_with_a_reason_and_stops_nothing(
    misbehaved: dict[str, dict[str, Any]], name: str, status: str, words: str
) -> None:
    """Oracle: what each optimizer of ``own.py`` does on purpose, and the design's statuses."""
    record = misbehaved[name]

    assert record["status"] == status, record["reason"]
    assert words in record.get("reason", "")


def test_a_diverged_trial_keeps_its_curve(misbehaved: dict[str, dict[str, Any]]) -> None:
    """Oracle: the weights turn NaN in the fourth update, so losses 1 to 4 are finite."""
    record = misbehaved["own:Nan"]

    assert record["diverged_at_step"] == 5
    assert record["losses"][4] == "NaN"
    assert all(isinstance(loss, float) for loss in record["losses"][:4])


def test_an_edited_optimizer_runs_again_and_the_old_record_is_kept(
    command: Command, project: Path
) -> None:
    """Oracle: the records before and after one line of ``own.py`` changed."""
    arguments = (
        "run",
        "small.toml",
        "--set",
        "name='edited'",
        "--set",
        "axes.optimizer='own:Mine'",
    )
    assert command(*arguments).returncode == 0
    before = rows(project / "results/edited")
    source = project / "own.py"
    text = source.read_text()
    source.write_text(text + "\n# edited\n")
    try:
        again = command(*arguments)
    finally:
        source.write_text(text)
    after = rows(project / "results/edited")

    assert again.returncode == 0, again.stderr
    assert "own.py" in again.stderr
    assert after[:1] == before
    assert len(after) == 2
    assert len(load_results(project / "results/edited").trials) == 1
