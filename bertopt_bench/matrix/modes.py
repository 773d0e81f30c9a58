"""Training or inference: what a cell's mode leaves of its axes.

An inference cell runs the forward pass alone. What belongs to training is still in its content, so
that a cell is always complete; it changes nothing there, and of cells that differ in nothing else
one runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.identity import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Content = Mapping[str, Any]

INFERENCE = "inference"
TRAINING_CHOICES: Mapping[str, Any] = {
    "optimizer": {"name": "sgd"},
    "schedule": {"name": "constant"},
    "regularizer": [{"name": "none"}],
}
"""Axes that an inference cell does not use, each with a choice that asks for nothing."""

TRAINING_KERNELS = ("optimizer_step", "mlm_loss", "checkpointing", "cuda_graph")
"""Operations of a training step only, as far as there is such an axis: the update, the loss with
its gradient, what the backward pass keeps, the graph of the whole step."""


def is_inference(content: Content) -> bool:
    """Say whether a cell runs forward only."""
    return bool(content["workload"].get("mode") == INFERENCE)


def forward_cell(content: Content) -> dict[str, Any]:
    """Give an inference cell with nothing asked of training: what its forward pass is made from."""
    kernels = {op: one for op, one in content["kernel"].items() if op not in TRAINING_KERNELS}
    kernels["optimizer_step"] = {"name": "default"}
    return {**content, **TRAINING_CHOICES, "kernel": kernels}


def repeated(cells: Iterable[tuple[str, Content]]) -> dict[str, str]:
    """Give, by id, why inference cells do not run: an earlier one has the same forward pass.

    Args:
        cells: id and content of those that are not excluded, in the order of the matrix.
    """
    first: dict[str, Content] = {}
    reasons = {}
    for identity, content in cells:
        if not is_inference(content):
            continue
        stands = first.setdefault(canonical_json(forward_cell(content)), content)
        if stands is not content:
            axes = training_differences(stands, content)
            reasons[identity] = (
                f"inference trains nothing, so {' and '.join(axes)} "
                f"{'does' if len(axes) == 1 else 'do'} not apply: the first cell with this forward "
                "pass runs"
            )
    return reasons


def training_differences(one: Content, other: Content) -> list[str]:
    """Name the training axes in which two cells differ."""
    axes = [axis for axis in TRAINING_CHOICES if one[axis] != other[axis]]
    kernels = (one["kernel"], other["kernel"])
    return axes + [
        f"kernel.{name}"
        for name in TRAINING_KERNELS
        if kernels[0].get(name) != kernels[1].get(name)
    ]
