"""Say what grew before a training diverged: the first module whose figure left its calm value.

What was seen at the last look before the final steps, all of which are looked at, counts as calm.
Update-to-weight ratios follow the schedule and are left out: a warm-up would be taken for growth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIGURES = ("activation_norm", "gradient_norm", "weight_norm")
"""In the order in which a step makes them: of equal growth the first one is named."""

GROWN = 4.0
"""A figure that is so many times its calm value has grown."""


@dataclass(frozen=True, slots=True)
class Growth:
    """What grew first (or most, where nothing passed ``GROWN``): from ``calm`` to ``value``."""

    module: str
    figure: str
    calm_step: int
    calm: float
    step: int
    value: float
    last_step: int
    last: float

    @property
    def factor(self) -> float:
        """Give how many times the calm value it was; inf where it was no number."""
        return _factor(self.value, self.calm)


def find_growth(rows: Sequence[Mapping[str, object]], diverged: int) -> Growth | None:
    """Find the first growth among rows with ``step``, ``module`` and the figures.

    None where fewer than two steps were seen up to the divergence.
    """
    seen: dict[int, dict[tuple[str, str], float]] = {}
    for row in rows:
        at = seen.setdefault(int(str(row["step"])), {})
        at.update({(str(row["module"]), f): float(str(row[f])) for f in FIGURES})
    steps = sorted(step for step in seen if step <= diverged)
    if len(steps) < 2:
        return None
    calm_step = _calm(steps)
    later = [step for step in steps if step > calm_step]
    calm = {key: v for key, v in seen[calm_step].items() if math.isfinite(v) and v > 0}
    if not calm:
        return None
    for step in later:
        key = _most(seen[step], calm)
        if _factor(seen[step][key], calm[key]) >= GROWN or step == later[-1]:
            now, last = seen[step][key], seen[later[-1]][key]
            return Growth(*key, calm_step, calm[key], step, now, later[-1], last)
    return None


def _calm(steps: Sequence[int]) -> int:
    """Give the last step before the unbroken run of looks at the end; the first where all are."""
    at = len(steps) - 1
    while at > 0 and steps[at - 1] == steps[at] - 1:
        at -= 1
    return steps[max(0, at - 1)] if at > 0 else steps[0]


def _most(
    now: Mapping[tuple[str, str], float], calm: Mapping[tuple[str, str], float]
) -> tuple[str, str]:
    """Give what grew most; of equals, the earlier figure and then the earlier module."""
    order = sorted(calm, key=lambda key: FIGURES.index(key[1]))
    return max(order, key=lambda key: _factor(now[key], calm[key]))


def _factor(value: float, calm: float) -> float:
    return value / calm if math.isfinite(value) else math.inf
