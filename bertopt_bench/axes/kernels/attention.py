"""Attention: which backend of torch's scaled_dot_product_attention runs."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from bertopt_bench.axes.kernels import Kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


def default() -> Kernel:
    """Let torch choose.

    Source: torch.nn.functional.scaled_dot_product_attention.
    """
    return Kernel()


def math(*, reduced: bool = False) -> Kernel:
    """Write the whole matrix of attention weights, by plain matrix products.

    In bf16 and fp16 torch computes it in fp32, unless ``reduced``: then scores and weights are
    rounded to 16 bits between product, softmax and product, which is less exact and often much
    faster. In fp32 and fp64 ``reduced`` changes nothing.

    Source: Vaswani et al., arXiv 1706.03762; torch.nn.attention.SDPBackend.MATH and
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp (on a CPU too; torch calls it beta).
    """
    # torch.compile dissolves the operation into its products; no other backend has any
    operations = ("_scaled_dot_product_attention_math", "bmm")
    return _only("MATH", *operations, wrap=_reduced if reduced else None)


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


@contextmanager
def _reduced() -> Iterator[None]:
    """Let math attention stay in 16 bits; then put the process' flag back."""
    import torch

    flags: Any = torch.backends.cuda  # torch leaves both functions untyped
    before = flags.fp16_bf16_reduction_math_sdp_allowed()
    flags.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        yield
    finally:
        flags.allow_fp16_bf16_reduction_math_sdp(before)


def _only(
    backend: str,
    *operations: str,
    wrap: Callable[[], AbstractContextManager[None]] | None = None,
) -> Kernel:
    """Force one backend for the trial, within ``wrap``.

    torch.compile's caches on disk know graphs by everything but the backend that was forced (seen
    in torch 2.13: a graph of math attention came back under flash), so they are left out.
    """

    @contextmanager
    def context() -> Iterator[None]:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        compiling: Any = torch.compiler.config  # patch is put into it at run time
        forced = sdpa_kernel(getattr(SDPBackend, backend))
        with ExitStack() as stack:
            stack.enter_context(compiling.patch(force_disable_caches=True))
            stack.enter_context(forced)
            if wrap is not None:
                stack.enter_context(wrap())
            yield

    return Kernel(context=context, expects=operations)
