"""Duels of implementations as a user runs them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from many_commands import Ended, run_many

from bertopt_bench import load_results
from bertopt_bench.results.duels import CONTROL, Declaration, Verdicts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Command = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SLOW = '''
"""A user's GELU that does its work three times."""
from torch.nn import functional


def gelu(values):
    """Give GELU, at its leisure."""
    return (functional.gelu(values) + functional.gelu(values) + functional.gelu(values)) / 3
'''

MISTAKES: list[tuple[list[str], str]] = [
    (["--micro", "atention", "--arm", "math"], "Did you mean 'attention'"),
    (["--micro", "attention", "--arm", "math", "--arm", "flesh"], "Did you mean 'flash'"),
    (["--micro", "gelu", "--arm", "default", "--arm", "nowhere:gelu"], "nowhere"),
    (["--micro", "gelu", "--arm", "default"], "no arm besides the baseline"),
    (["--micro", "gelu", "--arm", "default", "--arm", "composed", "--metric", "loss"],
     "leave --metric out"),
    (["--micro", "gelu", "--arm", "default", "--arm", "composed", "--set", "device=cuda"],
     "CUDA"),
    (["--micro", "gelu", "--arm", "default", "--arm", "composed", "--replicates", "8",
      "--budget", "75s"],
     "the budget of 75 s is too small: 8 replicates"),
    (["small.toml", "--base", "optimizer=adamw", "--arm", "optimizer=sgd", "--budget", "75s"],
     "the budget of 75 s is too small: 8 replicates"),
    (["small.toml", "--micro", "gelu"], "both"),
    ([], "there is no matrix"),
]  # fmt: skip


@pytest.fixture(scope="module")
def mistaken(project: Path, environment: dict[str, str]) -> dict[tuple[str, ...], Ended]:
    many = [("duel", *arguments) for arguments, _ in MISTAKES]
    return run_many(many, project, environment)


@pytest.mark.parametrize(("arguments", "said"), MISTAKES)
def test_mistakes_are_told_and_end_with_2(
    mistaken: dict[tuple[str, ...], Ended], arguments: list[str], said: str
) -> None:
    """Oracle: the exit code of a user's mistake; the nearest name."""
    done = mistaken["duel", *arguments]

    if "CUDA" in said and done.returncode == 0:
        pytest.skip("this machine has a GPU")
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_budget_that_is_too_small_runs_nothing(
    mistaken: dict[tuple[str, ...], Ended], project: Path
) -> None:
    """Oracle: no folder, and nothing announced."""
    done = next(one for arguments, one in mistaken.items() if "75s" in arguments)

    assert done.stdout == ""
    assert not (project / "results").exists()


def test_a_plan_runs_nothing(command: Command, project: Path) -> None:
    """Oracle: no folder."""
    done = command("duel", "--micro", "gelu", "--arm", "default", "--arm", "composed", "--plan")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("plan: step_time, 1 comparison, 12 replicates")
    assert not (project / "results").exists()


def test_a_gate_refuses_pytest_benchmarks_file(command: Command, project: Path) -> None:
    """Oracle: exploratory; exit 2."""
    (project / "calls.json").write_text('{"benchmarks": [], "machine_info": {}}')
    (project / "policy.toml").write_text('matrix = "small.toml"\nmetric = "step_time"\n')
    done = command("gate", "policy.toml", "calls.json", "calls.json")

    assert done.returncode == 2
    assert "holds no benchmark" in done.stderr


@pytest.mark.slow
def test_a_slower_implementation_is_found_slower_and_the_copy_is_not(
    command: Command, project: Path
) -> None:
    """Oracle: three GELUs take longer than one; the A/A arm is the same code."""
    (project / "leisure.py").write_text(SLOW)
    done = command(
        "duel", "--micro", "gelu", "--arm", "default", "--arm", "leisure:gelu",
        "--set", "hidden_size=512", "--set", "direction=forward", "--replicates", "6",
        "--alpha", "0.05", "--results", "fought", timeout=550,
    )  # fmt: skip
    folder = project / "fought"

    assert done.returncode == 0, done.stderr
    results = load_results(folder)
    declared = Declaration.model_validate(results.sessions[0].declared["duel"])
    assert [arm.label for arm in declared.arms] == ["default", "leisure:gelu", CONTROL]
    verdicts = Verdicts.model_validate(results.sessions[0].verdicts[-1])
    assert verdicts.state in {"valid", "too_noisy"}, verdicts.reasons
    finding = verdicts.findings[0]
    assert finding.estimate is not None
    assert finding.estimate > 0.3
    if verdicts.state == "valid":
        assert finding.verdict == "slower"
    assert "call time" in done.stdout
    run = results.replicates[0].arms[0]
    assert run.operation["error"] <= run.operation["allowed_error"]
    assert "leisure" in str(
        [arm.imported for arm in results.replicates[0].arms if arm.arm == "leisure:gelu"]
    )
    page = (project / "reports" / "fought.html").read_text()
    assert "Call time" in page
    assert "seconds a call" in page
    assert "step time" not in page.lower().split("<script")[0]
