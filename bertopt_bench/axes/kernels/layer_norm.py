"""Layer norm: what computes it, everywhere in the network."""

from __future__ import annotations

from typing import Any

from bertopt_bench.axes.kernels import Kernel

PACKAGES = {"liger": "liger_kernel"}
"""Entries that need a package beyond torch; it comes with the extra ``kernels``."""


def default() -> Kernel:
    """Use torch's own.

    Own: 'module:function', called as torch.nn.functional.layer_norm(input, normalized_shape,
        weight, bias, eps) is; the input is [B, S, h] or [T, h], what it gives has its shape.
    Source: Ba et al., arXiv 1607.06450; torch.nn.LayerNorm.
    """
    return Kernel()


def liger() -> Kernel:
    """Use Liger's Triton kernel: forward and backward pass in one kernel each, CUDA only.

    Source: Hsu et al., arXiv 2410.10989; liger_kernel.transformers.functional.liger_layer_norm.
    """
    ran = ("LigerLayerNorm", "_layer_norm_forward_kernel")
    return Kernel(call=_liger, expects=ran, compiles=True)


def _liger(hidden: Any, _shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    from liger_kernel.transformers.functional import liger_layer_norm

    return liger_layer_norm(hidden, weight, bias, eps)
