"""Cells of the tables that scoring gives: a number, and small under it its range and n."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertopt_bench.report import wording
from bertopt_bench.report.rows import DASH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Row = dict[str, Any]

NEVER = "never"
ONE_RUN = "one run"


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what it says, what stands small under it, and marks beside it."""

    text: str
    under: str = ""
    marks: tuple[str, ...] = ()


def spread(values: Sequence[float], write: Callable[[float], str], n: int = 0) -> Cell:
    """Write a median with its range and n; values in order from good to bad, or low to high."""
    count = n or len(values)
    if not values or any(math.isnan(value) for value in values):
        return Cell(DASH, f"n {count}")
    middle = values[1] if n else _median(values)
    if count == 1:
        return Cell(write(middle), ONE_RUN)
    low, high = write(values[0]), write(values[-1])
    return Cell(write(middle), f"{low if low == high else f'{low}{DASH}{high}'} · n {count}")


def _median(values: Sequence[float]) -> float:
    half = len(values) // 2
    return values[half] if len(values) % 2 else values[half - 1] / 2 + values[half] / 2


def amount(row: Row, name: str, write: Callable[[float], str]) -> Cell:
    """Write what was spent: median, range, n."""
    value = row.get(name, math.nan)
    if math.isnan(value):
        return Cell(DASH)
    ends = (row[f"{name}_low"], row[f"{name}_high"])
    low, high = (NEVER if math.isinf(end) else write(end) for end in ends)
    under = ONE_RUN if row["n"] == 1 else (low if low == high else f"{low}{DASH}{high}")
    return Cell(NEVER if math.isinf(value) else write(value), "" if low == NEVER else under)


def interval(row: Row, name: str, write: Callable[[float], str]) -> str:
    """Write an interval where there is one."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if math.isnan(low) else f"95 %: {write(low)}{DASH}{write(high)}"


def score_cell(row: Row | None) -> Cell:
    """Write a score with its interval and n."""
    if row is None:
        return Cell(DASH)
    shown = ""
    if not math.isnan(row["low"]):
        shown = f"95 %: {row['low']:.3f}{DASH}{row['high']:.3f}, "
    counted = ONE_RUN if row["n"] == 1 else f"n {row['n']} seeds"
    return Cell(f"{row['score']:.3f}", f"{shown}{counted}")


def times(value: float) -> str:
    """Write a speed-up."""
    if math.isinf(value):
        return "∞"
    return f"× {wording.significant(value, 3)}"  # noqa: RUF001 - a multiplication sign
