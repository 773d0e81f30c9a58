"""Show cells that ran forward only: latency and throughput by batch size."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.labels import SEPARATOR
from bertopt_bench.matrix.modes import INFERENCE, TRAINING_CHOICES, TRAINING_KERNELS
from bertopt_bench.report import wording
from bertopt_bench.report.inference_figures import Curve, Point, draw
from bertopt_bench.report.rows import DASH, number_text, safe, scaled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertopt_bench.stats.estimates import Cell
    from bertopt_bench.stats.facts import Facts

UNNAMED = {"mode", "batch_size", *TRAINING_CHOICES, *(f"kernel.{op}" for op in TRAINING_KERNELS)}
"""Axes that name no curve: what a forward pass does not use, and what lies along the figure."""
LATENCY_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
FEW = "fewer than 100 passes"


def is_forward(cell: Cell) -> bool:
    """Say whether a cell ran, or would run, forward only."""
    return cell.levels.get("mode") == INFERENCE


def trains(facts: Facts) -> bool:
    """Say whether any cell trains, so that losses may be spoken of."""
    return not facts.cells or not all(map(is_forward, facts.cells))


def measured(facts: Facts) -> list[Cell]:
    """List the inference cells that were timed, smallest batch first."""
    cells = [c for c in facts.cells if is_forward(c) and "latency_seconds" in c.spreads]
    return sorted(cells, key=batch_size)


def batch_size(cell: Cell) -> int:
    """Read the batch size of a cell."""
    return int(cell.levels["batch_size"])


def grouped(facts: Facts) -> dict[str, list[Cell]]:
    """Group the timed cells by all that varies but the batch size."""
    names = [axis.name for axis in facts.axes if axis.name not in UNNAMED]
    groups: dict[str, list[Cell]] = defaultdict(list)
    for cell in measured(facts):
        levels = [cell.levels[name] for name in names if cell.levels.get(name)]
        groups[SEPARATOR.join(levels)].append(cell)
    return dict(sorted(groups.items()))


def inference_section(facts: Facts) -> dict[str, Any] | None:
    """Make the section's table and figures; None where nothing ran forward only."""
    groups = grouped(facts)
    if not groups:
        return None
    unit, factor = _latency_unit(measured(facts))
    return {
        "unit": unit,
        "groups": [
            {"label": label or "all cells", "rows": [_row(cell, factor) for cell in cells]}
            for label, cells in groups.items()
        ],
        "figures": [
            {"title": title, "svg": safe(svg), "legend": legend}
            for title, svg, legend in _figures(groups, unit, factor)
        ],
    }


def _latency_unit(cells: Sequence[Cell]) -> tuple[str, float]:
    typical = statistics.median(cell.spreads["latency_seconds"].median for cell in cells)
    return next((unit for unit in LATENCY_UNITS if typical >= unit[1]), LATENCY_UNITS[-1])


def _row(cell: Cell, factor: float) -> dict[str, Any]:
    """Write a batch size: every number with what lies around it and n, the trials of a session."""
    spreads, latency = cell.spreads, scaled(factor)
    passes = spreads["latency_samples"]
    return {
        "batch": batch_size(cell),
        "numbers": [
            number_text(spreads["latency_seconds"], latency),
            number_text(spreads.get("latency_seconds_p99"), latency) or (DASH, FEW),
            (f"{passes.median:,.0f}", ""),
            number_text(spreads.get("sequences_per_second"), wording.significant),
            number_text(spreads.get("tokens_per_second"), wording.significant),
            number_text(spreads.get("peak_memory_bytes"), wording.memory),
        ],
    }


def _figures(
    groups: dict[str, list[Cell]], unit: str, factor: float
) -> list[tuple[str, str, list[str]]]:
    """Draw latency and throughput by batch size, where there are two sizes or more."""
    sizes = {batch_size(cell) for cells in groups.values() for cell in cells}
    if len(sizes) < 2:
        return []
    found = []
    for title, column, scale in (
        (f"Latency of a batch, {unit}", "latency_seconds", factor),
        ("Real tokens a second", "tokens_per_second", 1.0),
    ):
        curves = [
            Curve(
                label,
                tuple(
                    Point(batch_size(cell), *(v / scale for v in (s.low, s.median, s.high)))
                    for cell in cells
                    if (s := cell.spreads.get(column))
                ),
            )
            for label, cells in groups.items()
        ]
        drawn, legend = draw(curves, f"{title}, by batch size")
        found.append((title, drawn, legend))
    return found


def sentences(facts: Facts) -> list[str]:
    """Say how long a batch took; nothing where nothing ran forward only."""
    cells = sorted(measured(facts), key=lambda cell: cell.spreads["latency_seconds"].median)
    if not cells:
        return []
    low, high = cells[0], cells[-1]
    first = f"{_latency(low)} ({low.label})"
    reach = first if low is high else f"between {first} and {_latency(high)} ({high.label})"
    single = all(cell.spreads["latency_seconds"].n == 1 for cell in cells)
    counted = f"{wording.plural(len(cells), 'cell')} ({'one run each' if single else 'medians'})"
    return [f"Forward only, a batch took {reach}, over {counted}."]


def _latency(cell: Cell) -> str:
    return wording.duration(cell.spreads["latency_seconds"].median)


def methods(facts: Facts) -> list[str]:
    """Say how inference was measured; nothing where nothing ran forward only."""
    if not measured(facts):
        return []
    text = (
        "Inference cells ran the same network forward only, in evaluation mode and without "
        "gradients: the encoder, and the head on the masked slots of each batch, at the initial "
        "weights. After the burn-in the passes ran back to back, each of them a sample of the "
        "latency: on a CPU the time of a pass, on a GPU the time between the ends of two, since "
        "the host never waited. The median and the 99th percentile are of one trial's passes; a "
        "percentile needs 100 of them. Peak memory and the list of kernels come from a traced "
        "pass of their own; one untimed evaluation of held-out text shows that the pass computes "
        "what it should. Training axes do not apply: of cells that differ in nothing else the "
        "first ran."
    )
    return [text]
