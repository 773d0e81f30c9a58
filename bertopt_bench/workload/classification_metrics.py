"""What a classifier's predictions are worth, from counts alone; NumPy only.

Rows of a confusion matrix are true classes, columns predicted ones. Where a ratio has no
denominator (a class that is never predicted, or never there) it is 0, as scikit-learn's
``zero_division=0`` has it, and the class still counts in a macro average.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CALIBRATION_BINS = 15
"""Equal widths of the highest probability: (0, 1/15], ..., (14/15, 1] (Guo et al., 1706.04599)."""

MEASURES = (
    "accuracy",
    "precision_macro",
    "recall_macro",
    "f1_macro",
    "precision_micro",
    "recall_micro",
    "f1_micro",
    "matthews",
)


def confusion_matrix(
    labels: NDArray[np.int64], predictions: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Count labels by predictions, [C, C]."""
    flat = np.bincount(labels * classes + predictions, minlength=classes * classes)
    return flat.reshape(classes, classes)


def measures(confusion: Sequence[Sequence[int]]) -> dict[str, float]:
    """Give every measure of ``MEASURES``.

    With one label a text, micro averages all equal the accuracy. Matthews' correlation of several
    classes: Gorodkin, Comput. Biol. Chem. 28 (2004); 0 where predictions or labels are all alike.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    each = by_class(confusion)
    accuracy = float(np.trace(counts) / counts.sum())
    macro = {f"{name}_macro": float(np.mean(values)) for name, values in each.items()}
    micro = dict.fromkeys(("precision_micro", "recall_micro", "f1_micro"), accuracy)
    return {"accuracy": accuracy, **macro, **micro, "matthews": _matthews(counts)}


def by_class(confusion: Sequence[Sequence[int]]) -> dict[str, list[float]]:
    """Give precision, recall and F1, a number a class."""
    counts = np.asarray(confusion, dtype=np.float64)
    right, predicted, true = np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)
    return {
        "precision": _ratio(right, predicted),
        "recall": _ratio(right, true),
        "f1": _ratio(2 * right, predicted + true),
    }


def majority_confusion(
    training_counts: Sequence[int], confusion: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Give the confusion matrix of always saying the commonest class of the training part."""
    true = np.asarray(confusion).sum(axis=1)
    floor = np.zeros((len(true), len(true)), dtype=np.int64)
    floor[:, int(np.argmax(training_counts))] = true
    rows: list[list[int]] = floor.tolist()
    return rows


def calibration(
    confidences: NDArray[np.float64], correct: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """Count texts by the highest probability: number, how many are right, sum of confidences."""
    number = np.ceil(confidences * CALIBRATION_BINS).astype(np.int64) - 1
    number = np.clip(number, 0, CALIBRATION_BINS - 1)
    counts = np.bincount(number, minlength=CALIBRATION_BINS)
    right = np.bincount(number, weights=correct, minlength=CALIBRATION_BINS)
    sums = np.bincount(number, weights=confidences, minlength=CALIBRATION_BINS)
    return [
        {"count": int(count), "correct": int(hits), "confidence_sum": float(total)}
        for count, hits, total in zip(counts, right, sums, strict=True)
    ]


def calibration_error(bins: Sequence[tuple[int, int, float]]) -> float:
    """Give the expected calibration error: mean distance of accuracy and confidence of a bin.

    Args:
        bins: number of texts, how many are right, sum of confidences, of each bin.
    """
    total = sum(count for count, _, _ in bins)
    return math.fsum(abs(right - confidence) for _, right, confidence in bins) / total


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> list[float]:
    found: list[float] = np.divide(above, below, out=np.zeros_like(above), where=below > 0).tolist()
    return found


def _matthews(counts: NDArray[np.float64]) -> float:
    total, right = counts.sum(), np.trace(counts)
    true, predicted = counts.sum(axis=1), counts.sum(axis=0)
    covariance = right * total - true @ predicted
    spread = (total**2 - predicted @ predicted) * (total**2 - true @ true)
    return float(covariance / math.sqrt(spread)) if spread > 0 else 0.0
