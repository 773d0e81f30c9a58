"""AlgoPerf's performance profile over a set of workloads, and its integral as one score.

With r the time to target over the fastest submission's on the same workload, the profile of a
submission at tau is the share of workloads with r <= tau. The score is its mean height from tau = 1
to the largest tau: 1 where it is fastest everywhere, 0 where it is never within the largest tau.
Source: Dahl et al. 2023 (arXiv 2306.07179), 4.2; Dolan and More 2002. The integral of the steps is
taken exactly, where AlgoPerf's code sums 100 trapezia.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bertopt_bench.errors import UserError
from bertopt_bench.stats.curves import each_submission, paired_seeds
from bertopt_bench.stats.resampling import draws_for, generator, interval, resampled_medians

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas import DataFrame, Series

    from bertopt_bench.stats.resampling import Floats

TAU_MAX = 4.0


def time_ratios(times: DataFrame) -> DataFrame:
    """Divide times (a row a submission, a column a workload) by the fastest of their workload.

    A time that is infinite or missing has an infinite ratio, also where nobody got there. Where
    the fastest needed nothing at all, the others that did are infinitely slower.
    """
    if (times < 0).to_numpy().any():
        raise UserError("a time to a target is negative: times count from the start of training.")
    return times.apply(_ratios, axis="index")


def _ratios(column: Series[float]) -> Series[float]:
    values = column.fillna(math.inf)
    best = values.min()
    if math.isinf(best):
        return values * math.inf
    if best == 0:
        return values.map(lambda value: 1.0 if value == 0 else math.inf)
    return values / best


def profile(times: DataFrame, tau_max: float = TAU_MAX) -> DataFrame:
    """Give the corners of each submission's profile: ``submission, tau, share``, tau from 1.

    Between two corners the share is that of the left one.
    """
    import pandas as pd

    check_tau(tau_max)
    rows = []
    for name, row in time_ratios(times).iterrows():
        ratios = row.to_numpy()
        for tau in sorted({1.0, tau_max, *(float(r) for r in ratios if r <= tau_max)}):
            share = float((ratios <= tau).mean())
            rows.append({"submission": name, "tau": tau, "share": share})
    return pd.DataFrame(rows, columns=["submission", "tau", "share"])


def scores(times: DataFrame, tau_max: float = TAU_MAX) -> Series[float]:
    """Give the normalised integral of each submission's profile from 1 to ``tau_max``."""
    check_tau(tau_max)
    ratios = time_ratios(times)
    return ((tau_max - ratios).clip(lower=0.0) / (tau_max - 1.0)).mean(axis="columns")


def check_tau(tau_max: float) -> None:
    """Raise a UserError for a largest tau that leaves no range."""
    if not 1 < tau_max < math.inf:
        raise UserError(
            f"tau max = {tau_max}: the largest ratio to the fastest is a number above 1, as 4."
        )


def scores_of(reached: DataFrame, by: str, tau_max: float = TAU_MAX) -> DataFrame:
    """Score submissions over the workloads of one target each: ``reached`` has a row a run.

    A submission's time on a workload is the median over its runs, runs that never got there among
    them. The interval is a bootstrap over seeds, the same seeds for all submissions where all
    have the same; ``n`` is the least number of runs behind any median.
    """
    import pandas as pd

    arrays = {w: _times(groups, by) for w, groups in each_submission(reached)}
    times = _medians(arrays)
    names = list(times.index)
    found = scores(times, tau_max)
    least = min((len(v) for _, values in arrays.values() for v in values.values()), default=0)
    drawn = _drawn(arrays, names, (by, tau_max), draws_for(least))
    rows = []
    for i, name in enumerate(names):
        low, high = interval(drawn[i], least)
        rows.append(
            {"submission": name, "by": by, "score": float(found[name]), "low": low, "high": high,
             "n": least, "workloads": len(arrays)}
        )  # fmt: skip
    made = pd.DataFrame(rows)
    return made.sort_values(["score", "submission"], ascending=[False, True], ignore_index=True)


def profiles_of(reached: DataFrame, by: str, tau_max: float = TAU_MAX) -> DataFrame:
    """Give the corners of the profiles that ``scores_of`` integrates."""
    arrays = {w: _times(groups, by) for w, groups in each_submission(reached)}
    return profile(_medians(arrays), tau_max).assign(by=by)


def _times(groups: Mapping[str, DataFrame], by: str) -> tuple[bool, dict[str, Floats]]:
    """Give each submission's times of all its runs; where all have the same seeds, in one order."""
    seeds = paired_seeds(list(groups.values()))
    if seeds:
        paired = {s: g.set_index("seed")[by].reindex(seeds).to_numpy() for s, g in groups.items()}
        return True, paired
    return False, {s: g[by].to_numpy() for s, g in groups.items()}


def _medians(arrays: Mapping[str, tuple[bool, Mapping[str, Floats]]]) -> DataFrame:
    """Give the median time of each submission (rows) on each workload (columns)."""
    import pandas as pd

    names = sorted({name for _, values in arrays.values() for name in values})
    columns = {
        workload: [float(np.median(of[name])) if name in of else math.inf for name in names]
        for workload, (_, of) in arrays.items()
    }
    return pd.DataFrame(columns, index=pd.Index(names))


def _drawn(
    arrays: Mapping[str, tuple[bool, Mapping[str, Floats]]],
    names: Sequence[str],
    asked: tuple[str, float],
    draws: int,
) -> Floats:
    """Give the scores of resampled runs: an array (submissions, draws)."""
    content: list[Any] = [*asked]
    content += [[w, s, v] for w, (_, values) in arrays.items() for s, v in values.items()]
    rng, total = generator(content), np.zeros(())
    for paired, values in arrays.values():
        medians = resampled_medians(list(values.values()), paired=paired, rng=rng, draws=draws)
        best = medians.min(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = np.where(medians == best, 1.0, medians / best)
        ratios[:, np.isinf(best)] = math.inf
        gained = np.zeros((len(names), ratios.shape[1]))
        gained[[names.index(s) for s in values]] = np.clip(asked[1] - ratios, 0, None)
        total = total + gained / (asked[1] - 1)
    return total / len(arrays)
