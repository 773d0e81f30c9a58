"""Turn our own tables into the plain frame of curves that the analysis takes.

A run is a cell and seed: replicates of a seed repeat its timing, not its training, so one whole
trial a seed stands for it. A submission is what a cell chose on the training axes, a workload what
it was given to train; both are named by what varies over the set.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.matrix.labels import KERNEL, SEPARATOR, shorten_kernels
from bertopt_bench.matrix.modes import INFERENCE
from bertopt_bench.stats.curves import AXIS, REQUIRED
from bertopt_bench.stats.estimates import (
    comparable_key,
    number,
    trial_rows,
    varying_axes,
    words,
)
from bertopt_bench.stats.levels import WORKLOAD_AXES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas import DataFrame

    from bertopt_bench.stats.estimates import Trial

NO_METRICS = ("trial", "step", "tokens", "train_seconds")
LONE = "all cells"


def training_curves(trials: DataFrame, evaluations: DataFrame, metric: str = "loss") -> DataFrame:
    """Give a row an evaluation of each run that was tried, skipped and inference cells left out.

    A run that ended before its first evaluation has one row at step 0 without a metric. Every
    update here takes one gradient over its batch, so gradient evaluations count steps. Seconds are
    those of the session with most runs, others' are NaN. Raises UserError for an unknown metric.
    """
    import pandas as pd

    metrics = [name for name in evaluations.columns if name not in NO_METRICS]
    if metric not in metrics and len(evaluations):
        raise UserError(
            f"no metric '{metric}' in the evaluations. Metrics: {', '.join(metrics)}."
            f"{nearest(metric, metrics)}"
        )
    runs = whole_trials(trial_rows(trials))
    axes = varying_axes(runs)
    session = _timed_session(runs)
    by_trial = dict(iter(evaluations.groupby("trial"))) if len(evaluations) else {}
    levels = [{axis.name: words(run.get(axis.name)) for axis in axes} for run in runs]
    kernels = [axis.name for axis in axes if axis.name.startswith(KERNEL)]
    said = shorten_kernels(levels, kernels)
    rows = [
        {**told, **point}
        for run, chosen, written in zip(runs, levels, said, strict=True)
        for told in (_described(run, chosen, written),)
        for point in _points(
            by_trial.get(run["trial"]),
            metric,
            number(run.get("flops_per_step")),
            timed=words(run.get("session")) == session,
        )
    ]
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else list(REQUIRED))


def whole_trials(rows: Sequence[Trial]) -> list[Trial]:
    """Take one trial a cell and seed: the first that was trained whole, else the first tried."""
    kept: dict[tuple[str, str], Trial] = {}
    for row in rows:
        if row["status"] == "skipped" or words(row.get("mode")) == INFERENCE:
            continue
        key = (row["cell_id"], words(row.get("seed")))
        if key not in kept or (_is_whole(row) and not _is_whole(kept[key])):
            kept[key] = row
    return list(kept.values())


def _is_whole(row: Trial) -> bool:
    return row["status"] == "diverged" or number(row.get("final_loss")) is not None


def _described(run: Trial, levels: Mapping[str, str], said: Mapping[str, str]) -> dict[str, Any]:
    """Name a run and what it chose; the columns of a plain frame that do not change along it.

    ``said`` are the levels as a submission's name says them.
    """
    status = words(run["status"])
    return {
        "run": f"{run['cell_id']} {words(run.get('seed'))}",
        "workload": _joined(levels, of_workload=True) or words(run.get("workload")) or LONE,
        "submission": _joined(said, of_workload=False) or words(run.get("optimizer")) or LONE,
        "seed": run.get("seed"),
        "status": status if status in {"ok", "diverged"} else "unfinished",
        "planned_steps": float(run["steps"]),
        "peak_memory_bytes": _or_nan(run.get("peak_memory_bytes")),
        "lr": _or_nan(run.get("optimizer.lr")),
        "tuned": bool(words(run.get("tuning_ledger"))),
        "text": comparable_key(run),
        **{f"{AXIS}{name}": level for name, level in levels.items()},
    }


def _joined(levels: Mapping[str, str], *, of_workload: bool) -> str:
    return SEPARATOR.join(
        level if name == "model" or not _is_number(level) else f"{name}={level}"
        for name, level in levels.items()
        if level and (name in WORKLOAD_AXES) is of_workload
    )


def _timed_session(runs: Sequence[Trial]) -> str:
    """Choose the session with most runs: times are never pooled over sessions."""
    counts = Counter(words(run.get("session")) for run in runs)
    return max(counts, key=lambda name: (counts[name], name), default="")


def _points(
    at: DataFrame | None, metric: str, flops_per_step: float | None, *, timed: bool
) -> list[dict[str, Any]]:
    if at is None:
        return [dict.fromkeys(("step", "seconds"), 0.0) | {"metric": math.nan}]
    return [
        {
            "step": float(row["step"]),
            "seconds": float(row.get("train_seconds", math.nan)) if timed else math.nan,
            "metric": float(row[metric]),
            "tokens": float(row.get("tokens", math.nan)),
            "gradient_evaluations": float(row["step"]),
            "flops": math.nan if flops_per_step is None else row["step"] * flops_per_step,
        }
        for row in at.sort_values("step").to_dict("records")
    ]


def _or_nan(value: object) -> float:
    found = number(value)
    return math.nan if found is None else found


def _is_number(level: str) -> bool:
    try:
        float(level)
    except ValueError:
        return False
    return True
