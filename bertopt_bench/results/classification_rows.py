"""Columns of trials that trained a classifier, and what must hold in their records."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from bertopt_bench.results.stored import to_json
from bertopt_bench.workload import classification_metrics as metrics
from bertopt_bench.workload import classifier_formulas
from bertopt_bench.workload.classifier_formulas import is_classification
from bertopt_bench.workload.formulas import TRAIN_FACTOR, model_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bertopt_bench.results.record import Record
    from bertopt_bench.results.record_parts import Classification, Evaluation

COLUMNS = (
    *(f"test_{name}" for name in metrics.MEASURES),
    "test_loss",
    "test_calibration_error",
    "majority_accuracy",
    "majority_f1_macro",
    "test_texts",
    "test_seconds",
)
STRUCTURES = ("classes", "training_counts", "test_confusion", "test_calibration", "explained")
"""Columns of JSON text."""

FIRST_LOSS_WITHIN = 1.0
"""Nats around ln(classes): a head of random weights hardly tells classes apart, but a common part
of all texts may lean to one of unequal classes."""
RELATIVE_ERROR = 1e-9
INTEGRATED = "integrated_gradients"
EXPLAINED_WITHIN = 0.05
"""Share of a change of logit that the sum of 50 points may miss: a way with kinks is not exact."""


def classification_columns(record: Record) -> dict[str, Any]:
    """Give a classifier's measures on its test part; NaN of other trials and unfinished ones."""
    row: dict[str, Any] = {**dict.fromkeys(COLUMNS, math.nan), **dict.fromkeys(STRUCTURES)}
    seen = record.classification
    if seen is None:
        return row
    floor = metrics.measures(metrics.majority_confusion(seen.training_counts, seen.confusion))
    return {
        **{f"test_{name}": value for name, value in metrics.measures(seen.confusion).items()},
        "test_loss": seen.loss,
        "test_calibration_error": metrics.calibration_error(_bins(seen)),
        "majority_accuracy": floor["accuracy"],
        "majority_f1_macro": floor["f1_macro"],
        "test_texts": sum(map(sum, seen.confusion)),
        "test_seconds": math.nan if record.test_seconds is None else record.test_seconds,
        "classes": json.dumps(seen.classes),
        "training_counts": json.dumps(seen.training_counts),
        "test_confusion": json.dumps(seen.confusion),
        "test_calibration": json.dumps(_bins(seen)),
        "explained": _explained(record),
    }


def _explained(record: Record) -> str | None:
    found = [to_json(one.model_dump()) for one in record.explained]
    return json.dumps(found) if found else None


def evaluation_columns(seen: Evaluation) -> dict[str, float]:
    """Give a validation's accuracy and macro F1; nothing of an MLM evaluation."""
    if seen.confusion is None:
        return {}
    found = metrics.measures(seen.confusion)
    return {"accuracy": found["accuracy"], "f1_macro": found["f1_macro"]}


def faults(record: Record) -> Iterator[str]:
    """Say what does not hold in a classifier's record; nothing of other records."""
    if not is_classification(record.cell):
        if record.classification is not None:
            yield "has a classification, but its cell trains none"
        return
    seen = record.classification
    whole = record.steps == record.cell["workload"]["steps"]
    if record.status == "ok" and whole is (seen is None):
        why = "never, though it trained to the end" if seen is None else "before the schedule ended"
        yield f"its test part was looked at {why}"
    for one in record.evaluations:
        if one.confusion is None:
            yield f"its evaluation at step {one.step} has no confusion matrix"
        elif not _close(metrics.measures(one.confusion)["accuracy"], one.masked_accuracy):
            yield f"the accuracy at step {one.step} is not that of its confusion matrix"
    for number, text in enumerate(record.explained, start=1):
        missed = abs(math.fsum(text.scores) - text.change)
        if text.method == INTEGRATED and missed > EXPLAINED_WITHIN * max(1.0, abs(text.change)):
            yield (
                f"the scores of its explained text {number} sum up to "
                f"{math.fsum(text.scores):.4g}; the logit changed by {text.change:.4g}"
            )
    if seen is not None:
        yield from _test_faults(seen)
        yield from _formula_faults(record, seen)


def _test_faults(seen: Classification) -> Iterator[str]:
    """Check that classes, confusion, calibration and accuracy tell of the same texts."""
    count = len(seen.classes)
    if (
        len(seen.training_counts) != count
        or [len(row) for row in seen.confusion] != [count] * count
    ):
        yield f"its counts are not of its {count} classes"
        return
    texts = sum(map(sum, seen.confusion))
    right = sum(seen.confusion[one][one] for one in range(count))
    counted = sum(one.count for one in seen.calibration)
    if len(seen.calibration) != metrics.CALIBRATION_BINS or counted != texts:
        yield f"its calibration counts {counted} texts, its confusion matrix {texts}"
    if sum(one.correct for one in seen.calibration) != right or not _close(
        right / texts, seen.accuracy
    ):
        yield f"its accuracy is {seen.accuracy:.6f}, its confusion matrix has {right} of {texts}"
    for number, one in enumerate(seen.calibration):
        low, high = (one.count * edge / metrics.CALIBRATION_BINS for edge in (number, number + 1))
        if not low - 1e-9 * texts <= one.confidence_sum <= high + 1e-9 * texts:
            yield f"bin {number} of its calibration has confidences outside its edges"


def _formula_faults(record: Record, seen: Classification) -> Iterator[str]:
    """Check parameters, FLOPs, and the first loss: random heads guess."""
    workload, classes = record.cell["workload"], len(seen.classes)
    if record.parameter_count is not None and record.vocabulary_size is not None:
        due = classifier_formulas.parameter_count(
            workload, vocabulary=record.vocabulary_size, classes=classes
        )
        if record.parameter_count != due:
            yield f"has {record.parameter_count:,} parameters; the formula gives {due:,}"
    flops = TRAIN_FACTOR * classifier_formulas.forward_flops(workload, classes=classes)
    if record.flops_per_step not in {None, flops}:
        yield f"flops_per_step is {record.flops_per_step:,}; the formula gives {flops:,}"
    first = next((one.loss for one in record.evaluations if one.step == 0), None)
    guess = math.log(classes)
    most = guess + model_size(workload["model"]).hidden * 0.02**2 / 2 + FIRST_LOSS_WITHIN
    if first is not None and not guess - FIRST_LOSS_WITHIN <= first <= most:
        yield (
            f"the validation loss before training is {first:.4f}; a random head gives about ln("
            f"{classes}) = {guess:.4f}"
        )


def _bins(seen: Classification) -> list[tuple[int, int, float]]:
    return [(one.count, one.correct, one.confidence_sum) for one in seen.calibration]


def _close(value: float, expected: float) -> bool:
    return math.isclose(value, expected, rel_tol=RELATIVE_ERROR, abs_tol=RELATIVE_ERROR)
