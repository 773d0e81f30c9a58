"""FLOPs and bytes of operators follow from their shapes."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bertopt_bench.measure.operator_costs import cost_of, formula_points
from bertopt_bench.measure.trace_tables import OperatorRow


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("aten::mm", [[5, 7], [7, 3]]),
        ("aten::bmm", [[2, 5, 7], [2, 7, 3]]),
        ("aten::addmm", [[3], [5, 7], [7, 3]]),
        ("aten::baddbmm", [[2, 5, 3], [2, 5, 7], [2, 7, 3]]),
    ],
)
def test_products_are_counted_as_torch_counts_them(name: str, shapes: list[list[int]]) -> None:
    """Oracle: torch.utils.flop_counter on the same shapes; bytes of inputs and result by hand."""
    tensors = [torch.ones(shape) for shape in shapes]
    with FlopCounterMode(display=False) as counter:
        result = getattr(torch, name.removeprefix("aten::"))(*tensors)
    cost = cost_of(name, shapes, ["float"] * len(shapes))

    assert cost is not None
    assert cost.flops == counter.get_total_flops()
    assert cost.bytes == 4 * (sum(t.numel() for t in tensors) + result.numel())


def test_attention_is_two_products_forward_and_five_backward() -> None:
    """Oracle: Dao et al., arXiv 2205.14135: recomputed scores make five; two are 4 b h s s d."""
    query = [2, 3, 8, 4]
    name = "aten::_scaled_dot_product_flash_attention_for_cpu"
    forward = cost_of(name, [query] * 3, ["c10::BFloat16"] * 3)
    backward = cost_of(f"{name}_backward", [query] * 5, ["c10::BFloat16"] * 5)

    assert forward is not None
    assert backward is not None
    assert forward.flops == 4 * 2 * 3 * 8 * 8 * 4
    assert backward.flops == 2.5 * forward.flops
    assert forward.bytes == 4 * math.prod(query) * 2


def test_elementwise_operators_read_inputs_and_write_the_largest_once() -> None:
    """Oracle: by hand: 6 + 3 elements read, 6 written, 4 bytes each."""
    cost = cost_of("aten::add", [[2, 3], [3], []], ["float", "float", "Scalar"])

    assert cost is not None
    assert (cost.kind, cost.flops, cost.bytes) == ("elementwise", 6, 4 * (6 + 3 + 6))


@pytest.mark.parametrize(
    ("name", "shapes", "types"),
    [
        ("aten::view", [[2, 3]], ["float"]),
        ("aten::mm", [], []),
        ("aten::mm", [[2, 3], [4, 5]], ["float", "float"]),
        ("aten::mm", [[2, 3], [3, 5]], ["quint8", "quint8"]),
        ("aten::add", [[], []], ["Scalar", "Scalar"]),
    ],
)
def test_what_no_formula_covers_has_no_cost(
    name: str, shapes: list[list[int]], types: list[str]
) -> None:
    """Oracle: a wrong point on a roofline is worse than none."""
    assert cost_of(name, shapes, types) is None


def test_points_are_one_step_and_take_the_devices_seconds_where_there_are_any() -> None:
    """Oracle: by hand: two shapes of mm, 2 steps: 3 calls and 48 + 2 * 96 FLOPs in all."""
    rows = [
        OperatorRow("aten::mm", "[[2,3],[3,4]]", "float,float", 2, (1, 1), (2, 2), (0, 0)),
        OperatorRow("aten::mm", "[[4,3],[3,4]]", "float,float", 4, (1, 1), (9, 9), (3, 3)),
        OperatorRow("aten::view", "[[2,3]]", "float", 4, (1, 1), (1, 1), (0, 0)),
    ]
    (point,) = formula_points(rows, steps=2)

    assert (point.source, point.calls, point.flops) == ("formula", 3, 48 + 2 * 96)
    assert point.seconds == (4 + 6) / 2
    assert point.flops_per_second == point.flops / 5


@pytest.mark.parametrize(
    ("name", "shapes", "types", "moved"),
    [
        ("aten::copy_", [[10, 100], [10, 100], []], ["float", "float", "Scalar"], 8000),
        ("aten::copy_", [[1000], [1000], []], ["c10::BFloat16", "float", "Scalar"], 6000),
        ("aten::copy_", [[10, 100], [100], []], ["float", "float", "Scalar"], 4400),
        ("aten::bernoulli_", [[1000], [], []], ["float", "Scalar", ""], 4000),
        ("aten::native_dropout", [[1000], [], []], ["float", "Scalar", "Scalar"], 9000),
    ],
)
def test_what_is_only_written_is_not_read(
    name: str, shapes: list[list[int]], types: list[str], moved: int
) -> None:
    """Oracle: by hand: a copy reads its source and writes its destination, a draw writes alone."""
    cost = cost_of(name, shapes, types)

    assert cost is not None
    assert cost.bytes == moved
