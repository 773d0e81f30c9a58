"""What is drawn to check a kernel with: small samples of a cell's own shapes, in its dtypes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from bertopt_bench.workload import references
from bertopt_bench.workload.loss import decoded_cross_entropy
from bertopt_bench.workload.masking import IGNORED
from bertopt_bench.workload.ragged import Ragged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from bertopt_bench.trial.live import Trial
    from bertopt_bench.workload.formulas import ModelSize
    from bertopt_bench.workload.model import BertConfig

MOST_SEQUENCES = 4
LEAST_SUMS = 2000  # of attention weights, whose variance shows the dropout
_SEED = 20_231_101  # any: the draws are the sample's alone


@dataclass(frozen=True, slots=True)
class Case:
    """An operation on drawn inputs, computed three ways, each from the same tensors.

    ``inputs`` are in the cell's dtypes, by name, and lie in memory as the network's do; those of
    floating point want gradients. ``besides`` is what all three ways are given as well.
    """

    inputs: Mapping[str, Tensor]
    own: Callable[..., Tensor]
    usual: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    besides: Mapping[str, Tensor] = field(default_factory=dict)


def computed_in(trial: Trial) -> torch.dtype:
    """Give the dtype of the cell's products."""
    name = trial.precision.autocast_dtype or trial.precision.weight_dtype
    dtype: torch.dtype = getattr(torch, name)
    return dtype


class _Draw:
    """Draws a case's inputs in the cell's dtypes, on its device, from a generator of its own."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.generator = torch.Generator().manual_seed(_SEED)
        self.activations = computed_in(trial)
        self.weights: torch.dtype = getattr(torch, trial.precision.weight_dtype)

    def normal(
        self, *shape: int, dtype: torch.dtype, std: float = 1.0, mean: float = 0.0
    ) -> Tensor:
        drawn = torch.randn(shape, generator=self.generator, dtype=torch.float64) * std + mean
        return drawn.to(self.trial.device.torch_device, dtype)

    def heads(self, rows: int, slots: int, size: ModelSize, std: float = 1.0) -> Tensor:
        """Draw [B, a, S, d] as a projection leaves it: the heads of a slot lie side by side."""
        shape = (rows, slots, size.heads, size.head_size)
        return self.normal(*shape, dtype=self.activations, std=std).transpose(1, 2)

    def whole(self, least: int, most: int, shape: Sequence[int]) -> Tensor:
        drawn = torch.randint(least, most, tuple(shape), generator=self.generator)
        return drawn.to(self.trial.device.torch_device)


def _config(trial: Trial) -> BertConfig:
    config: Any = trial.model.config
    known: BertConfig = config
    return known


def _sample(trial: Trial) -> tuple[int, int]:
    """Give sequences and slots of the sample: the cell's, but few sequences."""
    workload = trial.cell["workload"]
    return min(trial.batches.micro_size, MOST_SEQUENCES), workload["seq_len"]


def masked_batch(trial: Trial) -> Any:
    """Give the first batch of the part that needs a mask, if any does: train or held-out text."""
    parts = (
        trial.batches,
        trial.held_out,
        trial.train_sample,
        getattr(trial, "test_batches", None),
    )
    batches = [part.at(0) for part in parts if part is not None]
    return next((one for one in batches if one.attention_mask is not None), batches[0])


def uniform_attention(trial: Trial) -> tuple[Tensor, Tensor]:
    """Give queries (and keys) of 0 and values of 1, [B, a, S, d], enough rows for a variance."""
    draw, (rows, slots) = _Draw(trial), _sample(trial)
    size = _config(trial).size
    rows = max(rows, -(-LEAST_SUMS // (size.heads * slots)))
    zeros = draw.heads(rows, slots, size, std=0.0)
    return zeros, torch.ones_like(zeros)


def _attention(trial: Trial, call: Callable[..., Tensor]) -> list[Case]:
    """Check attention as the layout calls it: on rows, over runs of any length, over segments."""
    given = masked_batch(trial).attention_mask
    rows, slots = _sample(trial)
    if not isinstance(given, Ragged):
        return [_rows(trial, call, rows, slots, given)]
    if given.borders is not None:
        return [_segments(trial, call)]
    shortest = min((length for count, length in given.runs if count), default=slots)
    return [_rows(trial, call, rows, length, given.mask) for length in {shortest, slots}]


def _rows(
    trial: Trial, call: Callable[..., Tensor], rows: int, slots: int, given: Tensor | None
) -> Case:
    draw, size = _Draw(trial), _config(trial).size
    inputs = {name: draw.heads(rows, slots, size) for name in ("query", "key", "value")}
    mask = None
    if given is not None:
        lengths = draw.whole(max(1, slots // 2), slots + 1, (rows, 1, 1, 1))
        mask = torch.arange(slots, device=lengths.device) < lengths
        if given.shape[-2] != 1:  # packed: two sequences a row, neither sees the other
            mask = mask.transpose(-1, -2) == mask
    plain: dict[str, Any] = {"attn_mask": mask, "dropout_p": 0.0}
    return Case(
        inputs,
        partial(call, **plain),
        partial(functional.scaled_dot_product_attention, **plain),
        partial(references.attention, mask=mask),
        {} if mask is None else {"attn_mask": mask},
    )


def _segments(trial: Trial, call: Any) -> Case:
    """Check attention within segments of unequal lengths, which lie one after the other."""
    draw, (rows, slots) = _Draw(trial), _sample(trial)
    size = _config(trial).size
    lengths = draw.whole(max(1, slots // 2), slots + 1, (rows,))
    borders = functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    owners = torch.repeat_interleave(torch.arange(rows, device=lengths.device), lengths)
    mask = owners[:, None] == owners
    shape = (len(owners), size.heads, size.head_size)
    inputs = {
        name: draw.normal(*shape, dtype=draw.activations) for name in ("query", "key", "value")
    }

    def masked(function: Callable[..., Tensor], *flat: Tensor) -> Tensor:
        """Attend [T, a, d] as one row, each slot to those of its own segment."""
        return function(*(x.transpose(0, 1)[None] for x in flat), mask)[0].transpose(0, 1)

    return Case(
        inputs,
        lambda query, key, value: call.segments(query, key, value, borders, slots),
        partial(masked, functional.scaled_dot_product_attention),
        partial(masked, references.attention),
    )


def _flat(trial: Trial) -> int:
    """Give slots that no block divides, as the head and layouts without padding have."""
    rows, slots = _sample(trial)
    return rows * slots // 2 | 1


def _layer_norm(trial: Trial, call: Callable[..., Tensor]) -> list[Case]:
    """Check it on rows, whose residual is as exact as weights, and on the head's flat slots."""
    kinds = _Draw(trial)
    shapes = {_sample(trial): kinds.weights, (_flat(trial),): kinds.activations}
    return [_normed(trial, call, shape, dtype) for shape, dtype in shapes.items()]


def _normed(
    trial: Trial, call: Callable[..., Tensor], shape: tuple[int, ...], dtype: torch.dtype
) -> Case:
    draw, config = _Draw(trial), _config(trial)
    hidden = config.size.hidden
    inputs = {
        "input": draw.normal(*shape, hidden, dtype=dtype, mean=0.5),
        "weight": draw.normal(hidden, dtype=draw.weights, std=0.1, mean=1.0),
        "bias": draw.normal(hidden, dtype=draw.weights, std=0.1),
    }

    def normed(function: Callable[..., Tensor], value: Tensor, *parameters: Tensor) -> Tensor:
        return function(value, (hidden,), *parameters, config.layer_norm_eps)

    return Case(
        inputs,
        partial(normed, call),
        partial(normed, functional.layer_norm),
        partial(references.layer_norm, eps=config.layer_norm_eps),
    )


def _gelu(trial: Trial, call: Callable[..., Tensor]) -> list[Case]:
    draw, size = _Draw(trial), _config(trial).size
    shapes = ((*_sample(trial), size.intermediate), (_flat(trial), size.hidden))
    drawn = (draw.normal(*shape, dtype=draw.activations, std=2.0) for shape in shapes)
    return [Case({"input": value}, call, functional.gelu, references.gelu) for value in drawn]


def _mlm_loss(trial: Trial, call: Callable[..., Tensor]) -> list[Case]:
    draw, (rows, _) = _Draw(trial), _sample(trial)
    config = _config(trial)
    vocabulary, hidden = config.vocabulary_size, config.size.hidden
    slots = max(2, rows * max(trial.batches.head_slots) // trial.cell["workload"]["batch_size"])
    labels = draw.whole(0, vocabulary, (slots,))
    labels[-1] = IGNORED
    inputs = {
        "hidden": draw.normal(slots, hidden, dtype=draw.activations),
        "weight": draw.normal(vocabulary, hidden, dtype=draw.weights, std=0.1),
        "bias": draw.normal(vocabulary, dtype=draw.weights, std=0.1),
        "labels": labels,
    }

    return [Case(inputs, call, decoded_cross_entropy, references.mlm_loss)]


CASES: Mapping[str, Callable[[Trial, Callable[..., Tensor]], list[Case]]] = {
    "attention": _attention,
    "layer_norm": _layer_norm,
    "gelu": _gelu,
    "mlm_loss": _mlm_loss,
}
