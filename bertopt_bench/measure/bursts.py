"""Add up what was noted over several short intervals, as if they had been one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SECONDS = "observed_seconds"
STATES = ("load1", "runnable_threads", "cpu_mhz", "gpu_")
"""Names, or their beginnings, of what is read at the end and not counted."""


def merged(noted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge `Disturbance.stop()` of intervals: shares by their time, counts added, states last."""
    if len(noted) == 1:
        return dict(noted[0])
    return {key: _merge(key, noted) for key in noted[-1]}


def _merge(key: str, noted: Sequence[Mapping[str, Any]]) -> Any:
    last = noted[-1].get(key)
    if isinstance(last, list | tuple):  # throttle reasons: whatever was seen at all
        return sorted({item for one in noted for item in one.get(key) or ()})
    counted = key.endswith(("_share", "_seconds"))
    if key.startswith(STATES) and not counted:
        return last
    values = [value for one in noted if isinstance(value := one.get(key), int | float)]
    if len(values) < len(noted):  # of a part nothing is known, and so of the whole
        return None
    if not key.endswith("_share"):
        return sum(values)
    seconds = [float(one.get(SECONDS) or 0.0) for one in noted]
    whole = math.fsum(seconds)
    weighed = math.fsum(v * s for v, s in zip(values, seconds, strict=True))
    return weighed / whole if whole else last
