"""Modes: what runs forward only, what is skipped, and that training cells keep their names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from written_matrices import expand, load

from bertopt_bench.errors import MatrixError
from bertopt_bench.matrix import cells, spec
from bertopt_bench.matrix.modes import forward_cell, is_inference

ROOT = Path(__file__).parents[2]
CAPABILITIES = {
    "torch": "2.13.0",
    "cuda": {"count": 0, "names": [], "capability": []},
    "packages": {"pytorch_optimizer": None},
    "compiler": True,
}


def asked(workload: dict[str, Any], **axes: Any) -> list[cells.Cell]:
    """Expand a matrix on a machine without a GPU and without pytorch-optimizer."""
    matrix = load({"workload": workload, "axes": axes})
    return cells.expand(matrix, CAPABILITIES)


def test_training_cells_keep_the_ids_of_published_results() -> None:
    """Oracle: the records that were published before there was a mode."""
    lines = (ROOT / "results/optimizers/records.jsonl").read_text().splitlines()
    published = {json.loads(line)["cell_id"] for line in lines}

    assert {cell.id for cell in cells.expand(spec.load(ROOT / "benchmarks/optimizers.toml"))} == (
        published
    )


def test_training_goes_without_saying_and_inference_does_not() -> None:
    """Oracle: the rule that a key that came later stands in a cell only where it is chosen."""
    (silent,), (said,) = expand({"seeds": [1]}), expand({"workload": {"mode": "training"}})
    (other,) = expand({"workload": {"mode": "inference"}})

    assert silent.id == said.id != other.id
    assert "mode" not in silent.content["workload"]
    assert is_inference(other.content)
    assert not is_inference(silent.content)


def test_of_cells_with_one_forward_pass_the_first_runs() -> None:
    """Oracle: by hand: three optimizers by two steps by two batch sizes, two passes among them."""
    axes = {"optimizer": ["adamw", "sgd", "lion"], "kernel": {"optimizer_step": ["loop", "fused"]}}
    found = asked({"mode": "inference", "batch_size": [4, 8]}, **axes)
    live = [cell for cell in found if cell.skip is None]

    assert len(found) == 12
    assert [cell.content["workload"]["batch_size"] for cell in live] == [4, 8]
    assert {cell.content["optimizer"]["name"] for cell in live} == {"adamw"}
    reasons = {
        (cell.content["optimizer"]["name"], cell.content["kernel"]["optimizer_step"]["name"]): (
            cell.skip or ""
        )
        for cell in found
    }
    assert "so optimizer does not apply" in reasons["sgd", "loop"]
    assert "so kernel.optimizer_step does not apply" in reasons["adamw", "fused"]
    assert "optimizer and kernel.optimizer_step do not apply" in reasons["sgd", "fused"]


def test_an_excluded_cell_stands_for_no_other() -> None:
    """Oracle: the first of two is excluded, so the second runs."""
    document = {
        "workload": {"mode": "inference"},
        "axes": {"optimizer": ["adamw", "sgd"]},
        "exclude": [{"optimizer": "adamw", "reason": "asked elsewhere"}],
    }
    first, second = expand(document)

    assert first.skip == "excluded: asked elsewhere"
    assert second.skip is None


def test_both_modes_stand_in_one_matrix() -> None:
    """Oracle: training runs every optimizer, inference one."""
    found = asked({"mode": ["training", "inference"]}, optimizer=["adamw", "sgd"])

    assert [cell.skip is None for cell in found] == [True, True, True, False]


@pytest.mark.parametrize(
    "axes",
    [
        {"optimizer": "lion"},
        {"optimizer": "sgd", "kernel": {"optimizer_step": "foreach"}, "regularizer": "l2"},
        {"regularizer": {"name": "dropout"}, "kernel": {"attention": "flash"}},
    ],
)
def test_rules_about_training_do_not_skip_inference(axes: dict[str, Any]) -> None:
    """Oracle: no package, no step and no dropout of a forward pass in evaluation mode."""
    (cell,) = asked({"mode": "inference"}, **axes)

    assert cell.skip is None


def test_rules_about_the_forward_pass_do() -> None:
    """Oracle: no GPU there; micro-batches split a training step."""
    (cuda,) = asked({"mode": "inference"}, device="cuda")
    (split,) = asked({"mode": "inference", "micro_batches": 2})

    assert "torch finds none here" in str(cuda.skip)
    assert "inference takes a batch whole" in str(split.skip)


def test_a_forward_cell_asks_for_nothing_of_training() -> None:
    """Oracle: the content is complete, and equal for any optimizer and regularizer."""
    found = expand(
        {
            "workload": {"mode": "inference"},
            "axes": {"optimizer": ["adamw", "muon"], "regularizer": ["none", "dropout"]},
        }
    )
    forward = [forward_cell(cell.content) for cell in found]

    assert all(one == forward[0] for one in forward)
    assert forward[0].keys() == found[0].content.keys()


def test_an_unknown_mode_is_refused_by_name() -> None:
    """Oracle: the house rule on errors."""
    with pytest.raises(MatrixError, match=r"one of training, inference.*Did you mean 'inference'"):
        expand({"workload": {"mode": "inferense"}})
