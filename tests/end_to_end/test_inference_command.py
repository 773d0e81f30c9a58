"""Inference by the real command: run, verify, duel, and what does not apply."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Command = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.slow

FORWARD = ("--set", "workload.mode='inference'", "--set", "workload.steps=100")


@pytest.fixture(scope="module")
def ran(command: Command) -> CompletedProcess[str]:
    return command(
        "run", "small.toml", *FORWARD, "--set", "name='forward'",
        "--set", "workload.batch_size=[2, 4]",
    )  # fmt: skip


def records(project: Path) -> list[dict[str, Any]]:
    lines = (project / "results/forward/records.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_two_optimizers_are_one_cell_and_a_reason(
    ran: CompletedProcess[str], project: Path
) -> None:
    """Oracle: the matrix by hand: two batch sizes run, the second optimizer is skipped twice."""
    assert ran.returncode == 0, ran.stderr
    found = records(project)
    live = [one for one in found if one["status"] == "ok"]
    skipped = [one for one in found if one["status"] == "skipped"]

    assert [len(live), len(skipped)] == [2, 2]
    assert all(len(one["step_seconds"]) == 100 and not one["losses"] for one in live)
    assert all("inference trains nothing, so optimizer" in one["reason"] for one in skipped)
    assert "a batch in" in ran.stderr
    assert 'id="inference"' in (project / "reports/forward.html").read_text()


def test_what_was_measured_verifies(ran: CompletedProcess[str], command: Command) -> None:
    """Oracle: the design's list of what must hold, without the rules on training."""
    done = command("verify", "results/forward")

    assert done.returncode == 0, done.stdout


def test_a_second_run_finds_nothing_missing(ran: CompletedProcess[str], command: Command) -> None:
    """Oracle: skipped cells are recorded too."""
    again = command(
        "run", "small.toml", *FORWARD, "--set", "name='forward'",
        "--set", "workload.batch_size=[2, 4]",
    )  # fmt: skip

    assert "nothing is missing or stale" in again.stderr


@pytest.fixture(scope="module")
def fought(project: Path) -> Path:
    """Write a matrix whose arms differ in the work of a pass."""
    arms = """
[arms.short]
batch_size = 1
optimizer = "adamw"
[arms.long]
batch_size = 64
optimizer = "adamw"
[duel]
replicates = 6
rounds = 2
alpha = 0.05
"""
    file = project / "fought.toml"
    file.write_text((project / "small.toml").read_text() + arms)
    return file


def test_a_duel_about_losses_is_refused(command: Command, fought: Path) -> None:
    """Oracle: nothing is trained; exit code 2, and what may be compared."""
    done = command("duel", fought.name, *FORWARD[:2], "--metric", "loss", "--plan")

    assert done.returncode == 2, done.stdout
    assert "runs forward only" in done.stderr
    assert "step_time" in done.stderr
