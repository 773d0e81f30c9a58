"""A document as pytest-benchmark 5.3 writes it, with the rows asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def row(implementation: str, seconds: float, **options: Any) -> dict[str, Any]:
    """Make a benchmark of attention; ``host_bound`` and others go where they belong."""
    info = {
        "operation": "attention", "implementation": implementation, "batch_size": 8, "heads": 4,
        "head_size": 64, "padding": 0.0, "dtype": "float32", "direction": "both", "cache": "hot",
        "device": "cpu", "bytes": 1000, "bytes_formula": "12 B A L D e", "flops": 2000,
        "flops_formula": "12 B A L² D", "gb_per_second": 1000 / seconds / 1e9,
        "tflop_per_second": 2000 / seconds / 1e12, "share_of_ceiling": 0.25,
        "ceiling": "bandwidth", "error": 3e-7, "reference_error": 2e-7, "allowed_error": 8e-7,
        "host_us": None, "host_bound": False, "calls_a_batch": 64, "kept": "the same buffers",
        **options,
    }  # fmt: skip
    return {
        "group": "attention, hot caches",
        "name": f"test_attention[{implementation}]",
        "fullname": f"bench_attention.py::test_attention[{implementation}]",
        "params": {"case": ["attention", implementation, {}]},
        "param": implementation,
        "extra_info": info,
        "options": {"disable_gc": False, "timer": "BatchClock"},
        "stats": {
            "min": seconds * 0.9, "max": seconds * 1.5, "mean": seconds, "stddev": 0.0,
            "rounds": 20, "median": seconds, "iqr": 0.0, "q1": seconds * 0.95,
            "q3": seconds * 1.1, "iterations": 1, "data": [seconds] * 20,
        },
    }  # fmt: skip


def document(*rows: dict[str, Any]) -> dict[str, Any]:
    """Make the whole document."""
    return {
        "machine_info": {
            "node": "a-machines-name", "system": "Linux", "machine": "x86_64",
            "python_version": "3.11.2", "cpu": {"brand_raw": "A processor"}, "torch": "2.13.0",
            "threads": 2,
        },
        "commit_info": {"id": "c" * 40, "dirty": True},
        "benchmarks": list(rows),
        "datetime": "2026-11-25T06:00:00.123456+00:00",
        "version": "5.3.1",
        "ceilings": [
            {"device": "cpu", "matmul_flops_per_second": {"float32": 1e11},
             "bandwidth_bytes_per_second": 2e10, "bandwidth_mix": "as AdamW"},
        ],
    }  # fmt: skip


def written(path: Path, *rows: dict[str, Any]) -> Path:
    """Write a file of rows."""
    path.write_text(json.dumps(document(*rows)))
    return path
