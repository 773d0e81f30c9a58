"""Pack what the page's figures and downloads read: the plotting library and the data."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertopt_bench.stats.estimates import number, words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas import DataFrame

    from bertopt_bench.stats.facts import Facts

# Bytes of base64 for all data: with plotly.js at 1.96 MB and a table of 1,000 rows the page
# stays below 2.5 MB.
DATA_BUDGET = 260_000
SHOWN_COLUMNS = (
    "final_loss",
    "tokens_per_second",
    "peak_memory_bytes",
    "peak_resident_bytes",
    "step_seconds",
    "final_masked_accuracy",
    "time_to_first_step_seconds",
)
# Curves are thinned to so many evaluations a trial, in this order, until the data fit.
POINTS_LADDER = (400, 120, 60, 30, 15)


@dataclass(frozen=True)
class Packed:
    """Compressed data, and what had to be left out of them, in words."""

    text: str
    left_out: tuple[str, ...]


def compressed(text: str) -> str:
    """Compress as gzip, then base64: what `DecompressionStream` in the browser undoes."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


def plotting_library() -> str:
    """Compress the plotly.js that the installed plotly package ships, licence header included."""
    from plotly.offline import get_plotlyjs

    return compressed(get_plotlyjs())


def pack(facts: Facts, frames: Mapping[str, DataFrame]) -> Packed:
    """Pack estimates and raw tables, dropping steps first and thinning curves next if too large."""
    tables = {"trials": columns(frames["trials"])}
    estimates = {"axes": axes(facts), "cells": cells(facts)}
    steps, evaluations = frames["steps"], frames["evaluations"]
    everything = {
        **estimates,
        "tables": tables | {"evaluations": columns(evaluations), "steps": columns(steps)},
    }
    # A row of steps takes at least 4 bytes compressed: do not compress millions to learn that.
    if len(steps) * 4 < DATA_BUDGET:
        text = compressed(dumped(everything))
        if len(text) <= DATA_BUDGET:
            return Packed(text, ())
    left_out = [f"the {len(steps):,} rows of single steps"] if len(steps) else []
    for points in POINTS_LADDER:
        thinned = thin(evaluations, points)
        tables["evaluations"] = columns(thinned)
        text = compressed(dumped({**estimates, "tables": tables}))
        if len(text) <= DATA_BUDGET:
            break
    if len(thinned) < len(evaluations):
        left_out.append(
            f"{len(evaluations) - len(thinned):,} of {len(evaluations):,} evaluations (each trial "
            f"keeps at most {points}, evenly spaced, first and last included)"
        )
    return Packed(text, tuple(left_out))


def dumped(value: object) -> str:
    """Write compact JSON; NaN and infinity were turned into null and text before."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def axes(facts: Facts) -> list[dict[str, Any]]:
    """List the varying axes with their levels, reference first."""
    return [{"name": axis.name, "levels": list(axis.levels)} for axis in facts.axes]


def cells(facts: Facts) -> list[dict[str, Any]]:
    """Describe each cell: levels as codes, and [n, low, median, high] of each shown column."""
    codes = [{level: i for i, level in enumerate(axis.levels)} for axis in facts.axes]
    described = []
    for cell in facts.cells:
        levels = [
            code.get(cell.levels.get(axis.name, ""), -1)
            for axis, code in zip(facts.axes, codes, strict=True)
        ]
        values = {
            column: [s.n, rounded(s.low), rounded(s.median), rounded(s.high)]
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
                "text": facts.texts.index(cell.comparable) if cell.comparable in facts.texts else 0,
                "status": "" if cell.runs else next(iter(cell.statuses)),
                "values": values,
            }
        )
    return described


def rounded(value: float) -> float | int:
    """Keep six significant digits: more than any measurement here has."""
    short = float(f"{value:.6g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def columns(frame: DataFrame) -> dict[str, Any]:
    """Turn a frame into columns of JSON values, without those that are empty throughout."""
    kept = [name for name in frame.columns if frame[name].notna().any()]
    return {
        "columns": [str(name) for name in kept],
        "data": [[plain(value) for value in frame[name].tolist()] for name in kept],
    }


def plain(value: Any) -> Any:
    """Turn a cell of a frame into a JSON value: missing is null, infinite is text."""
    if isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        finite = number(value)
        return rounded(finite) if finite is not None else None if value != value else str(value)  # noqa: PLR0124 - NaN
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
