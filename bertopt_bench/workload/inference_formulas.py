"""Count the FLOPs and forecast the bytes of a forward pass alone, by formula, without torch.

Letters as in ``workload.formulas``; N slots and M masked slots in a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.content import HALF
from bertopt_bench.workload import formulas
from bertopt_bench.workload.filling import WHOLE, Filled, computed, gathers

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


def memory_forecast_bytes(cell: Mapping[str, Any], filled: Filled = WHOLE) -> int:
    """Forecast the peak of allocated bytes in a forward pass of a canonical inference cell.

    The weights lie there always. On top comes the largest of a few moments, each of which holds
    what it reads and writes and nothing for a backward pass: attention, between the feed-forward
    products, one of these, the head. Under autocast products are of 16 bits, of weights that are
    cast and repacked for each; hidden states are of 32 bits, as norms leave them. ``filled`` is
    what `unpadded` and `packed` compute of a batch; all of it where that is not known.
    """
    workload, precision = cell["workload"], cell["precision"]["name"]
    size = formulas.model_size(workload["model"])
    h, f, vocabulary = size.hidden, size.intermediate, workload["vocabulary_size"]
    weight = 8 if precision == "fp64" else 4
    half = precision in HALF
    product, copied = (2, 2) if half else (weight, 0)
    filled = computed(cell, filled)
    n = round(filled.slots * workload["batch_size"] * workload["seq_len"])
    pairs = filled.at_once * workload["batch_size"] * workload["seq_len"] ** 2
    masked = formulas.masked_slots(workload["seq_len"], workload["mask_rate"])
    m = round(filled.real * workload["batch_size"] * masked)
    attention = weight * n * h + _attention_bytes(cell, n, round(pairs), weight, product)
    between = 2 * weight * n * h + product * 2 * n * f + copied * n * h
    product_itself = 2 * weight * n * h + product * n * (f + h) + 2 * copied * h * f
    head = weight * (n + 2 * m) * h + product * m * vocabulary + copied * h * vocabulary
    parameters = formulas.parameter_count(
        size, vocabulary=vocabulary, position_embedding=workload["position_embedding"]
    )
    peak: int = weight * parameters + max(attention, between, product_itself, head)
    return peak


def _attention_bytes(cell: Mapping[str, Any], n: int, pairs: int, weight: int, product: int) -> int:
    """Count queries, keys and values, and what is made of them.

    Fused kernels write the mixture alone. Math attention scales copies of queries and keys and
    holds scores and weights; in 16 bits it computes on 32-bit copies unless it is ``reduced``.
    """
    size, kernel = formulas.model_size(cell["workload"]["model"]), cell["kernel"]["attention"]
    workload = cell["workload"]
    rows = workload["batch_size"] * workload["seq_len"] if gathers(cell) else 0
    states, flat = (rows or n) * size.hidden, 3 * product * (n if rows else 0) * size.hidden
    if kernel["name"] != "math":
        return flat + 4 * product * states
    widened = product < weight and not kernel.get("reduced", False)
    computed = weight if widened else product
    scores = size.heads * pairs
    copies = (5 if widened else 2) * computed * states
    total: int = flat + 3 * product * states + copies + 2 * computed * scores
    return total
