"""What is published in `results/` and `reports/`: it holds, and its analysis repeats."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest

from bertopt_bench.challenging import _baseline_of, _published
from bertopt_bench.matrix.protocols import read_protocol
from bertopt_bench.report.wording import MINUS
from bertopt_bench.results.reading import read_folder
from bertopt_bench.results.tables import load_results
from bertopt_bench.results.tuning import final_loss, load_tuning
from bertopt_bench.results.verify import verify
from bertopt_bench.scoring import read_curves
from bertopt_bench.stats.curves import Aim
from bertopt_bench.stats.scoring import Asked, as_json, score

ROOT = Path(__file__).parents[2]
TUNED = ("protocols/tiny-v1/tuning", "tuned_adamw/tuning")
TRAINED = (
    "optimizers",
    "protocols/tiny-v1",
    "classification",
    "tuned_adamw",
    "tuned_adamw_confirmation",
    "overfitting",
    "layouts",
    "inference",
    "kernels",
    "precisions_kernels",
    *TUNED,
)
SCORED = {
    "tiny-v1": "protocols/tiny-v1",
    "tuned_adamw": "tuned_adamw",
    "tuned_adamw_confirmation": "tuned_adamw_confirmation",
}


@pytest.mark.parametrize("name", TRAINED)
def test_a_published_set_holds(name: str) -> None:
    """Oracle: `verify` derives losses, FLOPs, measures and bytes of every record anew."""
    findings = verify(load_results(ROOT / "results" / name))

    assert [one.text for one in findings if one.severity == "error"] == []


@pytest.mark.parametrize("name", SCORED)
def test_the_published_analysis_repeats_to_the_last_digit(name: str) -> None:
    """Oracle: the file that `score results/NAME --format json` wrote."""
    scored = score(*read_curves(ROOT / "results" / SCORED[name], Asked(Aim())))

    assert json.loads(json.dumps(as_json(scored))) == scores_of(name)


@pytest.mark.parametrize("name", TUNED)
def test_what_was_chosen_follows_from_the_published_records(name: str) -> None:
    """Oracle: the records' final losses: of points that ran on every seed, the lowest mean."""
    folder = ROOT / "results" / name
    tuning = load_tuning(folder)
    losses: dict[str, dict[int, float | None]] = {}
    for record in read_folder(folder).records:
        losses.setdefault(record.cell_id, {})[record.seed] = final_loss(record)
    seeds = max(map(len, losses.values()))
    means = {
        cell: sum(by_seed.values()) / seeds
        for cell, by_seed in losses.items()
        if len(by_seed) == seeds and None not in by_seed.values()
    }

    for choice in tuning.ledger.choices:
        points = [one.cell_id for one in tuning.ledger.of(choice.arm) if one.cell_id in means]
        assert choice.cell_id == min(points, key=means.__getitem__)
        assert choice.loss == pytest.approx(means[choice.cell_id], abs=1e-12)
    chosen = tomllib.loads((folder / "tuned.toml").read_text())["tuned"]
    assert {one["ledger"] for one in chosen} == {tuning.sha256}
    assert [one["arm"] for one in chosen] == [choice.arm for choice in tuning.ledger.choices]


def test_readme_tells_the_published_verdicts() -> None:
    """Oracle: README's words beside the verdicts, estimates and intervals of the score files."""
    readme = (ROOT / "README.md").read_text()
    told = {"higher": "higher", "lower": "lower", "inconclusive": "cannot tell"}
    rows = [row for name in SCORED for row in scores_of(name)["finals"]]

    assert len(rows) == 11
    for row in rows:
        if math.isinf(float(row["high"])):
            continue
        digits = [f"{row[key]:+.3f}".replace("-", MINUS) for key in ("estimate", "low", "high")]
        said = f"{digits[0]} [{digits[1]}, {digits[2]}]"
        line = next((line for line in readme.splitlines() if said in line), "")
        assert told[row["verdict"]] in line, said


def test_readme_tells_the_published_accuracies() -> None:
    """Oracle: accuracy and macro F1 of R8's test part in the records, three seeds each."""
    readme = (ROOT / "README.md").read_text()
    trials = load_results(ROOT / "results" / "classification").trials

    assert len(trials) == 6
    for column in ("test_accuracy", "test_f1_macro"):
        for value in trials[column]:
            assert f"{value:.4f}".removeprefix("0") in readme or f"{value:.3f}" in readme, value


def scores_of(name: str) -> dict[str, Any]:
    """Read a published score file."""
    found: dict[str, Any] = json.loads((ROOT / "reports" / f"{name}-scores.json").read_text())
    return found


def test_the_published_records_are_ones_that_a_challenge_can_join() -> None:
    """Oracle: the protocol's own hash, text, workload, seeds and baseline."""
    protocol = read_protocol("tiny-v1")
    found = _baseline_of(_published(protocol, None), protocol)

    assert sorted(found) == protocol.document["seeds"]
