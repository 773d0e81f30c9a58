"""Attention: which backend of torch's scaled_dot_product_attention runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bertopt_bench.axes.kernels import Kernel

if TYPE_CHECKING:
    from collections.abc import Iterator


def default() -> Kernel:
    """Let torch choose.

    Source: torch.nn.functional.scaled_dot_product_attention.
    """
    return Kernel()


def math() -> Kernel:
    """Write the whole matrix of attention weights, by plain matrix products.

    Source: Vaswani et al., arXiv 1706.03762; torch.nn.attention.SDPBackend.MATH.
    """
    # torch.compile dissolves the operation into its products; no other backend has any
    return _only("MATH", "_scaled_dot_product_attention_math", "bmm")


def flash() -> Kernel:
    """Compute attention tile by tile and never write the matrix.

    Source: Dao et al., arXiv 2205.14135; torch.nn.attention.SDPBackend.FLASH_ATTENTION.
    """
    return _only("FLASH_ATTENTION", "_scaled_dot_product_flash_attention")


def efficient() -> Kernel:
    """Compute attention in chunks of queries and keys: takes masks and fp32, CUDA only.

    Source: Rabe and Staats, arXiv 2112.05682; torch.nn.attention.SDPBackend.EFFICIENT_ATTENTION.
    """
    return _only("EFFICIENT_ATTENTION", "_scaled_dot_product_efficient_attention")


def cudnn() -> Kernel:
    """Use cuDNN's fused attention, CUDA only.

    Source: NVIDIA cuDNN; torch.nn.attention.SDPBackend.CUDNN_ATTENTION.
    """
    return _only("CUDNN_ATTENTION", "_scaled_dot_product_cudnn_attention")


def _only(backend: str, *operations: str) -> Kernel:
    """Force one backend for the trial.

    torch.compile's caches on disk know graphs by everything but the backend that was forced (seen
    in torch 2.13: a graph of math attention came back under flash), so they are left out.
    """

    @contextmanager
    def context() -> Iterator[None]:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        compiling: Any = torch.compiler.config  # patch is put into it at run time
        forced = sdpa_kernel(getattr(SDPBackend, backend))
        with compiling.patch(force_disable_caches=True), forced:
            yield

    return Kernel(context=context, expects=operations)
