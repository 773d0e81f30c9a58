"""MLM loss: how the decoder's product and the cross entropy of the masked tokens are computed.

Model FLOPs count the masked slots only, whatever an entry computes besides.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from bertopt_bench.axes.kernels import Kernel
from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = {"liger": "liger_kernel", "cut_cross_entropy": "cut_cross_entropy"}
"""Entries that need a package beyond torch; it comes with the extra ``kernels``."""

SMOOTHING = ("sparse", "dense")
"""Entries that can spread a share of the target; the fused ones compute the plain loss."""

_IGNORED = -100


def sparse() -> Kernel:
    """Gather the masked slots, then write their logits; the gradient takes the place of these.

    Own: 'module:function', called as function(hidden [M, h], weight [V, h], bias [V], labels [M]);
        gives the sum of the cross entropy over the labels that are not -100.
    Source: Devlin et al., arXiv 1810.04805; the harness' criterion in workload/loss.py.
    """
    return Kernel()


def dense() -> Kernel:
    """Write the logits of all slots, and leave out those that are not masked in the sum.

    Source: the usual head of transformers.BertForMaskedLM.
    """
    return Kernel(options={"all_slots": True})


def chunked(*, rows: int = 0) -> Kernel:
    """Multiply and sum a few rows at a time, gradients in the same pass; no logits are kept.

    ``rows`` 0 leaves their number to torch, whose choice keeps a chunk's logits as large as the
    input. Under torch.compile it stays an operation of its own.

    Source: torch.nn.functional.linear_cross_entropy with LinearCrossEntropyOptions, torch 2.13.
    """
    if rows < 0:
        raise UserError(f"kernel.mlm_loss 'chunked': rows is {rows}; it must be 0 or more.")
    return Kernel(
        call=partial(_chunked, rows=rows), expects=("_linear_cross_entropy_batch_chunked",)
    )


def liger() -> Kernel:
    """Use Liger's fused linear cross entropy: Triton, chunk by chunk, CUDA only.

    Source: Hsu et al., arXiv 2410.10989;
        liger_kernel.transformers.functional.liger_fused_linear_cross_entropy.
    """
    ran = ("LigerFusedLinearCrossEntropy", "liger_cross_entropy")
    return Kernel(call=_liger, expects=ran, compiles=True)


def cut_cross_entropy() -> Kernel:
    """Compute logits in on-chip memory and never write them; 16 bits, CUDA only.

    Gradients that are too small for the precision are left out, by the library's own default.

    Source: Wijmans et al., arXiv 2411.09009; cut_cross_entropy.linear_cross_entropy.
    """
    return Kernel(call=_cut, expects=("LinearCrossEntropy", "_cce_"), compiles=True)


@contextmanager
def _in_the_cells_precision(*tensors: Any) -> Iterator[tuple[Any, ...]]:
    """Give the tensors as autocast would hand them to a product, and switch it off for the rest."""
    import torch

    kind = tensors[0].device.type
    if torch.is_autocast_enabled(kind):
        tensors = tuple(tensor.to(torch.get_autocast_dtype(kind)) for tensor in tensors)
    with torch.autocast(kind, enabled=False):
        yield tensors


def _chunked(hidden: Any, weight: Any, bias: Any, labels: Any, *, rows: int) -> Any:
    from torch.nn import LinearCrossEntropyOptions, functional

    options = LinearCrossEntropyOptions(
        batch_chunk_size=rows or None,
        chunking_method=None if rows else "auto",
        allow_retain_graph=_compiling(),
    )
    with _in_the_cells_precision(hidden, weight, bias) as (rounded, matrix, shift):
        loss = functional.linear_cross_entropy(
            rounded,
            matrix,
            labels,
            linear_bias=shift,
            reduction="sum",
            ignore_index=_IGNORED,
            options=options,
        )
        return loss.to(hidden.dtype)


def _compiling() -> bool:
    import torch

    return torch.compiler.is_compiling()


def _liger(hidden: Any, weight: Any, bias: Any, labels: Any) -> Any:
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    with _in_the_cells_precision(hidden, weight, bias) as (rounded, matrix, shift):
        return liger_fused_linear_cross_entropy(
            rounded, matrix, labels, bias=shift, ignore_index=_IGNORED, reduction="sum"
        )


def _cut(hidden: Any, weight: Any, bias: Any, labels: Any) -> Any:
    from cut_cross_entropy import linear_cross_entropy

    with _in_the_cells_precision(hidden, weight, bias) as (rounded, matrix, shift):
        return linear_cross_entropy(
            rounded, matrix, labels, bias=shift, ignore_index=_IGNORED, reduction="sum"
        )
