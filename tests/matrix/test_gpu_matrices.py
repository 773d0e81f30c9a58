"""The matrices for a GPU: what they would run on one, and how long by the plan's own reckoning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bertopt_bench import catalogue
from bertopt_bench.matrix.cells import expand, plan_trials
from bertopt_bench.matrix.forecast import CUDA_FLOPS_PER_SECOND, forecast
from bertopt_bench.matrix.spec import load

MATRICES = sorted((Path(__file__).parents[2] / "benchmarks/gpu").glob("*.toml"))
MOST_SECONDS = 600
LESS_THAN_AN_H100 = 67e12  # its peak in fp32 and fp64 products, by its datasheet

MEANT = ("is not installed", "excluded: ", "has no fused step")


def hopper(torch: str) -> dict[str, Any]:
    """Give what a machine of one H100 with the eight packages that measuring needs can do."""
    entries = catalogue.entries("optimizer")
    return {
        "torch": torch,
        "cuda": {"count": 1, "names": ["NVIDIA H100 80GB HBM3"], "capability": [(9, 0)]},
        "cpu_flags": [],
        "packages": dict.fromkeys(
            (
                "transformers", "tokenizers", "pytorch_optimizer", "datasets", "pyarrow",
                "liger_kernel", "cut_cross_entropy", "flash_attn",
            )
        ),
        "compiler": True,
        "accepts": {name: sorted(entry.accepts) for name, entry in entries.items()},
        "initial": [name for name, entry in entries.items() if "Initial" in entry.notes],
        "precision_ratio": {},
        "skip_slower_precisions": False,
    }  # fmt: skip


@pytest.mark.parametrize("torch", ["2.11.0", "2.13.0"])
@pytest.mark.parametrize("file", MATRICES, ids=lambda file: file.stem)
def test_it_ends_within_ten_minutes(file: Path, torch: str) -> None:
    """Oracle: the forecast, at a rate that is half of an H100's slowest peak used here."""
    matrix = load(file)
    plans = plan_trials(expand(matrix, hopper(torch)), matrix, 0)
    seconds = forecast(plans, matrix).seconds

    assert CUDA_FLOPS_PER_SECOND < LESS_THAN_AN_H100
    assert MOST_SECONDS / 6 < seconds < MOST_SECONDS


@pytest.mark.parametrize("file", MATRICES, ids=lambda file: file.stem)
def test_what_does_not_run_there_lacks_a_package_or_is_left_out_on_purpose(file: Path) -> None:
    """Oracle: the reasons: no rule of a kernel, a layout or a precision is in the way."""
    reasons = {cell.skip for cell in expand(load(file), hopper("2.13.0")) if cell.skip}

    assert all(any(part in why for part in MEANT) for why in reasons)
