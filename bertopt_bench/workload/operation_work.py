"""Count what one call of an operation must do at least: bytes to move, FLOPs. Without torch.

Letters: B sequences, A heads, L slots a sequence, D head size, H hidden size, V vocabulary,
M masked slots of the whole batch, P parameters, e bytes an element; N real tokens and Q their pairs
within a sequence, which without padding are B L and B L². A multiply-add is two FLOPs, any other
function of one number (exp, erf, a root) is one. What an implementation does beyond that (written
attention weights, recomputed products, padding's slots, logits of slots that are not masked) is not
counted, so that all implementations of an operation are measured by the same work.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertopt_bench.workload.formulas import SIZES, ModelSize
from bertopt_bench.workload.optimizer_work import OPTIMIZER_STEPS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
LABEL_BYTES = 8  # an int64 label, or its flat index
BASE_VOCABULARY = 30_522
DIRECTIONS = ("forward", "backward", "both")
ADAMW = OPTIMIZER_STEPS["adamw"]  # whose step the operation is

FORMULAS = {
    "attention": {
        "forward": (
            "4 N A D e: Q, K, V read, O written of real tokens (a mask is not counted)",
            "4 Q A D: two products",
        ),
        "backward": (
            "8 N A D e: Q, K, V, O, dO read, dQ, dK, dV written",
            "8 Q A D: four products, none of them again",
        ),
    },
    "layer_norm": {
        "forward": ("(2 B L H + 2 H) e: x, weight, bias read, y written", "7 B L H"),
        "backward": (
            "(3 B L H + 3 H) e: x, dy, weight read, dx, dweight, dbias written",
            "13 B L H",
        ),
    },
    "gelu": {
        "forward": ("2 B L H e: x read, y written", "5 B L H"),
        "backward": ("3 B L H e: x, dy read, dx written", "11 B L H"),
    },
    "mlm_loss": {
        "forward": (
            "(M H + V H + V + 1) e + 16 M: masked rows, weight, bias, labels and indices read",
            "2 M H V + 5 M V: one product, the logarithm of the sum of exponentials",
        ),
        "backward": (
            "(M H + 2 V H + B L H + V) e + 16 M: as forwards read; dhidden, dweight, dbias written",
            "4 M H V + 3 M V: two products, the softmax less the label",
        ),
    },
    "optimizer_step": {
        "both": (
            f"{ADAMW.words} P e: parameter, gradient, 2 moments read, all but the gradient written",
            f"{ADAMW.flops} P",
        ),
    },
}
"""By operation and direction: bytes, and FLOPs, in words."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a call must do, and by which formulas."""

    bytes: int
    flops: int
    bytes_formula: str
    flops_formula: str


def operation_work(operation: str, options: Mapping[str, Any], parameters: int = 0) -> Work:
    """Count a call's bytes and FLOPs; ``parameters`` is P of an optimizer's step."""
    count: Callable[[Mapping[str, Any], int], dict[str, tuple[int, int]]] = _COUNTS[operation]
    counted = count(options, parameters)
    formulas = FORMULAS[operation]
    wanted = options.get("direction", "both")
    parts = list(counted) if wanted == "both" else [wanted]
    return Work(
        bytes=sum(counted[part][0] for part in parts),
        flops=sum(counted[part][1] for part in parts),
        bytes_formula="; and ".join(formulas[part][0] for part in parts),
        flops_formula="; and ".join(formulas[part][1] for part in parts),
    )


def masked_slots_of(options: Mapping[str, Any]) -> int:
    """Give M: every sequence has the same number of masked slots, one at the least."""
    each = max(1, round(options["mask_rate"] * options["seq_len"]))
    masked: int = options["batch_size"] * each
    return masked


def real_lengths(batch: int, seq_len: int, padding: float) -> list[int]:
    """Give the sequences' real lengths: evenly spread, with so much padding on average.

    >>> real_lengths(3, 100, 0.25)
    [50, 75, 100]
    """
    low, high = max(0.0, 1 - 2 * padding), min(1.0, 2 - 2 * padding)
    steps = max(1, batch - 1)
    shares = [low + (high - low) * i / steps for i in range(batch)]
    if batch == 1:
        shares = [1 - padding]
    return [max(1, round(seq_len * share)) for share in shares]


def bert_like(hidden: int) -> tuple[ModelSize, int]:
    """Give a BERT as deep as base with another hidden size, and its vocabulary, shrunk alike.

    768 is BERT-base itself: 30,522 words.
    """
    size = replace(SIZES["base"], hidden=hidden, intermediate=4 * hidden, heads=1)
    return size, max(64, BASE_VOCABULARY * hidden // SIZES["base"].hidden)


def buffer_bytes(operation: str, options: Mapping[str, Any], parameters: int = 0) -> int:
    """Give the bytes of a call's own inputs and of the gradient that comes in."""
    size = DTYPE_BYTES[options["dtype"]]
    if operation == "optimizer_step":
        return 4 * size * parameters
    if operation == "attention":
        return 4 * size * _attention_elements(options)
    if operation == "mlm_loss":
        decoder: int = options["vocabulary_size"] * (options["hidden_size"] + 1)
        return size * (_elements(options) + decoder)
    vectors: int = 2 * options["hidden_size"] if operation == "layer_norm" else 0
    return size * (2 * _elements(options) + vectors)


def _elements(options: Mapping[str, Any]) -> int:
    elements: int = options["batch_size"] * options["seq_len"] * options["hidden_size"]
    return elements


def _attention_elements(options: Mapping[str, Any]) -> int:
    elements: int = (
        options["batch_size"] * options["heads"] * options["seq_len"] * options["head_size"]
    )
    return elements


def _attention(options: Mapping[str, Any], _: int) -> dict[str, tuple[int, int]]:
    lengths = real_lengths(options["batch_size"], options["seq_len"], options.get("padding", 0.0))
    width, size = options["heads"] * options["head_size"], DTYPE_BYTES[options["dtype"]]
    elements = width * sum(lengths)
    product = 2 * width * sum(length**2 for length in lengths)
    return {
        "forward": (4 * elements * size, 2 * product),
        "backward": (8 * elements * size, 4 * product),
    }


def _layer_norm(options: Mapping[str, Any], _: int) -> dict[str, tuple[int, int]]:
    elements, size = _elements(options), DTYPE_BYTES[options["dtype"]]
    hidden = options["hidden_size"]
    return {
        "forward": ((2 * elements + 2 * hidden) * size, 7 * elements),
        "backward": ((3 * elements + 3 * hidden) * size, 13 * elements),
    }


def _gelu(options: Mapping[str, Any], _: int) -> dict[str, tuple[int, int]]:
    elements, size = _elements(options), DTYPE_BYTES[options["dtype"]]
    return {
        "forward": (2 * elements * size, 5 * elements),
        "backward": (3 * elements * size, 11 * elements),
    }


def _mlm_loss(options: Mapping[str, Any], _: int) -> dict[str, tuple[int, int]]:
    size, masked = DTYPE_BYTES[options["dtype"]], masked_slots_of(options)
    hidden, vocabulary = options["hidden_size"], options["vocabulary_size"]
    slots = options["batch_size"] * options["seq_len"]
    labels = 2 * LABEL_BYTES * masked
    product = 2 * masked * hidden * vocabulary
    read = masked * hidden + vocabulary * hidden
    written = slots * hidden + vocabulary * hidden + vocabulary
    return {
        "forward": ((read + vocabulary + 1) * size + labels, product + 5 * masked * vocabulary),
        "backward": ((read + written) * size + labels, 2 * product + 3 * masked * vocabulary),
    }


def _optimizer_step(options: Mapping[str, Any], parameters: int) -> dict[str, tuple[int, int]]:
    moved = ADAMW.words * parameters * DTYPE_BYTES[options["dtype"]]
    return {"both": (moved, ADAMW.flops * parameters)}


_COUNTS = {
    "attention": _attention,
    "layer_norm": _layer_norm,
    "gelu": _gelu,
    "mlm_loss": _mlm_loss,
    "optimizer_step": _optimizer_step,
}
