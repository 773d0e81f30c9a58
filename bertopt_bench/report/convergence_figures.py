"""Draw training curves and what they came to: plain SVG that needs no script.

Places along x are per cent of the width; lines stand in a stretched drawing whose strokes do not
scale, so that a figure fits a phone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from bertopt_bench.report import wording
from bertopt_bench.report.duel_scales import apart, round_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Write = Callable[[float], str]
    Points = Sequence[tuple[float, float]]

UNITS, AXIS_HEIGHT = 1000, 24
PANEL_HEIGHT, PLANE_HEIGHT, STRIP_HEIGHT = 120, 260, 34
MOST_SERIES = 7  # colours that can be told apart
NAME_HEIGHT, LETTER_SHARE = 15, 0.018  # a name's: pixels, and share of a phone's width a letter
NAME_PLACES = (-6, 16, -22, 32, -38, 48)  # pixels below the mark, the first that is free


@dataclass(frozen=True)
class Span:
    """Map values to a share of a length, by their size or their logarithm."""

    low: float
    high: float
    is_log: bool = False

    @classmethod
    def of(cls, values: Iterable[float], air: float = 0.05, *, is_log: bool = False) -> Span:
        """Span all finite values with a little air."""
        kept = [_log(v) if is_log else v for v in values if math.isfinite(v)] or [0.0]
        low, high = min(kept), max(kept)
        room = (high - low) * air or abs(high) * 0.05 or 0.5
        return cls(low - room, high + room, is_log)

    def share(self, value: float) -> float:
        """Place a value: 0 at the low end, 1 at the high one; it may lie outside."""
        placed = _log(value) if self.is_log else value
        return (placed - self.low) / (self.high - self.low)

    def ticks(self, most: int = 5) -> list[float]:
        """Choose round values inside."""
        if not self.is_log:
            return round_values(self.low, self.high, most)
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        every = [10.0**p * m for p in powers for m in (1, 2, 5)]
        inside = [v for v in every if self.low <= math.log10(v) <= self.high]
        wide = [v for v in inside if math.isclose(math.log10(v) % 1, 0, abs_tol=1e-9)]
        return wide if len(inside) > most and len(wide) > 1 else inside


@dataclass(frozen=True)
class Panel:
    """The curves of one submission, a line a run; ``lost`` are ends of runs that diverged."""

    name: str
    curves: tuple[Points, ...]
    lost: Points = ()


def panels(found: Sequence[Panel], key: str, write: Write, target: float | None) -> list[str]:
    """Draw a panel a submission on common scales: its own runs in front of everybody's."""
    across = Span.of([x for p in found for curve in p.curves for x, _ in curve], air=0.0)
    up = _zoomed(found)
    everybody = "".join(_path(curve, across, up, PANEL_HEIGHT) for p in found for curve in p.curves)
    defined = (
        f'<path id="{key}" class="others" vector-effect="non-scaling-stroke" d="{everybody}"/>'
    )
    drawn = []
    for number, panel in enumerate(found):
        behind = f'<use href="#{key}"/>' if number else defined
        own = "".join(_path(curve, across, up, PANEL_HEIGHT) for curve in panel.curves)
        front = f'<path class="own" vector-effect="non-scaling-stroke" d="{own}"/>'
        crosses = "".join(_cross(at, across, up) for at in panel.lost)
        body = (
            f"{_levels(up, write, PANEL_HEIGHT, 4)}{_target(up, target)}"
            f"{_stretched(behind + front, PANEL_HEIGHT)}{crosses}"
            f"{_ticks(across, PANEL_HEIGHT, lambda v: f'{v:,.0f}', 3)}"
        )
        told = f"Curves of {panel.name}, {wording.plural(len(panel.curves), 'run')}"
        drawn.append(area(PANEL_HEIGHT + AXIS_HEIGHT, told, body))
    return drawn


def strip(values: Sequence[float], span: Span, told: str, baseline: float) -> str:
    """Draw each run's time to the target as a dot; those that never got there at the right edge."""
    middle = STRIP_HEIGHT / 2
    parts = [f'<line class="level" x2="94%" y1="{middle}" y2="{middle}"/>']
    if math.isfinite(baseline):
        x = _percent(span.share(baseline) * 0.9)
        parts.append(f'<line class="zero" x1="{x}" x2="{x}" y2="{STRIP_HEIGHT}"/>')
    finite = sorted(v for v in values if math.isfinite(v))
    parts += [
        f'<circle class="run" cx="{_percent(span.share(value) * 0.9)}" cy="{middle}" r="4.5"/>'
        for value in finite
    ]
    never = len(values) - len(finite)
    if never:
        parts.append(f'<text class="never" x="100%" y="{middle + 4}">never: {never}</text>')
    return area(STRIP_HEIGHT, told, "".join(parts))


def strip_scale(span: Span) -> str:
    """Draw the scale that strips share."""
    marks = "".join(
        f'<text class="middle" x="{_percent(x / 100)}" y="14">{text}</text>'
        for x, text in apart([(90 * span.share(v), f"{v:,.0f}") for v in span.ticks()], 10.0)
    )
    return area(20, "Scale of the strips", marks)


def lines(
    series: Mapping[str, Points],
    told: str,
    write: Write,
    *,
    log_x: bool = False,
    steps: bool = False,
) -> tuple[str, list[str]]:
    """Draw a line a name, at most 7; give the drawing and the names that are in it."""
    shown = dict([(name, line) for name, line in series.items() if line][:MOST_SERIES])
    points = [point for line in shown.values() for point in line]
    across = Span.of([x for x, _ in points], air=0.06, is_log=log_x)  # room for a tick's text
    up = Span(0.0, 1.04) if steps else Span.of([y for _, y in points])
    drawn = "".join(
        f'<path class="series s{i}" vector-effect="non-scaling-stroke" '
        f'd="{_path(_stepped(line) if steps else line, across, up, PLANE_HEIGHT)}"/>'
        for i, line in enumerate(shown.values())
    )
    dots = "" if steps else "".join(
        f'<circle class="point s{i}" cx="{_percent(across.share(x))}" '
        f'cy="{_y(y, up, PLANE_HEIGHT)}" r="4"/>'
        for i, line in enumerate(shown.values())
        for x, y in line
        if math.isfinite(y)
    )  # fmt: skip
    body = (
        f"{_levels(up, write, PLANE_HEIGHT, 5)}{_stretched(drawn, PLANE_HEIGHT)}{dots}"
        f"{_ticks(across, PLANE_HEIGHT, lambda v: f'{v:g}', 6)}"
    )
    return area(PLANE_HEIGHT + AXIS_HEIGHT, told, body), list(shown)


@dataclass(frozen=True)
class Spot:
    """A submission in a plane: lowest, median and highest of both."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    on_front: bool
    named: bool


def front(spots: Sequence[Spot], told: str, unit: str, write_y: Write) -> str:
    """Draw submissions with their ranges; those on the front are full, joined and named."""
    kept = [s for s in spots if all(map(math.isfinite, (*s.x, *s.y)))]
    across = Span.of([v for s in kept for v in s.x], air=0.08)
    up = Span.of([v for s in kept for v in s.y], air=0.08)
    edge = sorted((s.x[1], s.y[1]) for s in kept if s.on_front)
    line = _path(edge, across, up, PLANE_HEIGHT)
    joined = f'<path class="edge" vector-effect="non-scaling-stroke" d="{line}"/>' if edge else ""
    write_x = lambda v: f"{v:g} {unit}"  # noqa: E731 - a formatter among formatters
    body = (
        f"{_levels(up, write_y, PLANE_HEIGHT, 5)}{_stretched(joined, PLANE_HEIGHT)}"
        f"{''.join(_spots(kept, across, up))}{_ticks(across, PLANE_HEIGHT, write_x, 4)}"
    )
    return area(PLANE_HEIGHT + AXIS_HEIGHT, told, body)


def area(height: int, told: str, body: str) -> str:
    """Frame a drawing and say in words what it shows."""
    return (
        f'<svg class="area" height="{height}" role="img" aria-label="{escape(told)}">{body}</svg>'
    )


def _spots(spots: Sequence[Spot], across: Span, up: Span) -> list[str]:
    """Draw each; a name goes to the nearest height at which it touches no other and is inside."""
    drawn: list[str] = []
    taken: list[tuple[float, float, float]] = []
    for spot in spots:
        at = across.share(spot.x[1])
        left, right = _name_reach(at, len(spot.name))
        y = _y(spot.y[1], up, PLANE_HEIGHT)
        beside = [height for low, high, height in taken if low < right and left < high]
        free = (
            down
            for down in NAME_PLACES
            if 10 <= y + down <= PLANE_HEIGHT - 2
            and all(abs(height - y - down) >= NAME_HEIGHT for height in beside)
        )
        down = next(free, NAME_PLACES[0])
        drawn.append(_spot(spot, across, up, down))
        if spot.named:
            taken.append((left, right, y + down))
    return drawn


def _stands_left(at: float) -> bool:
    return at > 0.6


def _name_reach(at: float, letters: int) -> tuple[float, float]:
    """Estimate from where to where a name goes, on a phone: shares of the width."""
    width = letters * LETTER_SHARE
    return (at - width, at) if _stands_left(at) else (at, at + width)


def _spot(spot: Spot, across: Span, up: Span, down: int) -> str:
    low, x, high = (_percent(across.share(v)) for v in spot.x)
    bottom, y, top = (_y(v, up, PLANE_HEIGHT) for v in spot.y)
    kind = "spot on" if spot.on_front else "spot"
    shift, anchor = ("-8", " left") if _stands_left(across.share(spot.x[1])) else ("8", "")
    place = f'class="name{anchor}" x="{x}" y="{y}" dx="{shift}" dy="{down}"'
    name = f"<text {place}>{escape(spot.name)}</text>" if spot.named else ""
    return (
        f'<line class="reach" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>'
        f'<line class="reach" x1="{x}" x2="{x}" y1="{bottom}" y2="{top}"/>'
        f'<circle class="{kind}" cx="{x}" cy="{y}" r="4.5"><title>{escape(spot.name)}</title>'
        f"</circle>{name}"
    )


def _zoomed(found: Sequence[Panel]) -> Span:
    """Span what comes after the first third of each curve; the fall before it is cut off above.

    So is a run that diverged, where any other did not: its cross tells, its losses say nothing.
    """
    every = [(curve, curve[-1:] in [(end,) for end in p.lost]) for p in found for curve in p.curves]
    ended = [curve for curve, is_lost in every if curve and not is_lost]
    kept = ended or [curve for curve, _ in every]
    return Span.of(y for curve in kept for _, y in curve[len(curve) // 3 :])


def _path(points: Points, across: Span, up: Span, height: int) -> str:
    kept = [(across.share(x) * UNITS, _y(y, up, height)) for x, y in points if math.isfinite(y)]
    return "M" + "L".join(f"{x:.0f} {y:g}" for x, y in kept) if kept else ""


def _stepped(points: Points) -> Points:
    """Make a line of corners a stair: a share holds until the next corner."""
    made = list(points[:1])
    for (_, before), (x, y) in pairwise(points):
        made += [(x, before), (x, y)]
    return made


def _y(value: float, up: Span, height: int) -> float:
    return round(height * (1 - up.share(value)), 1)


def _cross(at: tuple[float, float], across: Span, up: Span) -> str:
    y = min(max(_y(at[1], up, PANEL_HEIGHT), 8), PANEL_HEIGHT - 4)
    return f'<text class="lost middle" x="{_percent(across.share(at[0]))}" y="{y + 4}">×</text>'  # noqa: RUF001


def _target(up: Span, target: float | None) -> str:
    if target is None or not 0 <= up.share(target) <= 1:
        return ""
    y = _y(target, up, PANEL_HEIGHT)
    return f'<line class="zero" x2="100%" y1="{y}" y2="{y}"/>'


def _stretched(body: str, height: int) -> str:
    """Hold lines in units of a fixed width; what lies outside is cut off."""
    return (
        f'<svg width="100%" height="{height}" viewBox="0 0 {UNITS} {height}" '
        f'preserveAspectRatio="none">{body}</svg>'
    )


def _levels(up: Span, write: Write, height: int, most: int) -> str:
    return "".join(
        f'<line class="level" x2="100%" y1="{y}" y2="{y}"/>'
        f'<text class="left" x="-8" y="{y + 3.5:.1f}">{write(value)}</text>'
        for value in up.ticks(most)
        if 0 <= up.share(value) <= 1
        for y in (_y(value, up, height),)
    )


def _ticks(across: Span, y: int, write: Write, most: int) -> str:
    places = [(100 * across.share(v), write(v)) for v in across.ticks(most)]
    return "".join(
        f'<line class="tick" x1="{x:.1f}%" x2="{x:.1f}%" y1="{y}" y2="{y + 5}"/>'
        f'<text class="middle" x="{x:.1f}%" y="{y + 17}">{text}</text>'
        for x, text in apart([(x, t) for x, t in places if -0.1 <= x <= 97], 12.0)
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _log(value: float) -> float:
    return math.log10(value) if value > 0 else -300.0
