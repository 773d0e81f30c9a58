"""Draw a confusion matrix as a heat map, and losses by step, as plain SVG; no script needed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    Point = tuple[float, float, float, float]  # step, lowest, median, highest

CELL, MOST_LABEL = 40, 26
WIDTH, HEIGHT = 520, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 40


@dataclass(frozen=True)
class Line:
    """A curve: its colour's class and its points."""

    colour: str
    points: Sequence[Point]


def draw_matrix(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Draw counts, true classes down and predicted ones across; a shade is a share of its row."""
    from markupsafe import escape

    shown = [name if len(name) <= MOST_LABEL else name[: MOST_LABEL - 1] + "…" for name in classes]
    left = 16 + 7 * max(map(len, shown))
    top, size = left, CELL * len(classes)
    parts = []
    for row, (name, values) in enumerate(zip(shown, counts, strict=True)):
        y, total = top + row * CELL, sum(values)
        parts.append(f'<text x="{left - 8}" y="{y + 25}" text-anchor="end">{escape(name)}</text>')
        parts += [_square(left + i * CELL, y, v, total, row == i) for i, v in enumerate(values)]
    for column, name in enumerate(shown):
        x = left + column * CELL + 25
        turned = f'transform="rotate(-90 {x} {top - 8})"'
        parts.append(f'<text x="{x}" y="{top - 8}" {turned}>{escape(name)}</text>')
    told = "Confusion matrix, true classes down, predicted ones across"
    return (
        f'<svg class="confusion" viewBox="0 0 {left + size + 2} {top + size + 2}" '
        f'style="width:{left + size + 2}px" role="img" aria-label="{told}">{"".join(parts)}</svg>'
    )


def _square(x: int, y: int, count: int, total: int, right: bool) -> str:  # noqa: FBT001 - the diagonal
    share = count / total if total else 0.0
    kind = "right" if right else "wrong"
    ink = " over" if share > 0.55 else ""
    text = f'<text class="count{ink}" x="{x + CELL / 2}" y="{y + 25}">{count:,}</text>'
    shade = 0.0 if not count else 0.12 + 0.88 * share
    return (
        f'<rect class="{kind}" x="{x}" y="{y}" width="{CELL - 1}" height="{CELL - 1}" '
        f'fill-opacity="{shade:.2f}"/>{text if count else ""}'
    )


def draw_curves(lines: Sequence[Line], told: str) -> str:
    """Draw medians over seeds by step, with bars from the lowest to the highest seed."""
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    last = max(point[0] for point in points)
    ticks = _ticks(min(point[1] for point in points), max(point[3] for point in points))
    low, high = ticks[0], ticks[-1]

    def across(step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * step / max(last, 1), 1)

    def up(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low), 1)

    parts = [
        f'<path class="grid" d="M{LEFT} {up(tick)}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 8}" y="{up(tick) + 4}" text-anchor="end">{tick:g}</text>'
        for tick in ticks
    ]
    parts += [
        f'<text x="{across(step)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
        f"{step:,.0f}</text>"
        for step in (0, last / 2, last)
    ]
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle">step</text>')
    for line in lines:
        path = "L".join(f"{across(step)} {up(middle)}" for step, _, middle, _ in line.points)
        bars = "".join(
            f"M{across(step)} {up(least)}V{up(most)}" for step, least, _, most in line.points
        )
        parts.append(
            f'<g class="curve {line.colour}"><path d="M{path}"/>'
            f'<path class="reach" d="{bars}"/></g>'
        )
    return (
        f'<svg class="by-batch" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{told}">'
        f"{''.join(parts)}</svg>"
    )


def _ticks(low: float, high: float) -> list[float]:
    """Choose four to seven round values around the range."""
    raw = (high - low or abs(high) or 1.0) / 4
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * part for part in (1, 2, 5, 10) if size * part >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * number, 10) for number in range(first, max(last, first + 1) + 1)]
