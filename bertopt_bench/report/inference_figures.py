"""Draw curves over batch sizes as plain SVG, both axes logarithmic; no script needed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertopt_bench.report import wording

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 40
MOST_CURVES = 7
"""Colours that are told apart; further curves stand in the table alone, and the legend says so."""


@dataclass(frozen=True)
class Point:
    """A batch size with the lowest, median and highest value of its trials."""

    batch: int
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Curve:
    """What one setting gives over batch sizes."""

    label: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Frame:
    """Map batch sizes and values to pixels."""

    least_batch: int
    most_batch: int
    low: float
    high: float

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> Frame:
        """Span all points, with a little air above and below."""
        points = [point for curve in curves for point in curve.points]
        batches = [point.batch for point in points]
        low, high = min(p.low for p in points), max(p.high for p in points)
        return cls(min(batches), max(batches), low / 1.15, high * 1.15)

    def x(self, batch: float) -> float:
        """Place a batch size."""
        return _placed(batch, self.least_batch, self.most_batch, LEFT + 16, WIDTH - RIGHT - 16)

    def y(self, value: float) -> float:
        """Place a value."""
        return _placed(value, self.low, self.high, HEIGHT - BOTTOM, TOP)

    def ticks(self) -> list[float]:
        """Choose round values inside, with room between them."""
        lowest, highest = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        candidates = [m * 10.0**e for e in range(lowest, highest + 1) for m in (1, 2, 5)]
        kept: list[float] = []
        for value in candidates:
            inside = self.low <= value <= self.high
            if inside and all(abs(self.y(value) - self.y(other)) > 18 for other in kept):
                kept.append(value)
        return kept


def _placed(value: float, low: float, high: float, start: float, end: float) -> float:
    share = math.log(value / low) / math.log(high / low) if high > low else 0.5
    return round(start + share * (end - start), 1)


def draw(curves: Sequence[Curve], told: str) -> tuple[str, list[str]]:
    """Draw the curves; give the drawing and the names of the curves in it, in their colours.

    `told` is what a screen reader says; it must not need escaping.
    """
    shown = [curve for curve in curves if curve.points][:MOST_CURVES]
    frame = Frame.of(shown)
    body = "".join(
        [*_grid(frame, shown), *(_curve(frame, curve, i) for i, curve in enumerate(shown))]
    )
    svg = (
        f'<svg class="by-batch" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{told}">'
        f"{body}</svg>"
    )
    return svg, [curve.label for curve in shown]


def _grid(frame: Frame, curves: Sequence[Curve]) -> list[str]:
    """Draw the scales: values at the left, every batch size that was run below."""
    parts = []
    for value in frame.ticks():
        y = frame.y(value)
        parts.append(
            f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>'
            f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{_short(value)}</text>'
        )
    last = -math.inf
    for batch in sorted({point.batch for curve in curves for point in curve.points}):
        x = frame.x(batch)
        if x - last > 26:
            parts.append(
                f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{batch:,}</text>'
            )
            last = x
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">batch size</text>')
    return parts


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else wording.significant(value, 1)


def _curve(frame: Frame, curve: Curve, number: int) -> str:
    """Draw a line through the medians, a bar from lowest to highest at each."""
    places = [(frame.x(p.batch), p) for p in curve.points]
    line = "L".join(f"{x} {frame.y(p.median)}" for x, p in places)
    bars = "".join(f"M{x} {frame.y(p.low)}V{frame.y(p.high)}" for x, p in places)
    # A zero-length line with round ends is a dot.
    dots = "".join(f"M{x} {frame.y(p.median)}h0" for x, p in places)
    return (
        f'<g class="curve c{number}"><path d="M{line}"/><path class="reach" d="{bars}"/>'
        f'<path class="at" d="{dots}"/></g>'
    )
