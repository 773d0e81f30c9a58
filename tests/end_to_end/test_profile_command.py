"""``bertopt-bench profile``: traces, page and refusals, as a user would see them."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from many_commands import Ended, run_many

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Command = Callable[..., CompletedProcess[str]]

NCU = (
    '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"\n'
    '"0","gemm","gpu__time_duration.sum","ns","1,000"\n'
    '"0","gemm","dram__bytes_read.sum","byte","2,000"\n'
)


@pytest.fixture(scope="module")
def counted(project: Path) -> Path:
    file = project / "ncu.csv"
    file.write_text(NCU)
    return file


@pytest.fixture(scope="module")
def profiled(command: Command, counted: Path) -> CompletedProcess[str]:
    return command(
        "profile", "small.toml", "--cell", "optimizer=adamw attention=math", "--cell", "sgd",
        "--steps", "2", "--nsys", "--ncu-csv", "ncu.csv",
    )  # fmt: skip


def lines(project: Path) -> list[dict[str, object]]:
    text = (project / "results/small-profile/profiles.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_it_leaves_traces_a_line_a_cell_and_a_page(
    profiled: CompletedProcess[str], project: Path
) -> None:
    """Oracle: the files themselves: two gzip'd Chrome traces of two steps, 2 lines, one page."""
    assert profiled.returncode == 0, profiled.stderr
    assert "reports/small-profile.html" in profiled.stdout
    assert "tensorboard --logdir results/small-profile/traces" in profiled.stdout
    assert (project / "reports/small-profile.html").stat().st_size > 50_000
    first, second = lines(project)
    assert (first["status"], second["status"]) == ("ok", "ok")
    for line in (first, second):
        file = project / "results/small-profile" / str(line["trace_file"])
        assert file.stat().st_size == line["trace_bytes"]
        assert str(file.relative_to(project)) in profiled.stdout
        document = json.loads(gzip.decompress(file.read_bytes()))
        names = {event.get("name") for event in document["traceEvents"]}
        assert {"ProfilerStep#1", "ProfilerStep#2", "phase: backward"} <= names
        assert "ProfilerStep#3" not in names
        assert len(line["tables"]["step_seconds"]) == 2
    page = (project / "reports/small-profile.html").read_text()
    assert "Difference" in page
    assert "counted" in page


@pytest.mark.slow
def test_a_profile_tells_no_path_and_no_name_of_the_machine(
    profiled: CompletedProcess[str], project: Path
) -> None:
    """Oracle: the design: no such thing goes into results; the machine's own name and folders."""
    folder = project / "results/small-profile"
    for file in folder.rglob("*.gz"):
        text = gzip.decompress(file.read_bytes()).decode()
        assert str(project) not in text
        assert "host_name" not in text
    assert str(project) not in (folder / "profiles.jsonl").read_text()


@pytest.mark.slow
def test_a_tool_that_is_not_there_is_named_with_the_whole_command(
    profiled: CompletedProcess[str], project: Path
) -> None:
    """Oracle: the request that the command names exists, and is the one that was asked for."""
    if shutil.which("nsys"):
        pytest.skip("needs a machine without nsys")
    assert "nsys is not on PATH, so it was not run" in profiled.stdout
    command = next(line for line in profiled.stdout.splitlines() if "nsys profile" in line)
    request = json.loads(Path(command.split()[-1]).read_text())
    assert "bertopt_bench.trial.ranged" in command
    assert (request["first_profiled_step"], request["profiled_steps"]) == (2, 2)
    output = next(w for w in command.split() if w.startswith("--output=")).partition("=")[2]
    assert (project / output).parent.is_dir(), "nsys does not make it"


@pytest.mark.slow
def test_report_makes_the_same_page_again(
    profiled: CompletedProcess[str], command: Command, project: Path
) -> None:
    """Oracle: the page that the profile wrote, byte for byte."""
    page = (project / "reports/small-profile.html").read_bytes()
    done = command("report", "results/small-profile", "--output", "reports/again.html")

    assert done.returncode == 0, done.stderr
    assert (project / "reports/again.html").read_bytes() == page


@pytest.mark.slow
def test_a_tool_on_path_is_run_over_the_steps(
    profiled: CompletedProcess[str], project: Path, environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch, command: Command,
) -> None:  # fmt: skip
    """Oracle: a stand-in for nsys that runs the program and writes where it is told."""
    tools = project / "tools"
    tools.mkdir()
    stand_in = tools / "nsys"
    stand_in.write_text(
        '#!/bin/sh\nwhile [ "${1#--output=}" = "$1" ]; do shift; done\n'
        'out="${1#--output=}"\nshift\n"$@" || exit 1\necho ran > "$out.nsys-rep"\n'
    )
    stand_in.chmod(stand_in.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setitem(environment, "PATH", f"{tools}{os.pathsep}{environment['PATH']}")
    done = command("profile", "small.toml", "--cell", "sgd", "--steps", "3-3", "--nsys")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "nsys: results/small-profile/nsys/sgd" in done.stdout
    assert list((project / "results/small-profile/nsys").glob("sgd*.nsys-rep"))
    assert lines(project)[-1]["first_step"] == 3
    assert "step 3 traced" in done.stdout


@pytest.mark.slow
def test_a_trial_that_fails_says_status_and_reason_and_exits_with_3(
    profiled: CompletedProcess[str], command: Command, project: Path
) -> None:
    """Oracle: the optimizer's own exception, as a run records it."""
    done = command(
        "profile", "small.toml", "--cell", "optimizer=own:Raises", "--results", "results/broken"
    )

    assert done.returncode == 3, done.stdout + done.stderr
    assert "failed: KeyError: 'a bug'" in done.stdout
    assert "Traceback" not in done.stderr


MISTAKES: list[tuple[tuple[str, ...], str]] = [
    (("--cell", "adamx"), "Did you mean 'adamw'"),
    (("--cell", "optimizer=adamx"), "Did you mean 'adam"),
    (("--cell", "sgd", "--cell", "optimizer=sgd"), "is the same cell as"),
    ((), "stands for 2 cells"),
    (("--cell", "sgd", "--steps", "0"), "--steps is 0"),
    (("--cell", "sgd", "--steps", "7-900"), "allowed are 1 to 100"),
    (("--cell", "sgd", "--ncu"), "'sgd' runs on the CPU. Leave --ncu out"),
    (("--cell", "sgd", "--steps", "1000"), "1 to 100"),
    (("--cell", "optimizer=sgd device=cuda"), "cannot run here"),
    (("--cell", "sgd", "--results", "small.toml"), "cannot be written"),
    (("--cell", "sgd", "--ncu-csv", "small.toml"), "no header that begins with ID"),
    (("--cell", "sgd", "--ncu-csv", "ncu.csv", "--ncu-csv", "ncu.csv"), "at most one a cell"),
]


@pytest.fixture(scope="module")
def mistaken(
    counted: Path, project: Path, environment: dict[str, str]
) -> dict[tuple[str, ...], Ended]:
    many = [("profile", "small.toml", *arguments) for arguments, _ in MISTAKES]
    return run_many(many, project, environment)


@pytest.mark.parametrize(("arguments", "words"), MISTAKES)
def test_a_mistake_is_text_and_exit_code_2(
    mistaken: dict[tuple[str, ...], Ended], arguments: tuple[str, ...], words: str
) -> None:
    """Oracle: the house rule: what came, what is allowed, exit code 2, no traceback."""
    done = mistaken["profile", "small.toml", *arguments]

    if "device=cuda" in " ".join(arguments) and done.returncode == 0:
        pytest.skip("this machine has a GPU")
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
