"""Choose the best point of a tuned arm, and say whether it lies on the edge of what was tried."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    Options = Mapping[str, float]


@dataclass(frozen=True)
class Edge:
    """An option whose best value is the lowest (side -1) or highest (side 1) that was tried."""

    option: str
    side: int


def mean_loss(losses: Sequence[float | None]) -> float:
    """Give a point's value: the mean final loss over the tuning seeds.

    One run that diverged or has no final loss makes it +inf: an average over survivors would
    reward a point for failing on the hard seeds.
    """
    if not losses or any(loss is None or not math.isfinite(loss) for loss in losses):
        return math.inf
    return statistics.fmean(loss for loss in losses if loss is not None)


def choose_best(values: Sequence[float]) -> int | None:
    """Give the place of the lowest value, of equal ones the first; None where none is finite."""
    finite = [(value, place) for place, value in enumerate(values) if math.isfinite(value)]
    return min(finite)[1] if finite else None


def find_edges(points: Sequence[Options], values: Sequence[float], best: int) -> tuple[Edge, ...]:
    """Find the options whose best value is the outermost one that was tried, in declared order.

    An option with one value has no edge, and 0 is none: nothing lies below it. Nor is there one
    where another value of the option gave the same loss: the option made no difference.
    """
    found = []
    for option, value in points[best].items():
        tried = sorted({point[option] for point in points})
        equal = {p[option] for p, v in zip(points, values, strict=True) if v == values[best]}
        if len(tried) < 2 or equal != {value}:
            continue
        if value == tried[-1]:
            found.append(Edge(option, 1))
        elif value == tried[0] and value != 0:
            found.append(Edge(option, -1))
    return tuple(found)


def worse_half(values: Sequence[float]) -> tuple[int, ...]:
    """Give the places of the values above their median; infinite ones count as the largest.

    Where the median itself is infinite, those that are infinite.
    """
    if not values:
        return ()
    middle = statistics.median_low(values)
    if math.isinf(middle):
        return tuple(place for place, value in enumerate(values) if math.isinf(value))
    return tuple(place for place, value in enumerate(values) if value > middle)


def pruned(
    values: Sequence[float],
    rule: str,
    before: Collection[int] = (),
    complete: Collection[int] = (),
) -> frozenset[int]:
    """Give the places that go no further after the first seed, by a rule stated beforehand.

    ``diverged`` drops what has no finite loss, ``worse_half`` also what lies above the median of
    its arm, ``none`` nothing. Later points move the median: what was dropped ``before`` stays so,
    and what is ``complete``, having run on every seed, is never dropped.
    """
    if rule == "none":
        return frozenset()
    lost = {place for place, value in enumerate(values) if not math.isfinite(value)}
    if rule == "worse_half":
        lost |= set(worse_half(values)) | set(before)
    return frozenset(lost - set(complete))
