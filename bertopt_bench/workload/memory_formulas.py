"""Forecast a training step's peak of allocated bytes, part by part, by formula and without torch.

The peak lies in one of a few moments: at the loss, in the decoder's backward pass, in a layer's,
in the embeddings', or in the optimizer's step. Each has its own gradients, activations and
temporaries; weights and state lie there always. The formulas follow ``workload.model`` operation by
operation, run eagerly (`torch.compile` may keep less), as torch 2.13 keeps tensors for the backward
pass. The CPU is measured; what differs on CUDA (dropout's masks of one byte, flash attention with
dropout, lists of tensors by default) is read in torch's source.

Letters as in ``workload.formulas``; N slots and M masked slots in a micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from bertopt_bench.workload import formulas
from bertopt_bench.workload.optimizer_memory import optimizer_memory, parameter_groups

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertopt_bench.workload.formulas import ModelSize

    Moment = tuple[float, float, float]  # gradients, activations, temporaries, in bytes

AUTOCAST = ("bf16", "fp16")
STATISTIC_BYTES = 4  # a figure of a norm or of flash attention, per slot


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """Bytes by what they are for.

    Activations are all that the forward pass leaves for the backward pass, the 16-bit copies of
    weights that autocast makes among them.
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
class Step:
    """What the formulas read of a cell.

    ``weight`` and ``compute`` are bytes a number: of weights, and of matrix products' results.
    A layout without padding would hand in its real tokens as ``slots``.
    """

    size: ModelSize
    vocabulary: int
    slots: int
    masked: int
    seq_len: int
    weight: int
    compute: int
    cuda: bool
    attention: str
    reduced: bool
    dropout: bool
    attention_dropout: bool
    smoothing: bool
    gradients_early: bool
    accumulates: bool

    @classmethod
    def of(cls, cell: Mapping[str, Any]) -> Step:
        """Read a canonical cell."""
        workload, precision = cell["workload"], cell["precision"]["name"]
        sequences: int = workload["batch_size"] // workload["micro_batches"]
        named = {part["name"]: part for part in cell["regularizer"]}
        dropped = named.get("dropout", {"dropout": 0.0, "attention_dropout": 0.0})
        attention = cell["kernel"]["attention"]
        weight = 8 if precision == "fp64" else 4
        return cls(
            size=formulas.model_size(workload["model"]),
            vocabulary=workload["vocabulary_size"],
            slots=sequences * workload["seq_len"],
            masked=sequences * formulas.masked_slots(workload["seq_len"], workload["mask_rate"]),
            seq_len=workload["seq_len"],
            weight=weight,
            compute=2 if precision in AUTOCAST else weight,
            cuda=cell.get("device", {}).get("name") == "cuda",
            attention=attention["name"],
            reduced=attention.get("reduced", False),
            dropout=dropped["dropout"] > 0,
            attention_dropout=dropped["attention_dropout"] > 0,
            smoothing="label_smoothing" in named,
            gradients_early="l1" in named,
            accumulates=workload["micro_batches"] > 1,
        )

    @property
    def autocast(self) -> bool:
        return self.compute != self.weight

    @property
    def writes_attention(self) -> bool:
        """Say whether the matrix of attention weights is kept: torch's CPU flash has no dropout."""
        return self.attention == "math" or (self.attention_dropout and not self.cuda)

    @property
    def noise(self) -> int:
        """Give the bytes that dropout keeps of one number in the compute type."""
        return 1 if self.cuda else self.compute


@dataclass(frozen=True, slots=True)
class Activations:
    """Bytes that the forward pass keeps: before the layers, in each layer, in the head, the loss.

    ``attention`` is the part of a layer that its attention keeps, inputs included.
    """

    embedding: float
    layer: float
    attention: float
    head: float
    loss: float


def activations(step: Step) -> Activations:
    """Count what the backward pass needs of one micro-batch.

    A layer keeps the inputs of its six products, queries, keys, values and their mixture, the
    inputs of GELU and of both norms: ``16 h`` numbers a slot where f = 4h (Korthikanti et al.,
    arXiv 2205.05198, with nothing in 16 bits). Autocast keeps three 16-bit copies of a layer's
    input, one for each product, and of every weight one.
    """
    h, f = step.size.hidden, step.size.intermediate
    weight, compute = step.weight, step.compute
    statistics = 2 * STATISTIC_BYTES * weight / 4
    inputs = 3 * compute * h if step.autocast else weight * h
    attention = inputs + _attention_per_slot(step) + compute * h
    sums = 2 * (weight * h + statistics)
    noises = 2 * step.noise * h if step.dropout else 0
    feed_forward = compute * (h + 2 * f)
    casts = compute * (4 * h * h + 2 * h * f) if step.autocast else 0
    embedding_noise = (1 if step.cuda else weight) * h if step.dropout else 0
    head_casts = compute * (h * h + step.vocabulary * h) if step.autocast else 0
    return Activations(
        embedding=step.slots * (weight * h + statistics + embedding_noise),
        layer=step.slots * (attention + sums + noises + feed_forward) + casts,
        attention=step.slots * attention,
        head=step.masked * (4 * compute * h + statistics) + head_casts,
        loss=step.masked * step.vocabulary * max(weight, 4),
    )


def _attention_per_slot(step: Step) -> float:
    """Count queries, keys, values and what mixing them keeps, a slot."""
    h, heads = step.size.hidden, step.size.heads
    if not step.writes_attention:
        return 3 * step.compute * h + STATISTIC_BYTES * heads * step.weight / 4
    width = _math_width(step)
    matrices = ATTENTION_MATRICES + (2 if step.attention_dropout else 0)
    return 3 * width * h + matrices * width * heads * step.seq_len


ATTENTION_MATRICES = 2
"""Kept by math attention: the softmax, and it again with rows that see nothing set to 0."""


def _math_width(step: Step) -> int:
    """Give the bytes a number that math attention computes in: fp32 unless it may be reduced."""
    return step.compute if step.reduced else max(step.compute, 4)


def memory_forecast(cell: Mapping[str, Any]) -> MemoryForecast:
    """Forecast the peak of allocated bytes in a training step of a canonical cell."""
    step = Step.of(cell)
    groups = parameter_groups(
        step.size,
        vocabulary=step.vocabulary,
        position_embedding=cell["workload"]["position_embedding"],
    )
    parameters = sum(shape.count for shapes in groups.values() for shape in shapes)
    optimizer = optimizer_memory(cell, groups)
    averaged = any(part["name"] == "ema" for part in cell["regularizer"])
    lasting = MemoryParts(
        parameter_bytes=step.weight * parameters + _table_bytes(cell, step),
        optimizer_state_bytes=round(step.weight / 4 * optimizer.state_bytes),
        regularizer_state_bytes=step.weight * parameters if averaged else 0,
    )
    kept = activations(step)
    gradients = step.weight * parameters
    at_step = (float(gradients), 0.0, optimizer.temporary_numbers * step.weight)
    moments = {**_moments(step, kept, gradients), "optimizer": at_step}
    moment = max(moments, key=lambda name: sum(moments[name]))
    most = (max(values) for values in zip(*moments.values(), strict=True))
    return MemoryForecast(
        moment.split(":")[0],
        _with_transient(lasting, *moments[moment]),
        _with_transient(lasting, *most),
    )


def memory_forecast_bytes(cell: Mapping[str, Any]) -> int:
    """Forecast the peak of allocated bytes in a training step of a canonical cell."""
    return memory_forecast(cell).peak_bytes


def _with_transient(
    lasting: MemoryParts, gradients: float, kept: float, temporary: float
) -> MemoryParts:
    return replace(
        lasting,
        gradient_bytes=round(gradients),
        activation_bytes=round(kept),
        temporary_bytes=round(temporary),
    )


def _table_bytes(cell: Mapping[str, Any], step: Step) -> int:
    """Count the sinusoids, which are a buffer."""
    fixed = cell["workload"]["position_embedding"] == "sinusoidal"
    return step.weight * step.size.positions * step.size.hidden if fixed else 0


def _moments(step: Step, kept: Activations, all_gradients: float) -> dict[str, Moment]:
    """Give (gradients, activations, temporaries) of each moment in forward and backward pass.

    Between the first and the last layer's backward pass all three change by the same amount a
    layer, so that the most lies at one end.
    """
    h, layers = step.size.hidden, step.size.layers
    words = step.weight * step.vocabulary * h
    body = kept.embedding + layers * kept.layer
    whole = body + kept.head + kept.loss
    head_gradients = words + step.weight * (h * h + 3 * h + step.vocabulary)
    layer_gradients = step.weight * formulas.layer_parameters(step.size)
    logits, decoding = _logits_temporaries(step)
    moments = {
        "forward": (0.0, whole, logits),
        "backward:loss": (0.0, whole, _loss_temporaries(step)),
        "backward:decoder": (words, whole - (kept.loss if step.autocast else 0), decoding),
        "backward:embedding": (
            all_gradients,
            0.0,
            words + step.weight * step.slots * h,
        ),
    }
    for done in (0, layers - 1):
        gradients = head_gradients + done * layer_gradients
        left = body - done * kept.layer
        for part, (more, freed, temporary) in _layer_moments(step, kept).items():
            moments[f"backward:{part} {done}"] = (gradients + more, left - freed, temporary)
    return _with_early_gradients(step, moments, all_gradients, words)


def _with_early_gradients(
    step: Step, moments: dict[str, Moment], all_gradients: float, words: float
) -> dict[str, Moment]:
    """Put all gradients where they lie from the start: of earlier micro-batches, or of an L1 loss.

    What is added to gradients of earlier micro-batches is temporary: the decoder's share of the
    words' gradient waits for the embeddings'.
    """
    if not (step.gradients_early or step.accumulates):
        return moments
    pending = words if step.accumulates else 0.0
    return {
        name: (
            all_gradients if step.accumulates or name != "forward" else 0.0,
            activation,
            temporary + (pending if name.startswith("backward") else 0.0),
        )
        for name, (_, activation, temporary) in moments.items()
    }


def _logits_temporaries(step: Step) -> tuple[float, float]:
    """Give what lies beside the activations at the loss, and in the decoder's backward pass.

    In 16 bits the CPU converts the logits before their logarithms, and the weights' gradient after
    the product.
    """
    h, size = step.size.hidden, step.masked * step.vocabulary
    if not step.autocast:
        return step.weight * size, step.weight * step.masked * h
    converted = 0 if step.cuda else 4 * size
    products = step.compute * (step.masked + step.vocabulary) * h
    return step.compute * size + converted, step.compute * size + products


def _loss_temporaries(step: Step) -> float:
    """Give what the loss' backward pass takes: torch's own, for smoothing, makes two more copies."""
    size = step.masked * step.vocabulary
    if step.smoothing:
        return 2.0 * max(step.weight, 4) * size
    return float(step.compute * size) if step.autocast else 0.0


def _layer_moments(step: Step, kept: Activations) -> dict[str, Moment]:
    """Give (new gradients, freed activations, temporaries) of a layer's backward pass.

    ``products``: in the feed-forward part's second product, where the gradients of the residual
    path and of GELU's result lie there. ``attention``: all but attention is done; where the matrix
    of its weights was kept, three of that size are made.
    """
    h, f = step.size.hidden, step.size.intermediate
    residual = step.weight * h + (step.compute * h if step.autocast else 0)
    product = step.weight * f * h
    cast = step.compute * f * h if step.autocast else 0
    inner = step.slots * (residual + step.compute * f) + cast
    mixing = step.slots * (residual + 4 * step.compute * h)
    if step.writes_attention:
        mixing += 3 * step.slots * _math_width(step) * step.size.heads * step.seq_len
    done = step.weight * (2 * f * h + h * h)
    return {
        "products": (product, step.slots * step.weight * h, inner),
        "attention": (done, kept.layer - kept.attention, mixing),
    }
