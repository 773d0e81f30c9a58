"""Count FLOPs and bytes of operators by formula, from the shapes that a trace recorded.

A multiply-add is two FLOPs; an elementwise operator counts one FLOP an element of its result, so
that it has a place on a roofline: its bytes decide. Bytes are what must be read and written once,
each input and the result; what stays in a cache is not known to a formula.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bertopt_bench.measure.trace_tables import OperatorRow

Shape = list[int]

BYTES = {
    "double": 8, "long int": 8, "long": 8, "float": 4, "int": 4, "c10::BFloat16": 2,
    "c10::Half": 2, "bool": 1, "unsigned char": 1,
}  # fmt: skip
"""Bytes an element by the names of types in a trace."""
ELEMENTWISE = frozenset(
    f"aten::{name}"
    for name in (
        "add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "sqrt", "neg", "exp", "tanh",
        "gelu", "gelu_backward", "addcmul_", "addcdiv_", "lerp_", "copy_", "where", "sign", "abs",
        "_softmax", "_log_softmax", "_softmax_backward_data", "_log_softmax_backward_data",
        "native_layer_norm", "native_layer_norm_backward", "native_dropout",
        "native_dropout_backward", "masked_fill", "masked_fill_", "bernoulli_", "clamp_",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Point:
    """A place on a roofline: one step's work of an operator or kernel.

    ``source`` is ``formula`` where FLOPs and bytes follow from shapes, ``counted`` where the
    device's counters gave them.
    """

    name: str
    source: str
    kind: str
    calls: float
    flops: float
    bytes: float
    seconds: float

    @property
    def intensity(self) -> float:
        """FLOPs a byte."""
        return self.flops / self.bytes if self.bytes else math.inf

    @property
    def flops_per_second(self) -> float:
        return self.flops / self.seconds if self.seconds else 0.0

    @property
    def bytes_per_second(self) -> float:
        return self.bytes / self.seconds if self.seconds else 0.0


def formula_points(rows: Iterable[OperatorRow], steps: int) -> list[Point]:
    """Place the operators whose cost follows from their shapes, largest first, shapes together.

    An operator's time is the device's where it launched work there, else its own with all that it
    called.
    """
    sums: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        cost = cost_of(row.name, json.loads(row.shapes), row.types.split(","))
        if cost is None:
            continue
        seconds = sum(row.device_seconds) or sum(row.total_seconds)
        found = sums.setdefault((row.name, cost.kind), [0.0] * 4)
        parts = (row.calls, row.calls * cost.flops, row.calls * cost.bytes, seconds)
        for index, value in enumerate(parts):
            found[index] += value / steps
    points = [Point(name, "formula", kind, *found) for (name, kind), found in sums.items()]
    return sorted(points, key=lambda point: -point.seconds)


@dataclass(frozen=True, slots=True)
class Cost:
    """FLOPs and bytes of one call."""

    kind: str
    flops: float
    bytes: float


def cost_of(name: str, shapes: list[Any], types: list[str]) -> Cost | None:
    """Give an operator's cost by its inputs; None where no formula here covers it.

    >>> cost_of("aten::mm", [[2, 3], [3, 4]], ["float", "float"])
    Cost(kind='product', flops=48, bytes=104)
    """
    product = _PRODUCTS.get(name)
    try:
        if product is not None:
            return product(shapes, types)
        attention = name.startswith("aten::_scaled_dot_product_") and "math" not in name
        if attention:
            return _attention(shapes, types, backward=name.endswith("_backward"))
        if name in _MOVES:
            return _MOVES[name](shapes, types)
        return _elementwise(shapes, types) if name in ELEMENTWISE else None
    except (IndexError, KeyError, TypeError, ValueError):
        return None  # shapes of an overload that these formulas do not know


def _product(first: int) -> Callable[[list[Any], list[str]], Cost]:
    """Give the formula of a product whose left factor is input number ``first``."""

    def cost(shapes: list[Any], types: list[str]) -> Cost:
        left, right = shapes[first], shapes[first + 1]
        *batch, rows, inner = left
        if right[-2] != inner:
            raise ValueError
        result = math.prod(batch) * rows * right[-1]
        read = sum(_bytes(shape, kind) for shape, kind in zip(shapes, types, strict=False))
        return Cost("product", 2 * result * inner, read + result * BYTES[types[first]])

    return cost


_PRODUCTS = {
    "aten::mm": _product(0),
    "aten::bmm": _product(0),
    "aten::addmm": _product(1),
    "aten::baddbmm": _product(1),
}


def _attention(shapes: list[Any], types: list[str], *, backward: bool) -> Cost:
    """Count two products forward, five backward; reads and writes of Q, K, V and their like."""
    query, key = (shapes[1], shapes[2]) if backward else (shapes[0], shapes[1])
    batch, heads, rows, size = query
    products = 5 if backward else 2
    flops = products * 2 * batch * heads * rows * key[2] * size
    arrays = 8 if backward else 4  # gradient, Q, K, V, result, and the three gradients out
    return Cost("product", flops, arrays * math.prod(query) * BYTES[types[0]])


def _elementwise(shapes: list[Any], types: list[str]) -> Cost:
    inputs = [(shape, kind) for shape, kind in zip(shapes, types, strict=False) if kind in BYTES]
    largest = max(inputs, key=lambda pair: math.prod(pair[0]))
    elements = math.prod(largest[0])
    read = sum(_bytes(shape, kind) for shape, kind in inputs)
    return Cost("elementwise", elements, read + elements * BYTES[largest[1]])


def _copied(shapes: list[Any], types: list[str]) -> Cost:
    """Count a source that is read and a destination that is written, whatever it held."""
    elements = math.prod(shapes[0])
    moved = elements * BYTES[types[0]] + math.prod(shapes[1]) * BYTES[types[1]]
    return Cost("elementwise", elements, moved)


def _drawn(shapes: list[Any], types: list[str]) -> Cost:
    elements = math.prod(shapes[0])
    return Cost("elementwise", elements, elements * BYTES[types[0]])


def _dropped(shapes: list[Any], types: list[str]) -> Cost:
    """Count the input that is read, the result and the mask that are written."""
    elements = math.prod(shapes[0])
    return Cost("elementwise", elements, elements * (2 * BYTES[types[0]] + BYTES["bool"]))


_MOVES = {"aten::copy_": _copied, "aten::bernoulli_": _drawn, "aten::native_dropout": _dropped}
"""Operators that write more, or read less, than each input once and a result of the largest."""


def _bytes(shape: Shape, kind: str) -> int:
    return math.prod(shape) * BYTES[kind] if kind in BYTES else 0
