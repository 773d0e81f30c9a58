"""Duels as a user runs them: planned, refused, fought, killed, and shown."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from many_commands import Ended, run_many
from small_workload import SMALL

from bertopt_bench import load_results
from bertopt_bench.results.duels import CONTROL, Declaration, Verdicts

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Command = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

WORDS = {"slower", "faster", "equivalent", "inconclusive", "refused"}
MATRIX = (
    """
name = "fought"
seeds = [1]
"""
    + SMALL
    + """
[timing]
burn_in_steps = 2
timeout_seconds = 120.0
[axes]
optimizer = ["adamw", "sgd"]
precision = ["fp32", "fp16"]
[arms.plain]
optimizer = "adamw"
precision = "fp32"
[arms.simple]
optimizer = "sgd"
[duel]
replicates = 6
rounds = 2
alpha = 0.05
"""
)
FOLDER = "results/fought-duel"
STEP_SECONDS = 0.02
TRIES = 500
STUCK_SECONDS = 300.0


@pytest.fixture(scope="module")
def matrix(project: Path) -> Path:
    file = project / "fought.toml"
    file.write_text(MATRIX)
    return file


def verdicts_of(folder: Path) -> list[Verdicts]:
    return [
        Verdicts.model_validate(one)
        for session in load_results(folder).sessions
        for one in session.verdicts
    ]


# --- before anything runs ---


def test_the_plan_says_what_is_in_reach_and_runs_nothing(
    matrix: Path, command: Command, project: Path
) -> None:
    """Oracle: by hand: 2/2^6 = 0.031 of .05 at six replicates; no results folder appears."""
    done = command("duel", matrix.name, "--plan", "--results", "results/planned")

    assert done.returncode == 0, done.stderr
    assert "step_time, 1 comparison, 6 replicates" in done.stdout
    assert "smallest p 0.031, needed 0.05" in done.stdout
    assert "80 % power" in done.stdout
    assert not (project / "results/planned").exists()


MISTAKES: list[tuple[list[str], str]] = [
    (["fought.toml", "--arm", "optimiser=lion"], "Did you mean 'optimizer'"),
    (["fought.toml", "--arm", "optimizer=liom"], "Did you mean 'lion'"),
    (["fought.toml", "--arm", "optimizer"], "--arm: 'optimizer' is not of the form KEY=VALUE"),
    (["fought.toml", "--base", "optimizer=adamw"], "stands for 2 cells"),
    (["fought.toml", "--arm", "label=simple steps=9"], "two arms are called 'simple'"),
    (["fought.toml", "--margin", "2"], "--margin|margin: is '2'"),
    (["fought.toml", "--metric", "step_tim"], "Did you mean 'step_time'"),
    (["fought.toml", "--alpha", "0.7"], "alpha: is 0.7"),
    (["fought.toml", "--inject", "5"], "--inject is '5'"),
    (["fought.toml", "--budget", "soon"], "budget: is 'soon'"),
    (["fought.toml", "--until", "1%"], "replicates and until are both given"),
    (["small.toml", "--base", "optimizer=adamw"], "no arm besides the baseline"),
    (["absent.toml"], "absent.toml"),
    (["fought.toml", "--arm", "precision=fp16"], "cannot run here"),
    (["fought.toml", "--replicates", "5"], "Take 6 replicates"),
]
NOWHERE = ("--results", "results/mistaken")


@pytest.fixture(scope="module")
def mistaken(
    matrix: Path, project: Path, environment: dict[str, str]
) -> dict[tuple[str, ...], Ended]:
    many = [("duel", *arguments, *NOWHERE) for arguments, _ in MISTAKES]
    return run_many(many, project, environment)


@pytest.mark.parametrize(("arguments", "words"), MISTAKES)
def test_a_users_mistake_is_text_and_exit_code_2_before_anything_runs(
    mistaken: dict[tuple[str, ...], Ended], project: Path, arguments: list[str], words: str
) -> None:
    """Oracle: the house rule: what came, the nearest name, what to do; no traceback, no folder."""
    done = mistaken["duel", *arguments, *NOWHERE]

    assert done.returncode == 2, done.stdout + done.stderr
    assert any(word in done.stderr for word in words.split("|")), done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not (project / "results/mistaken").exists()


# --- one that is killed ---


@pytest.fixture(scope="module")
def killed(matrix: Path, project: Path, environment: dict[str, str]) -> set[int]:
    """Start the file's duel and kill it in its second replicate; give all that it had started."""
    with subprocess.Popen(
        [sys.executable, "-m", "bertopt_bench", "duel", matrix.name],
        cwd=project, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        stuck = threading.Timer(STUCK_SECONDS, process.kill)
        stuck.daemon = True
        stuck.start()
        for line in process.stderr:
            if "replicate 1" in line:
                break
        started: set[int] = set()
        while len(started) <= 2 and process.poll() is None:  # the parent and two of three children
            time.sleep(STEP_SECONDS)  # an arm warms up before the next one starts: it may take long
            started = zygotes(process.pid)
            started = started.union(*map(children, started))
        stuck.cancel()
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return started


def zygotes(pid: int) -> set[int]:
    """Find the preloaded parents among a command's children, which ask other things as well."""
    return {child for child in children(pid) if b"dispatch.zygote" in command_line(child)}


def children(pid: int) -> set[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return {int(word) for task in tasks for word in (task / "children").read_text().split()}
    except OSError:
        return set()


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def lives(pid: int) -> bool:
    """Say whether a process still runs; one that nobody has reaped does not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}


@pytest.mark.slow
def test_a_killed_duel_leaves_no_process_behind(killed: set[int]) -> None:
    """Oracle: the kernel: the preloaded parent and its children die with the command."""
    assert len(killed) > 2
    for _ in range(TRIES):
        if not any(map(lives, killed)):
            break
        time.sleep(STEP_SECONDS)

    assert not any(map(lives, killed))


@pytest.mark.slow
def test_a_killed_duel_loses_at_most_its_running_replicate(killed: set[int], project: Path) -> None:
    """Oracle: the first replicate is a whole line on disk, and the session that it names."""
    results = load_results(project / FOLDER)
    session = results.sessions[0]
    kept = [one for one in results.replicates if one.session == session.session]

    assert results.warnings == ()
    assert [(one.replicate, one.status) for one in kept] == [(0, "ok")]
    assert (session.end, session.verdicts) == (None, ())


@pytest.mark.slow
def test_another_matrix_is_refused_and_the_folder_stays(
    killed: set[int], command: Command, matrix: Path, project: Path
) -> None:
    """Oracle: exit code 2 with the remedy named; the same bytes as before."""
    before = (project / FOLDER / "sessions.jsonl").read_bytes()
    done = command("duel", matrix.name, "--set", "workload.steps=8")

    assert done.returncode == 2
    assert "--new" in done.stderr
    assert "Traceback" not in done.stderr
    assert (project / FOLDER / "sessions.jsonl").read_bytes() == before


@pytest.mark.slow
def test_tables_of_a_duel_without_training_are_empty_and_no_error(
    killed: set[int], command: Command
) -> None:
    """Oracle: a duel of times has no training trial."""
    done = command("tables", FOLDER)

    assert done.returncode == 0, done.stderr
    assert "adamw" not in done.stdout


# --- one to its end ---


@pytest.fixture(scope="module")
def fought(killed: set[int], matrix: Path, command: Command) -> CompletedProcess[str]:
    """Fight the file's duel to its end, as short as the protocol allows, in the same folder."""
    return command("duel", matrix.name)


@pytest.mark.slow
def test_a_duel_ends_with_verdicts_a_folder_and_a_page(
    fought: CompletedProcess[str], project: Path
) -> None:
    """Oracle: the files themselves; the five words; exit code 0, or 3 for a refused finding."""
    (verdicts,) = verdicts_of(project / FOLDER)
    (finding,) = verdicts.findings

    assert finding.verdict in WORDS
    assert fought.returncode == (3 if finding.verdict == "refused" else 0), fought.stderr
    assert verdicts.state in {"valid", "too_noisy"}, verdicts.reasons
    assert finding.verdict in fought.stdout
    assert FOLDER in fought.stdout
    assert (project / "reports/fought-duel.html").stat().st_size > 50_000
    names = {path.name for path in (project / FOLDER).iterdir()}
    assert {"sessions.jsonl", "replicates.jsonl"} <= names


@pytest.mark.slow
def test_every_replicate_holds_three_processes_and_two_rounds(
    fought: CompletedProcess[str], project: Path
) -> None:
    """Oracle: the protocol by hand: every arm a block a round, half a second each, all fresh."""
    results = load_results(project / FOLDER)
    labels = {"plain", "simple", CONTROL}
    made = [one for one in results.replicates if one.session == results.sessions[1].session]

    assert [one.replicate for one in made] == list(range(6))
    for replicate in made:
        assert replicate.status == "ok", replicate.reason
        assert set(replicate.start_order) == {run.arm for run in replicate.arms} == labels
        assert sorted((b.round, b.arm) for b in replicate.blocks) == sorted(
            (turn, arm) for turn in (0, 1) for arm in labels
        )
        assert all(len(b.step_seconds) == b.steps >= 3 for b in replicate.blocks)
        assert all(run.finite for run in replicate.arms)
        steps = {b.arm: b.steps for b in replicate.blocks}
        assert steps["plain"] == steps[CONTROL]
    seeds = [one.arms[0].process["hash_seed"] for one in results.replicates]
    assert len(set(seeds)) == 7


@pytest.mark.slow
def test_arms_of_one_cell_start_from_one_state_and_prove_one_code(
    fought: CompletedProcess[str], project: Path
) -> None:
    """Oracle: equality over processes and replicates of what must be equal."""
    runs = [run for one in load_results(project / FOLDER).replicates for run in one.arms]

    assert len({run.initial_weights_sha256 for run in runs}) == 1
    assert len({run.initial_loss for run in runs}) == 1
    modules = {json.dumps(run.imported["modules"]["bertopt_bench"]) for run in runs}
    assert len(modules) == 1
    text = (project / FOLDER / "replicates.jsonl").read_text()
    assert str(project) not in text


@pytest.mark.slow
def test_what_was_declared_is_what_ran(fought: CompletedProcess[str], project: Path) -> None:
    """Oracle: the matrix file's own figures."""
    (session,) = [s for s in load_results(project / FOLDER).sessions if s.end is not None]
    declared = Declaration.model_validate(session.declared["duel"])

    assert declared.comparisons == (("plain", "simple"),)
    assert [arm.role for arm in declared.arms] == ["baseline", "arm", "control"]
    assert (declared.alpha, declared.looks, declared.rounds) == (0.05, (6,), 2)
    assert session.machine["fingerprint"]
    assert session.end is not None
    assert session.end["counts"] == {"replicates": 6, "trials": 0}


@pytest.mark.slow
def test_each_invocation_is_a_session_with_an_order_of_its_own(
    fought: CompletedProcess[str], project: Path
) -> None:
    """Oracle: two drawings from 2**32 seeds; the same digest: the same duel."""
    first, second = load_results(project / FOLDER).sessions

    assert first.session != second.session
    assert first.order_seed != second.order_seed
    assert first.matrix["digest"] == second.matrix["digest"]
    assert first.declared["duel"] == second.declared["duel"]


@pytest.mark.slow
def test_report_writes_the_page_again(
    fought: CompletedProcess[str], command: Command, project: Path
) -> None:
    """Oracle: the page names both sessions, the one that was killed too."""
    done = command("report", FOLDER, "--output", "reports/again.html")

    assert done.returncode == 0, done.stderr
    page = (project / "reports/again.html").read_text()
    assert "simple" in page
    for session in load_results(project / FOLDER).sessions:
        assert session.session in page


@pytest.mark.slow
def test_what_a_duel_said_of_this_machine_is_in_the_bank_once(
    fought: CompletedProcess[str], cache: Path, project: Path
) -> None:
    """Oracle: one session reached its end: one entry, by the machine's fingerprint."""
    ended = load_results(project / FOLDER).sessions[1]
    file = cache / "calibration" / f"{ended.machine['fingerprint']}.jsonl"
    entries: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]

    assert [one["session"] for one in entries] == [ended.session]
    assert entries[0]["replicates"] == 6
    assert verdicts_of(project / FOLDER)[0].calibration["duels"] in {0, 1}
