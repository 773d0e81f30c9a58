"""A layer norm of somebody's own: what this repository is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


def layer_norm(
    input: torch.Tensor,  # noqa: A002 - torch's own name for it
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Normalise over the last dimensions, by a mean and a variance of one pass."""
    dimensions = tuple(range(-len(normalized_shape), 0))
    variance, mean = torch.var_mean(input, dimensions, correction=0, keepdim=True)
    result = (input - mean) * torch.rsqrt(variance + eps)
    if weight is not None:
        result = result * weight
    return result if bias is None else result + bias
