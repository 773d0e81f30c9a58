"""Check the kernels of a cell against float64 before they are timed.

Each replaced operation runs once on a small sample of the cell's own shapes, in the cell's dtype; a
model that a user's own ``compile`` made runs on the first micro-batch. Errors in output and
gradients stand beside those that torch's own implementation makes on the same numbers: a kernel may
be some times less exact than torch in that dtype, and no more. Where nothing is trained, gradients
are not asked for.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from bertopt_bench import catalogue
from bertopt_bench.errors import place_of
from bertopt_bench.matrix.content import attention_dropout
from bertopt_bench.matrix.modes import is_inference
from bertopt_bench.trial import whole_model
from bertopt_bench.trial.check_cases import CASES, Case, computed_in, uniform_attention

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from bertopt_bench.trial.live import Trial

ALLOWED_RATIO = 8.0  # of a kernel's error by torch's own: another order of sums is no other formula
MOST_DEVIATIONS, MOST_FACTOR = 6.0, 2.0  # of dropout: of the mean, and of the variance
ALLOWED_EPSILONS = 16.0  # ... and what is granted where torch's own happens to be (nearly) exact
ALLOWED_EPSILONS_OF_64_BITS = 256.0  # where the reference itself is rounded as the kernel is
LOSS_SCALE = 0.375  # any but 1, and exact in 16 bits
_SEED = 20_231_101  # any: the draws are the sample's alone


class KernelCheckError(RuntimeError):
    """A kernel gives other numbers than its operation; the text has both errors."""


def check_numbers(trial: Trial) -> list[dict[str, Any]]:
    """Check every replaced operation of a trial; give the errors, one row for each quantity.

    Raises:
        KernelCheckError: a kernel's error is too far above that of torch's own.
    """
    rows: list[dict[str, Any]] = []
    for operation, make in CASES.items():
        kernel = trial.kernels.get(operation)
        if kernel is None or kernel.call is None or not kernel.exact:
            continue
        found = [_errors(trial, case, operation) for case in make(trial, kernel.call)]
        rows += [{"operation": operation, **_worst(same)} for same in zip(*found, strict=True)]
        if operation == "attention" and attention_dropout(trial.cell):
            _check_dropout(trial, kernel.call)
    own = trial.kernels.get("compile")
    return rows if own is None or own.call is None else [*rows, *_check_compiled(trial)]


def _check_compiled(trial: Trial) -> list[dict[str, Any]]:
    """Check a model that is a user's own: its logits, and of its gradients the worst."""
    who, gradients = _name(trial, "compile"), not is_inference(trial.cell)
    exact, usual = whole_model.known_outcomes(trial, gradients=gradients)
    own = _called(trial, "compile", lambda: whole_model.own_outcome(trial, gradients=gradients))
    scales = whole_model.gradient_scales(exact)
    rows = _compared(exact, (own, usual), scales, computed_in(trial), who)
    if gradients:
        rows = [rows[0], _worst(rows[1:])]
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


def _check_dropout(trial: Trial, call: Callable[..., Tensor]) -> None:
    """Check that attention drops the share of weights that it is told, and scales up the rest.

    Uniform weights over values of 1 give sums whose mean is 1 and whose variance, over S slots, is
    p / ((1 - p) S).

    Raises:
        KernelCheckError: they are not.
    """
    config: Any = trial.model.config
    rate: float = config.attention_dropout
    query, value = uniform_attention(trial)
    devices = [trial.device.torch_device] if trial.device.type == "cuda" else []
    with (
        torch.no_grad(),
        torch.random.fork_rng(devices=devices),
        trial.precision.context(trial.device.type),
    ):
        torch.manual_seed(_SEED)
        mixed = _called(
            trial, "attention", lambda: call(query, query, value, attn_mask=None, dropout_p=rate)
        )
    sums = mixed[..., 0].double()
    due = rate / ((1 - rate) * query.shape[-2])
    mean, spread = float(sums.mean()), float(sums.var())
    tolerance = MOST_DEVIATIONS * math.sqrt(due / sums.numel()) + _rounding(trial)
    most = due * MOST_FACTOR + torch.finfo(computed_in(trial)).eps ** 2  # sums are rounded too
    if abs(mean - 1) <= tolerance and due / MOST_FACTOR <= spread <= most:
        return
    raise KernelCheckError(
        f"{_name(trial, 'attention')}: told dropout_p={rate:g}, it does not drop so many of its "
        f"weights: sums of uniform weights have mean {mean:.4f} and variance {spread:.2e}; 1 and "
        f"{due:.2e} are due. It was not timed."
    )


def _rounding(trial: Trial) -> float:
    return granted_error(computed_in(trial))


def _called(trial: Trial, operation: str, call: Callable[[], Any]) -> Any:
    """Call what may be a user's own; what it raises is told with how it is called.

    Raises:
        KernelCheckError: it raised anything but a lack of memory, or gives no tensor.
    """
    try:
        return call()
    except (MemoryError, torch.OutOfMemoryError, KernelCheckError):
        raise
    except Exception as error:
        if "can't allocate memory" in str(error):
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        raise KernelCheckError(
            f"{_name(trial, operation)} failed when it was checked: {type(error).__name__}: "
            f"{first} (at {place_of(error)}). {_how_called(trial, operation)}It was not timed."
        ) from error


def _how_called(trial: Trial, operation: str) -> str:
    """Say how a user's own is called; of our own entries nobody need know."""
    axis, name = f"kernel.{operation}", trial.cell["kernel"][operation]["name"]
    if ":" not in name and name in catalogue.entries(axis):
        return ""
    usual = next(iter(catalogue.entries(axis).values()))
    return f"It must be {usual.notes['Own']} "


def _errors(trial: Trial, case: Case, operation: str) -> list[dict[str, Any]]:
    """Compare output and gradients: greatest difference by greatest value of the reference.

    Raises:
        KernelCheckError: an error is too large, or the kernel changed what it was given.
    """
    run, who = partial(_run, gradients=not is_inference(trial.cell)), _name(trial, operation)

    def in_the_cells_precision(call: Callable[..., Tensor]) -> dict[str, Tensor]:
        given = _copied(case.inputs)
        before = _copied({**case.inputs, **case.besides})
        with trial.precision.context(trial.device.type):
            results = run(call, given)
        _refuse_changes(who, before, {**given, **case.besides})
        return results

    exact = run(case.reference, {name: _double(value) for name, value in case.inputs.items()})
    own = _called(trial, operation, lambda: in_the_cells_precision(case.own))
    scales = {name: value.abs().max() for name, value in exact.items()}
    results = (own, in_the_cells_precision(case.usual))
    rows = _compared(exact, results, scales, computed_in(trial), who)
    for row in rows:
        _refuse(who, row)
    return rows


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in tensors.items()}


def _refuse_changes(who: str, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    """Refuse a kernel that wrote into its inputs: weights, labels and masks are read again.

    Raises:
        KernelCheckError: it did.
    """
    changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
    if changed:
        raise KernelCheckError(
            f"{who}: it changed its {' and '.join(changed)} in place; what it is given must stay "
            "as it was. It was not timed."
        )


def _worst(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Give the row whose error takes most of what is allowed."""
    return max(rows, key=lambda row: _ratio(row["error"], row["allowed_error"]))


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
        rows.append(
            {
                "quantity": name,
                "dtype": str(dtype).removeprefix("torch."),
                "error": error,
                "torch_error": torchs,
                "allowed_error": max(ALLOWED_RATIO * torchs, granted_error(dtype)),
            }
        )
    return rows


def granted_error(dtype: torch.dtype) -> float:
    """Give the error that any kernel may have, as a share of the greatest value."""
    is_wide = dtype == torch.float64
    return (ALLOWED_EPSILONS_OF_64_BITS if is_wide else ALLOWED_EPSILONS) * torch.finfo(dtype).eps


def _difference(given: Tensor, truth: Tensor, scale: Tensor) -> float:
    least = torch.finfo(torch.float64).tiny
    return float((given.double() - truth).abs().max() / scale.clamp(min=least))


def _double(value: Tensor) -> Tensor:
    return value.to(torch.float64, copy=True) if value.is_floating_point() else value


def _tensor(given: Any) -> Tensor:
    if not isinstance(given, torch.Tensor):
        raise TypeError(f"it gives {type(given).__name__} where a tensor is due")
    return given


def _run(
    call: Callable[..., Tensor], inputs: Mapping[str, Tensor], *, gradients: bool
) -> dict[str, Tensor]:
    """Give the output and the gradients of the floating inputs, for drawn output gradients.

    These lie in memory as the first input does, as in the network: attention's are not contiguous.
    """
    if not gradients:
        with torch.no_grad():
            return {"output": _tensor(call(*inputs.values()))}
    floating = {
        name: value.requires_grad_() for name, value in inputs.items() if value.is_floating_point()
    }
    with torch.enable_grad():
        output = _tensor(call(*inputs.values()))
        weights = _output_gradient(output, next(iter(inputs.values())))
        found = torch.autograd.grad(output, [*floating.values()], weights, allow_unused=True)
    results = {"output": output.detach()}
    for (name, value), gradient in zip(floating.items(), found, strict=True):
        results[f"gradient of {name}"] = torch.zeros_like(value) if gradient is None else gradient
    return results


def _output_gradient(output: Tensor, like: Tensor) -> Tensor:
    """Draw what a backward pass begins with; of a loss a step's division by its masked tokens."""
    if not output.ndim:
        return torch.full_like(output, LOSS_SCALE)
    draw = torch.Generator().manual_seed(_SEED)
    drawn = torch.randn(output.shape, generator=draw, dtype=torch.float64)
    laid = torch.empty_like(like if like.shape == output.shape else output, dtype=output.dtype)
    return laid.copy_(drawn)
