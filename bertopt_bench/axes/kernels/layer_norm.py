"""Layer norm: what computes it, everywhere in the network."""

from __future__ import annotations

from bertopt_bench.axes.kernels import Kernel


def default() -> Kernel:
    """Use torch's own.

    Own: 'module:function', called as torch.nn.functional.layer_norm(input, normalized_shape,
        weight, bias, eps) is; what it gives has the shape of the input.
    Source: Ba et al., arXiv 1607.06450; torch.nn.LayerNorm.
    """
    return Kernel()
