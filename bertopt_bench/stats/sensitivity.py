"""How much a learning rate matters: the metric over rates, a curve a submission."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from bertopt_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas import DataFrame

COLUMNS = ("submission", "lr", "metric")
RESULT = ("submission", "lr", "n", "infinite", "low", "median", "high", "is_best", "on_edge")


def sensitivity(frame: DataFrame, *, higher_is_better: bool = False) -> DataFrame:
    """Summarise a metric by submission and learning rate: a row a point of a curve.

    A row of ``frame`` is a run. One without a finite metric counts as infinitely bad, and in
    ``infinite``. ``is_best`` marks the rate with the best finite median, the lowest of equal ones;
    it is ``on_edge`` where the submission has no lower or no higher rate, so that a better one may
    lie outside. Raises UserError for a missing column and a rate that is none.
    """
    import pandas as pd

    for name in COLUMNS:
        if name not in frame.columns:
            have = ", ".join(map(str, frame.columns))
            raise UserError(
                f"no column '{name}'. Needed: {', '.join(COLUMNS)}; it has: {have}."
                f"{nearest(name, map(str, frame.columns))}"
            )
    worst = -math.inf if higher_is_better else math.inf
    rows = []
    for submission, runs in frame.groupby("submission", sort=True):
        points = [
            _point(str(submission), float(lr), at["metric"].tolist(), worst)  # type: ignore[arg-type]
            for lr, at in runs.groupby("lr", sort=True, dropna=False)
        ]
        rows += _marked(points, worst)
    return pd.DataFrame(rows, columns=list(RESULT))


def _point(submission: str, lr: float, metrics: Sequence[float], worst: float) -> dict[str, object]:
    if not 0 <= lr < math.inf:
        raise UserError(f"a learning rate of {submission} is {lr}; it is a number, 0 or more.")
    values = [float(value) if math.isfinite(value) else worst for value in metrics]
    return {
        "submission": submission,
        "lr": lr,
        "n": len(values),
        "infinite": sum(math.isinf(value) for value in values),
        "low": min(values),
        "median": statistics.median(values),
        "high": max(values),
    }


def _marked(points: list[dict[str, object]], worst: float) -> list[dict[str, object]]:
    """Mark the best rate of one submission, and whether it lies on the edge of those tried."""
    medians = [float(point["median"]) for point in points]  # type: ignore[arg-type]
    best = min(medians) if worst > 0 else max(medians)
    at = medians.index(best) if math.isfinite(best) else -1
    return [
        {**point, "is_best": i == at, "on_edge": i == at and i in {0, len(points) - 1}}
        for i, point in enumerate(points)
    ]
