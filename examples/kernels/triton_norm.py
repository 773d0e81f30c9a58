"""A layer norm in Triton, as a kernel of one's own.

On a GPU, in the folder of this file:

    bertopt-bench duel MATRIX --base layer_norm=default --arm layer_norm=triton_norm:layer_norm

Before it is timed its output and gradients are checked against float64. Without a GPU the kernels
run in Triton's interpreter, slowly: set TRITON_INTERPRET=1 before Python starts.

Triton 3.9's interpreter gives garbage for tl.dot with bf16 operands; elementwise work and sums, all
that is done here, are right in it. Every number is made fp32 on loading, as one should for a sum.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

PARTS = 64  # blocks of rows whose gradients of weight and bias are summed apart, then together


@triton.jit
def _forward(x, weight, bias, y, means, scales, columns, eps, WIDTH: tl.constexpr):
    """Norm one row; keep its mean and the inverse of its deviation."""
    row = tl.program_id(0)
    offsets = tl.arange(0, WIDTH)
    inside = offsets < columns
    value = tl.load(x + row * columns + offsets, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(value, axis=0) / columns
    centred = tl.where(inside, value - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / columns + eps)
    factor = tl.load(weight + offsets, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + offsets, mask=inside, other=0.0).to(tl.float32)
    normed = centred * scale * factor + shift
    tl.store(y + row * columns + offsets, normed.to(y.dtype.element_ty), mask=inside)
    tl.store(means + row, mean)
    tl.store(scales + row, scale)


@triton.jit
def _backward(
    gradient, x, weight, means, scales, to_x, to_weight, to_bias, rows, columns,
    WIDTH: tl.constexpr,
):  # fmt: skip
    """Give the gradient of every PARTS-th row, and this block's share of weight's and bias'."""
    part = tl.program_id(0)
    parts = tl.num_programs(0)
    offsets = tl.arange(0, WIDTH)
    inside = offsets < columns
    factor = tl.load(weight + offsets, mask=inside, other=0.0).to(tl.float32)
    weights = tl.zeros((WIDTH,), dtype=tl.float32)
    biases = tl.zeros((WIDTH,), dtype=tl.float32)
    for row in range(part, rows, parts):
        place = row * columns + offsets
        given = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        scale = tl.load(scales + row)
        normed = tl.where(inside, (value - tl.load(means + row)) * scale, 0.0)
        weights += given * normed
        biases += given
        inner = given * factor
        along = tl.sum(inner * normed, axis=0) / columns
        mean = tl.sum(inner, axis=0) / columns
        result = (inner - normed * along - mean) * scale
        tl.store(to_x + place, result.to(to_x.dtype.element_ty), mask=inside)
    tl.store(to_weight + part * columns + offsets, weights, mask=inside)
    tl.store(to_bias + part * columns + offsets, biases, mask=inside)


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: Any, bias: Any, eps: float) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1]).contiguous()
        rows, columns = flat.shape
        y = torch.empty_like(flat)
        means, scales = torch.empty(2, rows, dtype=torch.float32, device=x.device)
        width = triton.next_power_of_2(columns)
        _forward[(rows,)](flat, weight, bias, y, means, scales, columns, eps, WIDTH=width)
        ctx.save_for_backward(flat, weight, means, scales)
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        flat, weight, means, scales = ctx.saved_tensors
        rows, columns = flat.shape
        parts = min(PARTS, rows)
        to_x = torch.empty_like(flat)
        sums = torch.empty(2, parts, columns, dtype=torch.float32, device=flat.device)
        _backward[(parts,)](
            gradient.reshape(rows, columns).contiguous(), flat, weight, means, scales,
            to_x, sums[0], sums[1], rows, columns, WIDTH=triton.next_power_of_2(columns),
        )  # fmt: skip
        to_weight, to_bias = sums.sum(1).to(weight.dtype)
        return to_x.view(gradient.shape), to_weight, to_bias, None


def layer_norm(
    input: torch.Tensor,
    normalized_shape: Any,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Norm the last dimension: forward and backward pass in a Triton kernel each.

    Source: Ba et al., arXiv 1607.06450.
    """
    if tuple(normalized_shape) != (input.shape[-1],):
        raise ValueError(f"only the last dimension is normed, not {list(normalized_shape)}")
    normed: torch.Tensor = _LayerNorm.apply(input, weight, bias, eps)
    return normed
