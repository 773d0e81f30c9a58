"""Benchmark and profile BERT training: matrices of choices, measured on real text."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertopt_bench.matrix.spec import Matrix
    from bertopt_bench.pipeline import duel, run_matrix
    from bertopt_bench.results.tables import load_results
    from bertopt_bench.stats.sets import compare_sets as compare

__all__ = ["Matrix", "compare", "duel", "load_results", "run_matrix"]

_HOMES = {
    "compare": "bertopt_bench.stats.sets:compare_sets",
    "duel": "bertopt_bench.pipeline",
    "Matrix": "bertopt_bench.matrix.spec",
    "load_results": "bertopt_bench.results.tables",
    "run_matrix": "bertopt_bench.pipeline",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that importing the package is cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module 'bertopt_bench' has no attribute '{name}'")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(importlib.import_module(module), attribute or name)
