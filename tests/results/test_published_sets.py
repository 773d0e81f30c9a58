"""What is published in `results/` and `reports/`: it holds, and its analysis repeats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bertopt_bench.challenging import _baseline_of, _published
from bertopt_bench.matrix.protocols import read_protocol
from bertopt_bench.results.tables import load_results
from bertopt_bench.results.verify import verify
from bertopt_bench.scoring import read_curves
from bertopt_bench.stats.curves import Aim
from bertopt_bench.stats.scoring import Asked, as_json, score

ROOT = Path(__file__).parents[2]
TRAINED = (
    "optimizers",
    "protocols/tiny-v1",
    "classification",
    "tuned_adamw",
    "tuned_adamw_confirmation",
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
    there = json.loads((ROOT / "reports" / f"{name}-scores.json").read_text())
    scored = score(*read_curves(ROOT / "results" / SCORED[name], Asked(Aim())))

    assert json.loads(json.dumps(as_json(scored))) == there


@pytest.mark.parametrize(
    ("name", "verdicts"),
    [
        ("tuned_adamw", {"momentum": "higher", "adam": "inconclusive"}),
        ("tuned_adamw_confirmation", {"adamw lr=0.001": "higher"}),
    ],
)
def test_the_published_verdicts_are_those_that_readme_tells(
    name: str, verdicts: dict[str, str]
) -> None:
    """Oracle: README's table, against the verdicts in the published scores."""
    found = json.loads((ROOT / "reports" / f"{name}-scores.json").read_text())["finals"]

    told = {row["submission"].split(" · ")[0]: row["verdict"] for row in found}
    assert told.items() >= verdicts.items()


def test_the_published_records_are_ones_that_a_challenge_can_join() -> None:
    """Oracle: the protocol's own hash, text, workload, seeds and baseline."""
    protocol = read_protocol("tiny-v1")
    found = _baseline_of(_published(protocol, None), protocol)

    assert sorted(found) == protocol.document["seeds"]
