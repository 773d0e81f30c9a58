"""The memory pass: what a step's peak is made of, measured twice and beside its formula.

It runs before the exact restore, like the other short passes (``trial.passes``).
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import torch

from bertopt_bench.measure.attribution import (
    Owned,
    attribute_step,
    owned_storages,
    saved_tensor_bytes,
)
from bertopt_bench.trial.passes import fullest, step_in_phases
from bertopt_bench.workload.memory_formulas import memory_forecast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bertopt_bench.trial.live import Trial


def attribute_memory(trial: Trial, traced_peak_bytes: int) -> dict[str, Any]:
    """Attribute the memory of a step: the record's ``memory`` (see ``results.record.Memory``).

    Args:
        trial: a trial that has been stepped, so that optimizer and gradients are as in any step.
        traced_peak_bytes: the peak of another pass (``passes.trace``): what the attributed one must
            equal where the allocator keeps no peak of its own.
    """
    index = fullest(trial)
    found = attribute_step(
        lambda mark: step_in_phases(trial, index, mark), lambda: _owners(trial), trial.device
    )
    saved = _saved(trial, index)
    formula = memory_forecast(trial.prepared_cell, trial.batches.filled(index))
    trial.drain()
    return {
        "peak_bytes": found.peak_bytes,
        "independent_peak_bytes": _independent(trial, index, traced_peak_bytes),
        "measured": {
            "moment": found.moment,
            "peak": _stored(found.parts),
            "largest": _stored(found.largest),
        },
        "formula": {
            "moment": formula.moment,
            "peak": asdict(formula.peak),
            "largest": asdict(formula.largest),
        },
        "saved_tensor_bytes": saved,
        "slack_bytes": found.slack_bytes,
    }


def _stored(parts: Mapping[str, int]) -> dict[str, int]:
    return {f"{part}_bytes": count for part, count in parts.items()}


def _owners(trial: Trial) -> dict[int, Owned]:
    """Say what the storages held right now are for; an average holds the weights themselves too."""
    parameters = list(trial.model.parameters())
    return owned_storages(
        {
            "regularizer_state": trial.regularizers.state_tensors(),
            "optimizer_state": _optimizer_state(trial.optimizer),
            "gradient": [p.grad for p in parameters if p.grad is not None],
            "parameter": [*parameters, *trial.model.buffers()],
        }
    )


def _optimizer_state(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    for per_parameter in optimizer.state.values():
        yield from (value for value in per_parameter.values() if isinstance(value, torch.Tensor))


def _saved(trial: Trial, index: int) -> int | None:
    """Count saved tensors by hooks; not under torch.compile, which would compile anew for them."""
    if trial.cell["kernel"]["compile"]["name"] != "off":
        return None
    batch = trial.fetch(index, 0)
    inputs = [getattr(batch, part.name) for part in fields(batch)]
    within = [one for value in inputs if isinstance(value, tuple) for one in value]  # of Ragged
    tensors = [value for value in (*inputs, *within) if isinstance(value, torch.Tensor)]
    without = [*trial.model.parameters(), *tensors]
    return saved_tensor_bytes(
        lambda: trial.penalise(trial.forward(batch, index), batch), without, trial.device
    )


def _independent(trial: Trial, index: int, traced_peak_bytes: int) -> int:
    """Give the allocator's own peak over one more step, or that of the traced step.

    A peak of an allocator counts what a GPU holds besides, as the attributed one does there.
    """
    trial.device.reset_peak_memory()
    before = trial.device.peak_memory_bytes()
    if before is None:
        return traced_peak_bytes
    if trial.whole_step is None:
        trial.step(index)
    else:  # a replay allocates nothing: the parts are what was attributed
        step_in_phases(trial, index, lambda _: None)
    trial.synchronize()
    trial.drain()
    peak: int = trial.device.peak_memory_bytes()
    return peak
