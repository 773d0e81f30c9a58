"""Count the FLOPs and forecast the bytes of a forward pass alone, by formula, without torch.

Letters as in ``workload.formulas``; N slots and M masked slots in a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.workload import formulas

if TYPE_CHECKING:
    from collections.abc import Mapping

_SIXTEEN_BITS = ("bf16", "fp16")


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


def memory_forecast_bytes(cell: Mapping[str, Any]) -> int:
    """Forecast the peak of allocated bytes in a forward pass of a canonical inference cell.

    The weights lie there always. On top comes the largest of three moments, each of which holds
    what it reads and writes and nothing for a backward pass: attention, the feed-forward part, the
    head. Under autocast products are of 16 bits, and a weight's 16-bit copy lives as long as its
    product.
    """
    workload, precision = cell["workload"], cell["precision"]["name"]
    size = formulas.model_size(workload["model"])
    h, f, vocabulary = size.hidden, size.intermediate, workload["vocabulary_size"]
    weight = 8 if precision == "fp64" else 4
    half = precision in _SIXTEEN_BITS
    product = 2 if half else weight
    n = workload["batch_size"] * workload["seq_len"]
    m = workload["batch_size"] * formulas.masked_slots(workload["seq_len"], workload["mask_rate"])
    copied = 2 if half else 0
    hidden = weight * n * h  # a layer's input, which its end is added to
    attention = product * 4 * n * h  # queries, keys, values, their mixture
    if cell["kernel"]["attention"]["name"] == "math":
        attention += _scores_bytes(cell, weight, n * size.heads * workload["seq_len"])
    feed_forward = product * 2 * n * f + copied * h * f
    head = product * m * vocabulary + weight * 2 * m * h + copied * h * vocabulary
    parameters = formulas.parameter_count(
        size, vocabulary=vocabulary, position_embedding=workload["position_embedding"]
    )
    peak: int = weight * parameters + hidden + max(attention, feed_forward, head)
    return peak


def _scores_bytes(cell: Mapping[str, Any], weight: int, scores: int) -> int:
    """Give the bytes of attention's scores and weights, which torch computes in full precision."""
    reduced = cell["kernel"]["attention"].get("reduced", False)
    half = reduced and cell["precision"]["name"] in _SIXTEEN_BITS
    return 2 * scores * (2 if half else weight)
