"""Tell what a trial's timed steps hold: tokens, slots, and the model FLOPs of a mean one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.trial.batches import Batches
from bertopt_bench.trial.classifying import ClassifyingTrial, classified_work
from bertopt_bench.workload import formulas

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertopt_bench.trial.live import Trial


def held_work(trial: Trial, request: Mapping[str, Any], factor: int) -> dict[str, Any]:
    """Give the fields of a record; ``factor`` is how often the forward pass' FLOPs count."""
    if isinstance(trial, ClassifyingTrial):
        return classified_work(trial, request)
    batches = trial.batches
    slots, head, pairs, real, masked = (
        values[: trial.steps]
        for values in (
            batches.slot_tokens,
            batches.head_slots,
            batches.attended_pairs,
            batches.real_tokens,
            batches.masked_tokens,
        )
    )
    ragged = {"slot_tokens": slots, "head_slots": head, "attended_pairs": pairs}
    return {
        "flops_per_step": formulas.mean_flops(
            formulas.model_size(request["cell"]["workload"]["model"]),
            vocabulary=request["text"]["vocabulary_size"],
            slots=slots,
            pairs=pairs,
            masked=head,
            factor=factor,
        ),
        "slot_tokens_per_step": formulas.rounded_mean(sum(slots), len(slots)),
        "real_tokens": real,
        "masked_tokens": masked,
        "ragged": None if isinstance(batches, Batches) else ragged,
    }
