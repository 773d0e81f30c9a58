"""Submissions against the baseline: metric at the end, steps and seconds to a target.

What pairs is a seed. Steps and metrics get verdicts as everywhere; the family is the submissions
of one workload (and one target). Seconds get an estimate and an interval and no verdict: they stand
on step times that were not measured in the same rounds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bertopt_bench.stats.convergence import loss_margin
from bertopt_bench.stats.curves import common_seeds, each_submission
from bertopt_bench.stats.paired import hodges_lehmann
from bertopt_bench.stats.resampling import draws_for, generator, interval
from bertopt_bench.stats.verdicts import Comparison, Rule, judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas import DataFrame

    from bertopt_bench.results.duels import Finding
    from bertopt_bench.stats.resampling import Floats

ALPHA, FAMILY_ERROR = 0.01, 0.05
STEPS_MARGIN = 0.02
UNPAIRED = "no seed is common to both, so that nothing pairs"


def final_findings(runs: DataFrame, baseline: str, margin: float | None = None) -> DataFrame:
    """Judge the metric at the end against the baseline's, seed by seed.

    The estimate is arm minus baseline in the metric's own unit. Without a margin it is a quarter of
    the baseline's standard deviation over seeds.
    """
    rows = []
    for workload, groups in each_submission(runs):
        others = _others(groups, baseline)
        if not others:
            continue
        finite = [v for v in groups[baseline]["final"] if math.isfinite(v)]
        own = loss_margin(finite) if len(finite) > 1 else 0.0
        rule = Rule("loss", ALPHA, FAMILY_ERROR, own if margin is None else margin)
        comparisons = [
            _compared("loss", baseline, groups[baseline], name, group, "final")
            for name, group in others.items()
        ]
        rows += [
            {"workload": workload, "margin": rule.margin, **_plain(finding)}
            for finding in judge(comparisons, rule)
        ]
    return _frame(rows)


def speed_ups(reached: DataFrame, runs: DataFrame, baseline: str) -> DataFrame:
    """Give how many times fewer steps, and seconds, each submission takes to a target.

    A row is a workload, target, submission and unit (``by``). ``speed_up`` above 1 is faster than
    the baseline, 0 never got there, infinite where the baseline did not. Where neither did in a
    seed, that seed says nothing (1).
    """
    rows: list[dict[str, Any]] = []
    of_workload = dict(each_submission(runs))
    for target, of_target in reached.groupby("target", sort=True):
        for workload, groups in each_submission(of_target):
            others = _others(groups, baseline)
            if not others:
                continue
            comparisons = [
                _compared("time_to_target", baseline, groups[baseline], name, group, "steps")
                for name, group in others.items()
            ]
            rule = Rule("time_to_target", ALPHA, FAMILY_ERROR, math.log1p(STEPS_MARGIN))
            timed = of_workload[workload]
            for comparison, finding in zip(comparisons, judge(comparisons, rule), strict=True):
                told = {"workload": workload, "target": str(target)}
                rows.append({**told, "by": "steps", **_as_speed_up(_plain(finding))})
                rows.append({**told, "by": "seconds", **_seconds(comparison, timed)})
    return _frame(rows)


def combined_interval(
    step_ratios: Sequence[float], time_ratios: Sequence[float]
) -> tuple[float, float, float]:
    """Add the centres of log ratios of steps and of seconds a step; give centre, low and high.

    Seeds and replicates are resampled each on their own; below 6 of either there is no interval.
    """
    steps, times = np.asarray(step_ratios, float), np.asarray(time_ratios, float)
    n = min(steps.size, times.size)
    rng, draws = generator(steps, times), draws_for(n)
    summed = _centres(rng.choice(steps, (draws, steps.size))) + _centres(
        rng.choice(times, (draws, times.size))
    )
    low, high = interval(summed, n)
    return hodges_lehmann(steps.tolist()) + hodges_lehmann(times.tolist()), low, high


def _centres(drawn: Floats) -> Floats:
    """Give the Hodges-Lehmann centre of each row, as ``paired.hodges_lehmann`` does."""
    first, second = np.triu_indices(drawn.shape[1])
    with np.errstate(invalid="ignore"):
        averages = np.sort(drawn[:, first] / 2 + drawn[:, second] / 2, axis=1)
        count = averages.shape[1] - np.isnan(averages).sum(axis=1)
        row = np.arange(len(averages))
        middle = averages[row, (count - 1) // 2] / 2 + averages[row, count // 2] / 2
    centres: Floats = np.nan_to_num(middle, nan=0.0, posinf=math.inf, neginf=-math.inf)
    return centres


def _others(groups: Mapping[str, DataFrame], baseline: str) -> dict[str, DataFrame]:
    if baseline not in groups:
        return {}
    return {name: group for name, group in groups.items() if name != baseline}


def _by_seed(group: DataFrame, seeds: Sequence[Any], column: str) -> Floats:
    values: Floats = group.set_index("seed")[column].reindex(list(seeds)).to_numpy(dtype=float)
    return values


def _compared(
    metric: str, baseline: str, ours: DataFrame, name: str, theirs: DataFrame, column: str
) -> Comparison:
    seeds = common_seeds([ours, theirs])
    if not seeds:
        return Comparison(baseline, name, (), UNPAIRED)
    both = (_by_seed(ours, seeds, column).tolist(), _by_seed(theirs, seeds, column).tolist())
    if any(math.isnan(value) for values in both for value in values):
        return Comparison(baseline, name, (), "a run has no end")
    return Comparison.paired(metric, baseline, name, *both)


def _seconds(comparison: Comparison, timed: Mapping[str, DataFrame]) -> dict[str, Any]:
    """Combine the log ratios of steps with those of step times of the same seeds."""
    told: dict[str, Any] = {"submission": comparison.arm, "n": 0}
    ours, theirs = timed[comparison.baseline], timed[comparison.arm]
    seeds = common_seeds([ours, theirs])
    if not comparison.differences or not seeds:
        return {**told, "reason": comparison.refusal or UNPAIRED}
    ratios = np.log(_by_seed(theirs, seeds, "step_seconds") / _by_seed(ours, seeds, "step_seconds"))
    if not np.isfinite(ratios).all():
        return {**told, "reason": "a run has no step time"}
    centre, low, high = combined_interval(comparison.differences, ratios.tolist())
    told = {**told, "n": min(len(comparison.differences), len(seeds))}
    return _as_speed_up({**told, "estimate": centre, "low": low, "high": high})


def _plain(finding: Finding) -> dict[str, Any]:
    """Give what a table shows of a finding; a missing number is NaN."""
    numbers = {"estimate": finding.estimate, "low": finding.low, "high": finding.high}
    p = [v for v in (finding.corrected_p_more, finding.corrected_p_less) if v is not None]
    return {
        "submission": finding.arm,
        "n": finding.n,
        **{name: math.nan if value is None else value for name, value in numbers.items()},
        "p": min(p, default=math.nan),
        "verdict": finding.verdict,
        "reason": finding.reason,
    }


def _as_speed_up(row: dict[str, Any]) -> dict[str, Any]:
    """Turn log ratios of arm over baseline into speed-ups, baseline over arm."""
    estimate, low, high = (row.pop(name) for name in ("estimate", "low", "high"))
    return {**row, "speed_up": _ratio(-estimate), "low": _ratio(-high), "high": _ratio(-low)}


def _ratio(log_ratio: float) -> float:
    return math.inf if log_ratio > 700 else math.exp(log_ratio)


def _frame(rows: Sequence[Mapping[str, Any]]) -> DataFrame:
    import pandas as pd

    return pd.DataFrame([dict(row) for row in rows])
