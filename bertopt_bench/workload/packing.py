"""Place the sequences of a micro-batch without their padding; NumPy only.

Letters: b sequences, S slots a row, T slots in all. The sequences are those of the written batch,
every one of them and whole; only where they lie differs, so that a layout changes no training.

Source: Warner et al., arXiv 2412.13663 (ModernBERT), which trains on unpadded sequences and packs
them by its GreedyBestFitSequencePacker: a sequence goes into the fullest row that has room for it.
Here a step's sequences are all known, so the longest are placed first (Johnson, 1974: best fit
decreasing).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Lengths = NDArray[np.int64]
    Runs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """The first slot of each sequence, [b] int64, in a flat line of ``slots`` slots."""

    starts: NDArray[np.int64]
    slots: int


def unpad(lengths: Lengths, _row_slots: int) -> Placement:
    """Put the sequences one after the other, the longest first: equal lengths are neighbours."""
    order = np.argsort(-lengths, kind="stable")
    starts = np.empty(len(lengths), dtype=np.int64)
    starts[order] = np.cumsum(lengths[order]) - lengths[order]
    return Placement(starts, int(lengths.sum()))


def pack(lengths: Lengths, row_slots: int) -> Placement:
    """Put whole sequences into rows of S slots by best fit; full rows come first.

    Raises:
        ValueError: a sequence is longer than a row.
    """
    if int(lengths.max(initial=0)) > row_slots:
        raise ValueError(f"a sequence of {int(lengths.max())} tokens fits no row of {row_slots}")
    starts = np.empty(len(lengths), dtype=np.int64)
    rooms: list[tuple[int, int]] = []  # slots left and number of each row, the fullest first
    rows = 0
    for index in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[index])
        place = bisect_left(rooms, (length, -1))
        if place < len(rooms):
            room, row = rooms.pop(place)
        else:
            room, row = row_slots, rows
            rows += 1
        starts[index] = (row + 1) * row_slots - room
        insort(rooms, (room - length, row))
    return Placement(starts, rows * row_slots)


PLACES: Mapping[str, Callable[[Lengths, int], Placement]] = {"unpadded": unpad, "packed": pack}
"""How each layout but ``padded`` places sequences."""


def runs(placement: Placement, lengths: Lengths) -> Runs:
    """Tell what lies in the slots, in order: ``(count, length)``.

    ``count`` sequences of one length side by side; count 0 means ``length`` slots of padding.
    """
    order = np.argsort(placement.starts, kind="stable")
    found: list[tuple[int, int]] = []
    end = 0
    for start, length in zip(
        placement.starts[order].tolist(), lengths[order].tolist(), strict=True
    ):
        if start > end:
            found.append((0, start - end))
        if found and found[-1][0] > 0 and found[-1][1] == length:
            found[-1] = (found[-1][0] + 1, length)
        else:
            found.append((1, length))
        end = start + length
    if placement.slots > end:
        found.append((0, placement.slots - end))
    return tuple(found)


def borders(of: Runs, longest: int) -> list[int]:
    """Give the first slot of every segment, and the end of the last: ``cu_seqlens``.

    Padding is segments of its own, none longer than ``longest``, so that a kernel which is told
    that length leaves no slot of its output unwritten.
    """
    sizes: list[int] = []
    for count, length in of:
        if count:
            sizes += [length] * count
        else:
            whole, rest = divmod(length, longest)
            sizes += [longest] * whole + [rest] * bool(rest)
    return [0, *np.cumsum(sizes).tolist()]


def owners(placement: Placement, lengths: Lengths) -> NDArray[np.int32]:
    """Number the sequence that each slot belongs to, [T]; padding is -1."""
    numbers = np.full(placement.slots, -1, dtype=np.int32)
    for number, (start, length) in enumerate(
        zip(placement.starts.tolist(), lengths.tolist(), strict=True)
    ):
        numbers[start : start + length] = number
    return numbers


def rounded_up(count: int, multiple: int) -> int:
    """Give the next multiple.

    >>> rounded_up(65, 64)
    128
    """
    return -(-count // multiple) * multiple


def attended_pairs(lengths: Sequence[int] | Lengths) -> int:
    """Sum the squared lengths: how many pairs of tokens attention looks at."""
    return int(np.square(np.asarray(lengths, dtype=np.int64)).sum())
