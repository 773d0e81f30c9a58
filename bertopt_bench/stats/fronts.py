"""Pareto fronts: which submissions no other beats in everything at once."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

from bertopt_bench.stats.curves import each_submission

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas import DataFrame

    from bertopt_bench.stats.curves import Aim

COSTS = ("seconds", "peak_memory_bytes")


def is_on_front(points: Sequence[tuple[float, ...]]) -> list[bool]:
    """Say of each point whether none is as low in every number and lower in one.

    Equal points share the front; one with a number that is not finite is never on it.
    """
    return [
        all(map(math.isfinite, point))
        and not any(
            other != point and all(o <= p for o, p in zip(other, point, strict=True))
            for other in points
        )
        for point in points
    ]


def fronts(runs: DataFrame, aim: Aim) -> DataFrame:
    """Set the metric at the end against each cost, by workload: medians, ranges and the front.

    ``runs`` come from ``stats.curves.runs_of``; a row is a submission and a cost.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for workload, groups in each_submission(runs):
        for cost in COSTS:
            if cost not in runs.columns:
                continue
            found = [_point(name, group, cost) for name, group in groups.items()]
            kept = [point for point in found if not math.isnan(point["cost_median"])]
            places = [(aim.sign * point["median"], point["cost_median"]) for point in kept]
            rows += [
                {"workload": workload, "cost": cost, **point, "on_front": on}
                for point, on in zip(kept, is_on_front(places), strict=True)
            ]
    return pd.DataFrame(rows)


def _point(name: str, group: DataFrame, cost: str) -> dict[str, Any]:
    """Sum up one submission; with a run that has no end it has no median metric."""
    finals, costs = group["final"].tolist(), group[cost].dropna().tolist()
    ended = not any(math.isnan(value) for value in finals)
    told = {"submission": name, "n": len(finals)}
    for suffix, make in (("median", statistics.median), ("low", min), ("high", max)):
        told[suffix] = make(finals) if ended else math.nan
        told[f"cost_{suffix}"] = make(costs) if costs else math.nan
    return told
