"""Count what a forward pass keeps for the backward pass, by formula and without torch.

Letters as in ``workload.formulas``; N slots and M slots that go through the head, in a micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.content import HALF, is_compiled, kernel_name
from bertopt_bench.workload import formulas
from bertopt_bench.workload.filling import WHOLE, Filled, computed, gathers, joins, masks_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertopt_bench.workload.formulas import ModelSize

STATISTIC_BYTES = 4  # a figure of a norm or of flash attention, per slot


@dataclass(frozen=True, slots=True)
class Step:
    """What the formulas read of a cell.

    ``weight`` and ``compute`` are bytes a number: of weights, and of matrix products' results.
    ``slots`` are those that the layout fills, ``pairs`` those of them that attention looks at, and
    ``pairs_at_once`` those in one call of it (``workload.filling``). ``masked`` are all slots where
    the loss is ``dense``.
    ``gathered`` are the slots of the padded rows that attention makes of ``unpadded``, if it does,
    and ``blocks`` the numbers of the mask that keeps packed sequences in a row apart, if one does;
    ``joined`` says that its result is put together of several tensors.
    ``gradients_stay`` says that a step begins with all of them; ``chunk_rows`` is the fused losses'
    (0: their own choice).
    """

    size: ModelSize
    vocabulary: int
    slots: int
    masked: int
    pairs: int
    pairs_at_once: int
    weight: int
    compute: int
    cuda: bool
    attention: str
    reduced: bool
    dropout: bool
    attention_dropout: bool
    smoothing: bool
    gradients_early: bool
    gradients_stay: bool
    gathered: int = 0
    blocks: int = 0
    joined: bool = False
    compiled: bool = False
    recomputes: bool = False
    fused_loss: bool = False
    chunk_rows: int = 0

    @classmethod
    def of(cls, cell: Mapping[str, Any], filled: Filled = WHOLE) -> Step:
        """Read a canonical cell; ``filled`` is what its layout computes of a micro-batch."""
        workload, precision = cell["workload"], cell["precision"]["name"]
        sequences: int = workload["batch_size"] // workload["micro_batches"]
        named = {part["name"]: part for part in cell["regularizer"]}
        dropped = named.get("dropout", {"dropout": 0.0, "attention_dropout": 0.0})
        attention = cell["kernel"]["attention"]
        weight = 8 if precision == "fp64" else 4
        loss = kernel_name(cell, "mlm_loss")
        seq_len, rate = workload["seq_len"], workload["mask_rate"]
        filled = computed(cell, filled)
        slots, pairs = sequences * seq_len, sequences * seq_len**2
        masked = round(filled.real * sequences * formulas.masked_slots(seq_len, rate))
        return cls(
            size=formulas.model_size(workload["model"]),
            vocabulary=workload["vocabulary_size"],
            slots=round(filled.slots * slots),
            masked=round(filled.slots * slots) if loss == "dense" else masked,
            pairs=round(filled.pairs * pairs),
            pairs_at_once=round(filled.at_once * pairs),
            weight=weight,
            compute=2 if precision in HALF else weight,
            cuda=cell.get("device", {}).get("name") == "cuda",
            attention=attention["name"],
            reduced=attention.get("reduced", False),
            dropout=dropped["dropout"] > 0,
            attention_dropout=dropped["attention_dropout"] > 0,
            smoothing="label_smoothing" in named,
            gradients_early="l1" in named,
            gradients_stay=workload["micro_batches"] > 1 or _captured(cell),
            gathered=slots if gathers(cell) else 0,
            blocks=round(filled.pairs * pairs) if masks_blocks(cell) else 0,
            joined=joins(cell, filled),
            compiled=is_compiled(cell),
            recomputes=formulas.recomputes_layers(cell),
            fused_loss=loss in formulas.FUSED_LOSSES,
            chunk_rows=cell["kernel"].get("mlm_loss", {}).get("rows", 0),
        )

    @property
    def attended(self) -> int:
        """Give the slots of queries, keys and values as attention gets them."""
        return self.gathered or self.slots

    @property
    def autocast(self) -> bool:
        return self.compute != self.weight

    @property
    def writes_attention(self) -> bool:
        """Say whether the matrix of attention weights is kept: torch's CPU flash has no dropout."""
        return self.attention == "math" or (self.attention_dropout and not self.cuda)

    @property
    def adds_in_place(self) -> bool:
        """Say whether the words' second gradient is added to the first, or both wait for a sum.

        The first is no product's transpose where it is cast, or made within a fused loss.
        """
        return self.autocast or self.fused_loss

    @property
    def noise(self) -> int:
        """Give the bytes that dropout keeps of one number in the compute type."""
        return 1 if self.cuda or self.compiled else self.compute


def is_ragged(workload: Mapping[str, Any]) -> bool:
    """Say whether a workload's padding fills no slots."""
    return bool(workload.get("layout", "padded") != "padded")


def _captured(cell: Mapping[str, Any]) -> bool:
    """Say whether a graph holds on to the gradients, so that none is given back after a step."""
    step, whole = (kernel_name(cell, one) for one in ("optimizer_step", "cuda_graph"))
    return step == "capturable" or whole == "step"


@dataclass(frozen=True, slots=True)
class Activations:
    """Bytes that the forward pass keeps: before the layers, in each layer, in the head, the loss.

    ``attention`` is the part of a layer that its attention keeps, inputs included. Where layers are
    run again, ``again`` is what one of them makes in the backward pass; else a layer keeps it.
    """

    embedding: float
    layer: float
    attention: float
    head: float
    loss: float
    again: float = 0.0

    def body(self, layers: int) -> float:
        """Add up what lies before the head."""
        return self.embedding + layers * self.layer


def activations(step: Step) -> Activations:
    """Count what the backward pass needs of one micro-batch.

    A layer keeps the inputs of its six products, queries, keys, values and their mixture, the
    inputs of GELU and of both norms: ``16 h`` numbers a slot where f = 4h (Korthikanti et al.,
    arXiv 2205.05198, with nothing in 16 bits). Autocast keeps three 16-bit copies of a layer's
    input, one for each product, and of every weight one; compiled, it keeps one of the input and
    casts weights anew.
    """
    h, f = step.size.hidden, step.size.intermediate
    weight, compute = step.weight, step.compute
    statistics = 2 * STATISTIC_BYTES * weight / 4
    copies = 1 if step.compiled else 3
    inputs = copies * compute * h if step.autocast else weight * h
    attention = step.slots * (inputs + compute * h) + _attention(step)
    sums = 2 * (weight * h + statistics)
    noises = 2 * step.noise * h if step.dropout else 0
    feed_forward = compute * (h + 2 * f)
    casts = compute * (4 * h * h + 2 * h * f) if step.autocast and not step.compiled else 0
    noise = 1 if step.cuda or step.compiled else weight
    embedding_noise = noise * h if step.dropout else 0
    whole = attention + step.slots * (sums + noises + feed_forward) + casts
    kept = step.slots * weight * h if step.recomputes else whole
    shared = kept if step.recomputes and not step.autocast else 0  # else cast anew for the products
    return Activations(
        embedding=step.slots * (weight * h + statistics + embedding_noise) + _shared_masks(step),
        layer=kept,
        attention=attention,
        head=_head(step, statistics),
        loss=0.0 if step.fused_loss else step.masked * step.vocabulary * max(weight, 4),
        again=whole - shared if step.recomputes else 0.0,
    )


def _shared_masks(step: Step) -> float:
    """Count the mask of packed sequences, a byte each; compiled, its numbers are made once too.

    Compiled layers that are run again share the zeros of rows that see nothing, a matrix of them.
    """
    if not step.compiled:
        return step.blocks
    if not step.writes_attention:
        return step.blocks * (1 + step.compute)
    zeros = math_width(step) * step.size.heads * step.pairs if step.recomputes else 0
    return step.blocks + zeros


def _head(step: Step, statistics: float) -> float:
    """Count what the head keeps: inputs of both products, of GELU and of the norm.

    A fused loss keeps its input's gradient in place of its input, and no copy of the words.
    """
    h, compute = step.size.hidden, step.compute
    casts = compute * h * (h + (0 if step.fused_loss else step.vocabulary)) if step.autocast else 0
    last = FUSED_SUM_BYTES if step.fused_loss and step.autocast and not step.cuda else compute
    return step.masked * (3 * compute * h + last * h + statistics) + casts


FUSED_SUM_BYTES = 4
"""A number that torch's chunked loss sums up, and of its input's gradient on a CPU in 16 bits."""


def _attention(step: Step) -> float:
    """Count queries, keys, values and what mixing them keeps."""
    h, heads = step.size.hidden, step.size.heads
    if not step.writes_attention:
        each = 3 * step.compute * h + STATISTIC_BYTES * heads * step.weight / 4
        result = (step.attended if step.joined else 0) * step.compute * h  # in its parts
        mask = 0 if step.compiled else step.compute * step.blocks
        return step.attended * each + result + mask
    width = math_width(step)
    kept = step.compute if step.compiled else width
    matrix = ATTENTION_MATRICES * width + sum(dropped_bytes(step))
    return step.attended * 3 * kept * h + matrix * heads * step.pairs


ATTENTION_MATRICES = 1
"""Kept by math attention: the softmax, which the product with the values reads too."""


def dropped_bytes(step: Step) -> tuple[int, int]:
    """Give what dropout keeps of an attention weight: its noise and the dropped one.

    Compiled, the noise is a byte, and under autocast the dropped weight is made anew.
    """
    if not step.attention_dropout:
        return 0, 0
    width = math_width(step)
    if step.compiled:
        return 1, 0 if step.autocast else width
    return width, width


def math_width(step: Step) -> int:
    """Give the bytes a number that math attention computes in: fp32 unless it may be reduced."""
    return step.compute if step.reduced else max(step.compute, 4)
