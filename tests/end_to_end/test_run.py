"""The main way: a matrix is run, continued, and its numbers come out, as a user would see it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from many_commands import Ended, run_many

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Command = Callable[..., CompletedProcess[str]]


def records(project: Path, name: str = "small") -> list[dict[str, object]]:
    lines = (project / "results" / name / "records.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def first_run(command: Command) -> CompletedProcess[str]:
    return command("run", "small.toml")


def test_a_run_ends_with_the_folder_and_the_page(
    first_run: CompletedProcess[str], project: Path
) -> None:
    """Oracle: the files themselves; the issue's sentence on the run's end."""
    assert first_run.returncode == 0, first_run.stderr
    assert "results/small" in first_run.stdout
    assert "reports/small.html" in first_run.stdout
    assert (project / "reports" / "small.html").stat().st_size > 100_000
    assert [row["status"] for row in records(project)] == ["ok", "ok"]


def test_every_cell_starts_from_the_same_weights_and_text(
    first_run: CompletedProcess[str], project: Path
) -> None:
    """Oracle: equality of hashes over the two optimizers, and of the loss before training."""
    first, second = records(project)

    for key in ("initial_weights_sha256", "batches_sha256", "evaluation_sha256", "text_sha256"):
        assert first[key] == second[key]
        assert len(str(first[key])) == 64
    assert first["losses"][0] == second["losses"][0]


def test_a_record_holds_raw_samples_of_every_step(
    first_run: CompletedProcess[str], project: Path
) -> None:
    """Oracle: the matrix' own counts: 6 steps, evaluations after 0, 3 and 6."""
    for row in records(project):
        assert len(row["step_seconds"]) == len(row["losses"]) == len(row["real_tokens"]) == 6
        assert [seen["step"] for seen in row["evaluations"]] == [0, 3, 6]
        assert row["peak_memory_bytes"] > 4 * row["parameter_count"]
        assert row["host_syncs_per_step"] == 0


def test_a_second_run_finds_nothing_to_do(
    first_run: CompletedProcess[str], command: Command, project: Path
) -> None:
    """Oracle: the same records, byte for byte."""
    before = (project / "results/small/records.jsonl").read_bytes()
    again = command("run", "small.toml")

    assert again.returncode == 0, again.stderr
    assert (project / "results/small/records.jsonl").read_bytes() == before


def test_a_changed_matrix_is_refused(first_run: CompletedProcess[str], command: Command) -> None:
    """Oracle: exit code 2 with the remedy named."""
    refused = command("run", "small.toml", "--set", "workload.steps=4")

    assert refused.returncode == 2
    assert "--new" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_new_starts_another_folder(command: Command, project: Path) -> None:
    """Oracle: the folder's name differs, and the one that was there stays as it is."""
    taken = project / "results" / "taken"
    taken.mkdir(parents=True)
    anew = command(
        "run", "small.toml", "--set", "name='taken'", "--set", "axes.optimizer='sgd'", "--new"
    )

    assert anew.returncode == 0, anew.stderr
    assert re.search(r"results/taken-2", anew.stdout)
    assert [row["status"] for row in records(project, "taken-2")] == ["ok"]
    assert not list(taken.iterdir())


@pytest.mark.parametrize("table", ["trials", "steps", "evaluations"])
@pytest.mark.parametrize("form", ["markdown", "csv", "json"])
def test_tables_come_in_every_format(
    first_run: CompletedProcess[str], command: Command, table: str, form: str
) -> None:
    """Oracle: the row counts of the matrix (2 trials of 6 steps and 3 evaluations)."""
    if form != "csv" and table != "trials":
        pytest.skip("one table in each format is enough")
    done = command("tables", "results/small", "--table", table, "--format", form)
    rows = {"trials": 2, "steps": 12, "evaluations": 6}[table]

    assert done.returncode == 0, done.stderr
    if form == "csv":
        assert len(done.stdout.strip().splitlines()) == rows + 1
    elif form == "json":
        assert len(json.loads(done.stdout)) == rows
    else:
        assert done.stdout.count("\n|") >= rows + 1


def test_verify_finds_nothing_wrong_in_a_real_run(
    first_run: CompletedProcess[str], command: Command
) -> None:
    """Oracle: the design's list of what must hold, on real records."""
    done = command("verify", "results/small")

    assert done.returncode == 0, done.stdout + done.stderr


def test_report_and_verify_work_without_torch(
    first_run: CompletedProcess[str], project: Path, environment: dict[str, str]
) -> None:
    """Oracle: ``sys.modules`` of a fresh interpreter after the commands on real results."""
    many = [("report", "results/small"), ("verify", "results/small")]
    for done in run_many(many, project, environment).values():
        assert done.returncode == 0, done.stderr
        assert not done.heavy


MISTAKES: list[tuple[tuple[str, ...], str]] = [
    (("run", "absent.toml"), "absent.toml"),
    (("run", "small.toml", "--set", "workload.stepz=4"), "Did you mean 'steps'"),
    (("run", "small.toml", "--set", "axes.optimizer='adamm'"), "Did you mean 'adam"),
    (("run", "small.toml", "--set", "nonsense"), "KEY=VALUE"),
    (("tables", "results/absent"), "results/absent"),
    (("tables", "results/small", "--table", "trial"), "Did you mean 'trials'"),
    (("tables", "results/small", "--format", "cvs"), "Did you mean 'csv'"),
    (("report", "results/absent"), "results/absent"),
    (("verify", "results/absent"), "results/absent"),
    (("list", "optimiser"), "Did you mean 'optimizer'"),
    (("list", "optimizer", "adamv"), "Did you mean 'adam"),
    (("plan", "own.py"), "own.py"),
    (("plan", "small.toml", "--max-memory", "16GBi"), "no unit 'GBi'"),
    (("run", "small.toml", "--max-memory", "much"), "--max-memory is 'much'"),
]


@pytest.fixture(scope="module")
def mistaken(
    first_run: CompletedProcess[str], project: Path, environment: dict[str, str]
) -> dict[tuple[str, ...], Ended]:
    return run_many([arguments for arguments, _ in MISTAKES], project, environment)


@pytest.mark.parametrize(("arguments", "words"), MISTAKES)
def test_a_users_mistake_is_text_and_exit_code_2(
    mistaken: dict[tuple[str, ...], Ended], arguments: tuple[str, ...], words: str
) -> None:
    """Oracle: the house rule: what came, the nearest name, exit code 2, no traceback."""
    done = mistaken[arguments]

    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_plan_shows_cells_and_forecast_and_runs_nothing(command: Command, project: Path) -> None:
    """Oracle: the two cells of the matrix; no results folder appears."""
    done = command("plan", "small.toml", "--set", "name='planned'")

    assert done.returncode == 0, done.stderr
    assert "adamw" in done.stdout
    assert "sgd" in done.stdout
    assert not (project / "results/planned").exists()


@pytest.mark.slow
def test_a_limit_of_memory_leaves_out_what_cannot_fit(command: Command, project: Path) -> None:
    """Oracle: AdamW's state, 8 bytes a parameter, is what the larger cell has more.

    Planned and run alike, and the record is skipped with both sizes as its reason.
    """
    limit = ("--set", "name='limited'", "--max-memory", "250KiB")
    planned = command("plan", "small.toml", *limit)
    done = command("run", "small.toml", *limit)
    ended = {row["cell"]["optimizer"]["name"]: row for row in records(project, "limited")}  # type: ignore[index]

    assert planned.returncode == done.returncode == 0, planned.stderr + done.stderr
    assert "2 cells, 1 of them skipped" in planned.stdout
    assert ended["sgd"]["status"] == "ok"
    assert ended["adamw"]["status"] == "skipped"
    assert "--max-memory is 250.0 KiB" in str(ended["adamw"]["reason"])
    assert str(ended["adamw"]["reason"]) in planned.stdout


def test_a_record_says_what_memory_was_for(first_run: CompletedProcess[str], project: Path) -> None:
    """Oracle: weights by the parameter count; the parts sum to the peak; another pass agrees."""
    for row in records(project):
        memory = row["memory"]
        parts = memory["measured"]["peak"]  # type: ignore[index]
        assert parts["parameter_bytes"] == 4 * int(str(row["parameter_count"]))
        assert sum(parts.values()) == memory["peak_bytes"]  # type: ignore[index]
        assert memory["independent_peak_bytes"] == row["peak_memory_bytes"]  # type: ignore[index]
