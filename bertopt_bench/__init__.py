"""Benchmark and profile BERT training: matrices of choices, measured on real text."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertopt_bench.matrix.spec import Matrix
    from bertopt_bench.pipeline import run_matrix
    from bertopt_bench.results.tables import load_results

__all__ = ["Matrix", "load_results", "run_matrix"]

_HOMES = {
    "Matrix": "bertopt_bench.matrix.spec",
    "load_results": "bertopt_bench.results.tables",
    "run_matrix": "bertopt_bench.pipeline",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that importing the package is cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module 'bertopt_bench' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
