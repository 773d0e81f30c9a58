"""Forecast a classifier's peak of allocated bytes: the encoder's moments, without an MLM head.

The moments are those of ``memory_formulas``. There is no decoder, so that the words' gradient comes
once, at the end of the backward pass; the head's own few rows do not count.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bertopt_bench.workload import formulas
from bertopt_bench.workload.activation_memory import Step, activations
from bertopt_bench.workload.classifier_formulas import as_mlm, vocabulary_size
from bertopt_bench.workload.memory_formulas import (
    EMBEDDING,
    MemoryForecast,
    Moment,
    at_the_peak,
    attention_moments,
    layer_moments,
    within_a_layer,
)
from bertopt_bench.workload.optimizer_memory import optimizer_memory, parameter_groups

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertopt_bench.workload.activation_memory import Activations


def classifier_memory(cell: Mapping[str, Any]) -> MemoryForecast:
    """Forecast the peak of allocated bytes in a training step of a classifier's cell."""
    step = replace(Step.of(as_mlm(cell)), masked=0, fused_loss=False)
    groups = parameter_groups(
        step.size,
        vocabulary=vocabulary_size(cell["workload"]),
        position_embedding=cell["workload"]["position_embedding"],
    )
    groups = {role: shapes for role, shapes in groups.items() if role != "head"}
    parameters = sum(shape.count for shapes in groups.values() for shape in shapes)
    moments = _moments(step, activations(step), float(step.weight * parameters))
    optimizer = optimizer_memory(cell, groups)
    return at_the_peak(cell, step, parameters, optimizer, moments)


def _moments(step: Step, kept: Activations, gradients: float) -> dict[str, Moment]:
    """Give what lies there at the end of the forward pass and along the backward pass."""
    layers, body = step.size.layers, kept.body(step.size.layers)
    layer_gradients = step.weight * formulas.layer_parameters(step.size)
    rest = float(step.weight * step.slots * step.size.hidden)
    moments = {
        "forward": Moment(0.0, body, 0.0),
        **attention_moments(step, kept, body),
        EMBEDDING: Moment(gradients, 0.0, rest),
    }
    for done in (0, layers - 1):
        left = body - done * kept.layer
        for part, one in layer_moments(step, kept).items():
            beside = replace(one, gradients=done * layer_gradients + one.gradients)
            moments[f"backward:{part} {done}"] = within_a_layer(beside, left, kept.again)
    if step.gradients_stay or step.gradients_early:
        moments = {
            name: replace(one, gradients=gradients, temporary=one.temporary + one.fresh)
            for name, one in moments.items()
        }
    return moments
