"""What it took to reach a target: by run, and summed up by submission with runs that never did.

Between two evaluations the metric is taken as linear in everything that was spent: with a coarse
grid of evaluations the figures are as coarse. Runs that did not get there are infinite.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.stats.convergence import (
    amount_at,
    final_target,
    place_of_target,
    success_share,
)
from bertopt_bench.stats.curves import AMOUNTS, KEYS, LOST, each_run, each_submission, status_of
from bertopt_bench.stats.power import LEAST_REPLICATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas import DataFrame

    from bertopt_bench.stats.curves import Aim

INTERPOLATION = "linear between evaluations"
LOOSER = 0.75
"""The looser target is the baseline's median metric at this share of the planned steps."""


@dataclass(frozen=True)
class Target:
    """A value of the metric on one workload, and whether it was fixed before the runs.

    Targets of different workloads belong together by their ``name``.
    """

    workload: str
    name: str
    value: float
    is_declared: bool


def declared_targets(curves: DataFrame, texts: Sequence[str]) -> list[Target]:
    """Read targets as they are written: ``4.5`` on every workload, ``WORKLOAD=4.5`` on one.

    What one text declares belongs together, and so do the first, second ... targets that workloads
    have of their own; no text changes the name of another's targets but by being a second one.

    Raises:
        UserError: no number, or no such workload.
    """
    known = sorted(set(curves["workload"]))
    everywhere: list[float] = []
    own: dict[str, list[float]] = {name: [] for name in known}
    for text in dict.fromkeys(map(str, texts)):
        workload, _, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"target '{text}': a target is a number, as 4.5 or WORKLOAD=4.5.")
        if workload and workload not in known:
            raise UserError(
                f"target '{text}': no workload '{workload}'. Workloads: {', '.join(known)}."
                f"{nearest(workload, known)}"
            )
        (own[workload] if workload else everywhere).append(number)
    several = max(map(len, own.values()), default=0) > 1
    alone = len(everywhere) == 1 and not any(own.values())
    return [
        Target(workload, name, value, True)
        for workload, values in own.items()
        for name, value in (
            *(("declared" if alone else f"declared {value:g}", value) for value in everywhere),
            *((f"declared {i}" if several else "declared", v) for i, v in enumerate(values, 1)),
        )
    ]


def baseline_targets(curves: DataFrame, runs: DataFrame, baseline: str, aim: Aim) -> list[Target]:
    """Take what most of the baseline's runs reach and, looser, its median at 3/4 of the steps.

    They come from the very runs that are judged (``convergence.final_target``). A workload has no
    target where too few runs of its baseline finished.
    """
    found = []
    for workload, groups in each_submission(runs):
        if baseline not in groups:
            continue
        at = curves[(curves["workload"] == workload) & (curves["submission"] == baseline)]
        planned = float(groups[baseline]["planned_steps"].max())
        finals = [aim.worst if math.isnan(v) else v for v in groups[baseline]["final"]]
        earlier = [_early(run, LOOSER * planned, aim) for _, run in at.groupby("run", sort=False)]
        most = aim.sign * final_target([aim.sign * v for v in finals])
        middle = statistics.median(earlier)
        for name, value in (("final of baseline", most), ("looser", middle)):
            if math.isfinite(value):
                found.append(Target(workload, name, value, is_declared=False))
    return [target for target in found if not _is_no_looser(target, found, aim)]


def _early(run: DataFrame, step: float, aim: Aim) -> float:
    """Give a run's metric at the last evaluation up to a step; one that ended before is worst."""
    before = run[(run["step"] <= step) & (run["step"] > 0)]
    metric = float(before["metric"].iloc[-1]) if len(before) else math.nan
    lost = status_of(run) in LOST or float(run["step"].max()) < step
    return aim.worst if lost or math.isnan(metric) else metric


def _is_no_looser(target: Target, targets: Sequence[Target], aim: Aim) -> bool:
    """Say whether the looser target is none: curves may rise again at their end."""
    finals = [t for t in targets if t.workload == target.workload and t.name != "looser"]
    return target.name == "looser" and any(
        aim.sign * target.value <= aim.sign * other.value for other in finals
    )


def reach(curves: DataFrame, targets: Sequence[Target], aim: Aim) -> DataFrame:
    """Give a row a run and target, with what was spent until it was first reached, or +inf.

    A run that diverged, or whose status says that it did not finish, is +inf even where it had
    passed the target before.
    """
    import pandas as pd

    given = [name for name in AMOUNTS[2:] if name in curves.columns]
    rows = []
    for run, at in each_run(curves):
        losses = (aim.sign * at["metric"]).tolist()
        lost = status_of(at) in LOST
        columns = {"steps": at["step"].tolist(), "seconds": at["seconds"].tolist()}
        columns |= {name: at[name].tolist() for name in given}
        for target in targets:
            if target.workload != run["workload"]:
                continue
            place = math.inf if lost else place_of_target(losses, aim.sign * target.value)
            spent = {name: amount_at(amounts, place) for name, amounts in columns.items()}
            rows.append({**run, "target": target.name, "value": target.value, **spent})
    columns_made = (*KEYS, "seed", "target", "value", "steps", "seconds", *given)
    return pd.DataFrame(rows, columns=list(columns_made))


def summarise(reached: DataFrame) -> DataFrame:
    """Give a row a workload, target and submission: n, the share that got there, medians, ranges.

    A median over runs of which half or more never got there is +inf. The share's interval is
    Clopper and Pearson's at 95 %, from 6 runs on (NaN below).
    """
    import pandas as pd

    rows = [
        _summary(dict(zip(("workload", "target", "submission"), keys, strict=True)), runs)
        for keys, runs in reached.groupby(["workload", "target", "submission"], sort=True)
    ]
    return pd.DataFrame(rows)


def _summary(keys: Mapping[str, Any], runs: DataFrame) -> dict[str, Any]:
    share = success_share(runs["steps"].tolist())
    shown = share.n >= LEAST_REPLICATES
    spent = {
        f"{name}{suffix}": make(runs[name].tolist())
        for name in AMOUNTS
        if name in runs.columns and not runs[name].isna().any()
        for suffix, make in (("", statistics.median), ("_low", min), ("_high", max))
    }
    return {
        **keys,
        "value": runs["value"].iloc[0],
        "n": share.n,
        "reached": share.reached,
        "share": share.reached / share.n,
        "share_low": share.low if shown else math.nan,
        "share_high": share.high if shown else math.nan,
        **spent,
    }
