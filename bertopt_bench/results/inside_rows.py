"""Make rows of what was seen inside a network: one a trial, looked-at step and module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.results.record_parts import INSIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertopt_bench.results.record import Record


def inside_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Make the rows; trials that nobody looked into have none."""
    rows = []
    for code, record in enumerate(records):
        seen = record.inside
        if seen is None:
            continue
        for at, step in enumerate(seen.steps):
            rows += [
                {
                    "trial": code,
                    "step": step,
                    "module": module,
                    **{name: getattr(seen, name)[at][place] for name in INSIDE},
                    "same_losses": seen.same_losses,
                }
                for place, module in enumerate(seen.modules)
            ]
    return rows
