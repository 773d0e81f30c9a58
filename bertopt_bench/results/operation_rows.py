"""Make a row's columns of what a traced step did, by kinds of operation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bertopt_bench.results.record import Record

KINDS = ("linear", "attention", "layer_norm", "gelu", "mlm_loss", "optimizer", "other")
FIGURES = ("calls", "seconds", "counted_seconds", "flops", "bytes")


def operation_columns(record: Record) -> dict[str, float]:
    """Give each kind's figures as ``operation_<kind>_<figure>``; NaN where there is none.

    ``counted_seconds`` are those of the calls whose FLOPs and bytes follow by formula.
    """
    found = {one.kind: one for one in record.operations.kinds} if record.operations else {}
    row = {
        f"operation_{kind}_{figure}": float(getattr(found[kind], figure))
        if kind in found
        else math.nan
        for kind in KINDS
        for figure in FIGURES
    }
    traced = record.operations.step_seconds if record.operations else math.nan
    return {"traced_step_seconds": traced, **row}
