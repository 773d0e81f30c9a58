"""Draw the paired differences of an axis as a strip of dots: plain SVG, no script needed."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertopt_bench.report.wording import MINUS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertopt_bench.stats.estimates import Effect, Metric, Spread

WIDTH, HEIGHT, MARGIN = 232, 28, 8
MOST_DOTS = 64
LEAST_RESOLVED = 10  # a scale spans so many of what a metric can tell apart


@dataclass(frozen=True)
class Scale:
    """Map differences of one metric to pixels; all strips of a metric share it."""

    metric: Metric
    low: float
    high: float

    @classmethod
    def of(cls, metric: Metric, effects: Sequence[Effect]) -> Scale:
        """Span all differences and zero, with a little air; rounding is not blown up."""
        values = [0.0, *(d for effect in effects for d in effect.differences)]
        least = LEAST_RESOLVED * metric.resolution
        low, high = min(values), max(values)
        if high - low < least:
            low, high = min(low, -least), max(high, least)
        air = (high - low) * 0.04
        return cls(metric, low - air, high + air)

    def x(self, value: float) -> float:
        """Place a difference in pixels."""
        share = (value - self.low) / (self.high - self.low)
        return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Choose round values with room between them, zero always among them."""
        found: list[tuple[float, str]] = [(self.x(0.0), "0")]
        for value, text in sorted(self._candidates(), key=lambda c: -abs(c[0])):
            place = self.x(value)
            inside = self.low < value < self.high and MARGIN < place < WIDTH - MARGIN
            if inside and all(abs(place - other) > 46 for other, _ in found):
                found.append((place, text))
        return sorted(found)

    def _candidates(self) -> list[tuple[float, str]]:
        if self.metric.is_ratio:
            steps = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 400, 900, 2900)
            gains = [(math.log1p(p / 100), f"+{p:g} %") for p in steps]
            losses = [(math.log1p(-p / 100), f"{MINUS}{p:g} %") for p in (*steps[:7], 75, 90, 97)]
            return gains + losses
        magnitudes = [m * 10.0**e for e in range(-4, 3) for m in (1, 2, 5)]
        signed = [s * m for m in magnitudes for s in (1, -1)]
        return [(v, f"{v:+g}".replace("-", MINUS)) for v in signed]


def ruler(scale: Scale) -> str:
    """Draw the scale once, above the strips; narrow pages repeat it by reference."""
    marks = "".join(
        f'<path stroke="currentColor" d="M{x} 15v5"/><text x="{x}" y="11">{text}</text>'
        for x, text in scale.ticks()
    )
    line = f'<path stroke="currentColor" d="M{MARGIN} 20H{WIDTH - MARGIN}"/>'
    drawing = f'<g id="ruler-{scale.metric.column}">{line}{marks}</g>'
    return f'<svg class="ruler" viewBox="0 0 {WIDTH} 22" aria-hidden="true">{drawing}</svg>'


def strip(effect: Effect, spread: Spread, scale: Scale, told: str) -> str:
    """Draw range, middle half, median and each context's difference.

    `told` is what a screen reader says; it must not need escaping.
    """
    x, middle = scale.x, HEIGHT / 2
    parts = [f'<path class="zero" d="M{x(0)} 0V{HEIGHT}"/>']
    if spread.n > 1:
        parts += [
            f'<path class="range" d="M{x(spread.low)} {middle}H{x(spread.high)}"/>',
            f'<path class="middle" d="M{x(spread.q1)} {middle}H{x(spread.q3)}"/>',
        ]
    if spread.n <= MOST_DOTS:
        parts += dots(effect, scale)
    if spread.n > 1:
        parts.append(f'<path class="median" d="M{x(spread.median)} 4V{HEIGHT - 4}"/>')
    body = "".join(parts)
    return (
        f'<svg class="strip" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{told}">'
        f"{body}</svg>"
    )


def dots(effect: Effect, scale: Scale) -> list[str]:
    """Draw each context, coloured by side; those that would hide another are stacked."""
    sign = 1 if effect.metric.higher_is_better else -1
    columns: Counter[int] = Counter()
    sides: dict[str, list[str]] = {}
    for value in effect.differences:
        place = scale.x(value)
        height = columns[round(place / 4)]
        columns[round(place / 4)] += 1
        shift = (height + 1) // 2 * (3 if height % 2 else -3)
        y = HEIGHT / 2 + max(-10, min(10, shift))
        side = "same" if effect.metric.is_none(value) else "better" if sign * value > 0 else "worse"
        sides.setdefault(side, []).append(f"M{place:g} {y:g}h0")
    # A zero-length line with round ends is a dot, at a fifth of a circle's bytes.
    return [f'<path class="dot {side}" d="{"".join(at)}"/>' for side, at in sides.items()]
