"""Show classifiers: measures on the test part, confusion, classes one by one, both losses."""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from bertopt_bench.report import tokens, wording
from bertopt_bench.report.classification_figures import Line, draw_curves, draw_matrix
from bertopt_bench.report.rows import DASH, number_text, safe
from bertopt_bench.stats.estimates import Spread, words
from bertopt_bench.workload import classification_metrics as metrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas import DataFrame

    from bertopt_bench.stats.estimates import Cell, Trial
    from bertopt_bench.stats.facts import Facts

MEASURES = (
    ("accuracy", "test_accuracy"),
    ("F1, macro", "test_f1_macro"),
    ("precision, macro", "test_precision_macro"),
    ("recall, macro", "test_recall_macro"),
    ("F1, micro", "test_f1_micro"),
    ("Matthews", "test_matthews"),
    ("calibration error", "test_calibration_error"),
    ("loss", "test_loss"),
)
METHODS = {
    "integrated_gradients": "integrated gradients (Sundararajan et al., 2017)",
    "gradient_x_input": "gradient times input (Shrikumar et al., 2016)",
}
MOST_CELLS = 8
"""Cells that are drawn; the table has them all."""
WINDOWS = 24
"""Means of the training loss along a curve: single steps are too noisy to be read."""


@dataclass(frozen=True)
class Tested:
    """The test parts of one cell: a confusion matrix a seed."""

    cell: Cell
    classes: list[str]
    training_counts: list[int]
    confusions: list[list[list[int]]]
    text: str
    explained: list[dict[str, Any]]


def tested(facts: Facts) -> list[Tested]:
    """List the cells whose test part was looked at, highest median macro F1 first."""
    rows: dict[str, dict[Any, Trial]] = defaultdict(dict)
    for row in facts.rows:
        if row["status"] == "ok" and words(row.get("test_confusion")):
            rows[row["cell_id"]].setdefault(row.get("seed"), row)  # replicates train alike
    found = [
        Tested(
            cell,
            json.loads(first["classes"]),
            json.loads(first["training_counts"]),
            [json.loads(row["test_confusion"]) for row in rows[cell.id].values()],
            cell.levels.get("dataset", ""),
            json.loads(words(first.get("explained")) or "[]"),
        )
        for cell in facts.cells
        if cell.id in rows and (first := next(iter(rows[cell.id].values())))
    ]
    return sorted(found, key=lambda one: -one.cell.spreads["test_f1_macro"].median)


def classification_section(facts: Facts, frames: Mapping[str, DataFrame]) -> dict[str, Any] | None:
    """Make the section's tables and figures; None where no classifier was tested."""
    cells = tested(facts)
    if not cells:
        return None
    groups: dict[str, list[Tested]] = defaultdict(list)
    for one in cells:
        groups[one.text].append(one)
    return {
        "heads": [title for title, _ in MEASURES],
        "groups": [_group(text, members) for text, members in groups.items()],
        "cells": [_drawn(one, frames) for one in cells[:MOST_CELLS]],
        "left_out": max(0, len(cells) - MOST_CELLS),
        "bins": metrics.CALIBRATION_BINS,
    }


def _group(text: str, members: Sequence[Tested]) -> dict[str, Any]:
    """Make the rows of one data set, the floor last: always the commonest class."""
    one = members[0]
    floor = metrics.majority_confusion(one.training_counts, one.confusions[0])
    known = {f"test_{name}": value for name, value in metrics.measures(floor).items()}
    commonest = one.classes[max(range(len(one.classes)), key=one.training_counts.__getitem__)]
    return {
        "text": text,
        "texts": sum(map(sum, one.confusions[0])),
        "rows": [
            {
                "label": member.cell.label,
                "numbers": [
                    number_text(member.cell.spreads.get(column), _four) for _, column in MEASURES
                ],
            }
            for member in members
        ],
        "floor": [_four(known[column]) if column in known else DASH for _, column in MEASURES],
        "commonest": commonest,
    }


def _four(value: float) -> str:
    return f"{value:.4f}"


def _drawn(one: Tested, frames: Mapping[str, DataFrame]) -> dict[str, Any]:
    """Make a cell's confusion matrix, the table of its classes, and its curves."""
    summed = [
        [sum(found) for found in zip(*rows, strict=True)]
        for rows in zip(*one.confusions, strict=True)
    ]
    return {
        "label": one.cell.label,
        "seeds": wording.plural(len(one.confusions), "seed"),
        "matrix": safe(draw_matrix(one.classes, summed)),
        "classes": _classes(one),
        "explained": [_explained(text, one.classes) for text in one.explained],
        "curves": [
            {"title": title, "svg": safe(draw_curves(lines, title)), "legend": legend}
            for title, lines, legend in _curves(one.cell, frames)
        ],
    }


def _explained(text: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Write a text with its tokens coloured by what they did to the prediction."""
    pairs = [
        (token, float(score))
        for token, score in zip(text["tokens"], text["scores"], strict=True)
        if token not in {"[CLS]", "[SEP]"}
    ]
    return {
        "told": classes[text["predicted"]],
        "true": classes[text["true"]],
        "right": text["predicted"] == text["true"],
        "chance": f"{text['probability'] * 100:.1f} %",
        "method": METHODS[text["method"]],
        "text": tokens.coloured(pairs),
        "words": tokens.strongest(pairs),
    }


def _classes(one: Tested) -> list[dict[str, Any]]:
    """Make a row a class: texts, and precision, recall and F1 over seeds."""
    seeds = [metrics.by_class(confusion) for confusion in one.confusions]
    return [
        {
            "name": name,
            "training": f"{one.training_counts[index]:,}",
            "test": f"{sum(one.confusions[0][index]):,}",
            "numbers": [
                number_text(Spread.of(seed[measure][index] for seed in seeds), lambda v: f"{v:.3f}")
                for measure in ("precision", "recall", "f1")
            ],
        }
        for index, name in enumerate(one.classes)
    ]


def _curves(cell: Cell, frames: Mapping[str, DataFrame]) -> list[tuple[str, list[Line], list[str]]]:
    """Give the losses by step, training and validation, and what validation gets right."""
    steps, seen = (
        frames[name][frames[name]["trial"].isin(cell.trials)] for name in ("steps", "evaluations")
    )
    training = _over_seeds(_windowed(steps), "loss")
    figures = [
        (
            "Loss by step",
            [Line("c0", training), Line("c1", _over_seeds(seen, "loss"))],
            ["training", "validation"],
        )
    ]
    if "accuracy" in seen and seen["accuracy"].notna().any():
        rates = [
            Line("c0", _over_seeds(seen, "accuracy")),
            Line("c1", _over_seeds(seen, "f1_macro")),
        ]
        figures.append(("Validation by step", rates, ["accuracy", "macro F1"]))
    return figures


def _windowed(steps: DataFrame) -> DataFrame:
    """Replace single steps by means over windows of equal length, at their last step."""
    if not len(steps):
        return steps
    width = max(1, -(-int(steps["step"].max()) // WINDOWS))
    last = ((steps["step"] - 1) // width + 1) * width
    placed = steps.assign(step=last.clip(upper=int(steps["step"].max())))
    means: Any = placed.groupby(["trial", "step"], as_index=False)["loss"].mean()
    return cast("DataFrame", means)


def _over_seeds(frame: DataFrame, column: str) -> list[tuple[float, float, float, float]]:
    """Give step, lowest, median and highest value over the trials."""
    found = []
    groups: Any = frame.dropna(subset=[column]).groupby("step")[column]
    for step, values in groups:
        kept = [float(value) for value in values if math.isfinite(value)]
        if kept:
            found.append((float(step), min(kept), statistics.median(kept), max(kept)))
    return found


def sentences(facts: Facts, model: str) -> list[str]:
    """Say what the best cell got right, and what saying the commonest class gets right."""
    found = []
    groups: dict[str, list[Tested]] = defaultdict(list)
    for one in tested(facts):
        groups[one.text].append(one)
    for text, members in groups.items():
        best, low = members[0], members[-1]
        floor = metrics.measures(
            metrics.majority_confusion(best.training_counts, best.confusions[0])
        )
        against = "" if low is best else f"; the lowest cell, {low.cell.label}, {_told(low)}"
        found.append(
            f"{model or 'BERT'} on the test part of {text}: {best.cell.label} {_told(best)}"
            f"{against}; always saying the commonest class has {floor['accuracy']:.4f} and "
            f"{floor['f1_macro']:.4f}."
        )
    return found


def _told(one: Tested) -> str:
    """Write accuracy and macro F1 with n and spread."""
    accuracy, score = (one.cell.spreads[f"test_{name}"] for name in ("accuracy", "f1_macro"))
    reach = "one run"
    if accuracy.n > 1:
        reach = (
            f"n = {accuracy.n} seeds, {_four(accuracy.low)} to {_four(accuracy.high)} and "
            f"{_four(score.low)} to {_four(score.high)}"
        )
    return f"has accuracy {_four(accuracy.median)} and macro F1 {_four(score.median)} ({reach})"


def methods(facts: Facts) -> list[str]:
    """Say how classifiers were measured; nothing where none was."""
    if not tested(facts):
        return []
    text = (
        "Classifiers were trained on the data set's official training part, less a validation part "
        "that the hash of each text takes out of it; data without an official split are split by "
        "the hash of each text, a fifth to test. Held-out losses and curves are of validation. The "
        "test part was looked at once, after the last step of the schedule, and nothing was "
        "selected on it. Losses there and at validation are cross entropies without class weights "
        "or smoothing. Macro averages give every class the same weight, and a class that is never "
        "predicted has precision 0; with one label a text, micro averages equal the accuracy. The "
        f"calibration error is the expected one over {metrics.CALIBRATION_BINS} bins of equal "
        "width of the highest probability (Guo et al., 2017). Matthews' correlation is that of "
        "several classes (Gorodkin, 2004)."
    )
    return [text]
