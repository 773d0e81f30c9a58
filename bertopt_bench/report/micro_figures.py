"""Draw calls' seconds over a length or a size, a line an implementation: plain SVG, no script.

Both axes are logarithmic (a share's is not), so that a cost that grows as a power is a straight
line. Places along x are per cent of the width; lines stand in a stretched drawing whose strokes do
not scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

from bertopt_bench.report import wording
from bertopt_bench.report.duel_figures import round_duration
from bertopt_bench.report.duel_scales import Scale, apart

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.results.micro import MicroRow

HEIGHT, AXIS_HEIGHT, UNITS = 240, 22, 1000
LINEAR = ("padding",)  # shares, which may be 0
MOST_SERIES = 7  # colours that can be told apart
MOST_LEVELS = 6


@dataclass(frozen=True)
class Crossover:
    """A drawing with its legend, and in words where lines cross."""

    title: str
    svg: str
    series: tuple[str, ...]
    notes: tuple[str, ...]
    axes: str


def crossover(title: str, axis: str, lines: Mapping[str, Sequence[MicroRow]]) -> Crossover:
    """Draw medians with quartiles over an option; host-bound ones are hollow and cross nothing."""
    names = list(lines)[:MOST_SERIES]
    shown = {name: sorted(lines[name], key=lambda row: row.options[axis]) for name in names}
    rows = [row for line in shown.values() for row in line]
    across = Scale.of([_along(axis, row.options[axis]) for row in rows], air=0.04)
    ends = [end for row in rows for end in (row.q1, row.q3) if end > 0]
    up = Scale.of([math.log10(end) for end in ends], air=0.08)
    drawn = "".join(
        _line(number, line, axis, across, up) for number, line in enumerate(shown.values())
    )
    marks = "".join(
        _marks(number, name, line, axis, across, up)
        for number, (name, line) in enumerate(shown.items())
    )
    body = (
        f"{_levels(up)}"
        f'<svg width="100%" height="{HEIGHT}" viewBox="0 0 {UNITS} {HEIGHT}" '
        f'preserveAspectRatio="none">{drawn}</svg>{marks}{_ticks(rows, axis, across)}'
    )
    told = f"Seconds a call over {axis}: {', '.join(names)}"
    svg = (
        f'<svg class="area" height="{HEIGHT + AXIS_HEIGHT}" role="img" '
        f'aria-label="{escape(told)}">{body}</svg>'
    )
    left = len(lines) - len(names)
    notes = [*crossings(axis, shown)]
    notes += [f"{left} further implementations are in the table only"] if left else []
    return Crossover(title, svg, tuple(names), tuple(notes), axes_of(axis))


def axes_of(axis: str) -> str:
    """Say how a figure's axes are divided.

    >>> axes_of("seq_len"), axes_of("padding")
    ('both axes logarithmic', 'seconds logarithmic, padding linear')
    """
    return f"seconds logarithmic, {axis} linear" if axis in LINEAR else "both axes logarithmic"


def crossings(axis: str, lines: Mapping[str, Sequence[MicroRow]]) -> list[str]:
    """Say between which values two implementations change their order.

    Both orders must stand out of the batches' spread: values where quartiles overlap decide
    nothing, so the values named are the nearest on either side that do.
    """
    told = []
    for one, other in combinations(lines, 2):
        first = {row.options[axis]: row for row in lines[one] if not row.host_bound}
        second = {row.options[axis]: row for row in lines[other] if not row.host_bound}
        orders = {at: _order(first[at], second[at]) for at in sorted(first.keys() & second.keys())}
        decided = [at for at, order in orders.items() if order]
        for low, high in pairwise(decided):
            if orders[low] != orders[high]:
                where = f"between {axis} {low:,} and {high:,}"
                told.append(f"the medians of {one} and {other} cross {where}")
    return told


def _order(one: MicroRow, other: MicroRow) -> int:
    """Give 1 where one row's middle half lies above the other's, -1 where below, else 0."""
    return (one.q1 > other.q3) - (one.q3 < other.q1)


def _log(value: float) -> float:
    return math.log10(value) if value > 0 else 0.0


def _along(axis: str, value: float) -> float:
    return value if axis in LINEAR else _log(value)


def _place(row: MicroRow, axis: str, across: Scale) -> float:
    return across.at(_along(axis, row.options[axis]))


def _y(seconds: float, up: Scale) -> float:
    return round(HEIGHT * (1 - up.at(_log(seconds)) / 100), 1)


def _line(number: int, rows: Sequence[MicroRow], axis: str, across: Scale, up: Scale) -> str:
    path = "".join(
        f"{'L' if index else 'M'}{_place(row, axis, across) * UNITS / 100:.1f} {_y(row.median, up)}"
        for index, row in enumerate(rows)
    )
    return f'<path class="series s{number}" vector-effect="non-scaling-stroke" d="{path}"/>'


def _marks(
    number: int, name: str, rows: Sequence[MicroRow], axis: str, across: Scale, up: Scale
) -> str:
    parts = []
    for row in rows:
        x, y = _place(row, axis, across), _y(row.median, up)
        low, high = _y(row.q1, up), _y(row.q3, up)
        hollow = " hollow" if row.host_bound else ""
        bound = ", host-bound" if row.host_bound else ""
        told = f"{name}, {axis} {row.options[axis]:,}: {wording.duration(row.median)}{bound}"
        parts.append(
            f'<line class="series s{number}" x1="{x}%" x2="{x}%" y1="{low}" y2="{high}"/>'
            f'<circle class="point s{number}{hollow}" cx="{x}%" cy="{y}" r="4">'
            f"<title>{escape(told)}</title></circle>"
        )
    return "".join(parts)


def _levels(up: Scale) -> str:
    """Draw level lines at 1, 2 and 5 times powers of ten, or at powers alone where those do."""
    first, last = math.floor(up.low), math.ceil(up.high)
    every = [10.0**power * factor for power in range(first, last + 1) for factor in (1, 2, 5)]
    inside = [value for value in every if up.low < math.log10(value) < up.high]
    if len(inside) > MOST_LEVELS:
        inside = [value for value in inside if math.isclose(math.log10(value) % 1, 0, abs_tol=1e-9)]
    return "".join(
        f'<line class="level" x2="100%" y1="{y}" y2="{y}"/>'
        f'<text class="left" x="-8" y="{y + 3.5:.1f}">{round_duration(value)}</text>'
        for value in inside
        for y in (_y(value, up),)
    )


def _ticks(rows: Sequence[MicroRow], axis: str, across: Scale) -> str:
    values = sorted({row.options[axis] for row in rows})
    places = [(across.at(_along(axis, value)), f"{value:,}") for value in values]
    return "".join(
        f'<line class="tick" x1="{x}%" x2="{x}%" y1="{HEIGHT}" y2="{HEIGHT + 5}"/>'
        f'<text class="middle" x="{x}%" y="{HEIGHT + 17}">{text}</text>'
        for x, text in apart(places, 8.0)
    )
