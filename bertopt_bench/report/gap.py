"""Show the generalisation gap: train and held-out loss by step, and what closing it costs.

Both are evaluated alike, without regularizer; a cell's figures are over its seeds, and what a
regularizer changes is paired by seed with the cell that differs in having none.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

from bertopt_bench.report import wording
from bertopt_bench.report.rows import number_text, safe
from bertopt_bench.report.sentences import models
from bertopt_bench.stats.estimates import Spread, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas import DataFrame

    from bertopt_bench.stats.estimates import Cell
    from bertopt_bench.stats.facts import Facts

MOST_CURVES = 24
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 340, 190, 38, 24, 8
CHANGED = ("generalisation_gap", "final_loss")
SIDES = (("train_loss", "train"), ("loss", "held-out"))


def gap_section(facts: Facts, evaluations: DataFrame) -> dict[str, Any] | None:
    """Give all that the section shows; None where no train text was evaluated."""
    cells = facts.measured("generalisation_gap")
    if not cells:
        return None
    shown = sorted(cells, key=lambda cell: cell.spreads["final_loss"].median)
    bases = {_others(c): c for c in shown if c.levels.get("regularizer") == "none"}
    bounds = _bounds(shown, evaluations)
    changes = {c.id: _changes(facts, c, bases[_others(c)]) for c in shown if _others(c) in bases}
    return {
        "rows": [_row(c, bases.get(_others(c)), changes.get(c.id, {})) for c in shown],
        "told": _told(shown, bases, changes, models(facts)),
        "curves": [_curve(cell, evaluations, bounds) for cell in shown[:MOST_CURVES]],
        "left_out": max(0, len(shown) - MOST_CURVES),
        "has_base": bool(bases),
    }


def _others(cell: Cell) -> tuple[tuple[str, str], ...]:
    """Give a cell's levels but for its regularizer: what its cost is compared within."""
    return tuple(sorted((k, v) for k, v in cell.levels.items() if k != "regularizer"))


def _changes(facts: Facts, cell: Cell, base: Cell) -> dict[str, Spread]:
    """Give a column's differences from the cell without regularizer, seed by seed."""
    found = {}
    for column in CHANGED if cell is not base else ():
        ours, theirs = (_by_seed(facts, one, column) for one in (cell, base))
        spread = Spread.of(ours[seed] - theirs[seed] for seed in ours if seed in theirs)
        if spread is not None:
            found[column] = spread
    return found


def _by_seed(facts: Facts, cell: Cell, column: str) -> dict[Any, float]:
    """Give a value a seed; replicates of a seed train alike."""
    return {
        row.get("seed"): value
        for row in facts.rows
        if row["cell_id"] == cell.id
        and row["status"] == "ok"
        and (value := number(row.get(column))) is not None
    }


def _told(
    shown: Sequence[Cell],
    bases: Mapping[Any, Cell],
    changes: Mapping[str, Mapping[str, Spread]],
    model: str,
) -> str:
    """Say which regularizers end with a smaller gap and a lower held-out loss in every seed."""
    judged = [c for c in shown if changes.get(c.id)]
    if len(bases) != 1 or not judged:
        return ""
    closing = [c for c in judged if changes[c.id]["generalisation_gap"].high < 0]
    better = [c for c in judged if changes[c.id]["final_loss"].high < 0]
    seeds = wording.plural(min(changes[c.id]["final_loss"].n for c in judged), "seed")
    parts = [
        f"{what} with {wording.listed([_named(c, changes[c.id][column]) for c in found])}"
        for what, column, found in (
            ("the gap is smaller", "generalisation_gap", closing),
            ("the held-out loss is lower", "final_loss", better),
        )
        if found
    ]
    told = "; ".join(parts) or "neither the gap nor the held-out loss is lower with any regularizer"
    whose = f"{seeds} of {model}" if model else seeds
    return f"In each of {whose}, against none: {told}. An observation, no verdict."


def _named(cell: Cell, change: Spread) -> str:
    return f"{cell.label} ({wording.nats(change.median)}, {_range(change)})"


def _range(change: Spread) -> str:
    return f"{wording.nats(change.low)} to {wording.nats(change.high)}"


def _row(cell: Cell, base: Cell | None, changes: Mapping[str, Spread]) -> dict[str, Any]:
    spreads = cell.spreads
    names = ("final_train_loss", "final_loss", "generalisation_gap", "best_loss")
    return {
        "label": cell.label,
        "runs": cell.runs,
        "numbers": [number_text(spreads.get(name), wording.loss) for name in names],
        "milliseconds": number_text(
            spreads.get("step_seconds"), lambda value: wording.significant(value * 1e3)
        ),
        "changes": [
            (wording.nats(one.median), f"{_range(one)} · n {one.n}" if one.n > 1 else "one seed")
            if (one := changes.get(column))
            else None
            for column in CHANGED
        ],
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
