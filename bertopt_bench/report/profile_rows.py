"""Turn a profile's tables into rows to show: means over steps, quartiles, shares, differences.

Means, since they add up: parts to their step, operators to what they are the parts of. The
quartiles beside them tell where one step stands apart.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertopt_bench.report import wording
from bertopt_bench.report.wording import MINUS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bertopt_bench.measure.trace_tables import ModuleRow, OperatorRow, Seconds, TraceTables

MOST_ROWS = 40
MOST_DIFFERENCES = 60
FEWEST_FOR_QUARTILES = 3


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over steps with their quartiles."""

    mean: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Seconds) -> Spread:
        """Take the steps' values; of one or two the quartiles are the lowest and the highest."""
        if len(values) < FEWEST_FOR_QUARTILES:
            low, high = min(values), max(values)
        else:
            low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(statistics.fmean(values), low, high, len(values))

    def shown(self) -> dict[str, str]:
        """Write the mean, and the quartiles where there is more than one step."""
        spread = f"{bare(self.low)} to {wording.duration(self.high)}" if self.n > 1 else ""
        return {"value": wording.duration(self.mean), "spread": spread}


def bare(seconds: float) -> str:
    """Write seconds with their unit, as :func:`wording.duration`; zero without a unit's prefix."""
    return wording.duration(seconds) if seconds else "0"


def count(value: float) -> str:
    """Write calls a step, whole where they are.

    >>> count(28.0), count(0.3333)
    ('28', '0.333')
    """
    return f"{int(value):,}" if value.is_integer() else wording.significant(value)


def added(rows: Iterable[Seconds], steps: int) -> Seconds:
    """Add up step by step."""
    sums = [0.0] * steps
    for row in rows:
        for index, value in enumerate(row):
            sums[index] += value
    return tuple(sums)


def on_device(tables: TraceTables) -> bool:
    """Say whether the profile's work was done by a device, whose seconds then count."""
    return bool(tables.kernels)


def own(tables: TraceTables) -> Callable[[OperatorRow | ModuleRow], Seconds]:
    """Give what takes a row's own seconds: the device's where there is one, else the host's."""
    if on_device(tables):
        return lambda row: row.device_seconds
    return lambda row: row.self_seconds


def phase_rows(tables: TraceTables) -> list[dict[str, Any]]:
    """Give a row a phase."""
    total = sum(tables.step_seconds)
    return [
        {
            "phase": row.phase,
            "host": Spread.of(row.seconds).shown(),
            "device": Spread.of(row.device_seconds).shown() if on_device(tables) else None,
            "share": wording.share(sum(row.seconds) / total),
        }
        for row in tables.phases
    ]


def operator_rows(tables: TraceTables, *, by_shape: bool) -> list[dict[str, Any]]:
    """Give a row an operator, largest first, its shapes together or one by one."""
    seconds, steps = own(tables), len(tables.step_seconds)
    groups: dict[tuple[str, str], list[OperatorRow]] = {}
    for row in tables.operators:
        key = (row.name, row.shapes if by_shape else "")
        groups.setdefault(key, []).append(row)
    found = [
        (
            name,
            shapes,
            sum(row.calls for row in rows) / steps,
            added(map(seconds, rows), steps),
            added((row.self_seconds for row in rows), steps),
            added((row.total_seconds for row in rows), steps),
        )
        for (name, shapes), rows in groups.items()
    ]
    found.sort(key=lambda row: -sum(row[3]))
    everything = sum(tables.step_seconds)
    return [
        {
            "name": name,
            "shapes": shapes_shown(shapes) if by_shape else None,
            "calls": count(calls),
            "own": Spread.of(mine).shown(),
            "host": Spread.of(host).shown() if on_device(tables) else None,
            "total": Spread.of(total).shown(),
            "share": wording.share(sum(mine) / everything),
        }
        for name, shapes, calls, mine, host, total in found[:MOST_ROWS]
    ]


def shapes_shown(shapes: str) -> str:
    """Write shapes as a person does: ``[8, 64, 128] [128]``, scalars left out.

    >>> shapes_shown('[[2,3],[],[3,4]]')
    '[2, 3] [3, 4]'
    """
    text = " ".join(str(shape) for shape in json.loads(shapes) if shape)
    return text if len(text) <= 90 else f"{text[:87]}..."


def module_rows(tables: TraceTables) -> list[dict[str, Any]]:
    """Give a row a module (layers together): forward, backward and what is in neither."""
    seconds, steps = own(tables), len(tables.step_seconds)
    groups: dict[str, list[ModuleRow]] = {}
    for row in tables.modules:
        groups.setdefault(row.module, []).append(row)
    everything = sum(tables.step_seconds)
    found = []
    for module, rows in groups.items():
        of = {
            phase: added((seconds(r) for r in rows if r.phase == phase), steps)
            for phase in ("forward", "backward")
        }
        every = added(map(seconds, rows), steps)
        found.append((module, max(row.modules for row in rows), of, every))
    found.sort(key=lambda one: -sum(one[3]))
    return [
        {
            "module": module,
            "count": found_modules,
            **{
                phase: Spread.of(values).shown() if any(values) else None
                for phase, values in of.items()
            },
            "all": Spread.of(every).shown(),
            "share": wording.share(sum(every) / everything),
        }
        for module, found_modules, of, every in found[:MOST_ROWS]
    ]


def kernel_rows(tables: TraceTables) -> list[dict[str, Any]]:
    """Give a row a kernel."""
    steps, everything = len(tables.step_seconds), sum(tables.step_seconds)
    return [
        {
            "name": row.name,
            "operator": row.operator or "not known",
            "calls": count(row.calls / steps),
            "own": Spread.of(row.seconds).shown(),
            "share": wording.share(sum(row.seconds) / everything),
        }
        for row in tables.kernels[:MOST_ROWS]
    ]


def gap_rows(tables: TraceTables) -> list[dict[str, Any]]:
    """Give a row a kind of gap."""
    steps = len(tables.step_seconds)
    return [
        {
            "after": row.after,
            "before": row.before,
            "phase": row.phase,
            "count": count(row.count / steps),
            "own": Spread.of(row.seconds).shown(),
        }
        for row in tables.idle.gaps[:15]
    ]


# --- two cells ---


def difference_rows(a: TraceTables, b: TraceTables, *, by: str) -> list[dict[str, Any]]:
    """Set two profiles side by side, what differs most first.

    ``by`` is ``operator`` (modules together), ``module`` (operators together) or ``both``.
    """
    sides = [_grouped(tables, by) for tables in (a, b)]
    zeros = [(0.0,) * len(tables.step_seconds) for tables in (a, b)]
    found = []
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        spreads = [Spread.of(side.get(key, zero)) for side, zero in zip(sides, zeros, strict=True)]
        found.append((key, spreads, spreads[1].mean - spreads[0].mean))
    found.sort(key=lambda one: -abs(one[2]))
    return [
        {
            "module": key[0],
            "phase": key[1],
            "operator": key[2],
            "a": spreads[0].shown() if key in sides[0] else None,
            "b": spreads[1].shown() if key in sides[1] else None,
            "difference": signed(difference),
            "apart": not _overlap(*spreads),
        }
        for key, spreads, difference in found[:MOST_DIFFERENCES]
        if difference
    ]


def _grouped(tables: TraceTables, by: str) -> dict[tuple[str, str, str], Seconds]:
    seconds, steps = own(tables), len(tables.step_seconds)
    groups: dict[tuple[str, str, str], list[Seconds]] = {}
    for row in tables.modules:
        key = {
            "operator": ("", "", row.operator),
            "module": (row.module, row.phase, ""),
            "both": (row.module, row.phase, row.operator),
        }[by]
        groups.setdefault(key, []).append(seconds(row))
    return {key: added(rows, steps) for key, rows in groups.items()}


def _overlap(a: Spread, b: Spread) -> bool:
    return a.low <= b.high and b.low <= a.high


def signed(seconds: float) -> str:
    """Write a difference of seconds with its sign."""
    sign = "+" if seconds > 0 else MINUS if seconds < 0 else ""
    return f"{sign}{bare(abs(seconds))}"


def flat_tables(views: Sequence[tuple[str, TraceTables]]) -> dict[str, list[dict[str, Any]]]:
    """Give every number as rows for download, a column a step."""
    made: dict[str, list[dict[str, Any]]] = {}
    for label, tables in views:
        for name in ("phases", "operators", "modules", "kernels"):
            made.setdefault(name, []).extend(
                {"cell": label, **_flat(row)} for row in getattr(tables, name)
            )
        gaps = ({"cell": label, "of": tables.idle.of, **_flat(row)} for row in tables.idle.gaps)
        made.setdefault("gaps", []).extend(gaps)
    return {name: rows for name, rows in made.items() if rows}


def _flat(row: Any) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name in row.__dataclass_fields__:
        value = getattr(row, name)
        if isinstance(value, tuple):
            stem = name.removesuffix("_seconds").removesuffix("seconds")
            start = f"{stem}_" if stem else ""
            flat |= {f"{start}step_{i}_seconds": one for i, one in enumerate(value, start=1)}
        else:
            flat[name] = value
    return flat
