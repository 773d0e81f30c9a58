"""Show what memory is for: bars of parts, measured above and by formula below, and their table.

Trials whose parts are the same byte for byte share a row: optimizers' rates and schedules, say,
change no byte.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertopt_bench.report import wording
from bertopt_bench.report.rows import DASH, safe
from bertopt_bench.stats.estimates import number, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertopt_bench.stats.estimates import Trial
    from bertopt_bench.stats.facts import Facts

MOST_ROWS = 40
WIDTH, BAR, GAP = 300, 13, 3
PARTS = {
    "parameter": "weights",
    "gradient": "gradients",
    "optimizer_state": "optimizer state",
    "regularizer_state": "regularizer state",
    "activation": "activations",
    "input": "batch",
    "temporary": "temporary",
    "other": "other",
}
"""Column of the trials table (``memory_<part>_bytes``) and its name on the page."""


@dataclass(frozen=True)
class _Group:
    """Trials that agree in every attributed byte."""

    trials: Sequence[Trial]

    def value(self, column: str) -> float | None:
        """Give a column's value in all of them, None where it is missing."""
        return number(self.trials[0].get(column))

    def bytes_of(self, prefix: str, part: str) -> float:
        """Give a part's bytes; what a formula does not have is 0."""
        return self.value(f"{prefix}_{part}_bytes") or 0.0

    def total(self, prefix: str) -> float:
        """Add the parts up."""
        return sum(self.bytes_of(prefix, part) for part in PARTS)


def memory_section(facts: Facts) -> dict[str, Any] | None:
    """Give all that the section shows; None where no trial's memory was attributed."""
    groups = _groups(facts.rows)
    if not groups:
        return None
    shown = groups[:MOST_ROWS]
    parts = [part for part in PARTS if any(_present(group, part) for group in shown)]
    scale = max(max(g.total("memory"), g.total("memory_formula")) for g in shown)
    return {
        "parts": [{"key": part, "title": PARTS[part]} for part in parts],
        "rows": [_row(group, parts, scale) for group in shown],
        "left_out": len(groups) - len(shown),
        "trials": sum(len(group.trials) for group in groups),
        "slack": any(g.value("memory_slack_bytes") is not None for g in shown),
        "resident": any(g.value("memory_unexplained_bytes") is not None for g in shown),
        "agreement": _agreement(groups),
        "forecast": _forecast(groups),
    }


def _groups(rows: Sequence[Trial]) -> list[_Group]:
    """Group the trials that have parts, the largest peak first."""
    found: dict[tuple[Any, ...], list[Trial]] = defaultdict(list)
    for row in rows:
        if number(row.get("memory_attributed_bytes")) is None:
            continue
        columns = [f"{prefix}_{p}_bytes" for prefix in ("memory", "memory_formula") for p in PARTS]
        figures = [number(row.get(column)) for column in columns]
        found[words(row.get("memory_moment")), *figures].append(row)
    groups = [_Group(tuple(trials)) for trials in found.values()]
    return sorted(groups, key=lambda group: -group.total("memory"))


def _present(group: _Group, part: str) -> bool:
    """Say whether a part is more than a thousandth; what is less is in the data alone."""
    return any(
        group.bytes_of(prefix, part) > 1e-3 * group.total(prefix)
        for prefix in ("memory", "memory_formula")
    )


def _row(group: _Group, parts: Sequence[str], scale: float) -> dict[str, Any]:
    measured, formula = group.total("memory"), group.total("memory_formula")
    labels = dict.fromkeys(words(t.get("label")) or words(t.get("cell_id")) for t in group.trials)
    return {
        "labels": list(labels),
        "n": len(group.trials),
        "moment": words(group.trials[0].get("memory_moment")),
        "bars": safe(_bars(group, parts, scale)),
        "cells": [_part_cell(group, part) for part in parts],
        "peak": wording.memory(measured),
        "formula": wording.memory(formula),
        "error": _signed(formula / measured - 1),
        "independent": _spread(group, "memory_independent_bytes"),
        "difference": _signed(group.value("memory_difference") or 0.0),
        "slack": _spread(group, "memory_slack_bytes"),
        "unexplained": _spread(group, "memory_unexplained_bytes"),
    }


def _part_cell(group: _Group, part: str) -> dict[str, str]:
    """Write a part at the peak, its formula, and the most it takes where that is more."""
    at_peak = group.bytes_of("memory", part)
    most = group.value(f"memory_most_{part}_bytes")
    formula_most = group.value(f"memory_formula_most_{part}_bytes")
    return {
        "measured": wording.memory(at_peak),
        "formula": wording.memory(group.bytes_of("memory_formula", part)),
        "most": wording.memory(most) if most is not None else "",
        "formula_most": wording.memory(formula_most) if formula_most is not None else "",
    }


def _bars(group: _Group, parts: Sequence[str], scale: float) -> str:
    """Draw two stacked bars, measured and by formula; all bars of the section share a scale."""
    told = "; ".join(
        f"{kind} {wording.memory(group.total(prefix))}"
        for kind, prefix in (("measured", "memory"), ("formula", "memory_formula"))
    )
    drawn = []
    for y, prefix in ((0, "memory"), (BAR + GAP, "memory_formula")):
        x = 0.0
        for part in parts:
            width = group.bytes_of(prefix, part) / scale * WIDTH
            if width >= 0.05:
                drawn.append(
                    f'<rect class="part-{part}" x="{x:.1f}" y="{y}" width="{width:.1f}" '
                    f'height="{BAR}"/>'
                )
            x += width
    height = 2 * BAR + GAP
    return (
        f'<svg class="parts" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{told}">'
        f"{''.join(drawn)}</svg>"
    )


def _spread(group: _Group, column: str) -> str:
    """Write the lowest and highest value over the trials, or one where they agree; a unit once."""
    values = sorted(v for t in group.trials if (v := number(t.get(column))) is not None)
    if not values:
        return ""
    low, high = _size(values[0]), _size(values[-1])
    if low == high:
        return low
    (least, unit), (_, last) = low.split(), high.split()
    return f"{least if unit == last else low} {DASH} {high}"


def _size(value: float) -> str:
    return wording.memory(value) if value >= 0 else f"{wording.MINUS}{wording.memory(-value)}"


def _signed(share: float) -> str:
    percent = f"{share * 100:+.1f}".replace("-", wording.MINUS)
    return "0.0" + wording.NBSP + "%" if percent[1:] == "0.0" else f"{percent}{wording.NBSP}%"


def _agreement(groups: Sequence[_Group]) -> str:
    """Say how far the attributed peak lies from the other pass' at most, over how many trials."""
    found = [
        abs(value)
        for group in groups
        for trial in group.trials
        if (value := number(trial.get("memory_difference"))) is not None
    ]
    return f"{max(found) * 100:.2f}{wording.NBSP}% at most, n {len(found)}"


def _forecast(groups: Sequence[_Group]) -> str:
    """Say how far the formula lies from the measured peak at most, over how many distinct ones."""
    off = [abs(g.total("memory_formula") / g.total("memory") - 1) for g in groups]
    return f"{max(off) * 100:.1f}{wording.NBSP}% at most, n {len(off)}"
