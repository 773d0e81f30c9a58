"""Ranks by the metric at the end, and how firm they are when other seeds had been drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bertopt_bench.stats.curves import each_submission, paired_seeds
from bertopt_bench.stats.resampling import draws_for, generator, interval, resampled_medians

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas import DataFrame

    from bertopt_bench.stats.curves import Aim
    from bertopt_bench.stats.resampling import Floats

COLUMNS = ("workload", "submission", "n", "rank", "low", "high", "seed_low", "seed_high", "first")


def ranks(runs: DataFrame, aim: Aim) -> DataFrame:
    """Rank the submissions of each workload by the median metric at the end; 1 is best.

    ``runs`` have ``final`` (``stats.curves.runs_of``): a diverged run is infinitely bad. Equal
    medians share their middle rank. A submission with one run, or with one that has no end, has
    none. ``low`` and ``high`` bound the rank by a bootstrap over seeds, ``first`` is the share of
    draws in which it is first (shared firsts divided), both from 6 seeds on; ``seed_low`` and
    ``seed_high`` are its best and worst rank in any one seed, where all have the same seeds.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for workload, groups in each_submission(runs):
        fit = {s: g for s, g in groups.items() if len(g) > 1 and not g["final"].isna().any()}
        unfit = [s for s in groups if s not in fit]
        rows += [{"workload": workload, **row} for row in _ranked(fit, aim)]
        rows += [{"workload": workload, "submission": s, "n": len(groups[s])} for s in unfit]
    made = pd.DataFrame(rows, columns=list(COLUMNS))
    return made.sort_values(["workload", "rank", "submission"], ignore_index=True)


def _ranked(groups: Mapping[str, DataFrame], aim: Aim) -> list[dict[str, Any]]:
    if not groups:
        return []
    seeds = paired_seeds(list(groups.values()))
    paired = bool(seeds)
    values: list[Floats] = [
        aim.sign
        * (g.set_index("seed")["final"].reindex(seeds) if paired else g["final"]).to_numpy()
        for g in groups.values()
    ]
    n = min(map(len, values))
    rng = generator([[s, v] for s, v in zip(groups, values, strict=True)])
    drawn = resampled_medians(values, paired=paired, rng=rng, draws=draws_for(n))
    placed = _placed(drawn)
    firsts = drawn == drawn.min(axis=0)
    shares = (firsts / firsts.sum(axis=0)).mean(axis=1)
    observed = _placed(np.array([[np.median(v)] for v in values]))[:, 0]
    by_seed = _placed(np.stack(values)) if paired else None
    rows = []
    for i, name in enumerate(groups):
        low, high = interval(placed[i], n)
        rows.append(
            {
                "submission": name,
                "n": len(values[i]),
                "rank": float(observed[i]),
                "low": low,
                "high": high,
                "seed_low": float(by_seed[i].min()) if by_seed is not None else np.nan,
                "seed_high": float(by_seed[i].max()) if by_seed is not None else np.nan,
                "first": float(shares[i]) if low == low else np.nan,  # noqa: PLR0124 - not NaN
            }
        )
    return rows


def _placed(values: Floats) -> Floats:
    """Rank each column from 1, lowest first; equal values share their middle rank."""
    import pandas as pd

    placed: Floats = pd.DataFrame(values).rank(axis="index").to_numpy()
    return placed
