"""Map differences and times to per cent of a drawing, and choose round ticks for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertopt_bench.report.duel_wording import TIMES
from bertopt_bench.report.wording import MINUS
from bertopt_bench.stats.comparisons import RATIOS

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_TICKS = 7
LEAST_GAP = 13.0  # per cent of the width between two ticks: their texts must fit on a phone
FACTORS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Scale:
    """Map values to per cent of a length, and choose round ticks with their texts."""

    low: float
    high: float
    metric: str = ""

    @classmethod
    def of(cls, values: Iterable[float], metric: str = "", air: float = 0.06) -> Scale:
        """Span all finite values with a little air."""
        finite = [value for value in values if math.isfinite(value)] or [0.0]
        low, high = min(finite), max(finite)
        room = (high - low) * air or abs(high) * 0.05 or 0.01
        return cls(low - room, high + room, metric)

    def at(self, value: float) -> float:
        """Place a value in per cent; what lies outside is put at the edge."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(share * 100, 2)

    def beyond(self, value: float, height: float) -> float:
        """Place a value in a drawing's height, outside of it where it lies outside."""
        return round(height * (1 - (value - self.low) / (self.high - self.low)), 1)

    def ticks(
        self, most: int = MOST_TICKS, least_gap: float = LEAST_GAP
    ) -> list[tuple[float, str]]:
        """Give places in per cent with their texts."""
        if self.metric not in RATIOS:
            found = [(value, _nats(value)) for value in round_values(self.low, self.high, most)]
        elif math.expm1(self.high) - math.expm1(self.low) < 0.8:
            ends = math.expm1(self.low), math.expm1(self.high)
            found = [(math.log1p(p), _percent(p)) for p in round_values(*ends, most)]
        else:
            found = [(math.log(factor), f"{TIMES} {factor:g}") for factor in FACTORS]
        inside = [(self.at(v), text) for v, text in found if self.low < v < self.high]
        return apart(inside, least_gap)


def round_values(low: float, high: float, most: int) -> list[float]:
    """Give the multiples of 1, 2 or 5 times a power of ten that lie between, no more than asked.

    >>> round_values(-0.021, 0.032, 5)
    [-0.02, 0.0, 0.02]
    """
    width = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(width))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= width)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(i * step, 12) for i in range(first, last + 1)]


def apart(ticks: list[tuple[float, str]], least_gap: float = LEAST_GAP) -> list[tuple[float, str]]:
    """Drop ticks that would touch another; zero always stays."""
    kept: list[tuple[float, str]] = []
    for place, text in sorted(ticks, key=lambda t: t[1] not in {"0", f"{TIMES} 1"}):
        if all(abs(place - other) >= least_gap for other, _ in kept):
            kept.append((place, text))
    return sorted(kept)


def _percent(share: float) -> str:
    return f"{share * 100:+g} %".replace("-", MINUS) if share else "0"


def _nats(value: float) -> str:
    return f"{value:+g}".replace("-", MINUS) if value else "0"
