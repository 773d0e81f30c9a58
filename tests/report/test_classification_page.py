"""The page's part on classifiers: numbers with n and spread, the floor, escaped classes."""

from __future__ import annotations

import json
import re
from typing import Any

import pandas as pd
import pytest

from bertopt_bench.report.classification import classification_section, sentences
from bertopt_bench.report.classification_figures import Line, draw_curves, draw_matrix
from bertopt_bench.stats.facts import gather
from bertopt_bench.workload import classification_metrics as metrics

CLASSES = ["<b>few</b>", "many"]
CONFUSIONS = {1: [[1, 1], [0, 6]], 2: [[2, 0], [3, 3]]}


def trials() -> pd.DataFrame:
    """Make two cells of two seeds; the second cell says the commonest class alone."""
    rows: list[dict[str, Any]] = []
    for cell, weights in enumerate(("minilm", "random")):
        for seed, confusion in CONFUSIONS.items():
            counted = confusion if weights == "minilm" else [[0, 2], [0, 6]]
            measured = {f"test_{k}": v for k, v in metrics.measures(counted).items()}
            rows.append(
                {
                    "trial": len(rows),
                    "cell_id": f"c{cell}",
                    "label": weights,
                    "seed": seed,
                    "replicate": 0,
                    "status": "ok",
                    "steps": 4,
                    "workload": "classification",
                    "dataset": "mine",
                    "weights": weights,
                    "final_loss": 0.5,
                    "test_loss": 0.6,
                    "test_calibration_error": 0.1,
                    "classes": json.dumps(CLASSES),
                    "training_counts": "[3, 9]",
                    "test_confusion": json.dumps(counted),
                    **measured,
                }
            )
    return pd.DataFrame(rows)


def frames() -> dict[str, pd.DataFrame]:
    every = [(trial, step) for trial in range(4) for step in (1, 2, 3, 4)]
    steps = pd.DataFrame([{"trial": t, "step": s, "loss": 1.0 / s} for t, s in every])
    looks = [
        {"trial": t, "step": s, "loss": 1.0, "accuracy": 0.5, "f1_macro": 0.4} for t, s in every
    ]
    return {"trials": trials(), "steps": steps, "evaluations": pd.DataFrame(looks)}


def test_the_section_tells_measures_classes_and_the_floor() -> None:
    """By hand: accuracies 7/8 and 5/8, median 0.75; the floor has 6 of 8."""
    section = classification_section(gather(trials()), frames())

    assert section is not None
    (group,) = section["groups"]
    best = group["rows"][0]
    assert (best["label"], group["texts"], group["commonest"]) == ("minilm", 8, "many")
    assert best["numbers"][0] == ("0.7500", "0.6250–0.8750 · n 2")  # noqa: RUF001 - a range
    assert group["floor"][0] == "0.7500"
    drawn = section["cells"][0]
    assert [row["test"] for row in drawn["classes"]] == ["2", "6"]
    assert drawn["classes"][0]["numbers"][1][0] == "0.750"  # recalls 1/2 and 1
    assert [figure["legend"] for figure in drawn["curves"]] == [
        ["training", "validation"],
        ["accuracy", "macro F1"],
    ]


def test_explained_texts_are_coloured_and_their_markup_is_text() -> None:
    """By hand: two tokens for, one against; specials are left out; a class's name is escaped."""
    explained = {
        "method": "integrated_gradients",
        "true": 0,
        "predicted": 1,
        "probability": 0.75,
        "change": 1.5,
        "tokens": ["[CLS]", "good", "<b>", "##ly", "[SEP]"],
        "scores": [0.0, 2.0, -1.0, 0.5, 0.0],
    }
    given = frames()
    rows = trials().assign(explained=[json.dumps([explained]), None, None, None])
    section = classification_section(gather(rows), given)

    assert section is not None
    (text,) = section["cells"][0]["explained"]
    assert (text["told"], text["true"], text["right"]) == ("many", CLASSES[0], False)
    assert (text["chance"], text["words"].count("good")) == ("75.0 %", 1)
    assert "CLS" not in text["text"]
    assert "&lt;b&gt;" in text["text"]
    assert 'class="tok for-4"' in text["text"]
    assert 'class="tok against-2"' in text["text"]


def test_the_sentence_names_best_lowest_and_floor() -> None:
    (said,) = sentences(gather(trials()), "BERT minilm")

    assert said.startswith("BERT minilm on the test part of ")

    assert "minilm has accuracy 0.7500" in said
    assert "n = 2 seeds" in said
    assert "always saying the commonest class has 0.7500 and 0.4286" in said


def test_nothing_is_shown_without_classifiers() -> None:
    plain = trials().drop(columns=["test_confusion"])

    assert classification_section(gather(plain), frames()) is None
    assert sentences(gather(plain), "") == []


def test_a_confusion_matrix_adds_up_and_escapes_names() -> None:
    """Every count but 0 is written in its square; no class name is HTML. Oracle: the counts."""
    svg = draw_matrix(CLASSES, [[3, 1], [0, 1200]])

    assert re.findall(r'class="count[^>]*>([\d,]+)<', svg) == ["3", "1", "1,200"]
    assert "<b>" not in svg
    assert svg.count("<rect") == 4


@pytest.mark.parametrize("values", [(1.0, 1.0), (0.0, 0.9), (1e-6, 2e-6), (3.0, 250.0)])
def test_curves_stay_within_their_frame(values: tuple[float, float]) -> None:
    """Oracle: the drawing's own size."""
    low, high = values
    svg = draw_curves([Line("c0", [(0.0, low, low, high), (10.0, low, high, high)])], "told")
    (path,) = re.findall(r'c0"><path d="M([^"]+)"', svg)
    places = [tuple(map(float, part.split())) for part in path.split("L")]

    assert all(0 <= x <= 520 and 0 <= y <= 260 for x, y in places)
