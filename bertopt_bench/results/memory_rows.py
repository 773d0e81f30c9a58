"""Make a row's columns of what a trial's memory was for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bertopt_bench.results.record_parts import MemoryParts

if TYPE_CHECKING:
    from bertopt_bench.results.record import Record
    from bertopt_bench.results.record_parts import MemoryView

PARTS = tuple(name.removesuffix("_bytes") for name in MemoryParts.model_fields)
"""What memory is for, in the order in which it is shown."""

TRANSIENT = ("gradient", "activation", "temporary")
"""The parts whose most in a step differs from what they are at its peak."""


def memory_columns(record: Record) -> dict[str, Any]:
    """Give the parts at the peak and at most, by measure and formula; NaN where none was taken.

    ``memory_unexplained_bytes`` is what the process held at most beyond the attributed peak and
    what it held before the trial was assembled.
    """
    memory = record.memory
    measured, formula = (memory.measured, memory.formula) if memory else (None, None)
    return {
        "memory_moment": measured.moment if measured else "",
        **_parts("memory", measured),
        "memory_attributed_bytes": memory.peak_bytes if memory else math.nan,
        "memory_independent_bytes": memory.independent_peak_bytes if memory else math.nan,
        "memory_difference": memory.difference() if memory else math.nan,
        "memory_saved_tensor_bytes": _or_nan(memory.saved_tensor_bytes if memory else None),
        "memory_slack_bytes": _or_nan(memory.slack_bytes if memory else None),
        "memory_formula_moment": formula.moment if formula else "",
        **_parts("memory_formula", formula),
        "memory_formula_bytes": formula.peak.total() if formula else math.nan,
        "memory_unexplained_bytes": unexplained_bytes(record),
        "resident_before_bytes": _or_nan(record.resident_before_bytes),
    }


def unexplained_bytes(record: Record) -> float:
    """Give the rest of a process' resident peak; a GPU's memory is no part of it."""
    if record.memory is None or record.cell["device"]["name"] != "cpu":
        return math.nan
    if record.peak_resident_bytes is None or record.resident_before_bytes is None:
        return math.nan
    return float(
        record.peak_resident_bytes - record.resident_before_bytes - record.memory.peak_bytes
    )


def _parts(prefix: str, view: MemoryView | None) -> dict[str, float]:
    at_peak, most = (view.peak, view.largest) if view else (None, None)
    return {
        **{f"{prefix}_{name}_bytes": _part(at_peak, name) for name in PARTS},
        **{f"{prefix}_most_{name}_bytes": _part(most, name) for name in TRANSIENT},
    }


def _part(parts: MemoryParts | None, name: str) -> float:
    return math.nan if parts is None else float(getattr(parts, f"{name}_bytes"))


def _or_nan(value: int | None) -> float:
    return math.nan if value is None else float(value)
