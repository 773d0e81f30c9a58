"""Columns of trials that ran forward only: latencies, and sequences a second."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.modes import is_inference

if TYPE_CHECKING:
    from bertopt_bench.results.record import Record

LEAST_FOR_P99 = 100
"""Samples below which one in a hundred was not seen, so that there is no 99th percentile."""

COLUMNS = (
    "latency_seconds",
    "latency_seconds_p99",
    "latency_samples",
    "sequences_per_second",
)


def inference_columns(record: Record) -> dict[str, float]:
    """Give the latencies of a batch, one sample a forward pass, and the sequences it takes.

    All are NaN of a training trial, or of one that measured nothing.
    """
    row: dict[str, Any] = dict.fromkeys(COLUMNS, math.nan)
    seconds = record.step_seconds
    if not is_inference(record.cell) or not seconds:
        return row
    row["latency_samples"] = len(seconds)
    row["latency_seconds"] = statistics.median(seconds)
    if len(seconds) >= LEAST_FOR_P99:
        row["latency_seconds_p99"] = statistics.quantiles(seconds, n=100, method="inclusive")[-1]
    sequences = record.cell["workload"]["batch_size"] * len(seconds)
    row["sequences_per_second"] = sequences / math.fsum(seconds)
    return row
