"""Pack what the page's figures and downloads read: the plotting library and the data."""

from __future__ import annotations

import base64
import gzip
import json
import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from bertopt_bench.stats.estimates import number, words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas import DataFrame

    from bertopt_bench.stats.facts import Facts

# However full the page, so many bytes are left for the data: curves need a few points.
LEAST_BUDGET = 60_000
SHOWN_COLUMNS = (
    "final_loss",
    "tokens_per_second",
    "peak_memory_bytes",
    "peak_resident_bytes",
    "step_seconds",
    "final_masked_accuracy",
    "time_to_first_step_seconds",
    "ceiling_share",
    "epochs_seen",
)
# Tried in order until the data fit: most evaluations kept a trial, significant digits.
LADDER = ((400, 6), (120, 6), (60, 5), (30, 5), (15, 5), (15, 4), (8, 4))


@dataclass(frozen=True)
class Packed:
    """Compressed data, and what had to be left out of them, in words."""

    text: str
    left_out: tuple[str, ...]


def compressed(text: str) -> str:
    """Compress as gzip, then base64: what `DecompressionStream` in the browser undoes."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


@cache
def plotting_library() -> str:
    """Compress the plotly.js that the installed plotly package ships, licence header included."""
    from plotly.offline import get_plotlyjs

    return compressed(get_plotlyjs())


def pack(facts: Facts, frames: Mapping[str, DataFrame], budget: int) -> Packed:
    """Pack estimates and raw tables; too large, they lose steps first and evaluations next."""
    budget = max(budget, LEAST_BUDGET)
    trials, steps, evaluations = frames["trials"], frames["steps"], frames["evaluations"]
    # A row of steps takes at least 4 bytes compressed: do not compress millions to learn that.
    if len(steps) * 4 < budget:
        text = pack_tables(facts, {"trials": trials, "evaluations": evaluations, "steps": steps}, 6)
        if len(text) <= budget:
            return Packed(text, ())
    for points, digits in LADDER:
        thinned = thin(evaluations, points)
        text = pack_tables(facts, {"trials": trials, "evaluations": thinned}, digits)
        if len(text) <= budget:
            break
    left_out = [f"the {len(steps):,} rows of single steps"] if len(steps) else []
    if len(thinned) < len(evaluations):
        left_out.append(
            f"{len(evaluations) - len(thinned):,} of {len(evaluations):,} evaluations (a trial "
            f"keeps {points} at most, evenly spaced, its first and last among them)"
        )
    if digits < 6:
        left_out.append(f"digits beyond the {digits}th of any number")
    return Packed(text, tuple(left_out))


def pack_tables(facts: Facts, tables: Mapping[str, DataFrame], digits: int) -> str:
    """Compress the estimates and some tables as columns."""
    content = {
        "axes": axes(facts),
        "cells": cells(facts, digits),
        "tables": {name: columns(frame, digits) for name, frame in tables.items()},
    }
    return compressed(dumped(content))


def dumped(value: object) -> str:
    """Write compact JSON; NaN and infinity were turned into null and text before."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def axes(facts: Facts) -> list[dict[str, Any]]:
    """List the varying axes with their levels, reference first."""
    return [{"name": axis.name, "levels": list(axis.levels)} for axis in facts.axes]


def cells(facts: Facts, digits: int) -> list[dict[str, Any]]:
    """Describe each cell: levels as codes; of a column [value] or [n, low, median, high]."""
    codes = [{level: i for i, level in enumerate(axis.levels)} for axis in facts.axes]
    described = []
    for cell in facts.cells:
        levels = [
            code.get(cell.levels.get(axis.name, ""), -1)
            for axis, code in zip(facts.axes, codes, strict=True)
        ]
        values = {
            column: [
                rounded(v, digits)
                for v in ((s.n, s.low, s.median, s.high) if s.n > 1 else (s.median,))
            ]
            for column in SHOWN_COLUMNS
            if (s := cell.spreads.get(column))
        }
        described.append(
            {
                "label": cell.label,
                "levels": levels,
                "runs": cell.runs,
                "rank": facts.ranks.get(cell.id),
                "trials": list(cell.trials),
                "values": values,
            }
        )
    return described


def rounded(value: float, digits: int) -> float | int:
    """Keep so many significant digits."""
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def columns(frame: DataFrame, digits: int) -> dict[str, Any]:
    """Turn a frame into columns of JSON values, without those that are empty throughout."""
    kept = [name for name in frame.columns if frame[name].notna().any()]
    return {
        "columns": [str(name) for name in kept],
        "data": [[plain(value, digits) for value in frame[name].tolist()] for name in kept],
    }


def plain(value: Any, digits: int) -> Any:
    """Turn a cell of a frame into a JSON value: missing is null, infinite is text."""
    if isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        finite = number(value)
        if finite is not None:
            return rounded(finite, digits)
        return None if math.isnan(value) else str(value)
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, default=str)
    return words(value) or None


def thin(evaluations: DataFrame, points: int) -> DataFrame:
    """Keep at most so many evaluations of each trial, evenly spaced, first and last included."""
    if not len(evaluations):
        return evaluations
    rank = evaluations.groupby("trial").cumcount()
    size = evaluations.groupby("trial")["step"].transform("size")
    share = (rank * (points - 1)) // (size - 1).clip(lower=1)
    before = ((rank - 1) * (points - 1)) // (size - 1).clip(lower=1)
    kept = (size <= points) | (rank == 0) | (share > before)
    return evaluations[kept]
