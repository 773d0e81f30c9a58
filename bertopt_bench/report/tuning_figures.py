"""Draw a tuned arm: held-out loss over an option, every seed a dot, a line through the means.

Plain SVG that needs no script. The option's axis is logarithmic, places along it are per cent of
the width; what has no finite loss stands at the top, hollow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from bertopt_bench.matrix.labels import number
from bertopt_bench.report import wording
from bertopt_bench.report.duel_scales import Scale, apart, round_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HEIGHT, AXIS_HEIGHT, UNITS, TOP = 240, 22, 1000, 26
MOST_SERIES = 7  # colours that can be told apart
TICK_GAP = 11.0


@dataclass(frozen=True)
class Tried:
    """A point as it is drawn: its options, its losses over the seeds, whether it was chosen."""

    options: Mapping[str, float]
    losses: Sequence[float]
    is_best: bool
    is_default: bool

    @property
    def mean(self) -> float:
        """Give the mean loss, +inf where a seed has none."""
        return math.fsum(self.losses) / len(self.losses) if self.losses else math.inf


@dataclass(frozen=True)
class Curve:
    """A drawing with its legend: a line for each value of the other options."""

    svg: str
    series: tuple[str, ...]
    left_out: int


def curve(option: str, points: Sequence[Tried], up: Scale) -> Curve:
    """Draw loss over one option, a line for each setting of the others."""
    lines: dict[str, list[Tried]] = {}
    for point in sorted(points, key=lambda one: one.options[option]):
        others = [f"{k.partition('.')[2]} {number(v)}" for k, v in point.options.items()
                  if k != option]  # fmt: skip
        lines.setdefault(", ".join(others), []).append(point)
    joined = len(lines) <= MOST_SERIES
    if not joined:  # drawn points: hardly two share the other options
        lines = {"": [point for line in lines.values() for point in line]}
        lines[""].sort(key=lambda one: one.options[option])
    across = Scale.of([math.log10(point.options[option]) for point in points], air=0.06)
    drawn = "".join(
        _line(index, line, option, across, up)
        for index, line in enumerate(lines.values())
        if joined
    )
    marks = "".join(
        _marks(index, line, option, across, up) for index, line in enumerate(lines.values())
    )
    ticks = _ticks([point.options[option] for point in points], across)
    body = (
        f'{_levels(up)}<svg width="100%" height="{HEIGHT}" viewBox="0 0 {UNITS} {HEIGHT}" '
        f'preserveAspectRatio="none">{drawn}</svg>{marks}{ticks}'
    )
    told = f"Held-out loss over {option}, {len(points)} points"
    svg = (
        f'<svg class="area" height="{HEIGHT + AXIS_HEIGHT}" role="img" '
        f'aria-label="{escape(told)}">{body}</svg>'
    )
    lost = sum(not math.isfinite(loss) for point in points for loss in point.losses)
    return Curve(svg, tuple(name for name in lines if name), lost)


def loss_scale(points: Sequence[Tried]) -> Scale:
    """Span all finite losses."""
    return Scale.of([loss for point in points for loss in point.losses], air=0.08)


def _y(loss: float, up: Scale) -> float:
    """Place a loss; one that is not finite stands at the top."""
    if not math.isfinite(loss):
        return 8.0
    return round(TOP + (HEIGHT - TOP) * (1 - up.at(loss) / 100), 1)


def _x(point: Tried, option: str, across: Scale) -> float:
    return across.at(math.log10(point.options[option]))


def _line(number_: int, line: Sequence[Tried], option: str, across: Scale, up: Scale) -> str:
    path = "".join(
        f"{'L' if index else 'M'}{_x(point, option, across) * UNITS / 100:.1f} {_y(point.mean, up)}"
        for index, point in enumerate(point for point in line if math.isfinite(point.mean))
    )
    if not path:
        return ""
    return f'<path class="series s{number_}" vector-effect="non-scaling-stroke" d="{path}"/>'


def _marks(number_: int, line: Sequence[Tried], option: str, across: Scale, up: Scale) -> str:
    parts = []
    for point in line:
        x = _x(point, option, across)
        told = ", ".join(f"{k.partition('.')[2]} {number(v)}" for k, v in point.options.items())
        if point.is_best and math.isfinite(point.mean):
            parts.append(
                f'<circle class="chosen" cx="{x}%" cy="{_y(point.mean, up)}" r="9">'
                f"<title>chosen: {escape(told)}</title></circle>"
            )
        for loss in point.losses:
            lost = not math.isfinite(loss)
            what = "no final loss" if lost else wording.loss(loss)
            hollow = " hollow" if lost else ""
            parts.append(
                f'<circle class="point s{number_}{hollow}" cx="{x}%" cy="{_y(loss, up)}" r="4">'
                f"<title>{escape(told)}: {what}</title></circle>"
            )
    return "".join(parts)


def _levels(up: Scale) -> str:
    return "".join(
        f'<line class="level" x2="100%" y1="{y}" y2="{y}"/>'
        f'<text class="left" x="-8" y="{y + 3.5:.1f}">{value:g}</text>'
        for value in round_values(up.low, up.high, 5)
        for y in (_y(value, up),)
    )


def _ticks(values: Sequence[float], across: Scale) -> str:
    places = [(across.at(math.log10(value)), number(value)) for value in sorted(set(values))]
    return "".join(
        f'<line class="tick" x1="{x}%" x2="{x}%" y1="{HEIGHT}" y2="{HEIGHT + 5}"/>'
        f'<text class="middle" x="{x}%" y="{HEIGHT + 17}">{text}</text>'
        for x, text in apart(places, TICK_GAP)
    )
