"""Columns and checks of classifiers' records."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from made_records import content, record

from bertopt_bench.results.classification_rows import classification_columns, faults
from bertopt_bench.results.record import Record
from bertopt_bench.results.record_parts import Explained
from bertopt_bench.results.rows import evaluation_rows, trial_rows
from bertopt_bench.workload import classifier_formulas

CLASSES = ("few", "many")
CONFUSION = ((1, 1), (0, 6))
OWN_KEYS = {
    "name": "classification",
    "dataset": "reuters_r8",
    "weights": "random",
    "tokenizer": "minilm",
    "pooling": "mean",
    "criterion": "cross_entropy",
    "class_weights": {"few": 3.0},
}


def cell() -> dict[str, Any]:
    made = content(workload=OWN_KEYS)
    for key in ("corpus", "mask_rate", "evaluation_batches", "vocabulary_size", "lower_case"):
        del made["workload"][key]
    return made


def classified(**fields: Any) -> Record:
    """Make the record of a trial that put 7 of 8 texts into their class."""
    given = cell()
    bins = [{"count": 0, "correct": 0, "confidence_sum": 0.0}] * 15
    bins[-1] = {"count": 8, "correct": 7, "confidence_sum": 7.8}
    seen = {
        "classes": CLASSES,
        "training_counts": [5, 20],
        "test_sha256": "6" * 64,
        "loss": 0.4,
        "accuracy": 7 / 8,
        "confusion": CONFUSION,
        "calibration": bins,
        **fields.pop("classification", {}),
    }
    workload = given["workload"]
    formulas = classifier_formulas
    looks = [
        {
            "step": step,
            "loss": math.log(2),
            "perplexity": 2.0,
            "masked_accuracy": 0.875,
            "train_seconds": 1.0,
            "evaluation_seconds": 0.1,
            "confusion": CONFUSION,
        }
        for step in (0, 3, 6)
    ]
    plain = record(content(), **fields)
    fields = {
        **plain,
        "cell": given,
        "evaluations": looks,
        "vocabulary_size": 512,
        "parameter_count": formulas.parameter_count(workload, vocabulary=512, classes=2),
        "flops_per_step": 3 * formulas.forward_flops(workload, classes=2),
        "classification": seen,
    }
    return Record.model_validate(fields)


def test_measures_follow_from_what_the_record_counts() -> None:
    """By hand: recall 1/2 and 1, precision 1 and 6/7; the floor has 6 of 8; |7 - 7.8| / 8."""
    row = classification_columns(classified())

    assert row["test_accuracy"] == 0.875
    assert row["test_recall_macro"] == 0.75
    assert row["test_precision_macro"] == pytest.approx((1 + 6 / 7) / 2)
    assert row["test_f1_macro"] == pytest.approx((2 / 3 + 12 / 13) / 2)
    assert row["test_calibration_error"] == pytest.approx(0.1)
    assert (row["majority_accuracy"], row["test_texts"]) == (0.75, 8)
    assert json.loads(row["test_confusion"]) == [[1, 1], [0, 6]]


def test_rows_of_other_tasks_are_empty_and_those_of_classifiers_have_curves() -> None:
    """Oracle: the records."""
    plain, ours = Record.model_validate(record(content())), classified()

    rows = trial_rows([plain, ours], [])
    curves = evaluation_rows([plain, ours])

    assert rows[0]["test_confusion"] is None
    assert math.isnan(rows[0]["test_accuracy"])
    assert (rows[0]["workload"], rows[1]["workload"]) == ("mlm", "classification")
    assert [one["accuracy"] for one in curves if one["trial"] == 1] == [0.875] * 3
    assert not any("accuracy" in one for one in curves if one["trial"] == 0)


def test_a_sound_record_has_no_faults() -> None:
    assert list(faults(classified())) == []
    assert list(faults(Record.model_validate(record(content())))) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"accuracy": 0.9}, "accuracy is 0.900000, its confusion matrix has 7 of 8"),
        ({"training_counts": [5]}, "not of its 2 classes"),
        ({"confusion": ((1, 1), (0, 7))}, "calibration counts 8 texts, its confusion matrix 9"),
        (
            {"calibration": [{"count": 8, "correct": 7, "confidence_sum": 7.8}]},
            "calibration counts 8",
        ),
    ],
)
def test_a_changed_number_is_found(change: dict[str, Any], said: str) -> None:
    """Oracle: the same record before the change, in which nothing is found."""
    assert any(said in text for text in faults(classified(classification=change)))


def test_confidences_outside_their_bin_are_found() -> None:
    bins = [one.model_dump() for one in classified().classification.calibration]  # type: ignore[union-attr]
    bins[-1]["confidence_sum"] = 7.0  # below 14/15 each

    found = list(faults(classified(classification={"calibration": bins})))

    assert found == ["bin 14 of its calibration has confidences outside its edges"]


def test_a_look_at_the_test_part_before_the_end_is_found() -> None:
    """Oracle: the protocol, nothing is tested before T."""
    early = classified().model_copy(update={"steps": 3})

    assert any("test part was looked at" in text for text in faults(early))


@pytest.mark.parametrize(("score", "sound"), [(0.5, True), (0.9, False)])
def test_integrated_gradients_sum_up_to_the_change(score: float, sound: bool) -> None:
    """Oracle: the axiom of completeness; 0.5 + 0.5 is the change of 1, 0.5 + 0.9 is not."""
    text = {
        "method": "integrated_gradients",
        "true": 0,
        "predicted": 0,
        "probability": 0.5,
        "change": 1.0,
        "tokens": ["a", "b"],
        "scores": [0.5, score],
    }
    made = classified().model_copy(update={"explained": (Explained.model_validate(text),)})

    assert (not list(faults(made))) is sound
