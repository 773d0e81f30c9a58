"""Ask a cell's content: which entry of an operation, which layout, which form of attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

FLASH = ("flash", "flash_attn")
"""Attention kernels that take no mask on CUDA."""

_OVER_SEGMENTS = ("default", "varlen", *FLASH)
HALF = ("bf16", "fp16")
COMPILERS = ("default", "reduce_overhead", "max_autotune")
"""Entries of ``kernel.compile`` that are torch.compile's modes."""
_SHAPE_KEEPING = ("compile", "cuda_graph")


def kernel_name(cell: Mapping[str, Any], operation: str) -> str | None:
    """Name the entry of an operation; None where the cell does not say, which is the default."""
    name: str | None = cell["kernel"].get(operation, {}).get("name")
    return name


def layout_of(cell: Mapping[str, Any]) -> str:
    """Name the layout; a cell that says none is padded."""
    layout: str = cell["workload"].get("layout", "padded")
    return layout


def attention_dropout(cell: Mapping[str, Any]) -> bool:
    """Say whether a regularizer drops attention weights out."""
    return any(part.get("attention_dropout") for part in cell["regularizer"])


def walks_segments(cell: Mapping[str, Any]) -> bool:
    """Say whether flash attention's form for unequal lengths serves a layout without padding.

    It is CUDA's alone, takes 16 bits only and has no dropout. It stands for the default attention
    and for the kinds of flash, not for another kernel that was forced.
    """
    return (
        cell["device"]["name"] == "cuda"
        and layout_of(cell) != "padded"
        and cell["kernel"]["attention"]["name"] in _OVER_SEGMENTS
        and cell["precision"]["name"] in HALF
        and not attention_dropout(cell)
    )


def is_on(cell: Mapping[str, Any], operation: str) -> bool:
    """Say whether an operation that is off by default is not."""
    return (kernel_name(cell, operation) or "off") != "off"


def is_compiled(cell: Mapping[str, Any]) -> bool:
    """Say whether torch's own compiler writes the passes; of a user's function nothing is known."""
    return kernel_name(cell, "compile") in COMPILERS


def keeps_shapes(cell: Mapping[str, Any]) -> bool:
    """Say whether a step's shapes must stay the same over a run: it is compiled or captured."""
    return any(is_on(cell, operation) for operation in _SHAPE_KEEPING)


def way_of_attention(cell: Mapping[str, Any]) -> str:
    """Name how attention keeps the sequences of a layout without padding apart.

    ``runs``, ``rows`` or ``borders``: the ways of ``workload.ragged.Ragged``.
    """
    if walks_segments(cell):
        return "borders"
    on_cuda = cell["device"]["name"] == "cuda"
    return "rows" if keeps_shapes(cell) or on_cuda else "runs"
