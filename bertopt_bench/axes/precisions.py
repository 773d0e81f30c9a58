"""Precisions: ``() -> Precision``, what a step computes in and what weights are kept in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Precision:
    """How numbers are kept and multiplied; data types by their names in torch."""

    name: str
    autocast_dtype: str | None = None
    weight_dtype: str = "float32"
    scaler: bool = False
    matmul_precision: Literal["highest", "high"] = "highest"

    def context(self, device_type: str) -> AbstractContextManager[Any]:
        """Give a fresh context for one forward pass."""
        if self.autocast_dtype is None:
            return nullcontext()
        import torch

        return torch.autocast(device_type, dtype=getattr(torch, self.autocast_dtype))

    def apply(self) -> None:
        """Set how this process multiplies matrices."""
        import torch

        torch.set_float32_matmul_precision(self.matmul_precision)
        if self.autocast_dtype is not None:
            from bertopt_bench.axes.columns import lay_by_columns

            lay_by_columns(getattr(torch, self.autocast_dtype))


def fp32() -> Precision:
    """Compute in 32 bits throughout, TensorFloat off.

    Source: IEEE 754 binary32; torch.set_float32_matmul_precision("highest").
    """
    return Precision("fp32")


def tf32() -> Precision:
    """Multiply matrices with 10 bits of mantissa, keep 32 bits elsewhere.

    Source: NVIDIA A100 whitepaper, 2020; torch.set_float32_matmul_precision("high").
    """
    return Precision("tf32", matmul_precision="high")


def bf16() -> Precision:
    """Autocast to bfloat16; weights stay in 32 bits, no scaler is needed.

    On a CPU without 16-bit arithmetic products take their second operand by columns, for which
    torch has a loop ten times as fast; the same holds for fp16.

    Source: Kalamkar et al., arXiv 1905.12322; torch.autocast.
    """
    return Precision("bf16", autocast_dtype="bfloat16")


def fp16() -> Precision:
    """Autocast to float16 with a loss scaler, which leaves out steps that overflow.

    Source: Micikevicius et al., arXiv 1710.03740; torch.autocast and torch.amp.GradScaler.
    """
    return Precision("fp16", autocast_dtype="float16", scaler=True)


def fp64() -> Precision:
    """Keep and compute everything in 64 bits: the reference for rounding.

    Source: IEEE 754 binary64.
    """
    return Precision("fp64", weight_dtype="float64")
