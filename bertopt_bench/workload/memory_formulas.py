"""Forecast a training step's peak of allocated bytes, part by part, by formula and without torch.

The peak lies in one of a few moments: at the loss, in the decoder's backward pass, in a layer's,
in the embeddings', or in the optimizer's step. Each has its own gradients, activations and
temporaries; weights and state lie there always. The formulas follow ``workload.model`` operation by
operation, as torch 2.13 keeps tensors for the backward pass, and compiled code as its Inductor
writes it; a user's own compiler is taken for an eager one. The CPU is measured; what differs on
CUDA (dropout's masks of one byte, flash attention with dropout, lists of tensors by default) is
read in torch's source, and compiled code is taken to be the CPU's.

Letters as in ``workload.formulas``; N slots and M masked slots in a micro-batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from bertopt_bench.workload import formulas, inference_memory
from bertopt_bench.workload.activation_memory import (
    FUSED_SUM_BYTES,
    Step,
    activations,
    dropped_bytes,
    math_width,
)
from bertopt_bench.workload.classifier_formulas import is_classification
from bertopt_bench.workload.filling import WHOLE, Filled
from bertopt_bench.workload.optimizer_memory import optimizer_memory, parameter_groups

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertopt_bench.workload.activation_memory import Activations
    from bertopt_bench.workload.optimizer_memory import OptimizerMemory

DECODER, EMBEDDING = "backward:decoder", "backward:embedding"  # moments: phase, then what runs


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """Bytes by what they are for.

    Activations are all that the forward pass leaves for the backward pass, the 16-bit copies of
    weights that autocast makes and the mask between packed sequences among them.
    """

    parameter_bytes: int = 0
    gradient_bytes: int = 0
    optimizer_state_bytes: int = 0
    regularizer_state_bytes: int = 0
    activation_bytes: int = 0
    temporary_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """Add the parts up."""
        return sum(getattr(self, part.name) for part in fields(self))


@dataclass(frozen=True, slots=True)
class MemoryForecast:
    """The parts at the peak, where the peak lies, and the most that each part takes in the step."""

    moment: str
    peak: MemoryParts
    largest: MemoryParts

    @property
    def peak_bytes(self) -> int:
        """Give the forecast of ``peak_memory_bytes``."""
        return self.peak.total_bytes


@dataclass(frozen=True, slots=True)
class Moment:
    """Bytes that come and go.

    ``fresh`` are those of the gradients that are being made; ``waits`` says that the decoder's
    share of the words' gradient is there and the embeddings' is to come.
    """

    gradients: float
    activations: float
    temporary: float
    fresh: float = 0.0
    waits: bool = False

    @property
    def total(self) -> float:
        return self.gradients + self.activations + self.temporary


def memory_forecast(cell: Mapping[str, Any], filled: Filled = WHOLE) -> MemoryForecast:
    """Forecast the peak of allocated bytes in a training step of a canonical cell.

    Args:
        cell: the canonical cell.
        filled: what its layout computes of the fullest micro-batch (``workload.known_text``); all
            where that is not known.
    """
    if is_classification(cell):
        from bertopt_bench.workload.classifier_memory import classifier_memory

        return classifier_memory(cell)
    step = Step.of(cell, filled)
    groups = parameter_groups(
        step.size,
        vocabulary=step.vocabulary,
        position_embedding=cell["workload"]["position_embedding"],
        next_sentence=cell["workload"].get("next_sentence", False),
    )
    parameters = sum(shape.count for shapes in groups.values() for shape in shapes)
    optimizer = optimizer_memory(cell, groups)
    kept = activations(step)
    moments = _moments(step, kept, step.weight * parameters)
    return at_the_peak(cell, step, parameters, optimizer, moments)


def at_the_peak(
    cell: Mapping[str, Any],
    step: Step,
    parameters: int,
    optimizer: OptimizerMemory,
    moments: Mapping[str, Moment],
) -> MemoryForecast:
    """Find the largest moment, that of the optimizer's step among them, beside what lasts."""
    averaged = any(part["name"] == "ema" for part in cell["regularizer"])
    lasting = MemoryParts(
        parameter_bytes=step.weight * parameters + _table_bytes(cell, step),
        optimizer_state_bytes=round(step.weight / 4 * optimizer.state_bytes),
        regularizer_state_bytes=step.weight * parameters if averaged else 0,
    )
    gradients = step.weight * parameters
    temporary = optimizer.temporary_numbers * step.weight
    moments = {**moments, "optimizer": Moment(gradients, 0.0, temporary)}
    name, peak = max(moments.items(), key=lambda one: one[1].total)
    largest = Moment(
        max(one.gradients for one in moments.values()),
        max(one.activations for one in moments.values()),
        max(one.temporary for one in moments.values()),
    )
    return MemoryForecast(name.split(":")[0], _beside(lasting, peak), _beside(lasting, largest))


def memory_forecast_bytes(cell: Mapping[str, Any], filled: Filled = WHOLE) -> int:
    """Forecast the peak of allocated bytes in a training step, or an inference cell's forward pass.

    As ``memory_forecast``.
    """
    if cell["workload"].get("mode") == "inference":
        return inference_memory.memory_forecast_bytes(cell, filled)
    return memory_forecast(cell, filled).peak_bytes


def _beside(lasting: MemoryParts, moment: Moment) -> MemoryParts:
    return replace(
        lasting,
        gradient_bytes=round(moment.gradients),
        activation_bytes=round(moment.activations),
        temporary_bytes=round(moment.temporary),
    )


def _table_bytes(cell: Mapping[str, Any], step: Step) -> int:
    """Count the sinusoids, which are a buffer."""
    fixed = cell["workload"]["position_embedding"] == "sinusoidal"
    return step.weight * step.size.positions * step.size.hidden if fixed else 0


def _moments(step: Step, kept: Activations, all_gradients: float) -> dict[str, Moment]:
    """Give what lies there at each moment of forward and backward pass.

    Between the first and the last layer's backward pass all parts change by the same amount a
    layer, so that the most lies at one end.
    """
    h, layers = step.size.hidden, step.size.layers
    words = float(step.weight * step.vocabulary * h)
    body = kept.body(layers)
    head_gradients = words + step.weight * (h * h + 3 * h + step.vocabulary)
    layer_gradients = step.weight * formulas.layer_parameters(step.size)
    losses = _fused_moments if step.fused_loss else _loss_moments
    moments = {
        **losses(step, kept, body),
        **attention_moments(step, kept, body),
        EMBEDDING: Moment(all_gradients, 0.0, words + step.weight * step.slots * h, waits=True),
    }
    for done in (0, layers - 1):
        gradients = head_gradients + done * layer_gradients
        left = body - done * kept.layer
        for part, one in layer_moments(step, kept).items():
            moments[f"backward:{part} {done}"] = within_a_layer(
                replace(one, gradients=gradients + one.gradients), left, kept.again
            )
    return {
        name: _as_accumulated(step, name, moment, all_gradients, words)
        for name, moment in moments.items()
    }


def _as_accumulated(
    step: Step, name: str, moment: Moment, all_gradients: float, words: float
) -> Moment:
    """Tell gradients that stay from those that are added to others.

    The words' gradient comes in two shares, the decoder's and, at the end, the embeddings'. In 16
    bits the second is added to the first; else, where the first is a product's transpose, both wait
    for their sum. Earlier micro-batches have left all gradients, to which new ones are added; an L1
    loss' own gradients come first, and the others are added to them.
    """
    gradients, temporary = moment.gradients, moment.temporary
    if step.gradients_stay:
        gradients = all_gradients
        temporary += words if moment.waits else 0.0
        temporary += words if name == EMBEDDING and not step.adds_in_place else 0.0
        temporary += moment.fresh if name != DECODER else 0.0
    elif step.gradients_early:
        gradients = 0.0 if name.startswith("forward") else all_gradients
        temporary += moment.fresh
    elif moment.waits and not step.adds_in_place:
        gradients -= words if name != EMBEDDING else 0.0
        temporary += words
    return replace(moment, gradients=gradients, temporary=temporary)


def within_a_layer(one: Moment, left: float, again: float) -> Moment:
    """Take what is freed from what the layer holds: kept since the forward pass, or made again."""
    if again:
        return replace(one, activations=left, temporary=one.temporary + again - one.activations)
    return replace(one, activations=left - one.activations)


def _loss_moments(step: Step, kept: Activations, body: float) -> dict[str, Moment]:
    """Give the moments around logits that are written: both passes of the loss, the decoder's."""
    whole = body + kept.head + kept.loss
    size = step.masked * step.vocabulary
    converted = 4 * size if step.autocast and not step.cuda else 0
    return {
        "forward": Moment(0.0, whole, step.compute * size + converted),
        "backward:loss": Moment(0.0, whole, _loss_temporaries(step)),
        **_decoder_moments(step, kept, body),
    }


def _fused_moments(step: Step, kept: Activations, body: float) -> dict[str, Moment]:
    """Give the moments of a loss that makes the decoder's gradients in its forward pass.

    As torch's chunked loss does: logits of a few rows at a time; in 16 bits on a CPU beside four
    fp32 copies as large as the weights (these, their gradient, both sides of its subtraction). Its
    backward pass begins with zeros as large as the gradients that it made, which autograd puts in
    for what nobody asked of them.
    """
    words = float(step.weight * step.vocabulary * step.size.hidden)
    narrow = step.compute * step.vocabulary * step.size.hidden
    whole = body + kept.head
    chunk = max(step.weight, FUSED_SUM_BYTES) * _chunk_rows(step) * step.vocabulary
    zeros = step.compute * (step.vocabulary + step.masked) * step.size.hidden
    if not step.autocast:
        return {
            "forward": Moment(words, whole, chunk, fresh=words),
            "backward:loss": Moment(words, whole, zeros, fresh=words),
        }
    summed = 0 if step.cuda else 4 * FUSED_SUM_BYTES * step.vocabulary * step.size.hidden
    return {
        "forward": Moment(0.0, whole + narrow, narrow + summed + chunk),
        "backward:loss": Moment(0.0, whole + narrow, zeros),
        DECODER: Moment(words, whole, narrow, fresh=words, waits=True),
    }


def _chunk_rows(step: Step) -> int:
    """Give the rows of a chunk; torch's choice: a power of two, logits as large as the input."""
    if step.chunk_rows:
        return min(step.chunk_rows, step.masked)
    rows = math.ceil(step.masked / math.ceil(step.vocabulary / step.size.hidden))
    parts = 1 if step.autocast and not step.cuda else 2  # torch's defaults by device and dtype
    return max(1, min((1 << (rows - 1).bit_length()) // parts, step.masked))


def _decoder_moments(step: Step, kept: Activations, body: float) -> dict[str, Moment]:
    """Give the decoder's backward pass: both its products; in 16 bits the weight's is then cast."""
    h = step.size.hidden
    words = float(step.weight * step.vocabulary * h)
    inputs = step.compute * step.masked * h
    if not step.autocast:
        whole = body + kept.head + kept.loss
        return {DECODER: Moment(words, whole, inputs, fresh=words, waits=True)}
    logits = step.compute * step.masked * step.vocabulary
    narrow = step.compute * step.vocabulary * h
    left = body + kept.head - narrow - inputs
    return {
        "backward:products": Moment(0.0, body + kept.head, logits + inputs + narrow),
        DECODER: Moment(words, left, inputs + narrow, fresh=words, waits=True),
    }


def _loss_temporaries(step: Step) -> float:
    """Give what the loss' backward pass takes: torch's own, for smoothing, makes two copies."""
    size = step.masked * step.vocabulary
    if step.smoothing:
        return 2.0 * max(step.weight, 4) * size
    return float(step.compute * size) if step.autocast else 0.0


def attention_moments(step: Step, kept: Activations, body: float) -> dict[str, Moment]:
    """Give the last layer's attention in the forward pass, where its matrix is written.

    Queries, keys and values lie there, copies of them where they are widened, a scaled one, the
    scores and a byte for each, and the mask as numbers; in 16 bits the layer's input besides, of
    which copies are kept. The mixture, the values and what dropout makes come later. Compiled code
    writes the scores, and of the rest what is kept.
    """
    if not step.writes_attention or kept.again:
        return {}
    h, width, matrix = step.size.hidden, math_width(step), step.size.heads * step.pairs_at_once
    copies = 3 * width if width != step.compute else 0
    numbers = h * (3 * step.compute + copies + width)
    flat = h * ((step.weight if step.autocast else 0) * step.slots)
    flat += h * 3 * step.compute * (step.slots if step.gathered else 0)  # what was gathered
    dropped = sum(dropped_bytes(step)) * matrix
    later = step.slots * step.compute * h + step.attended * width * h + dropped
    activations = body - kept.layer + kept.attention
    if step.compiled:
        wide = 4 if width < 4 else 0  # the softmax of narrow scores
        return {"forward:attention": Moment(0.0, activations, float((width + wide) * matrix))}
    activations -= later
    mask = step.compute * step.blocks
    temporary = float(step.attended * numbers + flat + mask + (width + 1) * matrix)
    return {"forward:attention": Moment(0.0, activations, temporary)}


def layer_moments(step: Step, kept: Activations) -> dict[str, Moment]:
    """Give a layer's backward pass: new gradients, activations that are freed, temporaries.

    ``feed_forward``: in the feed-forward part's second product, where the gradients of the residual
    path and of GELU's result lie there. ``gelu``: what it gave is freed, and the gradients of that
    and of its input lie there. ``attention``: all but attention is done.
    """
    h, f = step.size.hidden, step.size.intermediate
    noise = step.noise * h if step.dropout else 0
    apart = step.autocast or step.dropout  # the residual path's gradient is not the product's
    paths = step.weight * h + (step.compute * h if apart else 0)
    product = float(step.weight * f * h)
    cast = step.compute * f * h if step.autocast else 0
    inner = step.slots * (paths + step.compute * f) + cast
    between = float(step.slots * (step.weight * h + 2 * step.compute * f))
    freed = step.slots * (step.weight * h + noise)
    results = freed + step.slots * step.compute * f + cast
    if kept.again and step.compiled:
        results = 0  # what is made again is all there before it is read
    moments = {
        "feed_forward": Moment(product, freed, inner, fresh=product, waits=True),
        "gelu": Moment(product, results, between, waits=True),
        "attention": _attention_moment(step, kept),
    }
    if not kept.again:
        return moments
    written = 3 * step.weight if step.autocast else 2 * step.weight  # of which one comes from above
    again = float(step.slots * h * (written + step.compute))
    return {**moments, "again": Moment(0.0, 0.0, again, waits=True)}


def _attention_moment(step: Step, kept: Activations) -> Moment:
    """Give the backward pass of attention: the gradients of its inputs, and the residual path's.

    A fused kernel reads the mixture's gradient too. Where the matrix of weights was kept, two of
    that size are made beside the values' gradient, when mixture and values are freed; compiled, the
    second overwrites the first, and with dropout in a layer that is run again six lie there.
    """
    h, f = step.size.hidden, step.size.intermediate
    done = float(step.weight * (2 * f * h + h * h))
    square = float(step.weight * h * h)
    held = kept.again or kept.layer
    if kept.again and not step.autocast:
        held += kept.layer  # the input, which the attention's part counts
    mixing = step.slots * step.weight * h + step.attended * 4 * step.compute * h
    freed = held - kept.attention
    if step.writes_attention:
        width, matrix = math_width(step), step.size.heads * step.pairs_at_once
        several = 6 if kept.again and step.attention_dropout else 1
        made = (several if step.compiled else 2) * width * matrix
        mixing = step.slots * step.weight * h + step.attended * width * h + made
        dropped = dropped_bytes(step)[1] * matrix
        freed += step.slots * step.compute * h + step.attended * width * h + dropped
    return Moment(done, freed, float(mixing), fresh=square, waits=True)
