"""Say when a process has warmed up, and how many steps make a block."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MEDIAN_SHARE = 0.03
QUARTILE_SHARE = 0.05
LEAST_WINDOW_STEPS = 5
LEAST_WINDOW_SECONDS = 0.5
MOST_WINDOWS = 50
CLOCK_SHARE = 0.03


def windows_agree(before: Sequence[float], after: Sequence[float]) -> bool:
    """Say whether two windows of step seconds are alike: medians within 3 %, quartiles within 5 %.

    Source: pyperf's calibration of warm-ups.
    """
    first, second = (statistics.quantiles(w, n=4, method="inclusive") for w in (before, after))
    allowed = (QUARTILE_SHARE, MEDIAN_SHARE, QUARTILE_SHARE)
    return all(abs(b - a) <= share * a for a, b, share in zip(first, second, allowed, strict=True))


def clocks_agree(before: float | None, after: float | None) -> bool:
    """Say whether a GPU's clock has settled: within 3 %, or not known."""
    return before is None or after is None or abs(after - before) <= CLOCK_SHARE * before


def steps_for(seconds: float, step_seconds: float, least: int) -> int:
    """Give how many steps last ``seconds`` or longer, ``least`` at the least."""
    return max(least, math.ceil(seconds / step_seconds))
