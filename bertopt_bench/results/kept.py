"""Where a results folder keeps the state of a running trial, until its record is written."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bertopt_bench.matrix.cells import TrialPlan

FOLDER = "checkpoints"


def kept_request(results: Path, plan: TrialPlan, code: Mapping[str, Any]) -> dict[str, Any]:
    """Tell a worker where it keeps its trial, and by which code."""
    named = {**code, "outside": dict(plan.cell.outside)}
    return {"file": str(kept_file(results, plan).resolve()), "code": named}


def kept_file(results: Path, plan: TrialPlan) -> Path:
    """Name a trial's file."""
    return results / FOLDER / f"{plan.cell.id}-{plan.seed}-{plan.replicate}.pt"


def forget(results: Path, plan: TrialPlan) -> None:
    """Remove what was kept of a trial that has its record."""
    file = kept_file(results, plan)
    with suppress(OSError):  # the record is safe; a file that is left over fits no trial to come
        file.unlink(missing_ok=True)
        file.with_suffix(".unfinished").unlink(missing_ok=True)
        file.parent.rmdir()
