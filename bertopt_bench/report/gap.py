"""Show the generalisation gap: train and held-out loss by step, and what closing it costs.

Both are evaluated alike, without regularizer; a cell's figures are over its seeds.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

from bertopt_bench.report import wording
from bertopt_bench.report.rows import number_text, safe
from bertopt_bench.stats.estimates import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas import DataFrame

    from bertopt_bench.stats.estimates import Cell
    from bertopt_bench.stats.facts import Facts

MOST_CURVES = 24
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 340, 190, 38, 24, 8
SIDES = (("train_loss", "train"), ("loss", "held-out"))


def gap_section(facts: Facts, evaluations: DataFrame) -> dict[str, Any] | None:
    """Give all that the section shows; None where no train text was evaluated."""
    cells = facts.measured("generalisation_gap")
    if not cells:
        return None
    shown = sorted(cells, key=lambda cell: cell.spreads["final_loss"].median)
    bases = {_others(c): c for c in shown if c.levels.get("regularizer") == "none"}
    bounds = _bounds(shown, evaluations)
    return {
        "rows": [_row(cell, bases.get(_others(cell))) for cell in shown],
        "curves": [_curve(cell, evaluations, bounds) for cell in shown[:MOST_CURVES]],
        "left_out": max(0, len(shown) - MOST_CURVES),
        "has_base": bool(bases),
    }


def _others(cell: Cell) -> tuple[tuple[str, str], ...]:
    """Give a cell's levels but for its regularizer: what its cost is compared within."""
    return tuple(sorted((k, v) for k, v in cell.levels.items() if k != "regularizer"))


def _row(cell: Cell, base: Cell | None) -> dict[str, Any]:
    spreads = cell.spreads
    names = ("final_train_loss", "final_loss", "generalisation_gap", "best_loss")
    return {
        "label": cell.label,
        "runs": cell.runs,
        "numbers": [number_text(spreads.get(name), wording.loss) for name in names],
        "milliseconds": number_text(
            spreads.get("step_seconds"), lambda value: wording.significant(value * 1e3)
        ),
        "cost": _cost(cell, base),
    }


def _cost(cell: Cell, base: Cell | None) -> str:
    """Write the step time against that without regularizer, where one session has both."""
    if base is None or cell is base or cell.session != base.session:
        return ""
    ours, theirs = cell.spreads.get("step_seconds"), base.spreads.get("step_seconds")
    if ours is None or theirs is None:
        return ""
    percent = f"{(ours.median / theirs.median - 1) * 100:+.0f}".replace("-", wording.MINUS)
    return f"{percent}{wording.NBSP}%"


def _curve(cell: Cell, evaluations: DataFrame, bounds: tuple[float, float, int]) -> dict[str, Any]:
    own = evaluations[evaluations["trial"].isin(cell.trials)]
    lines = {name: _medians(own, column) for column, name in SIDES}
    return {"label": cell.label, "svg": safe(draw(lines, bounds))}


def _medians(own: DataFrame, column: str) -> list[tuple[int, float]]:
    """Give the median over seeds at each step."""
    found: dict[int, list[float]] = {}
    for step, value in zip(own["step"], own[column], strict=True):
        if (kept := number(value)) is not None and math.isfinite(kept):
            found.setdefault(int(step), []).append(kept)
    return [(step, statistics.median(values)) for step, values in sorted(found.items())]


def _bounds(cells: Sequence[Cell], evaluations: DataFrame) -> tuple[float, float, int]:
    """Give lowest and highest loss and the last step: one scale for all curves."""
    trials = {trial for cell in cells for trial in cell.trials}
    own = evaluations[evaluations["trial"].isin(trials)]
    values = [v for column, _ in SIDES for _, v in _medians(own, column)]
    lows = [v for cell in cells for v in (cell.spreads["final_train_loss"].low, *values)]
    return min(lows), max(values), max(1, int(own["step"].max()))


def draw(lines: dict[str, list[tuple[int, float]]], bounds: tuple[float, float, int]) -> str:
    """Draw both losses by step: train dashed, held-out whole, told apart without colour."""
    low, high, last = bounds
    span = (high - low) or 1.0

    def place(step: int, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - 6) * step / last
        y = TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / span
        return f"{x:.1f} {y:.1f}"

    paths = "".join(
        f'<path class="gap-{name.split("-")[0]}" d="M{"L".join(place(*p) for p in points)}"/>'
        for name, points in lines.items()
        if points
    )
    ends = ", ".join(f"{n} {wording.loss(p[-1][1])}" for n, p in lines.items() if p)
    marks = "".join(
        f'<text x="{LEFT - 5}" y="{y}" text-anchor="end">{value:.2f}</text>'
        for y, value in ((TOP + 8, high), (HEIGHT - BOTTOM, low))
    )
    return (
        f'<svg class="gap" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="loss by step, at the end {ends}">'
        f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - 6}"/>{paths}{marks}'
        f'<text x="{LEFT}" y="{HEIGHT - 8}">step 0</text>'
        f'<text x="{WIDTH - 6}" y="{HEIGHT - 8}" text-anchor="end">{last:,}</text></svg>'
    )
