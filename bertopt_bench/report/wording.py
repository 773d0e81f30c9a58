"""Write numbers so that each carries its unit, and each summary its n and spread."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertopt_bench.stats.estimates import Effect, Spread

MINUS = "−"  # noqa: RUF001 - the typographic minus sign, as wide as a plus
NBSP = "\N{NO-BREAK SPACE}"
STATUS_WORDS = {
    "ok": "ran to the end",
    "skipped": "skipped",
    "diverged": "diverged",
    "out_of_memory": "ran out of memory",
    "timed_out": "timed out",
    "failed": "failed",
}


def significant(value: float, digits: int = 3) -> str:
    """Round to significant digits, group thousands, and never use an exponent below 1e9."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    text = f"{round(value, decimals):,.{max(decimals, 0)}f}"
    return text.replace("-", MINUS)


def loss(value: float) -> str:
    """Write a loss in nats with three decimals."""
    return f"{value:.3f}".replace("-", MINUS)


def share(value: float) -> str:
    """Write a share as per cent."""
    return f"{value * 100:.1f}{NBSP}%"


def duration(seconds: float) -> str:
    """Write seconds in the unit that reads best."""
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{significant(seconds * factor)} {unit}"
    return f"{significant(seconds)} s"


def memory(value: float) -> str:
    """Write bytes as KiB, MiB or GiB (powers of 1,024)."""
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= factor:
            return f"{significant(value / factor)} {unit}"
    return f"{value:.0f} B"


def rate(value: float) -> str:
    """Write tokens a second."""
    return f"{significant(value)} tokens/s"


def plural(count: int, noun: str, many: str = "") -> str:
    """Count a noun: `1 cell`, `24 cells`."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def listed(parts: Sequence[str]) -> str:
    """Join as in a sentence: `a, b and c`."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if parts[1:] else list(parts))


def change(effect: Effect, value: float, *, unit: bool = True) -> str:
    """Write a paired difference: signed nats, a signed per cent, or a factor.

    It is a factor where any of the effect's differences is threefold: all are written alike.
    """
    if not effect.metric.is_ratio:
        sign = "+" if value > 0 else ""
        return f"{sign}{loss(value)}{' nats' if unit else ''}"
    ratio, spread = math.exp(value), effect.spread
    ends = (value,) if spread is None else (value, spread.low, spread.high)
    if max(map(abs, ends)) >= math.log(3):
        return f"×{NBSP}{significant(ratio)}"  # noqa: RUF001 - a multiplication sign
    percent = (ratio - 1) * 100
    text = f"{percent:+.1f}{NBSP}%".replace("-", MINUS)
    return f"0.0{NBSP}%" if abs(percent) < 0.05 else text


def spread_of_changes(effect: Effect, spread: Spread) -> str:
    """Write where the middle half of the differences lies, and all of them."""
    if spread.n == 1:
        return "one context"
    low, high = spread.q1, spread.q3
    return (
        f"middle half {change(effect, low, unit=False)} to {change(effect, high, unit=False)}, "
        f"n = {spread.n} contexts"
    )


def ratio(log_ratio: float) -> str:
    """Write a log ratio as the ratio itself: three decimals below 10, three digits above."""
    value = math.exp(log_ratio) if log_ratio < 700 else math.inf
    if math.isinf(value):
        return "∞"
    return f"{value:.3f}" if value < 10 else significant(value)


def nats(value: float) -> str:
    """Write a difference of losses with its sign, three decimals, four where it is small."""
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    sign = "+" if value > 0 else ""
    text = f"{value:.3f}" if abs(value) >= 0.1 else f"{value:.4f}"
    return f"{sign}{text}".replace("-", MINUS)


def p_value(p: float) -> str:
    """Write a p-value with two digits at most, and none that claims to be below 0.0001."""
    if p < 1e-4:
        return "< 0.0001"
    return significant(p, 2).rstrip("0").rstrip(".")


def percent(value: float) -> str:
    """Write a share as it was stated, without zeros at its end: 0.02 is 2 %."""
    text = significant(value * 100, 3)
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}{NBSP}%"


def confidence(value: float) -> str:
    """Write a confidence: 95 %, 99.1 %."""
    return f"{value * 100:.3g}{NBSP}%"
