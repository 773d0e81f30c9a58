"""The space that an arm is tuned in: options with a grid or bounds each, and points of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.keys import Key, came, refuse_repeats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.matrix.keys import Place

    Options = dict[str, float]

FINEST_RANKING_FACTOR = 2.0
"""A coarser grid than this cannot rank optimizers: half a step off the best costs more than what
tells them apart (workload.md 3)."""

_KEYS: Mapping[str, Key] = {
    "log": Key("list"),
    "linear": Key("list"),
    "values": Key("list"),
    "below": Key("int", least=0, most=20),
    "above": Key("int", least=0, most=20),
    "factor": Key("float", above=1, most=1000),
    "coarse": Key("bool", False),
}
_NUMBER = Key("float")
_FORMS = "log = [LOW, HIGH], below = N with above = N, linear = [LOW, HIGH], or values = [...]"


@dataclass(frozen=True, slots=True)
class Dimension:
    """An option that is searched, as ``optimizer.lr``.

    ``values`` are the grid's (none for linear bounds); ``low`` and ``high`` bound what is drawn.
    Beyond the edge the next value is ``factor`` times further; 0 where no step is known.
    ``default`` is the documented one, None where the entry has none.
    """

    key: str
    default: float | None
    values: tuple[float, ...]
    low: float
    high: float
    factor: float
    is_log: bool

    def beyond(self, value: float, side: int) -> float | None:
        """Give the next value outside of an edge (``side`` -1 or 1), None where there is none."""
        if not self.factor or value <= 0:
            return None
        return tidy(value * self.factor**side)


def tidy(value: float) -> float:
    """Round to six significant digits: cells are named by their values.

    >>> tidy(0.1 * 3)
    0.3
    """
    return float(f"{value:.6g}")


def read_dimension(key: str, table: Any, default: float | None, place: Place) -> Dimension:
    """Read one option's space.

    Raises:
        MatrixError: no form, or two; a log grid coarser than a factor of 2 that does not say so.
    """
    table = {k: _KEYS[k].read(v, place.at(k)) for k, v in _known(table, place).items()}
    forms = [form for form in ("log", "linear", "values") if form in table]
    around = "below" in table or "above" in table
    if len(forms) + around != 1:
        raise place.error(f"is {came(table)}; it must have one of: {_FORMS}.")
    factor = table.get("factor", FINEST_RANKING_FACTOR)
    if forms == ["values"]:
        return _listed(key, table, default, place)
    if forms == ["linear"]:
        low, high = _bounds(table["linear"], place.at("linear"))
        return Dimension(key, default, (), low, high, 0.0, is_log=False)
    if around:
        low, high = _around(table, default, factor, place)
    else:
        low, high = _bounds(table["log"], place.at("log"))
        if low <= 0:
            raise place.at("log").error(f"begins at {low:g}; a log grid is above 0.")
    _refuse_coarse(factor, table, place)
    values = _log_grid(low, high, factor, default)
    return Dimension(key, default, values, low, high, factor, is_log=True)


def grid(dimensions: Sequence[Dimension]) -> list[Options]:
    """Give every combination of the grids' values, the documented default first.

    The default is added where the grid does not have it.
    """
    found = [
        dict(zip((one.key for one in dimensions), values, strict=True))
        for values in product(*(one.values for one in dimensions))
    ]
    default = default_point(dimensions)
    return found if default is None else [default, *(one for one in found if one != default)]


def default_point(dimensions: Sequence[Dimension]) -> Options | None:
    """Give the documented default, None where an option has none."""
    defaults = {one.key: one.default for one in dimensions if one.default is not None}
    return defaults if len(defaults) == len(dimensions) else None


def draw(dimensions: Sequence[Dimension], count: int, sampler: str, seed: int) -> list[Options]:
    """Draw quasi-random points between the bounds, log bounds evenly in the logarithm.

    The first n are the same however many follow.

    Source: Sobol and Halton sequences, scrambled; scipy.stats.qmc.
    """
    from scipy.stats import qmc

    makers = {"sobol": qmc.Sobol, "halton": qmc.Halton}
    engine = makers[sampler](len(dimensions), scramble=True, rng=seed)
    if sampler == "sobol":  # balanced at powers of 2 only: more are drawn than are taken
        rows = engine.random_base2(math.ceil(math.log2(max(count, 2))))[:count]
    else:
        rows = engine.random(count)
    return [
        {one.key: _scaled(one, float(share)) for one, share in zip(dimensions, row, strict=True)}
        for row in rows
    ]


def _scaled(one: Dimension, share: float) -> float:
    if one.is_log:
        return tidy(one.low * (one.high / one.low) ** share)
    return tidy(one.low + (one.high - one.low) * share)


def _known(table: Any, place: Place) -> dict[str, Any]:
    found = place.table(table)
    place.known(found, _KEYS)
    return found


def _bounds(value: list[Any], place: Place) -> tuple[float, float]:
    numbers = [_NUMBER.read(part, place.item(index)) for index, part in enumerate(value)]
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise place.error(f"is {came(value)}; it must be [LOW, HIGH], the lower one first.")
    return numbers[0], numbers[1]


def _around(
    table: Mapping[str, Any], default: float | None, factor: float, place: Place
) -> tuple[float, float]:
    if default is None or default <= 0:
        raise place.error(
            f"is laid around the documented default, which is {default}; state bounds instead: "
            "log = [LOW, HIGH]."
        )
    return default / factor ** table.get("below", 0), default * factor ** table.get("above", 0)


def _refuse_coarse(factor: float, table: Mapping[str, Any], place: Place) -> None:
    if factor > FINEST_RANKING_FACTOR and not table.get("coarse", False):
        raise place.error(
            f"steps by a factor of {factor:g}; above {FINEST_RANKING_FACTOR:g} a grid is too "
            "coarse to rank optimizers. Take a finer one, or say coarse = true."
        )


def _log_grid(low: float, high: float, factor: float, default: float | None) -> tuple[float, ...]:
    """Lay the grid through the default where that is within bounds, else through the low one."""
    within = default is not None and low * (1 - 1e-9) <= default <= high * (1 + 1e-9)
    anchor = default if within and default else low
    down = math.floor(math.log(anchor / low, factor) + 1e-9)
    up = math.floor(math.log(high / anchor, factor) + 1e-9)
    return tuple(tidy(anchor * factor**k) for k in range(-down, up + 1))


def _listed(key: str, table: Mapping[str, Any], default: float | None, place: Place) -> Dimension:
    """Read an explicit list; the step at its ends is that of its last two values."""
    spot = place.at("values")
    places = [spot.item(index) for index in range(len(table["values"]))]
    numbers = [_NUMBER.read(v, p) for v, p in zip(table["values"], places, strict=True)]
    refuse_repeats(numbers, places)
    if not numbers or min(numbers) < 0:
        raise spot.error(f"is {came(table['values'])}; it must hold numbers of 0 and above.")
    numbers.sort()
    positive = [number for number in numbers if number > 0]
    ratios = [b / a for a, b in pairwise(positive)]
    factor = table.get("factor", max(ratios, default=FINEST_RANKING_FACTOR))
    _refuse_coarse(max([factor, *ratios]), table, place)
    return Dimension(key, default, tuple(numbers), numbers[0], numbers[-1], factor, is_log=True)


def checked_points(points: Sequence[Options], wanted: int, place: Place) -> list[Options]:
    """Refuse a grid that has not as many points as every arm is given.

    Raises:
        MatrixError: it has more or fewer.
    """
    if len(points) != wanted:
        raise place.error(
            f"has a grid of {len(points)} points, the documented default among them, but "
            f"tuning.points is {wanted}: every arm gets as many. Change one of the two."
        )
    return list(points)


def refuse_undrawable(dimensions: Sequence[Dimension], sampler: str, place: Place) -> None:
    """Refuse spaces that a sampler cannot use.

    Raises:
        MatrixError: linear bounds on a grid, a list of values or a single one for a drawn point.
    """
    for one in dimensions:
        spot = place.at(one.key)
        if sampler == "grid" and not one.values:
            raise spot.error("has linear bounds, which are drawn from; for a grid list values.")
        if sampler != "grid" and one.low >= one.high:
            raise spot.error(f"has one value; sampler '{sampler}' draws between two bounds.")
        if sampler != "grid" and one.low <= 0 and one.is_log:
            raise spot.error(f"begins at {one.low:g}; what is drawn evenly in the logarithm is "
                             "above 0.")  # fmt: skip


def refuse_empty(table: Mapping[str, Any], place: Place) -> None:
    """Refuse an arm without a space: there is nothing to tune.

    Raises:
        MatrixError: the space names no option.
    """
    if not table:
        raise place.error("names no option. Write space.optimizer.lr = { log = [LOW, HIGH] }.")


def read_number(value: Any) -> float | None:
    """Give an option's value as a number, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)
