"""torch stays out of what must answer at once, proved in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from many_commands import Ended, run_many

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess


def run(code: str, folder: Path, environment: dict[str, str]) -> CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


LIGHT: list[tuple[str, ...]] = [
    ("--help",),
    ("run", "--help"),
    ("duel", "--help"),
    ("gate", "--help"),
    ("profile", "--help"),
    ("--version",),
    ("list",),
    ("list", "optimizer"),
    ("list", "optimizer", "muon"),
    ("plan", "small.toml"),
]


@pytest.fixture(scope="module")
def answered(project: Path, environment: dict[str, str]) -> dict[tuple[str, ...], Ended]:
    return run_many(LIGHT, project, environment)


@pytest.mark.parametrize("arguments", LIGHT)
def test_a_command_answers_without_torch(
    answered: dict[tuple[str, ...], Ended], arguments: tuple[str, ...]
) -> None:
    """Oracle: ``sys.modules`` after the command."""
    done = answered[arguments]

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not done.heavy


def test_importing_the_package_imports_nothing_heavy(
    project: Path, environment: dict[str, str]
) -> None:
    """Oracle: ``sys.modules``; the public names resolve all the same."""
    code = (
        "import sys, bertopt_bench\n"
        "assert not {'torch', 'numpy', 'pandas', 'pydantic', 'typer'} & set(sys.modules)\n"
        "bertopt_bench.load_results, bertopt_bench.run_matrix, bertopt_bench.Matrix\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = run(code, project, environment)

    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_missing_page_package_keeps_the_records_and_names_the_command(
    project: Path, environment: dict[str, str]
) -> None:
    """Oracle: the design's sentence: the report command is printed, and the run ends well."""
    code = (
        "import sys\n"
        "sys.modules['plotly'] = None\n"
        "from bertopt_bench.cli import main\n"
        "sys.argv = ['bertopt-bench', 'run', 'small.toml', '--set', \"name='pageless'\","
        " '--set', \"axes.optimizer='sgd'\"]\n"
        "main()\n"
    )
    done = run(code, project, environment)

    assert done.returncode == 0, done.stderr
    assert "bertopt-bench report results/pageless" in done.stdout
    assert (project / "results/pageless/records.jsonl").stat().st_size > 0
