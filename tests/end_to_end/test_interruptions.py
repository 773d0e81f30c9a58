"""Interruptions: a run that is stopped, killed or doubled loses at most the running trial."""

from __future__ import annotations

import json
import os
import random
import selectors
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from bertopt_bench import load_results
from bertopt_bench.results.record import deterministic_part

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Command = Callable[..., CompletedProcess[str]]


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "records.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def twice(
    command: Command, project: Path, environment: dict[str, str]
) -> tuple[subprocess.Popen[str], CompletedProcess[str]]:
    """Run a matrix to its end, and meanwhile a second time on the same folder."""
    words = ["run", "small.toml", "--set", "name='twice'", "--set", "seeds=[1,2]"]
    with subprocess.Popen(
        [sys.executable, "-m", "bertopt_bench", *words],
        cwd=project, env=environment, stderr=subprocess.PIPE, text=True,
    ) as first:  # fmt: skip
        wait_for_line(first)
        second = command(*words)
        first.communicate()
    return first, second


@pytest.mark.slow
def test_a_second_run_on_a_folder_in_use_is_refused(
    twice: tuple[subprocess.Popen[str], CompletedProcess[str]],
) -> None:
    """Oracle: exit code 2 and the words "in use", while the first run goes on to its end."""
    first, second = twice

    assert second.returncode == 2, second.stderr
    assert str(first.pid) in second.stderr
    assert first.returncode == 0


def wait_for_line(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    process.stderr.readline()


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_prints_the_command_that_continues(
    project: Path, environment: dict[str, str]
) -> None:
    """Oracle: exit code 130 by convention, the printed command, and the first record on disk.

    Forty trials are asked for, so that the run cannot end before the signal arrives. A shell starts
    what it puts in the background with SIGINT ignored, and so would the run be here.
    """
    many = ["--set", f"seeds={list(range(1, 21))}", "--set", "name='stopped'"]
    with subprocess.Popen(
        [sys.executable, "-m", "bertopt_bench", "run", "small.toml", *many],
        cwd=project, env=environment, stderr=subprocess.PIPE, text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("[1/"):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()

    assert process.returncode == 130, errors
    assert "bertopt-bench run small.toml" in errors
    assert "Traceback" not in errors
    assert len(rows(project / "results/stopped")) >= 1


@pytest.mark.slow
def test_sigkill_at_random_moments_loses_at_most_the_running_trial(
    twice: object, command: Command, project: Path, environment: dict[str, str]
) -> None:
    """Oracle: a run of the same matrix to its end, in every column marked deterministic."""
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
    assert finished.returncode == 0, finished.stderr

    assert deterministic(project / "results/killed") == deterministic(project / "results/twice")
    assert len(deterministic(project / "results/twice")) == 4


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
