"""How much of the variance each axis explains, and axes together, with effect sizes.

Runs stand in complete blocks, a block a seed: cells with a hole or an infinite value are left out
and named. Sums of squares are of type II (each term after all terms that do not contain it), over
the cells' means, so that an incomplete factorial is legal; in a complete one they are the classic
ones. The error is that of cells by seeds. Interactions above two axes make one term.
Sources: Langsrud 2003 (type II); Olejnik and Algina 2003 (generalised eta squared); Kirk 1995
(partial omega squared); Smithson 2003 (its interval, from the noncentral F). Checked against
statsmodels' ``anova_lm(typ=2)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from bertopt_bench.stats.power import LEAST_REPLICATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas import DataFrame

    from bertopt_bench.stats.resampling import Floats

BLOCK = "seed"
TIMES = " × "  # noqa: RUF001 - a multiplication sign
HIGHER = "higher interactions"
ERROR = "error (cells by seeds)"
COLUMNS = ("term", "df", "sum_of_squares", "f", "p", "partial_eta2", "generalised_eta2", "omega2",
           "omega2_low", "omega2_high", "n")  # fmt: skip


@dataclass(frozen=True)
class Variance:
    """A table of terms, and what was left out: cells by label, with why.

    ``confounded`` are axes that say nothing beyond the others: each of their levels stands with one
    level of another axis alone.
    """

    table: DataFrame
    factors: tuple[str, ...]
    cells: int
    seeds: int
    left_out: tuple[str, ...]
    confounded: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Blocks:
    """Values by seed and cell, and the level of each cell on each factor."""

    runs: Floats
    levels: DataFrame


def variance(runs: DataFrame, factors: Sequence[str], value: str = "final") -> Variance | None:
    """Analyse the variance of a value over factors; None where nothing is left to compare.

    ``runs`` has a row a cell and seed, with ``seed`` and a column a factor. Of one seed there is
    no error, so that only the shares of the whole are known. Intervals of partial omega squared
    take the errors as normal, from 6 seeds on.
    """
    blocks, left_out = _blocks(runs, factors, value)
    if blocks is None:
        return None
    used = [f for f in factors if len(set(blocks.levels[f])) > 1]
    if not used or blocks.runs.min() == blocks.runs.max():  # an eager and a compiled cell, say
        return None
    terms = _terms(blocks.levels, used)
    table = _table(blocks, terms)
    seeds, cells = blocks.runs.shape
    confounded = tuple(factor for factor in used if factor not in terms)
    return Variance(table, tuple(used), cells, seeds, tuple(left_out), confounded)


def _blocks(
    runs: DataFrame, factors: Sequence[str], value: str
) -> tuple[_Blocks | None, list[str]]:
    """Keep the cells that have a finite value for every seed."""
    plain = runs.assign(
        **{f: runs[f].map(str) for f in factors}, **{value: runs[value].fillna(math.inf)}
    )
    wide = plain.pivot_table(index=list(factors), columns=BLOCK, values=value, aggfunc="first")
    whole = np.isfinite(wide.to_numpy(dtype=float)).all(axis=1)
    left_out = [" · ".join(_key(key)) for key in wide.index[~whole]]
    kept = wide[whole]
    if len(kept) < 2:
        return None, left_out
    return _Blocks(kept.to_numpy(dtype=float).T, kept.index.to_frame(index=False)), left_out


def _key(index: Any) -> tuple[str, ...]:
    return tuple(map(str, index)) if isinstance(index, tuple) else (str(index),)


def _terms(levels: DataFrame, factors: Sequence[str]) -> dict[str, Floats]:
    """Give an orthonormal basis of what each term adds to all terms that do not contain it."""
    names = [(f,) for f in factors] + list(combinations(factors, 2))
    columns = {name: _indicators(levels, name) for name in names}
    bases: dict[str, Floats] = {}
    for name in names:
        others = [columns[o] for o in names if not set(name) <= set(o)]
        bases[TIMES.join(name)] = _added(_joined(len(levels), others), columns[name])
    whole = _joined(len(levels), list(columns.values()))
    bases[HIGHER] = _added(whole, np.eye(len(levels)))
    return {name: basis for name, basis in bases.items() if basis.shape[1]}


def _indicators(levels: DataFrame, factors: Sequence[str]) -> Floats:
    codes = levels.groupby(list(factors), sort=True).ngroup().to_numpy()
    return np.eye(int(codes.max()) + 1)[codes]


def _joined(cells: int, parts: Sequence[Floats]) -> Floats:
    return np.hstack([np.ones((cells, 1)), *parts])


def _added(before: Floats, more: Floats) -> Floats:
    """Give an orthonormal basis of the span of ``more`` beyond that of ``before``."""
    known = _basis(before)
    return _basis(more - known @ (known.T @ more))


def _basis(columns: Floats) -> Floats:
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    basis: Floats = left[:, sizes > 1e-9 * math.sqrt(columns.shape[0])]
    return basis


def _table(blocks: _Blocks, terms: dict[str, Floats]) -> DataFrame:
    import pandas as pd
    from scipy.special import fdtrc

    seeds, cells = blocks.runs.shape
    found = _sums(blocks.runs[np.newaxis], terms)
    error_df, error, of_seeds = (seeds - 1) * (cells - 1), found[ERROR][0], found[BLOCK][0]
    mean_error = error / error_df if error_df else math.nan
    rows = []
    for name, basis in terms.items():
        df, squares = basis.shape[1], float(found[name][0])
        f = squares / df / mean_error if mean_error > 0 else math.nan
        low, high = _interval(f, df, error_df, blocks.runs.shape)
        omega = _omega(found[name], df, found[ERROR], error_df, seeds * cells)
        values = (
            *(name, df, squares, f, float(fdtrc(df, error_df or math.nan, f))),
            squares / (squares + error) if error_df else math.nan,
            squares / (squares + error + of_seeds) if error_df else squares / _total(found),
            *(float(omega[0]), low, high, seeds),
        )
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    others = ((BLOCK, seeds - 1, of_seeds), (ERROR, error_df, error))
    rows += [
        {"term": name, "df": df, "sum_of_squares": float(s), "n": seeds}
        for name, df, s in others
        if df
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _total(found: dict[str, Floats]) -> float:
    return float(found["total"][0])


def _sums(values: Floats, terms: dict[str, Floats]) -> dict[str, Floats]:
    """Give sums of squares by term; ``values`` are an array (draws, seeds, cells)."""
    seeds = values.shape[1]
    means = values.mean(axis=1)
    grand = means.mean(axis=1, keepdims=True)
    of_seeds = values.mean(axis=2)
    residual = values - means[:, np.newaxis] - of_seeds[..., np.newaxis] + grand[..., np.newaxis]
    found = {name: seeds * ((means @ basis) ** 2).sum(axis=1) for name, basis in terms.items()}
    found[BLOCK] = values.shape[2] * ((of_seeds - grand) ** 2).sum(axis=1)
    found[ERROR] = (residual**2).sum(axis=(1, 2))
    found["total"] = ((values - grand[..., np.newaxis]) ** 2).sum(axis=(1, 2))
    return found


def _interval(f: float, df: int, error_df: int, shape: tuple[int, ...]) -> tuple[float, float]:
    """Give the 95 % interval of partial omega squared: those under which F is not extreme.

    With noncentrality ``nc`` the share is nc / (nc + runs).
    """
    from scipy.optimize import brentq
    from scipy.special import ncfdtr

    if shape[0] < LEAST_REPLICATES or not math.isfinite(f) or not error_df:
        return math.nan, math.nan

    def beyond(nc: float, level: float) -> float:
        return float(ncfdtr(df, error_df, nc, f)) - level

    most, ends = 10.0 * (f * df + df + error_df), []
    for level in (0.975, 0.025):
        nc = brentq(beyond, 0.0, most, args=(level,)) if beyond(0.0, level) > 0 else 0.0
        ends.append(nc / (nc + math.prod(shape)))
    return ends[0], ends[1]


def _omega(squares: Floats, df: int, error: Floats, error_df: int, runs: int) -> Floats:
    """Give partial omega squared; NaN where there is no error to set it against."""
    if not error_df:
        return np.full(squares.shape, math.nan)
    mean_error = error / error_df
    with np.errstate(invalid="ignore", divide="ignore"):
        omega: Floats = (squares - df * mean_error) / (squares + (runs - df) * mean_error)
    return omega
