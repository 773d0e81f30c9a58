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


def test_arms_may_run_forward_and_a_loss_is_refused(command: Command) -> None:
    """Oracle: a session with verdicts of step time; exit code 2 where training is asked for."""
    arms = ("--base", "optimizer=adamw", "--arm", "batch_size=8")
    few = ("--replicates", "2", "--set", "workload.mode='inference'")
    refused = command("duel", "small.toml", *arms, "--metric", "loss", "--plan", *few)

    assert refused.returncode == 2, refused.stdout
    assert "runs forward only" in refused.stderr
    done = command("duel", "small.toml", *arms, *few, "--results", "results/forward-duel")
    assert done.returncode in {0, 2}, done.stderr
    assert "Traceback" not in done.stderr
