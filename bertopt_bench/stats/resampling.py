"""Bootstrap over seeds, repeatable to the last digit: the draws are seeded by what is resampled."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from bertopt_bench.matrix.identity import canonical_json
from bertopt_bench.stats.power import LEAST_REPLICATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

DRAWS = 2000
CONFIDENCE = 0.95


def generator(*content: Any) -> np.random.Generator:
    """Seed a generator by content: equal data give equal draws, in any process and any order."""
    digest = hashlib.sha256(canonical_json([_written(part) for part in content]).encode())
    return np.random.default_rng(int.from_bytes(digest.digest()[:16], "big"))


def _written(part: Any) -> Any:
    """Write numbers whole and those that are not finite as words, which JSON lacks."""
    if isinstance(part, np.ndarray):
        return [_written(value) for value in part.tolist()]
    if isinstance(part, list | tuple):
        return [_written(value) for value in part]
    return repr(part) if isinstance(part, float) else part


def draws_for(n: int) -> int:
    """Say how often to draw: once where there are too few runs for an interval anyway."""
    return DRAWS if n >= LEAST_REPLICATES else 1


def resampled_medians(
    values: Sequence[Floats], *, paired: bool, rng: np.random.Generator, draws: int
) -> Floats:
    """Draw runs anew with replacement and take medians: an array (submissions, draws).

    ``paired`` arrays have a place a seed, and a draw takes the same seeds of all of them.
    """
    medians = np.empty((len(values), draws))
    shared = rng.integers(0, len(values[0]), (draws, len(values[0]))) if paired else None
    for i, runs in enumerate(values):
        drawn = rng.integers(0, len(runs), (draws, len(runs))) if shared is None else shared
        medians[i] = np.median(runs[drawn], axis=1)
    return medians


def interval(draws: Floats, n: int) -> tuple[float, float]:
    """Give the percentile interval, or NaN twice where fewer than 6 runs were resampled.

    The ends are values that were drawn, so that infinite ones are legal. Source: Efron 1979; with
    few seeds it is known to cover less than it says (Agarwal et al. 2021).
    """
    if n < LEAST_REPLICATES or np.isnan(draws).any():
        return float("nan"), float("nan")
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)
