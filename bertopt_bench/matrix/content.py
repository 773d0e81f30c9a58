"""Ask a cell's content: which entry of an operation, which layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def kernel_name(cell: Mapping[str, Any], operation: str) -> str | None:
    """Name the entry of an operation; None where the cell does not say, which is the default."""
    name: str | None = cell["kernel"].get(operation, {}).get("name")
    return name


def layout_of(cell: Mapping[str, Any]) -> str:
    """Name the layout; a cell that says none is padded."""
    layout: str = cell["workload"].get("layout", "padded")
    return layout
