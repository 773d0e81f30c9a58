"""Decay in torch's parameter groups: what every optimizer entry does with its own argument."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence


def decayed(groups: Sequence[dict[str, Any]], decay: float) -> list[dict[str, Any]]:
    """Copy the groups with torch's decay argument set, to 0 for vectors."""
    return [{**g, "weight_decay": 0.0 if g["role"] == "vector" else decay} for g in groups]


def one_decay(name: str, weight_decay: float, l2: float) -> float:
    """Give the one decay of a class that has a single argument for both kinds.

    Raises:
        UserError: both kinds are asked for.
    """
    if weight_decay and l2:
        raise UserError(
            f"optimizer '{name}' decays either way, not both: weight_decay is {weight_decay} and "
            f"l2 is {l2}. Keep one of them."
        )
    return weight_decay or l2
