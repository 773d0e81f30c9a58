"""Multiply 16-bit matrices on a processor that has no 16-bit arithmetic.

torch's product a b of row-major 16-bit operands is a plain loop there, 0.5 to 1.5 GFLOP/s on two
cores; of the same b laid out by columns it runs at 10 to 20. A linear layer's gradient by its input
is such a product, and took nine tenths of a step. Only the order in memory differs, and with it the
order of the sums; both are kept in 32 bits.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)  # noqa: SLF001 - no public name
_libraries: list[Any] = []  # what is registered lives as long as they do


def multiplies(dtype: torch.dtype) -> bool:
    """Say whether oneDNN multiplies matrices of a 16-bit dtype here; where it is not, leave all."""
    available: Any = torch.backends.mkldnn.is_available  # torch leaves it untyped
    if not available():
        return True
    ask = {
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,  # noqa: SLF001
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,  # noqa: SLF001
    }
    return bool(ask[dtype]())


@cache
def lay_by_columns(dtype: torch.dtype) -> None:
    """Let this process' products of a dtype on the CPU take their second operand by columns.

    It replaces ``aten::mm`` on the CPU, only where oneDNN does not multiply that dtype; other
    dtypes and orders in memory go on to torch's own product as they are.
    """
    if multiplies(dtype):
        return
    make: Any = torch.library.Library  # torch leaves it untyped
    library = make("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of replacing what torch registered: that is the aim
        library.impl("mm", product, "CPU")
    _libraries.append(library)


def product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply [n, k] by [k, m]; 16-bit ones that both lie by rows take the right by columns."""
    by_rows = left.stride(-1) == 1 == right.stride(-1)
    if by_rows and right.dtype in {torch.bfloat16, torch.float16}:
        right = right.t().contiguous().t()
    out = left.new_empty(left.shape[0], right.shape[1])
    multiply: Any = torch.ops.aten.mm.out  # past the dispatcher: one call in a trace, not two
    result: Tensor = multiply.redispatch(_CPU, left, right, out=out)
    return result
