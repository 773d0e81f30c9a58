"""Check what an implementation gives against float64, with torch's own error as the measure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

ALLOWED_FACTOR = 4.0
"""How many times torch's own error, or a rounding of the dtype, an implementation may be off."""

_NOT_TIMED = " Nothing was timed."


class WrongResultError(UserError):
    """An implementation gives something else than its operation."""


@dataclass(frozen=True, slots=True)
class Errors:
    """How far an implementation is off float64, and torch's own in the same dtype.

    Each is the largest difference of a tensor by the largest number in the reference, the worst of
    all tensors (outputs and gradients, or changes of parameters).
    """

    error: float
    reference_error: float
    allowed: float
    worst: str


def compare(
    found: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    exact: Mapping[str, Tensor],
    dtype: torch.dtype,
    who: str,
) -> Errors:
    """Compare tensors by name with what is exactly right.

    Raises:
        WrongResultError: nothing, another shape, a number that is not finite, or an error beyond
            four times torch's own (four roundings of the dtype where torch is more exact).
    """
    off = {name: _off(found.get(name), right, f"{who}: {name}") for name, right in exact.items()}
    reference = {name: _off(own[name], right, f"torch: {name}") for name, right in exact.items()}
    rounding = torch.finfo(dtype).eps
    allowed = {name: ALLOWED_FACTOR * max(reference[name], rounding) for name in exact}
    worst = max(off, key=lambda name: off[name] / allowed[name])
    errors = Errors(off[worst], reference[worst], allowed[worst], worst)
    if not errors.error <= errors.allowed:
        raise WrongResultError(
            f"{who} is wrong: its {worst} is {errors.error:.2g} off float64 (of the largest number "
            f"there), torch's own in {str(dtype).removeprefix('torch.')} "
            f"{errors.reference_error:.2g}; {errors.allowed:.2g} is allowed.{_NOT_TIMED}"
        )
    return errors


def _off(found: Tensor | None, right: Tensor, what: str) -> float:
    """Give the largest difference by the largest right number."""
    if found is None:
        raise WrongResultError(f"{what} is missing")
    if found.shape != right.shape:
        raise WrongResultError(
            f"{what} has shape {list(found.shape)}, not {list(right.shape)} as it must"
        )
    difference = (found.detach().double() - right).abs().max().item()
    largest = right.abs().max().item()
    if not math.isfinite(difference):
        raise WrongResultError(f"{what} has numbers that are not finite")
    return difference / largest if largest else difference


def after_timing(error: WrongResultError) -> WrongResultError:
    """Say of a result that was right before it was timed that it no longer is."""
    told = str(error).removesuffix(_NOT_TIMED).removesuffix(".")
    return WrongResultError(
        f"right before it was timed, and not after: {told}. What it keeps from call to call "
        "changes its results. Its times are thrown away."
    )
