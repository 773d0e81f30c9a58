"""Operations as functions of tensors: what goes in, how they are called, what is exactly right."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from bertopt_bench.workload import references
from bertopt_bench.workload.masking import IGNORED
from bertopt_bench.workload.operation_work import masked_slots_of, real_lengths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Options = Mapping[str, Any]
    Inputs = Mapping[str, Any]

NORM_EPS = 1e-12  # BERT's


@dataclass(frozen=True, slots=True)
class Function:
    """An operation of tensors.

    Attributes:
        draw: makes the inputs on the host, in float32, none of them zero throughout; what is no
            floating-point tensor (a mask, labels) is never cast.
        learned: the inputs whose gradients the backward pass gives.
        apply: calls an implementation with the operation's signature.
        exact: the plain formula, which float64 inputs make the reference.
        own: what torch has for it, whose error in a dtype is the measure for others.
        arrange: puts what was drawn into the form that calls take.
    """

    draw: Callable[[Options, torch.Generator], dict[str, Any]]
    learned: tuple[str, ...]
    apply: Callable[[Callable[..., Tensor], Inputs], Tensor]
    exact: Callable[[Inputs], Tensor]
    own: Callable[..., Tensor]
    arrange: Callable[[dict[str, Any]], dict[str, Any]] = lambda drawn: drawn


def _draw_attention(options: Options, generator: torch.Generator) -> dict[str, Any]:
    shape = [options[key] for key in ("batch_size", "heads", "seq_len", "head_size")]
    drawn: dict[str, Any] = {
        name: torch.randn(shape, generator=generator) for name in ("query", "key", "value")
    }
    drawn["mask"] = None
    if options["padding"]:
        lengths = real_lengths(shape[0], shape[2], options["padding"])
        slots = torch.arange(shape[2])
        drawn["mask"] = (slots < torch.tensor(lengths)[:, None])[:, None, None, :]
    return drawn


def _exact_attention(inputs: Inputs) -> Tensor:
    return references.attention(*(inputs[name] for name in ("query", "key", "value", "mask")))


def _heads_side_by_side(drawn: dict[str, Any]) -> dict[str, Any]:
    """Lay [B, a, S, d] as projections leave it: the heads of a slot lie side by side in memory."""
    rows = {name: drawn[name].transpose(1, 2).contiguous() for name in ("query", "key", "value")}
    return {**drawn, **{name: one.transpose(1, 2) for name, one in rows.items()}}


def _without_padding(drawn: dict[str, Any]) -> dict[str, Any]:
    """Lay the real tokens of all sequences one after the other: [B, a, S, d] becomes [T, a, d]."""
    batch, _, slots, _ = drawn["query"].shape
    mask = drawn["mask"]
    lengths = torch.full((batch,), slots) if mask is None else mask.sum(-1).flatten()
    keep = torch.arange(slots) < lengths[:, None]
    flat = {name: drawn[name].transpose(1, 2)[keep] for name in ("query", "key", "value")}
    borders = functional.pad(lengths.cumsum(0), (1, 0)).int()
    return {**flat, "borders": borders, "longest": int(lengths.max())}


def of_each_sequence(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let an attention of [1, a, S, d] serve sequences that lie one after the other, one a call."""

    def segments(query: Tensor, key: Tensor, value: Tensor, borders: Tensor, _: int) -> Tensor:
        sizes = borders.diff().tolist()
        parts = zip(*(torch.split(one, sizes) for one in (query, key, value)), strict=True)
        mixed = [call(*(one.transpose(0, 1)[None] for one in part)) for part in parts]
        return torch.cat([one[0].transpose(0, 1) for one in mixed])

    return segments


def _exact_segments(inputs: Inputs) -> Tensor:
    exact = of_each_sequence(
        lambda query, key, value: references.attention(query, key, value, None)
    )
    return exact(*(inputs[name] for name in SEGMENTS))


def _draw_layer_norm(options: Options, generator: torch.Generator) -> dict[str, Any]:
    hidden = options["hidden_size"]
    rows = [options["batch_size"], options["seq_len"], hidden]
    return {
        "input": 1.5 * torch.randn(rows, generator=generator) + 0.3,
        "weight": 1 + 0.1 * torch.randn(hidden, generator=generator),
        "bias": 0.1 * torch.randn(hidden, generator=generator),
    }


def _exact_layer_norm(inputs: Inputs) -> Tensor:
    return references.layer_norm(inputs["input"], inputs["weight"], inputs["bias"], NORM_EPS)


def _draw_gelu(options: Options, generator: torch.Generator) -> dict[str, Any]:
    rows = [options["batch_size"], options["seq_len"], options["hidden_size"]]
    return {"input": torch.randn(rows, generator=generator)}


def _exact_gelu(inputs: Inputs) -> Tensor:
    return references.gelu(inputs["input"])


def _draw_mlm_loss(options: Options, generator: torch.Generator) -> dict[str, Any]:
    hidden, vocabulary = options["hidden_size"], options["vocabulary_size"]
    slots = options["batch_size"] * options["seq_len"]
    each = masked_slots_of(options) // options["batch_size"]
    chosen = [
        torch.randperm(options["seq_len"], generator=generator)[:each] + number * options["seq_len"]
        for number in range(options["batch_size"])
    ]
    index = torch.cat(chosen).sort().values
    labels = torch.full((slots,), IGNORED)
    labels[index] = torch.randint(vocabulary, (len(index),), generator=generator)
    return {
        "hidden": torch.randn(slots, hidden, generator=generator),
        "weight": torch.randn(vocabulary, hidden, generator=generator) / math.sqrt(hidden),
        "bias": 0.02 * torch.randn(vocabulary, generator=generator),
        "labels": labels,
        "index": index,
    }


def _exact_mlm_loss(inputs: Inputs) -> Tensor:
    hidden, labels = (inputs[name][inputs["index"]] for name in ("hidden", "labels"))
    return references.mlm_loss(hidden, inputs["weight"], inputs["bias"], labels)


def widened(values: Tensor) -> Tensor:
    """Give float32, and float64 where it is that already."""
    return values if values.dtype == torch.float64 else values.float()


def composed_layer_norm(
    values: Tensor, _shape: object, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """Norm by the formula's plain operations, in float32 or wider."""
    return references.layer_norm(widened(values), weight, bias, eps).to(values.dtype)


def composed_gelu(values: Tensor) -> Tensor:
    """Give GELU by the formula's plain operations, in float32 or wider."""
    return references.gelu(widened(values)).to(values.dtype)


COMPOSED: Mapping[str, Callable[..., Tensor]] = {
    "layer_norm": composed_layer_norm,
    "gelu": composed_gelu,
}
"""By plain operations, one after the other: what torch.compile has to put together."""


def of_masked_slots(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let a loss of hidden states and labels see the masked slots alone."""

    def gathered(
        hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, index: Tensor
    ) -> Tensor:
        return call(hidden.index_select(0, index), weight, bias, labels.index_select(0, index))

    return gathered


def of_all_slots(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let a loss of hidden states and labels see every slot, masked or not."""

    def ungathered(
        hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, _index: Tensor
    ) -> Tensor:
        return call(hidden, weight, bias, labels)

    return ungathered


def _torch_mlm_loss(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """Give the summed loss as torch's two functions do."""
    logits = widened(functional.linear(hidden, weight, bias))
    return functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")


SEGMENTS = ("query", "key", "value", "borders", "longest")
"""What an attention takes that leaves padding out: [T, a, d] thrice, int32 [B + 1], a number."""

OVER_SEGMENTS = Function(
    draw=_draw_attention,
    learned=("query", "key", "value"),
    apply=lambda f, x: f(*(x[name] for name in SEGMENTS)),
    exact=_exact_segments,
    own=of_each_sequence(functional.scaled_dot_product_attention),
    arrange=_without_padding,
)
"""Attention over the same sequences, without their padding."""

FUNCTIONS: Mapping[str, Function] = {
    "attention": Function(
        draw=_draw_attention,
        learned=("query", "key", "value"),
        apply=lambda f, x: f(x["query"], x["key"], x["value"], attn_mask=x["mask"]),
        exact=_exact_attention,
        own=functional.scaled_dot_product_attention,
        arrange=_heads_side_by_side,
    ),
    "layer_norm": Function(
        draw=_draw_layer_norm,
        learned=("input", "weight", "bias"),
        apply=lambda f, x: f(x["input"], x["weight"].shape, x["weight"], x["bias"], NORM_EPS),
        exact=_exact_layer_norm,
        own=functional.layer_norm,
    ),
    "gelu": Function(
        draw=_draw_gelu,
        learned=("input",),
        apply=lambda f, x: f(x["input"]),
        exact=_exact_gelu,
        own=functional.gelu,
    ),
    "mlm_loss": Function(
        draw=_draw_mlm_loss,
        learned=("hidden", "weight", "bias"),
        apply=lambda f, x: f(x["hidden"], x["weight"], x["bias"], x["labels"], x["index"]),
        exact=_exact_mlm_loss,
        own=of_masked_slots(_torch_mlm_loss),  # over all slots it sums in another order
    ),
}
