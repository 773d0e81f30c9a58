"""Say how much of a padded micro-batch a layout computes; NumPy only where lengths are at hand.

Letters: b sequences a micro-batch, S slots a row.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.content import layout_of, way_of_attention

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from bertopt_bench.workload.packing import Placement


@dataclass(frozen=True, slots=True)
class Filled:
    """Shares of what ``padded`` computes in a micro-batch: at most 1, but for rounded-up slots.

    Attributes:
        slots: of b S, that go through the network.
        real: of b S, that are no padding; as many of the masked slots are there.
        pairs: of b S S, that lie within one sequence.
        at_once: of b S S, in the run of neighbours of equal length that has most of them.
        run: of b S, in that run (in a largest of several, of any of their runs).
    """

    slots: float = 1.0
    real: float = 1.0
    pairs: float = 1.0
    at_once: float = 1.0
    run: float = 1.0


WHOLE = Filled()


def filled(lengths: NDArray[Any], placement: Placement, row_slots: int) -> Filled:
    """Give the shares for sequences of ``lengths`` [b], placed so, in rows of S = ``row_slots``."""
    from bertopt_bench.workload import packing

    rows = len(lengths) * row_slots
    count, length = max(packing.runs(placement, lengths), key=lambda run: run[0] * run[1] ** 2)
    return Filled(
        slots=placement.slots / rows,
        real=int(lengths.sum()) / rows,
        pairs=packing.attended_pairs(lengths) / (rows * row_slots),
        at_once=count * length**2 / (rows * row_slots),
        run=count * length / rows,
    )


def most(seen: Iterable[Filled]) -> Filled:
    """Give the largest of each share: what no micro-batch exceeds."""
    found = list(seen)
    return Filled(*(max(getattr(one, part.name) for one in found) for part in fields(Filled)))


def expected_most(seen: Sequence[Filled], count: int) -> Filled:
    """Give the expected largest of each share among ``count`` drawn from these.

    The largest of ``count`` from N is at most the i-th smallest with probability (i / N)^count.
    """
    import numpy as np

    below = (np.arange(len(seen) + 1) / len(seen)) ** count
    columns = ([getattr(one, part.name) for one in seen] for part in fields(Filled))
    return Filled(*(float(np.sort(column) @ np.diff(below)) for column in columns))


def gathers(cell: Mapping[str, Any]) -> bool:
    """Say whether attention gathers slots into padded rows, and its result back."""
    return layout_of(cell) == "unpadded" and way_of_attention(cell) == "rows"


def joins(cell: Mapping[str, Any], found: Filled) -> bool:
    """Say whether attention's result is put together of other tensors: rows, or one of each run."""
    several = way_of_attention(cell) == "runs" and found.run < found.slots
    return gathers(cell) or (layout_of(cell) != "padded" and several)


def masks_blocks(cell: Mapping[str, Any]) -> bool:
    """Say whether a mask of all pairs of slots in a row keeps the sequences packed there apart."""
    return layout_of(cell) == "packed" and way_of_attention(cell) == "rows"


def computed(cell: Mapping[str, Any], found: Filled) -> Filled:
    """Give what a cell computes where its layout could compute so much: ``padded`` all of it.

    Attention over whole rows (``workload.ragged``) looks at every pair of slots in a row: those
    that were packed, or all, where each sequence gets its row back.
    """
    layout = layout_of(cell)
    if layout == "padded":
        return WHOLE
    if way_of_attention(cell) != "rows":
        return found
    rows = 1.0 if gathers(cell) else found.slots
    return replace(found, pairs=rows, at_once=rows, run=rows)
