"""GELU: what computes the network's activation, everywhere in it."""

from __future__ import annotations

from typing import Any

from bertopt_bench.axes.kernels import Kernel


def default() -> Kernel:
    """Use torch's own, by the error function.

    Own: 'module:function', called as torch.nn.functional.gelu(input) is; the input is [B, S, n] or
        [T, n], what it gives has its shape.
    Source: Hendrycks and Gimpel, arXiv 1606.08415; torch.nn.functional.gelu.
    """
    return Kernel()


def tanh() -> Kernel:
    """Approximate it by a hyperbolic tangent: other numbers, by up to 5e-4.

    Source: Hendrycks and Gimpel, arXiv 1606.08415, section 2; torch.nn.functional.gelu with
        approximate="tanh", as the first BERT computed it.
    """
    return Kernel(call=_tanh, exact=False)


def _tanh(hidden: Any) -> Any:
    from torch.nn import functional

    return functional.gelu(hidden, approximate="tanh")
