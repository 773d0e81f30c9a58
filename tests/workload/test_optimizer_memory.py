"""State and temporaries of optimizers against the live ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bertopt_bench import catalogue
from bertopt_bench.workload import formulas
from bertopt_bench.workload.model import BertConfig, BertForMaskedLM
from bertopt_bench.workload.model import parameter_groups as live_groups
from bertopt_bench.workload.optimizer_memory import optimizer_memory, parameter_groups

SIZE = formulas.ModelSize(hidden=32, layers=2, heads=4, intermediate=48, positions=40)
VOCABULARY = 101
NAMES = (
    "sgd", "momentum", "nesterov", "adam", "adamw", "adagrad", "rmsprop", "nadam", "radam",
    "adafactor", "lion", "lamb", "ademamix", "muon",
)  # fmt: skip


def model() -> BertForMaskedLM:
    return BertForMaskedLM(BertConfig(VOCABULARY, SIZE))


def test_groups_are_those_of_the_live_model() -> None:
    """Oracle: the shapes of its parameters, by role and in their order."""
    live = {
        group["role"]: [tuple(p.shape) for p in group["params"]] for group in live_groups(model())
    }
    found = {
        role: [(s.rows,) if s.columns == 1 else (s.rows, s.columns) for s in shapes]
        for role, shapes in parameter_groups(SIZE, vocabulary=VOCABULARY).items()
    }

    assert found == live


def cell(name: str) -> dict[str, Any]:
    return {
        "optimizer": {"name": name},
        "regularizer": [{"name": "none"}],
        "kernel": {"optimizer_step": {"name": "default"}},
    }


@pytest.mark.parametrize("name", NAMES)
def test_state_is_that_of_the_live_optimizer(name: str) -> None:
    """Oracle: the tensors that it holds after a step, scalars left out."""
    if catalogue.package_of("optimizer", name):
        pytest.importorskip(str(catalogue.package_of("optimizer", name)))
    live = model()
    optimizer = catalogue.resolve("optimizer", name)(live_groups(live))
    for parameter in live.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    held = sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.numel() > 1
    )
    found = optimizer_memory(cell(name), parameter_groups(SIZE, vocabulary=VOCABULARY))

    assert found.state_bytes == held


def test_captured_steps_walk_over_lists_where_default_ones_do() -> None:
    """Oracle: the default on CUDA; a loop, by hand, makes two tensors of the largest weight."""
    groups = parameter_groups(SIZE, vocabulary=VOCABULARY)

    def temporaries(way: str, device: str) -> float:
        asked = {**cell("adamw"), "device": {"name": device}}
        asked["kernel"] = {"optimizer_step": {"name": way}}
        return optimizer_memory(asked, groups).temporary_numbers

    assert temporaries("capturable", "cuda") == temporaries("default", "cuda")
    assert temporaries("capturable", "cuda") == max(
        sum(shape.count for shape in shapes) for shapes in groups.values()
    )
    assert temporaries("default", "cpu") == 2 * VOCABULARY * SIZE.hidden
    assert temporaries("compiled", "cuda") == 0
