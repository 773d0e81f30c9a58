"""Graphs of optimizer steps, mended before Inductor sees them; oracle: the same function, eager."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from bertopt_bench.axes.kernels._graphs import MendStep

if TYPE_CHECKING:
    from collections.abc import Callable

aten = torch.ops.aten


def mended(function: Callable[..., object], *sources: torch.Tensor) -> torch.fx.GraphModule:
    module = make_fx(function, tracing_mode="fake")(*sources)
    MendStep()(module.graph)
    module.recompile()
    return module


def targets(module: torch.fx.GraphModule) -> list[object]:
    return [node.target for node in module.graph.nodes if node.op == "call_function"]


def adam_like(weight: torch.Tensor, gradient: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    return weight - gradient * 0.1 / (1 - 0.9**step) / (1 - 0.999 ** (step + 1)).sqrt()


def test_scalars_are_computed_once_before_the_loops() -> None:
    """No loop reads a scalar that it could compute itself, and the numbers stay bit for bit."""
    sources = torch.randn(5, 3), torch.randn(5, 3), torch.tensor(3.0)
    module = mended(adam_like, *sources)

    assert targets(module).count(torch.ops.bertopt_bench.finished.default) == 1
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target != torch.ops.bertopt_bench.finished.default:
            value = node.meta["val"]
            if isinstance(value, torch.Tensor) and value.dim():
                scalars = [part for part in node.all_input_nodes if not part.meta["val"].dim()]
                assert all(part.target.__name__ == "getitem" for part in scalars)
    assert torch.equal(module(*sources), adam_like(*sources))


def test_scalars_that_need_a_loop_stay_behind_it() -> None:
    """A trust ratio follows from norms of weights: it cannot be finished before them."""

    def scaled(weight: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
        return weight * (weight.norm() / (2 - rate.exp()))

    sources = torch.randn(4), torch.tensor(0.1)
    module = mended(scaled, *sources)

    assert torch.equal(module(*sources), scaled(*sources))


def test_constants_that_stand_late_do_not_hold_scalars_back() -> None:
    """Constants may come after a loop that reads a scalar. Oracle: lint, and the values."""

    def step(weight: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
        first = weight * (1 - rate.exp())
        return first * (rate * torch.tensor(0.5)).sqrt()

    sources = torch.randn(4), torch.tensor(0.1)
    module = mended(step, *sources)
    kinds = [node.op for node in module.graph.nodes]

    assert "get_attr" in kinds
    assert torch.equal(module(*sources), step(*sources))


def test_lists_are_split_into_their_tensors() -> None:
    """Interpolations by tensors and Euclidean norms, which Inductor would run eagerly."""

    def step(a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
        mixed = torch._foreach_lerp([a, b], [b, a], [weight, weight])
        return [*mixed, *torch._foreach_norm(mixed)]

    sources = torch.randn(7), torch.randn(7), torch.tensor(0.25)
    module = mended(step, *sources)

    left = targets(module)
    assert aten._foreach_lerp.List not in left
    assert aten._foreach_norm.Scalar not in left
    for found, expected in zip(module(*sources), step(*sources), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_other_norms_stay_as_they_are() -> None:
    """Only the Euclidean norm is written out; oracle: the sum of magnitudes, untouched."""

    def norms(a: torch.Tensor) -> list[torch.Tensor]:
        return list(torch._foreach_norm([a, a * 2], 1))

    source = torch.randn(6)
    module = mended(norms, source)

    assert aten._foreach_norm.Scalar in targets(module)
    assert torch.equal(module(source)[1], norms(source)[1])


def test_a_graph_without_scalars_is_left_alone() -> None:
    """Nothing to mend, nothing added."""
    source = torch.randn(6)
    module = mended(lambda a: a * 2 + 1, source)

    assert targets(module) == [aten.mul.Tensor, aten.add.Tensor]
