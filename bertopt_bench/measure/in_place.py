"""Touch memory as optimizers' steps do: in place, reads and writes in their mix, no arithmetic.

A step reads weight and gradient and writes the weight; each state tensor that it keeps is read and
written once more. So the number of states is the mix: SGD has none, momentum and Lion have one,
AdamW has two, AdEMAMix has three.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

MIXES = (0, 1, 2, 3)
"""Numbers of state tensors that optimizers of ours keep."""

ADAMW_STATES = 2
NUMBER_BYTES = 4


def mix_name(states: int) -> str:
    """Name a mix by what it does to memory.

    >>> mix_name(2)
    '4 reads, 3 writes'
    """
    writes = states + 1
    return f"{states + 2} reads, {writes} write{'' if writes == 1 else 's'}"


def mix_bytes(states: int) -> int:
    """Give the bytes that a mix moves for each parameter of float32."""
    return NUMBER_BYTES * ((states + 2) + (states + 1))


def in_place_mix(gradient: Tensor, first: Tensor, *others: Tensor) -> Callable[[], None]:
    """Give a call that reads a gradient and reads and writes every other tensor, in place."""

    def move() -> None:
        first.lerp_(gradient, 0.1)
        for other in others:
            other.mul_(0.999)

    return move


def updates(arrays: list[Tensor], states: int) -> tuple[list[Callable[[], None]], int]:
    """Give the mix's calls over equally large arrays, and the bytes that they move together.

    As many updates as the arrays make are done one after the other, so that a mix of few arrays
    does not find them in a cache.
    """
    width = states + 2
    groups = [arrays[at : at + width] for at in range(0, len(arrays) - width + 1, width)]
    moved = mix_bytes(states) * arrays[0].numel() * len(groups)
    return [in_place_mix(*group) for group in groups], moved
