"""Count what optimizers keep and what their steps make besides, by formula and without torch.

The counts are read in the sources of torch 2.13 (``torch/optim``) and pytorch-optimizer 4: how many
tensors of a parameter's size are alive at once in its update.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bertopt_bench.workload import formulas

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.workload.formulas import ModelSize

LOOP_TEMPORARIES = {
    "sgd": (0, 0),
    "momentum": (0, 0),
    "nesterov": (1, 0),
    "adam": (2, 1),
    "adamw": (2, 1),
    "adagrad": (1, 1),
    "rmsprop": (1, 1),
    "nadam": (2, 1),
    "radam": (5, 0),  # a number by a tensor is its reciprocal times the number
    "adafactor": (1, 1),
    "lion": (1, 1),
    "lamb": (1, 0),
    "ademamix": (2, 1),
    "muon": (2, 1),  # AdamW's, for all that is no matrix
}
"""In a loop: tensors of a parameter's size made at once, and those of the one before still held."""

FOREACH_TEMPORARIES = {"sgd": 0, "momentum": 0, "nesterov": 0, "adagrad": 2, "ademamix": 2}
"""By lists: tensors of a group's size made at once; the others make one."""

FOREACH_BY_DEFAULT = ("lion", "lamb", "ademamix")
"""pytorch-optimizer walks over lists on every device unless it is told not to."""

COUPLED = ("sgd", "momentum", "nesterov", "adam", "adagrad", "rmsprop", "nadam", "radam")
"""Optimizers that decay through a copy of the gradient, where decay is coupled."""

UNKNOWN = (2, 1)


@dataclass(frozen=True, slots=True)
class Shape:
    """A parameter's shape; a vector has one column."""

    rows: int
    columns: int = 1

    @property
    def count(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True, slots=True)
class OptimizerMemory:
    """Bytes of state where weights are fp32, and numbers that a step makes besides."""

    state_bytes: float
    temporary_numbers: float


def parameter_groups(
    size: ModelSize,
    *,
    vocabulary: int,
    position_embedding: str = "learned",
    next_sentence: bool = False,
) -> dict[str, list[Shape]]:
    """List the parameters' shapes by role, in the order of ``model.parameter_groups``."""
    h, f = size.hidden, size.intermediate
    learned = [Shape(size.positions, h)] if position_embedding == "learned" else []
    square, vector = Shape(h, h), Shape(h)
    matrices = [square] * 4 + [Shape(f, h), Shape(h, f)]
    vectors = [vector] * 6 + [Shape(f), *[vector] * 3]
    head_vectors = [Shape(vocabulary), *[vector] * 3]
    pooling = {"vector": [vector], "head": [square]} if next_sentence else {}
    relation = {"vector": [Shape(2)], "head": [Shape(2, h)]} if next_sentence else {}
    return {
        "embedding": [Shape(vocabulary, h), *learned, Shape(size.segments, h)],
        "vector": [
            *[vector] * 2,
            *vectors * size.layers,
            *pooling.get("vector", []),
            *head_vectors,
            *relation.get("vector", []),
        ],
        "matrix": matrices * size.layers,
        "head": [*pooling.get("head", []), square, *relation.get("head", [])],
    }


def optimizer_memory(
    cell: Mapping[str, Any], groups: Mapping[str, Sequence[Shape]]
) -> OptimizerMemory:
    """Count an optimizer's state and temporaries; an unknown one is taken for AdamW."""
    name: str = cell["optimizer"]["name"]
    every = [shape for shapes in groups.values() for shape in shapes]
    if name == "adafactor":
        state = 4.0 * sum(s.rows + s.columns if s.columns > 1 else s.rows for s in every)
    else:
        state = formulas.state_bytes_per_parameter(name) * sum(shape.count for shape in every)
    if name == "muon":  # AdamW for all that is no encoder matrix: a second moment more
        state += 4.0 * sum(s.count for role, g in groups.items() if role != "matrix" for s in g)
    return OptimizerMemory(state, max(_temporaries(cell, name, groups), _proximal(cell, groups)))


def _temporaries(
    cell: Mapping[str, Any], name: str, groups: Mapping[str, Sequence[Shape]]
) -> float:
    """Count the numbers that a step makes at once."""
    way = cell["kernel"]["optimizer_step"]["name"]
    if way in ("fused", "compiled"):
        return 0.0
    cuda = cell.get("device", {}).get("name") == "cuda"
    lists = way == "foreach" or (
        way in ("default", "capturable") and (cuda or name in FOREACH_BY_DEFAULT)
    )
    others = [g for role, g in groups.items() if name != "muon" or role != "matrix"]
    newton = _newton_schulz(cell, groups["matrix"]) if name == "muon" else 0.0
    copied = 1 if _coupled_decay(cell) and name in COUPLED else 0
    if lists:
        times = FOREACH_TEMPORARIES.get(name, 1) + copied
        return max(newton, *(times * sum(s.count for s in group) for group in others))
    made, held = LOOP_TEMPORARIES.get(name, UNKNOWN)
    made += copied
    return max(newton, *(_in_a_loop(group, made, held) for group in others))


def _in_a_loop(group: Sequence[Shape], made: int, held: int) -> float:
    """Count the most numbers of any update; a variable keeps the last one's until it is set."""
    first = made * group[0].count
    return max(
        [first, *(held * last.count + made * one.count for last, one in pairwise(group))],
    )


def _newton_schulz(cell: Mapping[str, Any], matrices: Sequence[Shape]) -> float:
    """Count a matrix' momentum in fp32, two iterates and two Gram matrices in bf16, or in fp32."""
    width = 1.0 if cell["optimizer"].get("ns_precision") == "fp32" else 0.5
    return max(
        (s.count + 2 * width * (s.count + min(s.rows, s.columns) ** 2) for s in matrices),
        default=0.0,
    )


def _coupled_decay(cell: Mapping[str, Any]) -> bool:
    asked = [part.get("l2", 0.0) for part in cell["regularizer"] if part["name"] == "l2"]
    return any(asked) or bool(cell["optimizer"].get("l2"))


def _proximal(cell: Mapping[str, Any], groups: Mapping[str, Sequence[Shape]]) -> float:
    """Count the shrunk copy of a weight that the proximal L1 makes."""
    if not any(part["name"] == "proximal_l1" for part in cell["regularizer"]):
        return 0.0
    return math.fsum([max(s.count for role, g in groups.items() if role != "vector" for s in g)])
