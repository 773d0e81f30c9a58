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
TRAINED = ("optimizers", "protocols/tiny-v1", "classification")


@pytest.mark.parametrize("name", TRAINED)
def test_a_published_set_holds(name: str) -> None:
    """Oracle: `verify` derives losses, FLOPs, measures and bytes of every record anew."""
    findings = verify(load_results(ROOT / "results" / name))

    assert [one.text for one in findings if one.severity == "error"] == []


def test_the_published_analysis_repeats_to_the_last_digit() -> None:
    """Oracle: the file that `score results/protocols/tiny-v1 --format json` wrote."""
    there = json.loads((ROOT / "reports" / "tiny-v1-scores.json").read_text())
    scored = score(*read_curves(ROOT / "results" / "protocols" / "tiny-v1", Asked(Aim())))

    assert json.loads(json.dumps(as_json(scored))) == there


def test_the_published_records_are_ones_that_a_challenge_can_join() -> None:
    """Oracle: the protocol's own hash, text, workload, seeds and baseline."""
    protocol = read_protocol("tiny-v1")
    found = _baseline_of(_published(protocol, None), protocol)

    assert sorted(found) == protocol.document["seeds"]
