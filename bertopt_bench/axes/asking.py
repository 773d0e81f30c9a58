"""What skip rules ask of a cell and of a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    Cell = Mapping[str, Any]
    Capabilities = Mapping[str, Any]

AMPERE = (8, 0)


def capability_of(cell: Cell, capabilities: Capabilities) -> tuple[int, int] | None:
    """Give the compute capability of the cell's GPU, None for a CPU or an absent GPU."""
    known = capabilities["cuda"]["capability"]
    index = cell["device"].get("index", 0)
    if cell["device"]["name"] != "cuda" or index >= len(known):
        return None
    major, minor = known[index]
    return major, minor


def dotted(capability: tuple[int, int]) -> str:
    """Write a compute capability as NVIDIA does."""
    return ".".join(map(str, capability))
