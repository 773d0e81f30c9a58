"""A user's own Triton kernel for GELU, forwards and backwards, to be measured alone.

pytest benchmarks/micro/bench_gelu.py --device cuda --implementation default,triton_gelu:gelu
bertopt-bench duel --micro gelu --set device=cuda --arm default --arm triton_gelu:gelu

Run both from this folder, or with it on PYTHONPATH. Without a GPU the kernel runs under Triton's
interpreter, `TRITON_INTERPRET=1`, which must be set before triton is imported: right, and slow.
Computing is in float32 whatever the dtype. (A kernel with `tl.dot` must cast bfloat16 operands to
float32 before it under the interpreter, which else gives garbage.)
"""

import torch
import triton
import triton.language as tl

BLOCK = 1024
ROOT_HALF = tl.constexpr(0.7071067811865476)  # 1 / sqrt(2)
DENSITY = tl.constexpr(0.3989422804014327)  # 1 / sqrt(2 pi)


@triton.jit
def _forward(x_pointer, y_pointer, count, block: tl.constexpr):
    places = tl.program_id(0) * block + tl.arange(0, block)
    inside = places < count
    x = tl.load(x_pointer + places, mask=inside, other=0.0).to(tl.float32)
    y = 0.5 * x * (1.0 + tl.erf(x * ROOT_HALF))
    tl.store(y_pointer + places, y.to(y_pointer.dtype.element_ty), mask=inside)


@triton.jit
def _backward(x_pointer, dy_pointer, dx_pointer, count, block: tl.constexpr):
    places = tl.program_id(0) * block + tl.arange(0, block)
    inside = places < count
    x = tl.load(x_pointer + places, mask=inside, other=0.0).to(tl.float32)
    dy = tl.load(dy_pointer + places, mask=inside, other=0.0).to(tl.float32)
    share = 0.5 * (1.0 + tl.erf(x * ROOT_HALF))
    dx = dy * (share + x * DENSITY * tl.exp(-0.5 * x * x))
    tl.store(dx_pointer + places, dx.to(dx_pointer.dtype.element_ty), mask=inside)


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(context, values):
        values = values.contiguous()
        out = torch.empty_like(values)
        count = values.numel()
        _forward[(triton.cdiv(count, BLOCK),)](values, out, count, block=BLOCK)
        context.save_for_backward(values)
        return out

    @staticmethod
    def backward(context, gradient):
        (values,) = context.saved_tensors
        gradient = gradient.contiguous()
        out = torch.empty_like(values)
        count = values.numel()
        _backward[(triton.cdiv(count, BLOCK),)](values, gradient, out, count, block=BLOCK)
        return out


def gelu(values):
    """Give GELU with the error function, by one kernel in each direction."""
    return _Gelu.apply(values)
