"""What the peers runs share: a cell on prepared real text, assembled as a trial of ours."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic_ns
from typing import Any

from bertopt_bench.dispatch.preparing import prepare_text
from bertopt_bench.matrix import cells, spec

QUICKSTART = Path(__file__).parent.parent / "quickstart.toml"


def request_for(matrix_file: Path, *overrides: str, steps: int | None = None) -> dict[str, Any]:
    """Build the request of the first cell of a matrix, its text prepared in the user's cache."""
    matrix = spec.load(matrix_file, list(overrides))
    cell = cells.expand(matrix, {})[0]
    workload = cell.content["workload"]
    seed = matrix.seeds[0]
    text = prepare_text(workload, [seed], lambda *_: None)
    return {
        "cell": cell.content,
        "seed": seed,
        "replicate": 0,
        "steps": steps or workload["steps"],
        "timing": {"burn_in_steps": 3, "phase_steps": 3, "timeout_seconds": 600.0},
        "text": text,
        "threads": len(os.sched_getaffinity(0)),
        "dispatched_ns": monotonic_ns(),
    }


__all__ = ["QUICKSTART", "request_for"]
