"""Lay out calls' rows as a table: only what varies between them, only what some of them have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.report import wording
from bertopt_bench.report.step_figures import rate
from bertopt_bench.results.micro import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bertopt_bench.results.micro import MicroRow

    Told = tuple[str, str]

DASH = "–"  # noqa: RUF001 - a dash in a table

MOST_OPTIONS = 4
"""Columns of options that fit on a page; more of them share one column."""


def layout(rows: Sequence[MicroRow]) -> dict[str, Any]:
    """Give a table's heads and rows, and in words what all rows share.

    A column that says something of no row is left out.
    """
    varying, common = _varying(rows)
    told = {name: [tell(row) for row in rows] for name, (_, tell) in _COLUMNS.items()}
    kept = [name for name, cells in told.items() if any(value or below for value, below in cells)]
    rows_of_cells = [[(name, *told[name][index]) for name in kept] for index in range(len(rows))]
    return {
        "common": ", ".join(f"{key} {value}" for key, value in common.items()),
        "varying": varying if len(varying) <= MOST_OPTIONS else ["options"],
        "heads": [(name, _COLUMNS[name][0]) for name in kept],
        "rows": [
            {
                "name": row.implementation,
                "host_bound": row.host_bound,
                "options": _options(row, varying),
                "n": row.n,
                "cells": [(name, value or DASH, below) for name, value, below in cells],
            }
            for row, cells in zip(rows, rows_of_cells, strict=True)
        ],
    }


def _varying(rows: Sequence[MicroRow]) -> tuple[list[str], dict[str, Any]]:
    """Tell the options that differ between rows from those that all share."""
    names = [key for key in OPTIONS if any(key in row.options for row in rows)]
    values = {key: {str(row.options.get(key)) for row in rows} for key in names}
    varying = [key for key in names if len(values[key]) > 1]
    return varying, {key: rows[0].options.get(key) for key in names if key not in varying}


def _options(row: MicroRow, varying: Sequence[str]) -> list[str]:
    if len(varying) <= MOST_OPTIONS:
        return [str(row.options.get(key, DASH)) for key in varying]
    told = [f"{key}{wording.NBSP}{row.options[key]}" for key in varying if key in row.options]
    return [", ".join(told)]


def _median(row: MicroRow) -> Told:
    quartiles = f"{wording.duration(row.q1)} to {wording.duration(row.q3)}"
    return wording.duration(row.median), "one batch" if row.n == 1 else quartiles


def _share(row: MicroRow) -> Told:
    share = row.numbers.get("share_of_ceiling")
    return ("", "") if share is None else (wording.share(share), str(row.notes.get("ceiling", "")))


def _error(row: MicroRow) -> Told:
    usual = _rounded(row.numbers.get("reference_error"))
    return _rounded(row.numbers.get("error")), f"torch {usual}" if usual else ""


def _rounded(error: float | None) -> str:
    return "" if error is None else f"{error:.1e}".replace("-", wording.MINUS)


def _rates(row: MicroRow) -> Told:
    moved, computed = row.numbers.get("gb_per_second"), row.numbers.get("tflop_per_second")
    return (
        "" if moved is None else rate(moved * 1e9, "B/s"),
        "" if computed is None else rate(computed * 1e12, "FLOP/s"),
    )


def _host(row: MicroRow) -> Told:
    microseconds = row.numbers.get("host_us")
    return ("" if microseconds is None else wording.duration(microseconds / 1e6)), ""


_COLUMNS: Mapping[str, tuple[str, Callable[[MicroRow], Told]]] = {
    "median": ("a call, quartiles", _median),
    "rate": ("moved, computed", _rates),
    "share": ("of the ceiling", _share),
    "error": ("torch’s own below", _error),  # noqa: RUF001 - an apostrophe
    "host": ("a call", _host),
}
"""A column's name, the small line below it, and how a row tells its value and a small line."""
