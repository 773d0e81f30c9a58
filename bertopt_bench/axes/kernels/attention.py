"""Attention: which implementation of scaled dot product attention runs."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from bertopt_bench.axes.kernels import COMPILED, Kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

PACKAGES = {"flash_attn": "flash_attn"}
"""Entries that need a package beyond torch, which has no extra here: it builds for hours."""

_OPERATIONS = {
    "MATH": "_scaled_dot_product_attention_math",
    "FLASH_ATTENTION": "_scaled_dot_product_flash_attention",
    "EFFICIENT_ATTENTION": "_scaled_dot_product_efficient_attention",
    "CUDNN_ATTENTION": "_scaled_dot_product_cudnn_attention",
}
"""What each backend of scaled_dot_product_attention is called in a trace."""


def default() -> Kernel:
    """Let torch choose.

    Own: 'module:function', called as torch.nn.functional.scaled_dot_product_attention(query, key,
        value, attn_mask=, dropout_p=) is; queries are [B, a, S, d], not contiguous, the mask bool
        [B, 1, 1, S], or [B, 1, S, S] where rows hold several sequences, None where nothing is kept
        apart; of the weights dropout_p are dropped and the others scaled up.
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
    return _only("MATH", "bmm", wrap=_reduced if reduced else None)


def flash() -> Kernel:
    """Compute attention tile by tile and never write the matrix.

    On CUDA it takes no mask: text without padding is computed by its form for unequal lengths.

    Source: Dao et al., arXiv 2205.14135; torch.nn.attention.SDPBackend.FLASH_ATTENTION and, for
        unequal lengths, torch.nn.attention.varlen.varlen_attn.
    """
    return _only("FLASH_ATTENTION", "_flash_attention_forward")


def efficient() -> Kernel:
    """Compute attention in chunks of queries and keys: takes masks and fp32, CUDA only.

    Source: Rabe and Staats, arXiv 2112.05682; torch.nn.attention.SDPBackend.EFFICIENT_ATTENTION.
    """
    return _only("EFFICIENT_ATTENTION")


def cudnn() -> Kernel:
    """Use cuDNN's fused attention, CUDA only.

    Source: NVIDIA cuDNN; torch.nn.attention.SDPBackend.CUDNN_ATTENTION.
    """
    return _only("CUDNN_ATTENTION")


def flex() -> Kernel:
    """Compile a kernel for the batch's own mask, blocks of padding left out: CUDA only to train.

    The mask of blocks is made anew in each step, once for all layers. No attention dropout.

    Source: Dong et al., arXiv 2412.05496; torch.nn.attention.flex_attention.
    """
    # on a CPU the compiled call is one graph whose name says nothing of what is in it
    ran = ("flex_attention", *COMPILED)
    return Kernel(call=_Flex(), expects=ran, expects_on_cuda=ran[:1], compiles=True)


def varlen() -> Kernel:
    """Attend within sequences that lie one after the other, with no padding between: CUDA only.

    Needs a layout that leaves padding out (unpadded, packed). No dropout.

    Source: torch.nn.attention.varlen.varlen_attn; Dao, arXiv 2307.08691.
    """
    return Kernel(expects=("_varlen_attn", "_flash_attention_forward"))


def flash_attn() -> Kernel:
    """Use the flash-attn package: CUDA, 16 bits, and no mask.

    Source: Dao, arXiv 2307.08691; flash_attn.flash_attn_func and flash_attn_varlen_func.
    """
    return Kernel(call=_FlashAttn(), expects=("FlashAttn", "flash_attn::", "flash_fwd"))


class _Flex:
    """FlexAttention in the signature of scaled_dot_product_attention."""

    def __init__(self) -> None:
        self.attend: Any = None
        self.blocks: Any = None  # by mask, as long as that lives

    def __call__(
        self, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0
    ) -> Any:
        """Attend [B, a, S, d], where a mask bool [B, 1, 1, S] says which keys count.

        Raises:
            RuntimeError: dropout is asked for.
        """
        import torch
        from torch.nn.attention.flex_attention import flex_attention
        from torch.utils.weak import WeakTensorKeyDictionary

        if dropout_p:
            raise RuntimeError("flex attention has no dropout: set attention_dropout = 0")
        if torch.compiler.is_compiling():  # within a compiled model it is part of that graph
            return flex_attention(query, key, value, block_mask=_block_mask(attn_mask))
        if self.attend is None:
            self.attend = torch.compile(flex_attention, dynamic=False)
        if self.blocks is None:
            self.blocks = WeakTensorKeyDictionary()
        if attn_mask is not None and attn_mask not in self.blocks:
            self.blocks[attn_mask] = _block_mask(attn_mask)
        blocks = None if attn_mask is None else self.blocks[attn_mask]
        return self.attend(query, key, value, block_mask=blocks)


def _block_mask(mask: Any) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    if mask is None:
        return None
    keep = mask[:, 0, 0, :]

    def real(batch: Any, _head: Any, _query: Any, key: Any) -> Any:
        return keep[batch, key]

    rows, slots = keep.shape
    return create_block_mask(real, rows, None, slots, slots, device=keep.device)


class _FlashAttn:
    """The flash-attn package, over rows of one length and over sequences of any."""

    def __call__(
        self, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0
    ) -> Any:
        """Attend [B, a, S, d].

        Raises:
            RuntimeError: there is a mask.
        """
        from flash_attn import flash_attn_func

        if attn_mask is not None:
            raise RuntimeError("flash-attn takes no mask, and padded text needs one")
        rows = (tensor.transpose(1, 2) for tensor in (query, key, value))
        return flash_attn_func(*rows, dropout_p=dropout_p).transpose(1, 2)

    def segments(self, query: Any, key: Any, value: Any, borders: Any, longest: int) -> Any:
        """Attend [T, a, d] within segments, whose ``borders`` [N + 1] are int32."""
        from flash_attn import flash_attn_varlen_func

        return flash_attn_varlen_func(query, key, value, borders, borders, longest, longest)


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
    *dissolved: str,
    wrap: Callable[[], AbstractContextManager[None]] | None = None,
) -> Kernel:
    """Force one backend for the trial, within ``wrap``; no other's operation may run.

    ``dissolved`` is what torch.compile makes of the backend's operation.

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

    others = tuple(name for other, name in _OPERATIONS.items() if other != backend)
    return Kernel(context=context, expects=(_OPERATIONS[backend], *dissolved), forbids=others)
