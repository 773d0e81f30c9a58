"""Records of trials that ran forward only: their columns, and what verify finds in them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from made_records import content, evaluation, record, session

from bertopt_bench.results.record import Record, Session
from bertopt_bench.results.rows import evaluation_rows, trial_rows
from bertopt_bench.results.tables import Results
from bertopt_bench.results.verify import verify

if TYPE_CHECKING:
    from bertopt_bench.results.findings import Finding

FORWARD = content(workload={"mode": "inference"})


def forward(**fields: Any) -> dict[str, Any]:
    """Give the fields of a finished inference trial."""
    trained = record(FORWARD)
    return {
        **trained,
        "losses": (),
        "phases": None,
        "skipped_steps": None,
        "evaluations": [evaluation(0)],
        "flops_per_step": trained["flops_per_step"] // 3,
        "peak_memory_bytes": 5 * trained["parameter_count"],
        **fields,
    }


def findings(*records: dict[str, Any]) -> list[Finding]:
    models = tuple(Record(**one) for one in records)
    return verify(Results(Path("made"), (Session(**session()),), models, ()))


def row(**fields: Any) -> dict[str, Any]:
    (found,) = trial_rows([Record(**forward(**fields))], [])
    return found


def test_latencies_are_of_single_passes() -> None:
    """Oracle: by hand: 200 passes of 10 ms but for two of 50; 4 sequences and 8 tokens each."""
    seconds = [0.01] * 198 + [0.05] * 2
    cell = content(workload={"mode": "inference", "steps": 200})
    fields = forward(
        cell=cell, steps=200, step_seconds=seconds, timed_steps=200, real_tokens=[8] * 200
    )
    (found,) = trial_rows([Record(**fields)], [])

    assert found["mode"] == "inference"
    assert found["latency_seconds"] == 0.01
    assert found["latency_seconds_p99"] == pytest.approx(0.0104)  # rank 197.01 from 0
    assert found["latency_samples"] == 200
    assert found["sequences_per_second"] == pytest.approx(800 / 2.08)
    assert found["tokens_per_second"] == pytest.approx(1600 / 2.08)


def test_a_hundred_passes_are_needed_for_the_99th_percentile() -> None:
    """Oracle: with 99 samples, one in a hundred was not seen."""
    few, enough = (
        row(step_seconds=[0.01] * count, real_tokens=[8] * count)["latency_seconds_p99"]
        for count in (99, 100)
    )

    assert math.isnan(few)
    assert enough == pytest.approx(0.01)


def test_a_training_trial_has_no_latency_and_inference_no_loss() -> None:
    """Oracle: the modes; the loss at the initial weights is no result."""
    (trained,) = trial_rows([Record(**record())], [])

    assert trained["mode"] == "training"
    assert math.isnan(trained["latency_seconds"])
    assert not math.isnan(trained["final_loss"])
    assert math.isnan(row()["final_loss"])
    assert math.isnan(row()["best_loss"])
    assert evaluation_rows([Record(**forward())]) == []


def test_sound_records_of_both_modes_pass() -> None:
    """Oracle: no rule that needs a training loss applies; hashes are those of training."""
    assert findings(forward(), record()) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"losses": [1.0] * 6}, "has 6 losses"),
        ({"flops_per_step": record()["flops_per_step"]}, "the formula gives"),
        ({"evaluations": [evaluation(0), evaluation(6)]}, "was evaluated at steps 0, 6"),
        ({"evaluations": [evaluation(0, 9.0)]}, "random weights give"),
        ({"peak_memory_bytes": 3 * record()["parameter_count"]}, "; weights of"),
        ({"batches_sha256": "9" * 64}, "batches_sha256 is 222222222222, but 999999999999"),
        ({"step_seconds": [0.01] * 5, "timed_steps": 5}, "5 step_seconds"),
    ],
)
def test_planted_errors_are_found(fields: dict[str, Any], words: str) -> None:
    """Oracle: one field wrong at a time, beside a training trial of the same data."""
    found = findings(record(), forward(**fields))

    assert found
    assert any(words in one.text for one in found), found
