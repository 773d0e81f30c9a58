"""Measures of a classifier from its confusion matrix, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bertopt_bench.workload import classification_metrics as metrics


def drawn(seed: int, classes: int, never: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Draw unequal labels and predictions; class ``never`` is not predicted."""
    draw = np.random.default_rng(seed)
    shares = draw.dirichlet(np.full(classes, 0.4))
    labels = draw.choice(classes, 400, p=shares)
    predictions = np.where(draw.random(400) < 0.7, labels, draw.choice(classes, 400))
    if never is not None:
        predictions[predictions == never] = (never + 1) % classes
    return labels, predictions


@pytest.mark.parametrize(("seed", "classes", "never"), [(1, 2, None), (2, 8, None), (3, 8, 5)])
def test_every_measure_equals_that_of_scikit_learn(
    seed: int, classes: int, never: int | None
) -> None:
    """Oracle: sklearn.metrics, zero_division=0, over all classes."""
    sklearn = pytest.importorskip("sklearn.metrics", reason="pip install 'bertopt-bench[test]'")
    labels, predictions = drawn(seed, classes, never)
    every = list(range(classes))

    confusion = metrics.confusion_matrix(labels, predictions, classes)
    found, each = metrics.measures(confusion.tolist()), metrics.by_class(confusion.tolist())

    assert (confusion == sklearn.confusion_matrix(labels, predictions, labels=every)).all()
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(labels, predictions))
    assert found["matthews"] == pytest.approx(sklearn.matthews_corrcoef(labels, predictions))
    for average in ("macro", "micro", None):
        scores = sklearn.precision_recall_fscore_support(
            labels, predictions, labels=every, average=average, zero_division=0
        )
        for name, expected in zip(("precision", "recall", "f1"), scores, strict=False):
            got = each[name] if average is None else found[f"{name}_{average}"]
            assert got == pytest.approx(expected), (average, name)


def test_the_floor_says_the_commonest_class_of_the_training_part() -> None:
    """By hand: 6 of 10 texts are of class 1, F1 there 2 * 6 / 16 = 0.75, 0 elsewhere."""
    confusion = [[3, 0, 0], [1, 5, 0], [0, 0, 1]]

    floor = metrics.majority_confusion([10, 90, 5], confusion)

    assert floor == [[0, 3, 0], [0, 6, 0], [0, 1, 0]]
    assert metrics.measures(floor)["accuracy"] == 0.6
    assert metrics.measures(floor)["f1_macro"] == pytest.approx(0.25)
    assert metrics.measures(floor)["matthews"] == 0.0


def test_calibration_error_by_hand() -> None:
    """Bins are open below: 1/15 belongs to the first; .9 and .92 lie in (13/15, 14/15].

    By hand: (|1 - .9 - .92| + |1 - 1| + |0 - 1/15|) / 4 = (.82 + 0 + .0667) / 4.
    """
    confidences = np.array([0.9, 0.92, 1.0, 1 / 15])
    bins = metrics.calibration(confidences, np.array([True, False, True, False]))

    assert [one["count"] for one in bins] == [1, *[0] * 12, 2, 1]
    told = [(one["count"], one["correct"], one["confidence_sum"]) for one in bins]
    assert metrics.calibration_error(told) == pytest.approx((0.82 + 1 / 15) / 4)


def test_calibration_error_is_that_of_the_definition() -> None:
    """Oracle: Guo et al.'s sum over bins, written as a loop over intervals."""
    draw = np.random.default_rng(5)
    confidences, correct = draw.uniform(0.2, 1.0, 500), draw.random(500) < 0.6
    expected = 0.0
    for number in range(15):
        inside = (confidences > number / 15) & (confidences <= (number + 1) / 15)
        if inside.any():
            gap = abs(correct[inside].mean() - confidences[inside].mean())
            expected += inside.mean() * gap

    bins = metrics.calibration(confidences, correct)
    told = [(one["count"], one["correct"], one["confidence_sum"]) for one in bins]

    assert metrics.calibration_error(told) == pytest.approx(expected)
