"""Paired, interleaved runs of two ways to do one thing: a ratio and its interval.

Blocks alternate and their order is drawn, so that the machine's drift hits both alike. The ratio is
the Hodges-Lehmann estimate of the log ratios of neighbouring blocks, the interval the matching
Wilcoxon one (Walsh averages, normal approximation of the signed-rank count, n >= 20). The blocks of
one pair of processes are the units here: this answers "in these processes", as a cross-check does.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class PairedRatio:
    """Time of the first by time of the second: estimate, interval, and what it stands on."""

    ratio: float
    low: float
    high: float
    pairs: int
    first_median_seconds: float
    second_median_seconds: float
    confidence: float

    def __str__(self) -> str:
        return (
            f"ratio {self.ratio:.4f}, {self.confidence:.0%} interval [{self.low:.4f}, "
            f"{self.high:.4f}], n = {self.pairs} pairs of blocks; medians "
            f"{self.first_median_seconds * 1e3:.3f} ms and "
            f"{self.second_median_seconds * 1e3:.3f} ms"
        )


def paired_ratio(
    first: Callable[[], float],
    second: Callable[[], float],
    *,
    pairs: int,
    seed: int = 0,
    confidence: float = 0.95,
) -> PairedRatio:
    """Run both in alternation, the order within a pair drawn; each call gives its own seconds."""
    if pairs < 20:
        raise SystemExit(f"{pairs} pairs are too few for the interval used here; take 20 or more.")
    order = random.Random(seed)
    rows = []
    for _ in range(pairs):
        if order.random() < 0.5:
            a = first()
            b = second()
        else:
            b = second()
            a = first()
        rows.append((a, b))
    times = np.asarray(rows)
    estimate, low, high = walsh_interval(np.log(times[:, 0] / times[:, 1]), confidence)
    medians = np.median(times, axis=0)
    return PairedRatio(
        math.exp(estimate),
        math.exp(low),
        math.exp(high),
        pairs,
        float(medians[0]),
        float(medians[1]),
        confidence,
    )


def walsh_interval(differences: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Give the Hodges-Lehmann estimate and the Wilcoxon interval (Hollander & Wolfe, 3.3)."""
    n = len(differences)
    i, j = np.triu_indices(n)
    walsh = np.sort((differences[i] + differences[j]) / 2)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    count = n * (n + 1) / 4 - z * math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    rank = max(0, math.floor(count))
    return float(np.median(walsh)), float(walsh[rank]), float(walsh[-1 - rank])
