"""Read shares, durations and sizes as people write them: ``5%``, ``±1%``, ``90s``, ``16GiB``."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_BYTES = {
    **{unit: 1000**power for power, unit in enumerate(("B", "kB", "MB", "GB", "TB"))},
    **{unit: 1024**power for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), start=1)},
}
_LEAST_WITHOUT_UNIT = 2**20


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


def read_limit(max_memory: str | int | None) -> int | None:
    """Read what --max-memory says; None where it says nothing.

    Raises:
        UserError: it is no size, or a number without a unit that can hardly mean bytes.
    """
    if max_memory is None:
        return None
    size = read_bytes(max_memory, lambda text: UserError(f"--max-memory {text}"))
    written = str(max_memory).strip()
    if size < _LEAST_WITHOUT_UNIT and not written[-1].isalpha():
        raise UserError(
            f"--max-memory is {max_memory!r}; without a unit these are bytes, and no step fits "
            f"into {size:,}. Write {written}GiB or {written}MiB; or {written}B, if it is meant."
        )
    return size


def read_bytes(value: Any, error: Callable[[str], ValueError]) -> int:
    """Read a size of a byte or more: a number of bytes, or a text with a unit, in any case.

    ``GB`` is 1000 ** 3 bytes and ``GiB`` 1024 ** 3.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        size = float(value)
    else:
        found = re.fullmatch(
            r"\s*(\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+)\s*([a-z]*)\s*", str(value), re.IGNORECASE
        )
        if not found:
            raise error(
                f"is {value!r}; it must be a size such as '16GiB', '800MiB' or 2e9 (bytes)."
            )
        units = {unit.lower(): size for unit, size in _BYTES.items()}
        unit = found[2].lower() or "b"
        if unit not in units:
            close = nearest(found[2], _BYTES)
            raise error(f"is {value!r}; no unit '{found[2]}'. Units: {', '.join(_BYTES)}.{close}")
        size = float(found[1]) * units[unit]
    if not 1 <= size < math.inf:
        raise error(f"is {value!r}; it must be a byte or more.")
    return round(size)
