"""Make the rows of the page's tables: results, effects, and what did not finish."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.modes import INFERENCE
from bertopt_bench.report import strips, wording
from bertopt_bench.stats.estimates import EFFECT_METRICS, Cell, Effect, Spread, level_spread, words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from markupsafe import Markup

    from bertopt_bench.stats.estimates import Axis, Metric
    from bertopt_bench.stats.facts import Facts

MOST_AXIS_COLUMNS = 4  # of the results table: more of them leave no room for the results
DASH = "–"  # noqa: RUF001 - an en dash, as in a range


@dataclass(frozen=True)
class Column:
    """A column of numbers: what it is called, its unit, where it is read, how it is written."""

    title: str
    unit: str
    key: str
    write: Callable[[float], str]


def scaled(factor: float, digits: int = 3) -> Callable[[float], str]:
    """Write values divided by a unit's size."""
    return lambda value: wording.significant(value / factor, digits)


# (title, unit and its size from large to small, column): one unit serves a whole column.
MEASURES: tuple[tuple[str, tuple[tuple[str, float], ...], str], ...] = (
    ("throughput", (("tokens/s", 1.0),), "tokens_per_second"),
    ("step", (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)), "step_seconds"),
    ("share of limit", (("%", 1e-2),), "ceiling_share"),
    ("peak memory", (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10)), "peak_memory_bytes"),
    ("resident memory", (("GiB", 2.0**30), ("MiB", 2.0**20)), "peak_resident_bytes"),
    ("first step", (("s", 1.0), ("ms", 1e-3)), "time_to_first_step_seconds"),
)


def number_columns(facts: Facts) -> list[Column]:
    """Choose the columns that have values, and the unit that suits most of each."""
    columns = []
    if facts.measured("final_loss"):
        columns.append(Column("held-out loss", "nats", "final_loss", wording.loss))
    for title, units, key in MEASURES:
        if cells := facts.measured(key):
            typical = statistics.median(cell.spreads[key].median for cell in cells)
            unit, factor = next((u for u in units if typical >= u[1]), units[-1])
            columns.append(Column(title, unit, key, scaled(factor)))
    if facts.measured("final_masked_accuracy"):
        write = lambda value: f"{value * 100:.1f}"  # noqa: E731 - a formatter among formatters
        title = "validation accuracy" if facts.measured("test_accuracy") else "accuracy"
        columns.insert(2, Column(title, "%", "final_masked_accuracy", write))
    if facts.measured("final_next_sentence_accuracy"):
        write = lambda value: f"{value * 100:.1f}"  # noqa: E731 - a formatter among formatters
        key = "final_next_sentence_accuracy"
        columns.insert(3, Column("next sentence", "% told right", key, write))
    if facts.measured("epochs_seen"):
        columns.append(Column("text seen", "times", "epochs_seen", scaled(1.0)))
    return columns


def table_axes(facts: Facts) -> tuple[Axis, ...]:
    """Give the axes that have a column in the results table: few; many leave it to the label."""
    return tuple(facts.axes) if len(facts.axes) <= MOST_AXIS_COLUMNS else ()


def table_rows(facts: Facts, columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Make the rows of the results table: ranked cells first, and those that never ran last."""
    order = {cell.id: place for place, cell in enumerate(facts.cells)}
    continued = Counter(row["cell_id"] for row in facts.rows if words(row.get("interrupted")))
    return [
        {
            "index": order[cell.id],
            "rank": facts.ranks.get(cell.id),
            "levels": [cell.levels.get(axis.name, "") for axis in table_axes(facts)],
            "label": cell.label,
            "one": cell.runs == 1,
            "numbers": [number_text(cell.spreads.get(c.key), c.write) for c in columns],
            "marks": marks(cell) + interruptions(continued[cell.id]),
            "session": facts.sessions.index(cell.session) + 1 if cell.session else None,
        }
        for cell in sorted(
            facts.cells, key=lambda c: (facts.ranks.get(c.id, float("inf")), c.runs == 0)
        )
    ]


def number_text(spread: Spread | None, write: Callable[[float], str]) -> tuple[str, str] | None:
    """Write a median, and for under it its range and n."""
    if spread is None:
        return None
    if spread.n == 1:
        return write(spread.median), "one run"
    low, high = write(spread.low), write(spread.high)
    reach = low if low == high else f"{low}{DASH}{high}"
    return write(spread.median), f"{reach} · n {spread.n}"


def marks(cell: Cell) -> list[tuple[str, str]]:
    """List what a reader must know before trusting a row."""
    found = [
        (status, f"{count} {status.replace('_', ' ')}")
        for status, count in cell.statuses.items()
        if status != "ok"
    ]
    if cell.runs == 1:
        found.append(("one-run", "one run"))
    if cell.is_tuned:
        points = wording.plural(cell.tuned_points, "point") if cell.tuned_points else ""
        found.append(("tuned", f"tuned, {points}" if points else "tuned"))
        found += [("one-run", f"edge optimum: {cell.edge_optimum}")] if cell.edge_optimum else []
    elif cell.runs and cell.levels.get("mode") != INFERENCE:
        found.append(("untuned", "untuned"))
    seen = cell.spreads.get("epochs_seen")
    if seen is not None and seen.high > 1:
        found.append(("one-run", f"text seen {seen.high:.1f} times"))
    return found


def interruptions(count: int) -> list[tuple[str, str]]:
    """Say how many trials of a cell went on from a checkpoint: their times are left out."""
    return [("interrupted", f"{count} interrupted, times left out")] if count else []


def effect_table(facts: Facts) -> dict[str, Any]:
    """Make a group an axis, a row a level, a cell a metric; a metric's strips share a scale."""
    metrics = [m for m in EFFECT_METRICS if facts.measured(m.column)]
    every = [e for found in facts.effects.values() for e in found]
    scales = [strips.Scale.of(m, [e for e in every if e.metric == m]) for m in metrics]
    groups = []
    for axis in facts.axes:
        found = {(e.level, e.metric): e for e in facts.effects[axis.name]}
        rows = [
            {
                "level": level,
                "cells": [
                    effect_cell(found.get((level, scale.metric)), scale)
                    | {"margin": margin(facts, axis.name, level, scale.metric)}
                    for scale in scales
                ],
            }
            for level in axis.levels
        ]
        groups.append({"axis": axis, "rows": rows})
    return {
        "groups": groups,
        "rulers": [
            {
                "title": scale.metric.title,
                "key": scale.metric.column,
                "unit": HEADS[scale.metric.column],
                "svg": safe(strips.ruler(scale)),
            }
            for scale in scales
        ],
    }


HEADS = {
    "final_loss": "nats, difference",
    "tokens_per_second": "tokens/s, change in %",
    "peak_memory_bytes": "change in %",
}
MARGIN_WORDS: dict[str, tuple[Callable[[float], str], str]] = {
    "final_loss": (wording.loss, " nats"),
    "tokens_per_second": (wording.significant, ""),
    "peak_memory_bytes": (wording.memory, ""),
}


def margin(facts: Facts, axis: str, level: str, metric: Metric) -> str:
    """Write where a level's own cells lie, the other axes mixed."""
    spread = level_spread(facts.cells, axis, level, metric)
    if spread is None:
        return "no cell finished"
    write, unit = MARGIN_WORDS[metric.column]
    told = f"{wording.plural(spread.n, 'cell')}: {write(spread.median)}{unit}"
    low, high = write(spread.low), write(spread.high)
    if low.split(" ")[1:] == high.split(" ")[1:]:
        low = low.split(" ")[0]
    return f"{told} ({low}{DASH}{high})" if spread.n > 1 else told


def effect_cell(effect: Effect | None, scale: strips.Scale) -> dict[str, Any]:
    """Draw and write one level's effect on one metric; the reference level has none."""
    if effect is None:
        return {"svg": "", "median": "", "n": "reference", "spread": ""}
    lost = [f"{effect.unfinished} unfinished"] if effect.unfinished else []
    lost += [f"{effect.unlike} on unlike data"] if effect.unlike else []
    spread = effect.spread
    if spread is None:
        return {"svg": "", "median": "", "n": ", ".join(lost) or "no matching cells", "spread": ""}
    median = wording.change(effect, spread.median)
    told = wording.spread_of_changes(effect, spread)
    drawn = strips.strip(effect, spread, scale, f"median {median}, {told}")
    low, q1, q3, high = (
        wording.change(effect, v, unit=False)
        for v in (spread.low, spread.q1, spread.q3, spread.high)
    )
    extent = f"{q1} to {q3} ({low} to {high})" if spread.n > 1 else "one context"
    return {
        "svg": safe(drawn),
        "median": median,
        "n": ", ".join([f"n {spread.n}", *lost]),
        "spread": extent.replace(f"{wording.NBSP}%", ""),
    }


def safe(svg: str) -> Markup:
    """Mark a drawing as HTML: it holds numbers and our own words only."""
    from markupsafe import Markup

    return Markup(svg)  # noqa: S704 - no text from results is in it


def unfinished(facts: Facts) -> list[dict[str, Any]]:
    """Group trials that did not run to the end by status and reason."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for row in facts.rows:
        status = words(row["status"])
        if status == "ok":
            continue
        reason = words(row.get("reason")) or "no reason recorded"
        group = groups.setdefault(
            (status, reason), {"status": status, "reason": reason, "trials": 0, "cells": {}}
        )
        group["trials"] += 1
        label = words(row.get("label")) or row["cell_id"]
        group["cells"].setdefault(label, set()).add(words(row.get("seed")))
    return sorted(groups.values(), key=lambda g: (g["status"], -g["trials"], g["reason"]))
