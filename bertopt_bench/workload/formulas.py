"""Count parameters, FLOPs and bytes of a BERT by formula, without torch.

Letters: h hidden size, L layers, a heads, f intermediate size, V vocabulary, P positions,
B sequences a batch, S slots a sequence, M masked slots sent to the head in the whole batch.
A multiply-add is two FLOPs; only matrix products count, as in ``torch.utils.flop_counter``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.matrix.content import kernel_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TRAIN_FACTOR = 3
"""A step's FLOPs by those of its forward pass: each product has two of its size in the backward."""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """The sizes that define a BERT, but for its vocabulary."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    positions: int = 512
    segments: int = 2

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads


SIZES = {
    "tiny": ModelSize(hidden=128, layers=2, heads=2, intermediate=512),
    "mini": ModelSize(hidden=256, layers=4, heads=4, intermediate=1024),
    "small": ModelSize(hidden=512, layers=4, heads=8, intermediate=2048),
    "medium": ModelSize(hidden=512, layers=8, heads=8, intermediate=2048),
    "base": ModelSize(hidden=768, layers=12, heads=12, intermediate=3072),
    "large": ModelSize(hidden=1024, layers=24, heads=16, intermediate=4096),
    "minilm": ModelSize(hidden=384, layers=6, heads=12, intermediate=1536),
}
"""Sizes by name: tiny to medium of Turc et al., arXiv 1908.08962; base and large of Devlin et al.;
minilm of Wang et al., arXiv 2002.10957, six layers of 384."""

_KEYS = tuple(field.name for field in fields(ModelSize))
_REQUIRED = _KEYS[:4]

_STATE_BYTES = {
    "sgd": 0.0,
    "momentum": 4.0,
    "nesterov": 4.0,
    "adam": 8.0,
    "adamw": 8.0,
    "adagrad": 4.0,
    "rmsprop": 4.0,
    "nadam": 8.0,
    "radam": 8.0,
    "adafactor": 0.1,  # about: optimizer_memory counts its rows and columns
    "lion": 4.0,
    "lamb": 8.0,
    "ademamix": 12.0,
    "muon": 4.0,  # its matrices; optimizer_memory adds what AdamW's parameters have more
}
FUSED_LOSSES = ("chunked", "liger", "cut_cross_entropy")
"""Entries of ``kernel.mlm_loss`` that never hold all logits."""

_UNKNOWN_STATE_BYTES = 8.0  # an entry of the user's own: two moments, as most have


def model_size(model: str | Mapping[str, Any]) -> ModelSize:
    """Give the sizes that a name or a table of the matrix stands for.

    Raises:
        UserError: no such name or key, a size that is no positive integer, or heads that do not
            divide the hidden size.
    """
    if isinstance(model, str):
        if model not in SIZES:
            raise UserError(
                f"no model '{model}'. Models: {', '.join(SIZES)}.{nearest(model, SIZES)} "
                f"Sizes of your own are a table with {', '.join(_REQUIRED)}."
            )
        return SIZES[model]
    unknown = [key for key in model if key not in _KEYS]
    if unknown:
        raise UserError(
            f"model takes no '{unknown[0]}'. It takes: {', '.join(_KEYS)}."
            f"{nearest(str(unknown[0]), _KEYS)}"
        )
    missing = [key for key in _REQUIRED if key not in model]
    if missing:
        raise UserError(f"model lacks {', '.join(missing)}. Give all of {', '.join(_REQUIRED)}.")
    for key, value in model.items():
        if type(value) is not int or value < 1:
            raise UserError(f"model.{key} is {value!r}; allowed are integers from 1.")
    size = ModelSize(**model)
    if size.hidden % size.heads:
        raise UserError(
            f"model.hidden {size.hidden} is no multiple of model.heads {size.heads}; make it one."
        )
    return size


def parameter_count(
    size: ModelSize,
    *,
    vocabulary: int,
    position_embedding: str = "learned",
    pooler: bool = False,
    mlm: bool = True,
) -> int:
    """Count the trainable parameters; the decoder is tied to the embeddings and counts once."""
    h = size.hidden
    positions = size.positions * h if position_embedding == "learned" else 0
    embeddings = vocabulary * h + positions + size.segments * h + 2 * h
    pooling = h * h + h if pooler else 0
    head = h * h + 3 * h + vocabulary if mlm else 0
    return embeddings + size.layers * layer_parameters(size) + pooling + head


def layer_parameters(size: ModelSize) -> int:
    """Count the trainable parameters of an encoder layer."""
    h, f = size.hidden, size.intermediate
    attention = 4 * h * h + 4 * h
    feed_forward = 2 * h * f + f + h
    norms = 4 * h
    return attention + feed_forward + norms


def forward_flops(
    size: ModelSize, *, vocabulary: int, batch: int, seq_len: int, masked: int
) -> int:
    """Count a forward pass: ``B S L (8hh + 4hf + 4Sh) + M (2hh + 2hV)``."""
    slots = batch * seq_len
    return ragged_forward_flops(
        size, vocabulary=vocabulary, slots=slots, pairs=slots * seq_len, masked=masked
    )


def ragged_forward_flops(
    size: ModelSize, *, vocabulary: int, slots: int, pairs: int, masked: int
) -> int:
    """Count a forward pass over T slots: ``L (T (8hh + 4hf) + 4hP) + M (2hh + 2hV)``.

    P, ``pairs``, is the sum of l * l over sequences of l tokens: S * S for each padded one. Where
    nothing is padded it is T times what stands for S in the formula above, sum l * l / sum l.
    """
    h, f = size.hidden, size.intermediate
    encoder = size.layers * (slots * (8 * h * h + 4 * h * f) + 4 * h * pairs)
    return encoder + masked * (2 * h * h + 2 * h * vocabulary)


def mean_flops(
    size: ModelSize,
    *,
    vocabulary: int,
    slots: Sequence[int],
    pairs: Sequence[int],
    masked: Sequence[int],
    factor: int = TRAIN_FACTOR,
) -> int:
    """Count the mean training step from what each step holds (forward only: ``factor`` 1)."""
    total = factor * sum(
        ragged_forward_flops(size, vocabulary=vocabulary, slots=t, pairs=p, masked=m)
        for t, p, m in zip(slots, pairs, masked, strict=True)
    )
    return rounded_mean(total, len(slots))


def rounded_mean(total: int, count: int) -> int:
    """Divide whole numbers, half up, exactly however large they are.

    >>> rounded_mean(7, 2)
    4
    """
    return (2 * total + count) // (2 * count)


def train_flops(size: ModelSize, *, vocabulary: int, batch: int, seq_len: int, masked: int) -> int:
    """Count forward and backward pass of a step: three times the forward pass.

    Nothing is recomputed and padding is not left out; the optimizer's own work does not count.
    """
    return TRAIN_FACTOR * forward_flops(
        size, vocabulary=vocabulary, batch=batch, seq_len=seq_len, masked=masked
    )


def recomputes_layers(cell: Mapping[str, Any]) -> bool:
    """Say whether the backward pass runs the encoder's layers again."""
    return kernel_name(cell, "checkpointing") == "layers"


def computed_flops(cell: Mapping[str, Any]) -> int:
    """Count what a step of a canonical cell computes, which a forecast of its time stands on.

    More than the model's FLOPs where layers are run again, or the head on slots that do not count:
    work that is no progress, so that the share of the peak (MFU) leaves it out.
    """
    workload = cell["workload"]
    size = model_size(workload["model"])
    batch, seq_len = workload["batch_size"], workload["seq_len"]
    dense = kernel_name(cell, "mlm_loss") == "dense"
    rows = seq_len if dense else masked_slots(seq_len, workload["mask_rate"])
    shape = {"vocabulary": workload["vocabulary_size"], "batch": batch, "seq_len": seq_len}
    flops = train_flops(size, masked=batch * rows, **shape)
    if recomputes_layers(cell):
        flops += forward_flops(size, masked=0, **shape)
    return flops


def masked_slots(seq_len: int, mask_rate: float) -> int:
    """Give K, the slots for masked tokens in a sequence; [CLS] and [SEP] are never masked."""
    return max(1, round(mask_rate * (seq_len - 2)))


def state_bytes_per_parameter(optimizer_name: str) -> float:
    """Give the bytes of an optimizer's fp32 state a parameter; 8 where the name is unknown."""
    return _STATE_BYTES.get(optimizer_name, _UNKNOWN_STATE_BYTES)
