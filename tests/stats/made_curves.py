"""Make plain frames of curves whose times to a target are known."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

GRID = (0, 10, 20, 30, 40)


def run(
    submission: str,
    losses: tuple[float, ...],
    *,
    seed: int = 1,
    workload: str = "w",
    step_seconds: float = 0.5,
    **more: Any,
) -> list[dict[str, Any]]:
    """Give the rows of one run, evaluated every 10 steps from 0."""
    return [
        {
            "run": f"{submission} {seed}",
            "workload": workload,
            "submission": submission,
            "seed": seed,
            "step": 10 * index,
            "seconds": 10 * index * step_seconds,
            "metric": loss,
            **more,
        }
        for index, loss in enumerate(losses)
    ]


def falling(final: float) -> tuple[float, ...]:
    """Fall straight from 8 to a final loss over the grid; NaN is a divergence after step 10."""
    if math.isnan(final):
        return (8.0, 7.0, math.nan)
    return tuple(8 + (final - 8) * index / (len(GRID) - 1) for index in range(len(GRID)))


def frame(*runs: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([row for rows in runs for row in rows])


def set_of(finals: dict[str, list[float]], **more: Any) -> pd.DataFrame:
    """Make a run a seed (from 1) of each submission, each falling straight to its final loss."""
    return frame(
        *(
            run(name, falling(final), seed=seed, **more)
            for name, values in finals.items()
            for seed, final in enumerate(values, start=1)
        )
    )
