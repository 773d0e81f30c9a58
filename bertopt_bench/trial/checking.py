"""Check the kernels of a cell against float64 before they are timed.

Each replaced operation runs once on a small sample of the cell's own shapes, in the cell's dtype; a
model that a user's own ``compile`` made runs on the first micro-batch. Errors in output and
gradients stand beside those that torch's own implementation makes on the same numbers: a kernel may
be some times less exact than torch in that dtype, and no more. Where nothing is trained, gradients
are not asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from bertopt_bench.matrix.modes import is_inference
from bertopt_bench.trial import whole_model
from bertopt_bench.workload import references
from bertopt_bench.workload.loss import decoded_cross_entropy
from bertopt_bench.workload.ragged import Ragged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from bertopt_bench.trial.live import Trial
    from bertopt_bench.workload.model import BertConfig

ALLOWED_RATIO = 8.0  # of a kernel's error by torch's own: another order of sums is no other formula
ALLOWED_EPSILONS = 16.0  # ... and what is granted where torch's own happens to be (nearly) exact
MOST_SEQUENCES = 4
_SEED = 20_231_101  # any: the draws are the sample's alone


class KernelCheckError(RuntimeError):
    """A kernel gives other numbers than its operation; the text has both errors."""


@dataclass(frozen=True, slots=True)
class Case:
    """An operation on drawn inputs, computed three ways, each from the same tensors.

    ``inputs`` are in the cell's dtypes, by name; those of floating point want gradients.
    """

    inputs: Mapping[str, Tensor]
    own: Callable[..., Tensor]
    usual: Callable[..., Tensor]
    reference: Callable[..., Tensor]


def check_numbers(trial: Trial) -> list[dict[str, Any]]:
    """Check every replaced operation of a trial; give the errors, one row for each quantity.

    Raises:
        KernelCheckError: a kernel's error is too far above that of torch's own.
    """
    rows: list[dict[str, Any]] = []
    for operation, make in _CASES.items():
        kernel = trial.kernels.get(operation)
        if kernel is None or kernel.call is None or not kernel.exact:
            continue
        case = make(trial, kernel.call)
        who = _name(trial, operation)
        for row in _errors(trial, case, who):
            rows.append({"operation": operation, **row})
            _refuse(who, row)
    own = trial.kernels.get("compile")
    return rows if own is None or own.call is None else [*rows, *_check_compiled(trial)]


def _check_compiled(trial: Trial) -> list[dict[str, Any]]:
    """Check a model that is a user's own: its logits, and of its gradients the worst."""
    who = _name(trial, "compile")
    exact, own, usual = whole_model.outcomes(trial, gradients=not is_inference(trial.cell))
    scales = whole_model.gradient_scales(exact)
    rows = _compared(exact, (own, usual), scales, _computed_in(trial), who)
    gradients = rows[1:]
    if gradients:
        worst = max(gradients, key=lambda row: _ratio(row["error"], row["allowed_error"]))
        rows = [rows[0], worst]
    for row in rows:
        _refuse(who, row)
    return [{"operation": "compile", **row} for row in rows]


def _ratio(error: float, allowed: float) -> float:
    """Give the share of what is allowed; NaN is worse than any."""
    return math.inf if math.isnan(error) else error / allowed


def _name(trial: Trial, operation: str) -> str:
    return f"kernel.{operation} '{trial.cell['kernel'][operation]['name']}'"


def _refuse(who: str, row: Mapping[str, Any]) -> None:
    if row["error"] <= row["allowed_error"]:  # so that NaN does not pass
        return
    raise KernelCheckError(
        f"{who}: its {row['quantity']} differs from float64 by "
        f"{row['error']:.2e} of the greatest value, torch's own in {row['dtype']} by "
        f"{row['torch_error']:.2e}; at most {row['allowed_error']:.2e} is allowed. "
        "It was not timed."
    )


def _errors(trial: Trial, case: Case, who: str) -> list[dict[str, Any]]:
    """Compare output and gradients: greatest difference by greatest value of the reference."""
    gradients = not is_inference(trial.cell)
    run = partial(_run, gradients=gradients)
    exact = run(case.reference, {name: _double(value) for name, value in case.inputs.items()})
    results = []
    for call in (case.own, case.usual):
        with trial.precision.context(trial.device.type):
            copies = {name: value.clone() for name, value in case.inputs.items()}
            results.append(run(call, copies))
    scales = {name: value.abs().max() for name, value in exact.items()}
    return _compared(exact, results, scales, _computed_in(trial), who)


def _compared(
    exact: Mapping[str, Tensor],
    results: Sequence[Mapping[str, Tensor]],
    scales: Mapping[str, Tensor],
    dtype: torch.dtype,
    who: str,
) -> list[dict[str, Any]]:
    """Compare the kernel's and torch's own results with the exact ones, a row a quantity.

    Raises:
        KernelCheckError: a result has another shape.
    """
    rows = []
    for name, truth in exact.items():
        own, usual = (found[name] for found in results)
        if own.shape != truth.shape:
            raise KernelCheckError(
                f"{who}: its {name} has shape {list(own.shape)}; it must have {list(truth.shape)}."
            )
        error, torchs = (_difference(given, truth, scales[name]) for given in (own, usual))
        least = ALLOWED_EPSILONS * torch.finfo(dtype).eps
        rows.append(
            {
                "quantity": name,
                "dtype": str(dtype).removeprefix("torch."),
                "error": error,
                "torch_error": torchs,
                "allowed_error": max(ALLOWED_RATIO * torchs, least),
            }
        )
    return rows


def _difference(given: Tensor, truth: Tensor, scale: Tensor) -> float:
    least = torch.finfo(torch.float64).tiny
    return float((given.double() - truth).abs().max() / scale.clamp(min=least))


def _double(value: Tensor) -> Tensor:
    return value.to(torch.float64, copy=True) if value.is_floating_point() else value


def _run(
    call: Callable[..., Tensor], inputs: Mapping[str, Tensor], *, gradients: bool
) -> dict[str, Tensor]:
    """Give the output and the gradients of the floating inputs, for drawn output gradients."""
    if not gradients:
        with torch.no_grad():
            return {"output": call(*inputs.values())}
    floating = {
        name: value.requires_grad_() for name, value in inputs.items() if value.is_floating_point()
    }
    with torch.enable_grad():
        output = call(*inputs.values())
        draw = torch.Generator().manual_seed(_SEED)
        weights = torch.randn(output.shape, generator=draw, dtype=torch.float64)
        weights = weights if output.ndim else torch.ones(())  # a loss is scaled by nothing
        found = torch.autograd.grad(
            output, [*floating.values()], weights.to(output.device, output.dtype), allow_unused=True
        )
    results = {"output": output.detach()}
    for (name, value), gradient in zip(floating.items(), found, strict=True):
        results[f"gradient of {name}"] = torch.zeros_like(value) if gradient is None else gradient
    return results


def _computed_in(trial: Trial) -> torch.dtype:
    """Give the dtype of the cell's products."""
    name = trial.precision.autocast_dtype or trial.precision.weight_dtype
    dtype: torch.dtype = getattr(torch, name)
    return dtype


class _Draw:
    """Draws a case's inputs in the cell's dtypes, on its device, from a generator of its own."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.generator = torch.Generator().manual_seed(_SEED)
        self.activations = _computed_in(trial)
        self.weights: torch.dtype = getattr(torch, trial.precision.weight_dtype)

    def normal(
        self, *shape: int, dtype: torch.dtype, std: float = 1.0, mean: float = 0.0
    ) -> Tensor:
        drawn = torch.randn(shape, generator=self.generator, dtype=torch.float64) * std + mean
        return drawn.to(self.trial.device.torch_device, dtype)

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


def _attention(trial: Trial, call: Callable[..., Tensor]) -> Case:
    given = trial.batches.at(0).attention_mask
    if isinstance(given, Ragged) and given.borders is not None:
        return _segments(trial, call)
    draw, (rows, slots) = _Draw(trial), _sample(trial)
    size = _config(trial).size
    shape = (rows, size.heads, slots, size.head_size)
    inputs = {
        name: draw.normal(*shape, dtype=draw.activations) for name in ("query", "key", "value")
    }
    mask = None
    given = given.mask if isinstance(given, Ragged) else given
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


def _layer_norm(trial: Trial, call: Callable[..., Tensor]) -> Case:
    draw, (rows, slots) = _Draw(trial), _sample(trial)
    config = _config(trial)
    hidden = config.size.hidden
    inputs = {
        "input": draw.normal(rows, slots, hidden, dtype=draw.activations, mean=0.5),
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


def _gelu(trial: Trial, call: Callable[..., Tensor]) -> Case:
    draw, (rows, slots) = _Draw(trial), _sample(trial)
    inner = _config(trial).size.intermediate
    inputs = {"input": draw.normal(rows, slots, inner, dtype=draw.activations, std=2.0)}
    return Case(inputs, call, functional.gelu, references.gelu)


def _mlm_loss(trial: Trial, call: Callable[..., Tensor]) -> Case:
    draw, (rows, _) = _Draw(trial), _sample(trial)
    config = _config(trial)
    vocabulary, hidden = config.vocabulary_size, config.size.hidden
    slots = max(2, rows * max(trial.batches.head_slots) // trial.cell["workload"]["batch_size"])
    labels = draw.whole(0, vocabulary, (slots,))
    labels[-1] = references.IGNORED
    inputs = {
        "hidden": draw.normal(slots, hidden, dtype=draw.activations),
        "weight": draw.normal(vocabulary, hidden, dtype=draw.weights, std=0.1),
        "bias": draw.normal(vocabulary, dtype=draw.weights, std=0.1),
        "labels": labels,
    }

    return Case(inputs, call, decoded_cross_entropy, references.mlm_loss)


_CASES: Mapping[str, Callable[[Trial, Callable[..., Tensor]], Case]] = {
    "attention": _attention,
    "layer_norm": _layer_norm,
    "gelu": _gelu,
    "mlm_loss": _mlm_loss,
}
