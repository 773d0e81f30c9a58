"""The criterion: summed cross entropy of masked slots, with no more memory traffic than it needs.

The largest tensors of a small BERT's step are its logits [M, V]. torch's cross entropy makes three
more of that size (logarithms, their gradient, the logits'); here the logarithms become the
gradient in place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bertopt_bench.workload.masking import IGNORED


def masked_cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Sum the cross entropy over the slots whose label is not -100.

    Args:
        logits: [M, V]; 16-bit ones are summed in fp32, fp64 stays fp64.
        labels: [M] int64.
        label_smoothing: share of the target spread evenly (Szegedy et al., arXiv 1512.00567).

    Raises:
        RuntimeError: in a backward pass with create_graph=True, or a second one of the same loss.
    """
    if label_smoothing or not logits.requires_grad:
        return functional.cross_entropy(
            logits.to(_sum_dtype(logits)),
            labels,
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=label_smoothing,
        )
    apply: Any = _CrossEntropy.apply  # torch leaves it untyped
    loss: Tensor = apply(logits, labels)
    return loss


def decoded_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """Sum the cross entropy of the decoder's product: hidden [M, h], weight [V, h], labels [M]."""
    return masked_cross_entropy(functional.linear(hidden, weight, bias), labels)


def _sum_dtype(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


class _CrossEntropy(torch.autograd.Function):
    """Cross entropy whose backward pass overwrites what the forward pass kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        logarithms = functional.log_softmax(logits, dim=-1, dtype=_sum_dtype(logits))
        ctx.logarithms, ctx.dtype = logarithms, logits.dtype
        ctx.save_for_backward(labels)
        return functional.nll_loss(logarithms, labels, ignore_index=IGNORED, reduction="sum")

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():  # once_differentiable would let a constant scale pass
            raise RuntimeError(
                "this loss overwrites what a second derivative needs, so create_graph=True is "
                "refused; take torch.nn.functional.cross_entropy for that"
            )
        (labels,) = ctx.saved_tensors
        if ctx.logarithms is None:
            raise RuntimeError("this loss keeps what its backward pass needs for one pass only")
        gradient, ctx.logarithms = ctx.logarithms.exp_(), None
        # one index a row, and no atomic addition: the same bits in every run, on a GPU too
        index = labels.clamp(min=0)[:, None]
        gradient.scatter_(1, index, gradient.gather(1, index) - 1)
        gradient.mul_((scale * (labels != IGNORED))[:, None])
        return gradient.to(ctx.dtype), None
