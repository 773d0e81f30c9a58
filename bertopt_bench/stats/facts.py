"""Gather what the page's three sentences state: what was run, and what came out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertopt_bench.stats.estimates import (
    EFFECT_METRICS,
    LOSS,
    Axis,
    Cell,
    Effect,
    axis_effects,
    rank_cells,
    summarise_cells,
    trial_rows,
    varying_axes,
    words,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas import DataFrame

    from bertopt_bench.stats.estimates import Trial


@dataclass(frozen=True)
class Facts:
    """Hold all estimates of a result set and the counts around them."""

    rows: Sequence[Trial]
    axes: tuple[Axis, ...]
    cells: Sequence[Cell]
    ranks: Mapping[str, int]
    effects: Mapping[str, Sequence[Effect]]
    statuses: Mapping[str, int]
    seeds: tuple[str, ...]
    replicates: int
    sessions: tuple[str, ...]
    texts: tuple[str, ...]

    def levels(self, name: str) -> list[str]:
        """List the levels of an axis, fixed or varying, that the cells have."""
        return sorted({cell.levels[name] for cell in self.cells if cell.levels.get(name)})

    def measured(self, column: str) -> list[Cell]:
        """List the cells that have a value, lowest median first."""
        kept = [cell for cell in self.cells if column in cell.spreads]
        return sorted(kept, key=lambda cell: cell.spreads[column].median)

    def strongest(self, column: str) -> Effect | None:
        """Find the comparison that moved a metric most, by its median over contexts."""
        found = [
            effect
            for effects in self.effects.values()
            for effect in effects
            if effect.metric.column == column and effect.spread
        ]
        return max(found, key=lambda e: abs(e.spread.median) if e.spread else 0.0, default=None)


def gather(trials: DataFrame) -> Facts:
    """Estimate all that a frame of trials can say without verdicts."""
    rows = trial_rows(trials)
    axes, cells = varying_axes(rows), summarise_cells(rows)
    effects = {
        axis.name: [e for metric in EFFECT_METRICS for e in axis_effects(rows, axis, metric)]
        for axis in axes
    }
    return Facts(
        rows=rows,
        axes=axes,
        cells=cells,
        ranks=rank_cells(cells),
        effects=effects,
        statuses=dict(Counter(words(row["status"]) for row in rows).most_common()),
        seeds=tuple(sorted({words(row.get("seed")) for row in rows}, key=lambda s: (len(s), s))),
        replicates=len({row.get("replicate") for row in rows}),
        sessions=tuple(sorted({words(row.get("session")) for row in rows} - {""})),
        texts=tuple(sorted({c.comparable for c in cells if LOSS.column in c.spreads})),
    )
