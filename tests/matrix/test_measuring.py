"""What a matrix asks to measure besides: refused where no cell has it, never left out unseen."""

from __future__ import annotations

from typing import Any

import pytest
from written_matrices import load

from bertopt_bench.errors import MatrixError


def matrix(measure: dict[str, Any], **workload: Any) -> dict[str, Any]:
    return {"name": "some", "workload": {"steps": 10, **workload}, "measure": measure}


@pytest.mark.parametrize(
    ("measure", "workload", "words"),
    [
        ({"inside_steps": 4}, {"mode": "inference"}, r"inside_steps: looks at training"),
        ({"train_batches": 2}, {"mode": "inference"}, r"train_batches: looks at training"),
        ({"checkpoints": True}, {"mode": "inference"}, r"checkpoints: looks at training"),
    ],
)
def test_what_no_cell_has_is_refused(
    measure: dict[str, Any], workload: dict[str, Any], words: str
) -> None:
    """Oracle: the house rule: bad values are rejected with where they stand and what to do."""
    with pytest.raises(MatrixError, match=rf"{words}.*Leave it out"):
        load(matrix(measure, **workload))


def test_where_some_cells_train_it_is_for_them() -> None:
    """Oracle: the matrix' own table."""
    found = load(matrix({"inside_steps": 4}, mode=["training", "inference"]))

    assert found.measure["inside_steps"] == 4
    assert load(matrix({"train_batches": 2})).measure["train_batches"] == 2


def test_an_included_cell_counts_like_the_others() -> None:
    """Oracle: by hand: it trains beside inference; it classifies where texts are sampled."""
    trained = {**matrix({"inside_steps": 4}, mode="inference"), "include": [{"mode": "training"}]}
    classified = {**matrix({"train_batches": 2}), "include": [{"task": "classification"}]}

    assert load(trained).measure["inside_steps"] == 4
    with pytest.raises(MatrixError, match=r"train_batches: samples the text of task mlm"):
        load(classified)
