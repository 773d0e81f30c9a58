"""Read shares and durations as people write them: ``5%``, ``±1%``, ``0.02``, ``90s``, ``5m``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def read_share(value: Any, error: Callable[[str], ValueError]) -> float:
    """Read a share between 0 and 1: a number, or a text with a per cent sign.

    Args:
        value: what came.
        error: makes the error to raise, which names the place.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        share = float(value)
    else:
        found = re.fullmatch(r"\s*(?:±|\+-)?\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*", str(value))
        if not found:
            raise error(f"is {value!r}; it must be a share such as '2%' or 0.02.")
        share = float(found[1]) / (100 if found[2] else 1)
    if not 0 <= share < 1:
        raise error(f"is {value!r}; it must be at least 0 and below 100 %.")
    return share


def read_seconds(value: Any, error: Callable[[str], ValueError]) -> float:
    """Read a duration above 0: seconds, or a text with a unit s, m or h."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(s|m|min|h)?\s*", str(value))
        if not found:
            raise error(f"is {value!r}; it must be a duration such as '90s', '5m' or '1h'.")
        seconds = float(found[1]) * _SECONDS[found[2] or "s"]
    if seconds <= 0:
        raise error(f"is {value!r}; it must be longer than nothing.")
    return seconds
