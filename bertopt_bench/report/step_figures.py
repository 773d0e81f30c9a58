"""Draw a step: its parts as a bar, its operations under the roofs.

Plain SVG that needs no script; places along x are per cent of the width.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from bertopt_bench.report import wording

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.measure.operator_costs import Point

BAR_HEIGHT, ROOFLINE_HEIGHT, AXIS_HEIGHT = 34, 340, 24
LEAST_NAMED = 13.0  # per cent of a bar that its name needs on a phone
SLOPE_LABEL_SHARE = 0.62  # of the slope: so much of it leaves room to its left
MOST_NAMED = 14  # points with a number beside them
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def area(height: int, told: str, body: str) -> str:
    """Frame a drawing and say in words what it shows."""
    return (
        f'<svg class="area" height="{height}" role="img" aria-label="{escape(told)}">{body}</svg>'
    )


def phase_bar(
    phases: Sequence[tuple[str, float]], label: str, least_named: float = LEAST_NAMED
) -> str:
    """Draw a step as a bar of its phases' seconds; a name stands where it has so many per cent."""
    whole = sum(seconds for _, seconds in phases)
    parts, begin = [], 0.0
    for phase, seconds in phases:
        width = 100 * seconds / whole
        title = f"{phase}: {wording.duration(seconds)}"
        parts.append(
            f'<rect class="phase-{phase}" x="{begin:.2f}%" width="{width:.2f}%" '
            f'height="{BAR_HEIGHT}"><title>{title}</title></rect>'
        )
        if width >= least_named:
            parts.append(
                f'<text class="middle named" x="{begin + width / 2:.2f}%" y="21">{phase}</text>'
            )
        begin += width
    return area(BAR_HEIGHT, f"Parts of a step of {label}", "".join(parts))


class LogScale:
    """Maps values to a length by their logarithm, over whole powers of ten."""

    def __init__(self, values: Sequence[float], length: float, *, rises: bool = True) -> None:
        self.low = math.floor(math.log10(min(values)))
        self.high = max(math.ceil(math.log10(max(values))), self.low + 1)
        self.length, self.rises = length, rises

    def at(self, value: float) -> float:
        """Place a value."""
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return round(self.length * (share if self.rises else 1 - share), 2)

    def powers(self, most: int) -> list[float]:
        """Give powers of ten for ticks, no more than asked."""
        every = max(1, math.ceil((self.high - self.low + 1) / most))
        return [10.0**power for power in range(self.low, self.high + 1, every)]


def roofline(
    points: Sequence[Point], rates: Mapping[str, float], bandwidth: float | None, label: str
) -> str:
    """Draw work by FLOPs a byte and FLOPs a second, under roofs by name and that of bandwidth."""
    numbered = [
        (number, point)
        for number, point in enumerate(points, start=1)
        if point.flops > 0 and point.bytes > 0 and point.seconds > 0
    ]
    if not numbered:
        return ""
    shown = [point for _, point in numbered]
    ridge = [rate / bandwidth for rate in rates.values()] if bandwidth else []
    x = LogScale([*(p.intensity for p in shown), *ridge], 100)
    y = LogScale(
        [*(p.flops_per_second for p in shown), *rates.values()], ROOFLINE_HEIGHT, rises=False
    )
    body = _roofline_axes(x, y) + _roofs(x, y, rates, bandwidth) + _marks(numbered, x, y)
    told = f"Roofline of {label}: FLOPs a second over FLOPs a byte"
    return area(ROOFLINE_HEIGHT + AXIS_HEIGHT, told, body)


def _roofline_axes(x: LogScale, y: LogScale) -> str:
    levels = "".join(
        f'<line class="level" x2="100%" y1="{y.at(v)}" y2="{y.at(v)}"/>'
        f'<text class="left" x="-8" y="{round(y.at(v) + 3.5, 1)}">{prefixed(v)}</text>'
        for v in y.powers(8)
    )
    bottom = ROOFLINE_HEIGHT
    ticks = "".join(
        f'<line class="tick" x1="{x.at(v)}%" x2="{x.at(v)}%" y1="{bottom}" y2="{bottom + 5}"/>'
        f'<text class="middle" x="{x.at(v)}%" y="{bottom + 17}">{v:g}</text>'
        for v in x.powers(6)
        if 2 < x.at(v) < 98
    )
    return levels + ticks


def prefixed(value: float) -> str:
    """Write a rate of FLOPs with the prefix that reads best.

    >>> prefixed(1e11), prefixed(2.5e9)
    ('100 G', '2.5 G')
    """
    rounded = float(f"{value:.3g}")  # or 999.9 would be written as 1e+03
    factor, prefix = next((f, p) for f, p in _PREFIXES if rounded >= f or f == 1.0)
    return f"{rounded / factor:.3g} {prefix}".rstrip()


def rate(value: float, unit: str) -> str:
    """Write a rate with the prefix that reads best and its unit.

    >>> rate(3.27e8, "FLOP/s"), rate(12.0, "B/s")
    ('327 MFLOP/s', '12 B/s')
    """
    text = prefixed(value)
    return f"{text}{unit}" if text[-1:].isalpha() else f"{text} {unit}"


def _roofs(x: LogScale, y: LogScale, rates: Mapping[str, float], bandwidth: float | None) -> str:
    """Draw a flat roof a dtype, and the sloped one of bandwidth up to the highest."""
    parts: list[str] = []
    taken: list[float] = []
    low = 10.0**x.low
    for name, rate in sorted(rates.items(), key=lambda pair: -pair[1]):
        begin = x.at(max(rate / bandwidth, low)) if bandwidth else 0
        parts.append(f'<line class="roof" x1="{begin}%" x2="100%" y1="{y.at(rate)}" '
                     f'y2="{y.at(rate)}"/>')  # fmt: skip
        if all(abs(y.at(rate) - other) > 14 for other in taken):
            taken.append(y.at(rate))
            text = f"{name}, {prefixed(rate)}FLOP/s"
            parts.append(f'<text class="end" x="100%" y="{round(y.at(rate) - 5, 1)}">{text}</text>')
    if bandwidth and rates:
        left = max(low, 10.0**y.low / bandwidth)
        right = max(rates.values()) / bandwidth
        parts.append(
            f'<line class="roof" x1="{x.at(left)}%" y1="{y.at(left * bandwidth)}" '
            f'x2="{x.at(right)}%" y2="{y.at(right * bandwidth)}"/>'
            + _slope_label(x, y, (left, right), bandwidth)
        )
    return "".join(parts)


def _slope_label(x: LogScale, y: LogScale, ends: tuple[float, float], bandwidth: float) -> str:
    """Name the slope left of a third of its length, above which no roof is."""
    left, right = ends
    place = left * (right / left) ** SLOPE_LABEL_SHARE
    text = f"memory, {prefixed(bandwidth)}B/s"
    return (
        f'<text class="end" x="{x.at(place)}%" dx="-8" '
        f'y="{round(y.at(place * bandwidth) - 2, 1)}">{text}</text>'
    )


def _marks(points: Sequence[tuple[int, Point]], x: LogScale, y: LogScale) -> str:
    """Draw dots for formulas and squares for counters; numbers are those of the table below."""
    parts: list[str] = []
    taken: list[tuple[float, float]] = []
    places = [(x.at(point.intensity), y.at(point.flops_per_second)) for _, point in points]
    for number, point in points:
        px, py = x.at(point.intensity), y.at(point.flops_per_second)
        title = f"<title>{escape(f'{number}: {point.name}, {point.source}')}</title>"
        if point.source == "counted":
            parts.append(f'<svg x="{px}%" y="{py}" overflow="visible"><rect class="counted" '
                         f'x="-4" y="-4" width="8" height="8">{title}</rect></svg>')  # fmt: skip
        else:
            parts.append(
                f'<circle class="{point.kind}" cx="{px}%" cy="{py}" r="4.5">{title}</circle>'
            )
        free = all(abs(px - ox) > 5 or abs(py - oy) > 14 for ox, oy in taken)
        free &= not any(0.5 < ox - px < 4 and abs(py - oy) < 9 for ox, oy in places)
        if number <= MOST_NAMED and free and px < 96:
            taken.append((px, py))
            parts.append(f'<text x="{px}%" dx="7" y="{round(py + 4, 1)}">{number}</text>')
    return "".join(parts)
