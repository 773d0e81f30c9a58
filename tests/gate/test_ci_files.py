"""The files for GitHub and GitLab are well formed, and their commands run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
import yaml
from recorded_sets import write_policy, write_set
from scripted_duels import CELLS, POLICY, checkout, git

from bertopt_bench.cli import app
from bertopt_bench.gate.checkout import importable
from bertopt_bench.gate.levels import derive, refuse_out_of_reach
from bertopt_bench.gate.policy import read_policy
from bertopt_bench.stats.planning import ARM_SECONDS, START_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples" / "ci"
FOREIGN = EXAMPLES / "foreign-layer-norm"
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
GITHUB = yaml.safe_load((EXAMPLES / "github-workflow.yml").read_text())
GITLAB = yaml.safe_load((EXAMPLES / "gitlab-ci.yml").read_text())["gate"]
WORKED = yaml.safe_load((FOREIGN / "gate.yml").read_text())
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
WIRED = "gate" in typer.main.get_command(app).commands  # type: ignore[attr-defined]
needs_command = pytest.mark.skipif(not WIRED, reason="the command line has no gate")


def shell(
    script: str, folder: Path, variables: Mapping[str, str], stubs: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a script as a CI's shell does; stubs write down how they were called."""
    bin_ = folder / "bin"
    bin_.mkdir(exist_ok=True)
    for name in stubs:
        _executable(bin_ / name, f'echo "{name} $*" >> "{folder}/called"')
    command = f'exec "{sys.executable}" "{Path(__file__).with_name("scripted_command.py")}" "$@"'
    _executable(bin_ / "bertopt-bench", command)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GITHUB_")}
    path = f"{bin_}{os.pathsep}{os.environ['PATH']}"
    environment = {**kept, "PATH": path, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder / "project",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def _executable(file: Path, line: str) -> None:
    file.write_text(f"#!/bin/sh\n{line}\n")
    file.chmod(0o755)


def called(folder: Path) -> list[str]:
    """Give how the stubs were called."""
    return (folder / "called").read_text().splitlines() if (folder / "called").exists() else []


def jobs(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return list(workflow["jobs"].values())


def scripts() -> list[tuple[str, str]]:
    """Give every script in every file, by where it stands."""
    found = [(name, step["run"]) for name, step in STEPS.items() if "run" in step]
    for key in ("before_script", "script", "after_script"):
        found += [(f"gitlab {key}", line) for line in GITLAB[key]]
    for workflow in (GITHUB, WORKED):
        for job in jobs(workflow):
            found += [(step["run"][:30], step["run"]) for step in job["steps"] if "run" in step]
    return found


@pytest.mark.parametrize(("where", "script"), scripts())
def test_every_script_is_bash_and_takes_nothing_unquoted_from_outside(
    where: str, script: str
) -> None:
    """Oracle: bash's own parser; GitHub's advice: expressions go through the environment."""
    parsed = subprocess.run(
        ["bash", "-n"], input=script, text=True, capture_output=True, check=False
    )

    assert parsed.returncode == 0, parsed.stderr
    assert not EXPRESSION.search(script)


def test_the_action_is_composite_and_uses_what_it_declares() -> None:
    """Oracle: GitHub's syntax of composite actions."""
    text = (ROOT / "action.yml").read_text()
    used = {
        name
        for found in EXPRESSION.findall(text)
        for name in re.findall(r"inputs\.([\w-]+)", found)
    }

    assert ACTION["runs"]["using"] == "composite"
    assert used == set(ACTION["inputs"])
    for inputs in ACTION["inputs"].values():
        assert inputs["description"].strip()
        assert inputs.get("required") or isinstance(inputs["default"], str)
    for step in ACTION["runs"]["steps"]:
        assert ("uses" in step) != ("run" in step and step["shell"] == "bash")
    assert [name for name, one in ACTION["inputs"].items() if one.get("required")] == [
        "policy",
        "torch-index",
    ]


def test_the_page_is_kept_whatever_the_gate_says() -> None:
    """Oracle: the upload is the last step, always, of the folder that the gate writes to."""
    last = ACTION["runs"]["steps"][-1]

    assert last["uses"].startswith("actions/upload-artifact@")
    assert EXPRESSION.findall(last["if"]) == ["always()"]
    assert last["with"]["path"] == "${{ runner.temp }}/bertopt-bench-gate"
    assert '"$RUNNER_TEMP/bertopt-bench-gate"' in STEPS["Gate"]["run"]


def test_the_action_installs_itself_with_its_constraints_and_torchs_cpu_build(
    tmp_path: Path,
) -> None:
    """Oracle: README: constraints, and the index that pytorch.org names."""
    step = STEPS["Install bertopt-bench"]
    (tmp_path / "project").mkdir()
    variables = {"ACTION_PATH": str(ROOT), "INSTALL": "-r needed.txt", "PIP_EXTRA_INDEX_URL": "cpu"}
    done = shell(step["run"], tmp_path, variables, stubs=("pip",))

    assert done.returncode == 0, done.stderr
    assert set(step["env"]) == set(variables)
    assert called(tmp_path) == [
        f"pip install -c {ROOT}/constraints.txt {ROOT}",
        f"pip install -c {ROOT}/constraints.txt -r needed.txt",
    ]
    assert (ROOT / "constraints.txt").is_file()
    assert (ROOT / "pyproject.toml").is_file()


def test_the_action_refuses_to_fetch_cuda_by_oversight(tmp_path: Path) -> None:
    """Oracle: exit 2, and nothing installed."""
    (tmp_path / "project").mkdir()
    variables = {"ACTION_PATH": str(ROOT), "INSTALL": "", "PIP_EXTRA_INDEX_URL": ""}
    done = shell(STEPS["Install bertopt-bench"]["run"], tmp_path, variables, stubs=("pip",))

    assert done.returncode == 2
    assert "pytorch.org/get-started" in done.stdout
    assert called(tmp_path) == []


@needs_command
@pytest.mark.parametrize(
    ("words", "options", "code"),
    [
        (["equivalent"], {}, 0),
        (["slower", "slower"], {"BASE": "v1.0", "ANCHOR": "v1.0", "BUDGET": "20m"}, 1),
        (["invalid"], {}, 3),
        (["inconclusive"], {"STRICT": "true"}, 4),
        (["inconclusive"], {}, 0),
        ([], {"BASE": "nowhere"}, 2),
    ],
)
def test_the_actions_gate_step_runs(
    tmp_path: Path, words: list[str], options: dict[str, str], code: int
) -> None:
    """The real command line over scripted duels. Oracle: the design's exit codes."""
    checkout(tmp_path / "project")
    step = STEPS["Gate"]
    variables = {
        **dict.fromkeys(step["env"], ""),
        "POLICY": "policy.toml",
        "CHECKOUT": ".",
        "STRICT": "false",
        "RUNNER_TEMP": str(tmp_path / "temp"),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "SCRIPT": json.dumps({CELLS[0]: words}),
        **options,
    }
    done = shell(step["run"], tmp_path, variables)
    folder = tmp_path / "temp" / "bertopt-bench-gate"

    assert done.returncode == code, done.stderr
    assert (tmp_path / "output").read_text() == f"folder={folder}\n"
    if code != 2:
        assert {file.name for file in folder.iterdir()} >= {"gate.html", "gate.xml", "gate.json"}
        assert (tmp_path / "summary.md").read_text().startswith("# Gate: ")
        assert done.stdout.count("# Gate: ") == 1
    assert git(tmp_path / "project", "status", "--porcelain") == ""


@pytest.mark.slow
@needs_command
def test_the_command_gates_two_recorded_sets(tmp_path: Path) -> None:
    """Nothing is scripted but the page. Oracle: bytes by hand, with a second pair of sessions."""
    project = tmp_path / "project"
    project.mkdir()
    write_policy(project)
    for name, factor in (("old", 1.0), ("worse", 1.05)):
        write_set(project / name, factor, factor)
    ends = {
        pair: shell(f"bertopt-bench gate policy.toml {pair} --json ../gate.json", tmp_path, {})
        for pair in ("old old", "old worse", "worse old")
    }

    assert {pair: done.returncode for pair, done in ends.items()} == {
        "old old": 0,
        "old worse": 1,
        "worse old": 0,
    }
    assert json.loads((tmp_path / "gate.json").read_text())["exit_code"] == 0


@pytest.mark.parametrize("workflow", [GITHUB, WORKED])
def test_workflows_fetch_history_have_an_end_and_give_what_the_action_takes(
    workflow: dict[Any, Any],
) -> None:
    """Oracle: action.yml beside them. YAML reads a bare `on` as true."""
    assert "pull_request" in str(workflow[True])
    for job in jobs(workflow):
        first, second = job["steps"]
        assert job["timeout-minutes"] > 0
        assert first["uses"].startswith("actions/checkout@")
        assert first["with"]["fetch-depth"] == 0
        assert second["uses"].partition("@")[0].endswith("/bertopt-bench")
        assert set(second["with"]) <= set(ACTION["inputs"])
        assert {"policy", "torch-index"} <= set(second["with"])
        assert second["with"]["torch-index"] == "${{ vars.TORCH_INDEX }}"


def test_no_file_names_a_registry() -> None:
    """Oracle: what is installed comes from where the user says."""
    for file in (ROOT / "action.yml", *EXAMPLES.rglob("*.yml")):
        assert not re.search(r"https?://", file.read_text()), file


@needs_command
def test_the_gitlab_job_runs_and_keeps_its_files(tmp_path: Path) -> None:
    """Its lines run in order, git and pip at first as stubs. Oracle: its own artifacts."""
    project = tmp_path / "project"
    checkout(project, POLICY.replace('"gated.toml"', '"../gated.toml"'))
    (project / "benchmarks").mkdir()
    shutil.move(project / "policy.toml", project / "benchmarks" / "gate.toml")
    prepared = shell(
        "\n".join(GITLAB["before_script"]),
        tmp_path,
        {"BERTOPT_BENCH_URL": "somewhere"},
        stubs=("git", "pip"),
    )
    for stub in ("git", "pip"):
        (tmp_path / "bin" / stub).unlink()
    variables = {
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": git(project, "rev-parse", "v1.0"),
        "SCRIPT": json.dumps({CELLS[0]: ["slower", "slower"]}),
    }
    gated = shell("\n".join(GITLAB["script"]), tmp_path, variables)
    after = shell("\n".join(GITLAB["after_script"]), tmp_path, {})

    assert prepared.returncode == after.returncode == 0, prepared.stderr + after.stderr
    assert called(tmp_path) == [
        "git clone --quiet --depth 1 somewhere ../bertopt-bench",
        "pip install -c ../bertopt-bench/constraints.txt ../bertopt-bench",
    ]
    assert gated.returncode == 1, gated.stderr
    assert GITLAB["artifacts"]["when"] == "always"
    assert GITLAB["variables"]["GIT_DEPTH"] == "0"
    for path in (*GITLAB["artifacts"]["paths"], GITLAB["artifacts"]["reports"]["junit"]):
        assert (project / path).exists()


def test_the_worked_example_gates_a_foreign_layer_norm_in_fifteen_lines() -> None:
    """Oracle: wc; the policy beside it reads, with the foreign code found in its checkout."""
    assert len((FOREIGN / "gate.yml").read_text().splitlines()) == 15
    with importable(FOREIGN):
        policy = read_policy(FOREIGN / "gate.toml")

    assert [cell.text for cell in policy.cells] == ["layer_norm=fastnorm:layer_norm"]
    assert jobs(WORKED)[0]["steps"][1]["with"]["policy"] == "gate.toml"
    refuse_out_of_reach(policy, derive(policy, 1))


def test_the_worked_example_takes_less_than_ten_minutes() -> None:
    """Oracle: the plan's own constants: starts, warm-ups, 6 rounds of blocks of half a second."""
    with importable(FOREIGN):
        policy = read_policy(FOREIGN / "gate.toml")
    arms, rounds, block_seconds, rewarm = 3, 6, 0.5, 1.25
    replicate = START_SECONDS + arms * (ARM_SECONDS + rounds * block_seconds * rewarm)
    session = policy.replicates * replicate
    install_seconds, text_seconds = 120, 20

    assert 2 * session + install_seconds + text_seconds < 600
    assert policy.budget_seconds is not None
    assert session <= policy.budget_seconds / 2
    assert jobs(WORKED)[0]["timeout-minutes"] == 10


def test_the_foreign_layer_norm_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: torch.nn.functional.layer_norm."""
    torch = pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(FOREIGN))
    from fastnorm import layer_norm  # type: ignore[import-not-found]

    generator = torch.Generator().manual_seed(1)
    given = torch.randn(3, 5, 8, generator=generator, dtype=torch.float64)
    weight, bias = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    expected = torch.nn.functional.layer_norm(given, (8,), weight, bias, 1e-5)

    assert torch.allclose(layer_norm(given, (8,), weight, bias, 1e-5), expected, rtol=1e-12)
