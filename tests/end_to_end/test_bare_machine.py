"""A machine that only measures: it lacks what a page needs, and runs all the same."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from bare_machines import MEASURING, ROOT, bare_environment, bare_python

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Bare = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow

ABSENT = ("pandas", "plotly", "scipy", "pytest", "pytorch_optimizer", "transformers", "pyarrow")


@pytest.fixture(scope="module")
def bare(
    project: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Give a function that runs the bare interpreter in the user's folder."""
    python = bare_python(tmp_path_factory.mktemp("bare") / "venv")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(python), *arguments],
            cwd=project,
            env=bare_environment(cache),
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )

    return run


def test_it_has_the_eight_packages_and_none_of_ours_for_pages(bare: Bare) -> None:
    """Oracle: the imports themselves; this guards the tests below against a leak."""
    for name in MEASURING:
        assert bare("-c", f"import {name}").returncode == 0, name
    for name in ABSENT:
        done = bare("-c", f"import {name}")
        assert "ModuleNotFoundError" in done.stderr, name


@pytest.mark.parametrize("mode", ["training", "inference"])
def test_a_run_ends_well_and_says_how_to_get_the_page(bare: Bare, project: Path, mode: str) -> None:
    """Oracle: the records on disk, and the page that the printed command then writes elsewhere."""
    name = f"measured_{mode}"
    done = bare(
        "-m", "bertopt_bench", "run", "small.toml", "--set", f"name='{name}'",
        "--set", f"workload.mode='{mode}'", "--set", "axes.optimizer='adamw'",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "trials: 1 ok" in done.stdout
    assert "no page: pandas, plotly are not installed" in done.stdout
    assert "pip install pandas plotly" in done.stdout
    (line,) = (project / f"results/{name}/records.jsonl").read_text().splitlines()
    assert json.loads(line)["status"] == "ok"
    told = f"bertopt-bench report results/{name} --output reports/{name}.html"
    assert told in done.stdout
    command = [sys.executable, "-m", "bertopt_bench", *told.split()[1:]]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    assert (project / f"reports/{name}.html").stat().st_size > 100_000


@pytest.mark.parametrize(
    "name", ["inference", "kernels", "layouts", "operations", "optimizers", "precisions"]
)
def test_matrices_for_a_gpu_are_planned_there_and_skipped_without_one(
    bare: Bare, project: Path, name: str
) -> None:
    """Oracle: a skipped record with a reason for every cell of the plan; exit code 0."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here: the matrix would run")
    matrix = str(ROOT / "benchmarks/gpu" / f"{name}.toml")
    planned = bare("-m", "bertopt_bench", "plan", matrix)
    done = bare("-m", "bertopt_bench", "run", matrix)

    assert planned.returncode == done.returncode == 0, planned.stderr + done.stderr
    assert "0 trials to run" in planned.stdout
    lines = (project / f"results/gpu_{name}/records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert records
    assert all(one["status"] == "skipped" and one["reason"] for one in records)
    assert "no page: pandas, plotly are not installed" in done.stdout
