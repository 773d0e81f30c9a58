"""`score`: what it reads, refuses and writes, and that it repeats to the last digit."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from bertopt_bench.cli import app
from bertopt_bench.errors import UserError

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "results" / "optimizers"


def made(seeds: int = 8) -> pd.DataFrame:
    """Make curves of three submissions on two workloads; one run of c diverges."""
    rows = []
    for workload, scale in (("mlm", 1.0), ("news", 1.3)):
        for submission, speed in (("adamw", 1.0), ("b", 1.4), ("c", 0.8)):
            for seed in range(seeds):
                for step in range(0, 100, 10):
                    loss = scale * (3 + 5 * math.exp(-speed * step / 40)) + 0.02 * math.sin(
                        seed * 9 * speed
                    )
                    if submission == "c" and seed == 3 and step == 90:
                        loss = math.nan
                    rows.append((f"{submission}{seed}", workload, submission, seed, step,
                                 step * 0.1 / speed, loss))  # fmt: skip
    names = ["run", "workload", "submission", "seed", "step", "seconds", "metric"]
    return pd.DataFrame(rows, columns=names)


@pytest.fixture
def curves(tmp_path: Path) -> Path:
    path = tmp_path / "curves.parquet"
    made().to_parquet(path)
    return path


def run(*words: object) -> str:
    found = CliRunner().invoke(app, ["score", *map(str, words)], catch_exceptions=False)
    assert found.exit_code == 0
    return found.stdout


def test_a_frame_is_scored_as_json_with_all_of_it(curves: Path) -> None:
    """The faster b scores 1 on both workloads; the diverged run is counted and infinite."""
    told = json.loads(run(curves, "--target", "mlm=4", "--target", "news=5", "--format", "json"))
    best = {row["submission"]: row["score"] for row in told["scores"] if row["by"] == "steps"}
    assert best["b"] == 1.0
    assert best["b"] > best["adamw"] > best["c"]
    assert all(row["n"] == 8 and row["workloads"] == 2 for row in told["scores"])
    assert [row["final"] for row in told["runs"]].count("inf") == 2
    verdicts = {(r["workload"], r["submission"]): r["verdict"] for r in told["finals"]}
    assert verdicts["mlm", "b"] == "lower"
    assert "exploratory" not in " ".join(told["notes"])


def test_text_and_markdown_say_n_and_what_never_got_there(curves: Path) -> None:
    text = run(curves)
    assert "Score over workloads" in text
    assert "7 of 8" in text
    assert "1 diverged" in text
    assert "exploratory" in text  # no target was declared
    assert "| workload | submission | rank |" in run(curves, "--format", "markdown")


def test_one_table_is_written_as_data(curves: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "reached.parquet"
    run(curves, "--table", "reached", "--format", "parquet", "--output", output, "--target", 4)
    frame = pd.read_parquet(output)
    assert set(frame["submission"]) == {"adamw", "b", "c"}
    assert math.isinf(frame["steps"].max())
    assert run(curves, "--table", "ranks", "--format", "csv").startswith("workload,submission")


def test_a_workload_may_be_left_out(curves: Path) -> None:
    told = json.loads(run(curves, "--workload", "mlm", "--format", "json"))
    assert {row["workload"] for row in told["runs"]} == {"mlm"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--format", "jsn"], "Did you mean 'json'"),
        (["--format", "csv"], "name it with --table"),
        (["--table", "rank"], "Did you mean 'ranks'"),
        (["--baseline", "adam"], "Did you mean 'adamw'"),
        (["--workload", "mml"], "Did you mean 'mlm'"),
        (["--target", "mml=4"], "no workload 'mml'"),
        (["--tau-max", "1"], "above 1"),
        (["--better", "up"], "lower or higher"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(curves: Path, words: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        CliRunner().invoke(app, ["score", str(curves), *words], catch_exceptions=False)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    for name in ("none.csv", "none"):
        with pytest.raises(UserError, match="none"):
            CliRunner().invoke(app, ["score", str(tmp_path / name)], catch_exceptions=False)
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(b"no parquet")
    with pytest.raises(UserError, match="cannot be read"):
        CliRunner().invoke(app, ["score", str(damaged)], catch_exceptions=False)
    wrong = tmp_path / "wrong.csv"
    made().rename(columns={"metric": "metrik"}).to_csv(wrong)
    with pytest.raises(UserError, match="Did you mean 'metrik'"):
        CliRunner().invoke(app, ["score", str(wrong)], catch_exceptions=False)


def in_process(hash_seed: str, *words: object) -> bytes:
    """Score as JSON in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "bertopt_bench", "score", *map(str, words), "--format", "json"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
        cwd=ROOT,
    ).stdout


@pytest.mark.slow
def test_scoring_again_gives_the_same_bytes(tmp_path: Path) -> None:
    """Other processes, hash seeds and order of rows; bootstraps are drawn (8 seeds)."""
    ordered, reversed_ = tmp_path / "a.csv", tmp_path / "b.csv"
    made().to_csv(ordered, index=False)
    made()[::-1].to_csv(reversed_, index=False)
    first = in_process("1", ordered)
    assert first == in_process("2", reversed_)
    assert any(row["low"] is not None for row in json.loads(first)["ranks"])


@pytest.mark.slow
def test_a_published_analysis_repeats_to_the_last_digit() -> None:
    """A stored results folder, analysed twice in processes with different hash seeds."""
    first = in_process("1", PUBLISHED)
    assert first == in_process("2", PUBLISHED)
    assert len(json.loads(first)["runs"]) == 39
