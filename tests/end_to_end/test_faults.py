"""Faults: every one gives a clear status or error and loses nothing."""

from __future__ import annotations

import json
import os
import random
import selectors
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from bertopt_bench import load_results
from bertopt_bench.results.record import deterministic_part

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Command = Callable[..., CompletedProcess[str]]

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
    misbehaved: dict[str, dict[str, Any]], command: Command, project: Path
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


def test_a_second_run_on_a_folder_in_use_is_refused(
    command: Command, project: Path, environment: dict[str, str]
) -> None:
    """Oracle: exit code 2 and the words "in use", while the first run goes on to its end."""
    command_line = [sys.executable, "-m", "bertopt_bench", "run", "small.toml"]
    name = ["--set", "name='twice'"]
    with subprocess.Popen(
        [*command_line, *name], cwd=project, env=environment, stderr=subprocess.PIPE, text=True
    ) as first:
        wait_for_line(first)
        second = command("run", "small.toml", *name)
        first.communicate()

    assert second.returncode == 2, second.stderr
    assert str(first.pid) in second.stderr
    assert first.returncode == 0


def wait_for_line(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    process.stderr.readline()


def test_ctrl_c_keeps_what_is_done_and_prints_the_command_that_continues(
    project: Path, environment: dict[str, str]
) -> None:
    """Oracle: exit code 130 by convention, the printed command, and the first record on disk."""
    with subprocess.Popen(
        [sys.executable, "-m", "bertopt_bench", "run", "small.toml", "--set", "name='stopped'"],
        cwd=project, env=environment, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("[1/2]"):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()

    assert process.returncode == 130, errors
    assert "bertopt-bench run small.toml" in errors
    assert "Traceback" not in errors
    assert len(rows(project / "results/stopped")) >= 1


def test_sigkill_at_random_moments_loses_at_most_the_running_trial(
    command: Command, project: Path, environment: dict[str, str]
) -> None:
    """Oracle: an undisturbed run of the same matrix, in every column marked deterministic."""
    draw = random.Random(20261124)
    name = ["--set", "name='killed'", "--set", "seeds=[1,2]"]
    done = 0
    for _ in range(2):
        kill_after(draw.uniform(0.5, 6.0), name, project, environment)
        records = project / "results/killed/records.jsonl"
        kept = len(rows_of_whole_lines(records)) if records.exists() else 0
        assert kept >= done
        done = kept
    finished = command("run", "small.toml", *name)
    undisturbed = command("run", "small.toml", "--set", "name='whole'", "--set", "seeds=[1,2]")
    assert finished.returncode == 0, finished.stderr
    assert undisturbed.returncode == 0, undisturbed.stderr

    assert deterministic(project / "results/killed") == deterministic(project / "results/whole")
    assert len(deterministic(project / "results/whole")) == 4


def kill_after(seconds: float, name: list[str], project: Path, environment: dict[str, str]) -> None:
    """Start a run in its own process group and kill its parent alone at a random moment."""
    with subprocess.Popen(
        [sys.executable, "-m", "bertopt_bench", "run", "small.toml", *name],
        cwd=project, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        with selectors.DefaultSelector() as selector:
            selector.register(os.pidfd_open(process.pid), selectors.EVENT_READ)
            selector.select(seconds)
        process.kill()


def rows_of_whole_lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def deterministic(folder: Path) -> list[str]:
    """Give the deterministic part of each trial's record, in an order of their own."""
    records = load_results(folder).records
    return sorted(json.dumps(deterministic_part(record), sort_keys=True) for record in records)
