"""The command `tune`: on real text, killed and gone on with, and reported on other seeds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from small_workload import SMALL

from bertopt_bench.results.tables import load_results
from bertopt_bench.results.tuning import load_tuning

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Command = Callable[..., CompletedProcess[str]]

TUNING = (
    """
name = "small"
seeds = [1]
"""
    + SMALL
    + """
[timing]
burn_in_steps = 2
phase_steps = 1
timeout_seconds = 120.0
[tuning]
points = 3
extensions = 1
seeds = [101, 102]
report_defaults = ["AdamW"]
[tuning.arms.AdamW]
optimizer = "adamw"
space.optimizer.lr = { below = 1, above = 1 }
[tuning.arms.SGD]
optimizer = "sgd"
space.optimizer.lr = { log = [100, 200] }
"""
)


LONG = 900.0  # seconds; on a machine with nothing else to do it takes some twenty


@pytest.fixture
def tuning(project: Path) -> Path:
    file = project / "tuning.toml"
    file.write_text(TUNING)
    return file


def kill_after(trials: int, project: Path, environment: dict[str, str], *words: str) -> None:
    """Start a tuning and kill it with SIGKILL when so many trials have ended."""
    with subprocess.Popen(
        [sys.executable, "-m", "bertopt_bench", "tune", "tuning.toml", *words],
        cwd=project, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            trials -= line.startswith("[") and ": step " not in line
            if trials < 1:
                break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_a_killed_tuning_goes_on_to_the_same_choice_and_its_report_runs(
    command: Command, project: Path, environment: dict[str, str], tuning: Path
) -> None:
    """Oracle: a tuning that nothing stopped: the same points, losses and choices, bit for bit.

    Three points each on two seeds, and one beyond AdamW's edge; SGD at 100 and 200 diverges, so
    its documented default is the best, on the edge, and one step below is tried.
    """

    def tune(name: str) -> CompletedProcess[str]:
        words = ("--results", name, "--page", f"{name}.html")
        return command("tune", "tuning.toml", *words, timeout=LONG)

    kill_after(5, project, environment, "--results", "killed")
    before = (project / "killed/records.jsonl").read_bytes()
    again = command(
        "tune", "tuning.toml", "--results", "killed", "--page", "killed.html", timeout=LONG
    )
    whole = command(
        "tune", "tuning.toml", "--results", "whole", "--page", "whole.html", timeout=LONG
    )
    third = command(
        "tune", "tuning.toml", "--results", "whole", "--page", "whole.html", timeout=LONG
    )

    assert again.returncode == whole.returncode == third.returncode == 0, again.stderr
    killed, unharmed = load_tuning(project / "killed").ledger, load_tuning(project / "whole").ledger
    assert (project / "killed/records.jsonl").read_bytes().startswith(before)
    assert before.count(b"\n") >= 5
    options = [(p.arm, p.options, p.origin) for p in unharmed.points]
    assert [(p.arm, p.options, p.origin) for p in killed.points] == options
    assert [o.losses for o in killed.outcomes] == [o.losses for o in unharmed.outcomes]
    assert [c.options for c in killed.choices] == [c.options for c in unharmed.choices]
    assert [c.trials for c in unharmed.choices] == [8, 8]
    assert [c.extensions for c in unharmed.choices] == [1, 1]
    assert {o.loss for o in unharmed.outcomes if o.arm == "SGD"} >= {float("inf")}
    assert len((project / "whole/records.jsonl").read_text().splitlines()) == 16
    assert whole.stdout.splitlines()[-1] == "  bertopt-bench run whole/tuned.toml"
    report(command, project)


def report(command: Command, project: Path) -> None:
    """Run what was chosen: other seed, other documents, and records that name the ledger."""
    ran = command(
        "run", "whole/tuned.toml", "--results", "report", "--page", "report.html", timeout=LONG
    )

    assert ran.returncode == 0, ran.stderr
    reported, tuned = load_results(project / "report"), load_results(project / "whole")
    ledger = load_tuning(project / "whole").sha256
    told = [record.tuning for record in reported.counted]
    assert [one.ledger for one in told if one is not None] == [ledger, ledger]
    assert {one.points for one in told if one is not None} == {4}
    assert {record.seed for record in reported.counted} == {1}
    assert {r.evaluation_sha256 for r in reported.counted}.isdisjoint(
        {r.evaluation_sha256 for r in tuned.counted}
    )
    assert {r.tokenizer_sha256 for r in reported.counted} == {
        r.tokenizer_sha256 for r in tuned.counted
    }
    assert "tuned, 4 points" in (project / "report.html").read_text()
    assert "edge optimum" in (project / "whole.html").read_text()


def test_a_plan_names_points_and_time_and_runs_nothing(
    command: Command, project: Path, tuning: Path
) -> None:
    """Oracle: both commands' words, and a folder that is not there."""
    one, other = command("tune", "tuning.toml", "--plan"), command("plan", "tuning.toml")

    assert one.returncode == 0, one.stderr
    assert one.stdout == other.stdout
    assert "AdamW: optimizer.lr 0.0005, 0.001, 0.002 (default 0.001)" in one.stdout
    assert "forecast: the points" in one.stdout
    assert not (project / "results/small-tuning").exists()


def test_another_tuning_in_the_folder_is_refused(
    command: Command, project: Path, tuning: Path
) -> None:
    """Oracle: exit code 2 and what to do, before a trial runs; a session is written by hand."""
    folder = project / "other"
    folder.mkdir()
    line = {"kind": "session", "session": "s", "matrix": {"name": "x", "digest": "y"}}
    (folder / "sessions.jsonl").write_text(json.dumps(line) + "\n")
    done = command("tune", "tuning.toml", "--results", "other")

    assert done.returncode == 2
    assert "--new" in done.stderr
