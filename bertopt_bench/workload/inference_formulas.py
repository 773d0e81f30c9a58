"""Count the FLOPs of a forward pass alone, by formula and without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.workload import formulas

if TYPE_CHECKING:
    from collections.abc import Mapping


def forward_flops(cell: Mapping[str, Any]) -> int:
    """Count the forward pass over a batch of a canonical cell."""
    workload = cell["workload"]
    slots = formulas.masked_slots(workload["seq_len"], workload["mask_rate"])
    return formulas.forward_flops(
        formulas.model_size(workload["model"]),
        vocabulary=workload["vocabulary_size"],
        batch=workload["batch_size"],
        seq_len=workload["seq_len"],
        masked=workload["batch_size"] * slots,
    )
