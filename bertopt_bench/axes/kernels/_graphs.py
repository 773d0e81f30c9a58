"""Mend graphs of optimizer steps before Inductor makes loops of them. Imports torch.

A compiled step takes its rate and its counts of steps as tensors of no dimension, and Inductor
writes what is made of them, a power for a bias correction, into the loop over the weights: its C++
back end then takes that power once a vector instead of once a step. And two operations on lists
that pytorch-optimizer uses have no lowering: they run eagerly, in loops and with memory of their
own. Measured on two cores with 105 M parameters: see docs/decisions.md.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch._inductor.custom_graph_pass import CustomGraphPass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

aten = torch.ops.aten


@torch.library.custom_op("bertopt_bench::finished", mutates_args=())
def finished(scalars: list[torch.Tensor]) -> list[torch.Tensor]:
    """Give copies of the scalars: what the compiler cannot look into it cannot compute again."""
    return [scalar.clone() for scalar in scalars]


@finished.register_fake
def _(scalars: list[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.empty_like(scalar) for scalar in scalars]


class MendStep(CustomGraphPass):
    """Split lists' operations into those of their tensors, and compute scalars before the loops.

    Source: torch._inductor.config.post_grad_custom_post_pass.
    """

    def __call__(self, graph: torch.fx.Graph) -> None:
        """Mend a graph in place."""
        split_lists(graph)
        finish_scalars(graph)
        graph.lint()

    def uuid(self) -> Any:
        """Name this pass in the compiler's cache."""
        return "bertopt_bench.mend_step.1"


def split_lists(graph: torch.fx.Graph) -> None:
    """Write norms and interpolations of lists as operations on each tensor: those are fused."""
    for node in list(graph.nodes):
        write = _SPLIT.get(node.target)
        if write is None:
            continue
        for item in list(node.users):
            with graph.inserting_before(item):
                new = write(graph, node, item.args[1])
            if new is not None:
                item.replace_all_uses_with(new)
                graph.erase_node(item)
        if not node.users:
            graph.erase_node(node)


def finish_scalars(graph: torch.fx.Graph) -> None:
    """Put all scalars that loops read, and that need no loop's result, through one call.

    On a CPU only: a GPU takes a power in no time, and a call for it would cost more.
    """
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    early = [node for node in _without_loops(graph) if node.op != "placeholder"]
    read = [
        node
        for node in early
        if node.op == "call_function" and any(_is_loop(user) for user in node.users)
    ]
    if not read or not inputs:
        return
    cursor = inputs[-1]
    for node in early:  # constants too, which may stand anywhere
        cursor.append(node)
        cursor = node
    with graph.inserting_after(cursor):
        call = graph.call_function(torch.ops.bertopt_bench.finished.default, (read,))
    call.meta["val"] = [node.meta["val"] for node in read]
    for index, node in reversed(list(enumerate(read))):
        with graph.inserting_after(call):
            item = graph.call_function(operator.getitem, (call, index))
        item.meta["val"] = node.meta["val"]
        for user in [user for user in node.users if _is_loop(user)]:
            user.replace_input_with(node, item)


def _write_lerp(graph: torch.fx.Graph, node: torch.fx.Node, index: int) -> torch.fx.Node:
    """Write one tensor's interpolation, start + weight * (end - start)."""
    lists: Any = node.args
    start, end, weight = (part[index] for part in lists)
    way = _call(graph, aten.sub.Tensor, end, start)
    return _call(graph, aten.add.Tensor, start, _call(graph, aten.mul.Tensor, way, weight))


def _write_norm(graph: torch.fx.Graph, node: torch.fx.Node, index: int) -> torch.fx.Node | None:
    """Write one tensor's Euclidean norm; no other norm is split."""
    if node.kwargs or (len(node.args) > 1 and node.args[1] != 2):
        return None
    tensors: Any = node.args[0]
    tensor = tensors[index]
    square = _call(graph, aten.mul.Tensor, tensor, tensor)
    return _call(graph, aten.sqrt.default, _call(graph, aten.sum.default, square))


_SPLIT: dict[Any, Callable[[torch.fx.Graph, torch.fx.Node, Any], torch.fx.Node | None]] = {
    aten._foreach_lerp.List: _write_lerp,  # noqa: SLF001 - an operation's name, nothing private
    aten._foreach_norm.Scalar: _write_norm,  # noqa: SLF001
}


def _call(graph: torch.fx.Graph, target: Callable[..., Any], *sources: Any) -> torch.fx.Node:
    node = graph.call_function(target, sources)
    values = [source.meta["val"] for source in sources]
    with values[0].fake_mode:
        node.meta["val"] = target(*values)
    return node


def _without_loops(graph: torch.fx.Graph) -> list[torch.fx.Node]:
    """List scalars that follow from scalars alone, in their order."""
    found: dict[torch.fx.Node, None] = {}
    for node in graph.nodes:
        if _is_scalar(node) and all(source in found for source in node.all_input_nodes):
            found[node] = None
    return list(found)


def _is_loop(node: torch.fx.Node) -> bool:
    return any(value.dim() > 0 for value in _values(node))


def _is_scalar(node: torch.fx.Node) -> bool:
    values = list(_values(node))
    return bool(values) and all(
        value.dim() == 0 and value.device.type == "cpu" and value.is_floating_point()
        for value in values
    )


def _values(node: torch.fx.Node) -> Iterator[torch.Tensor]:
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        yield from (part for part in value if isinstance(part, torch.Tensor))
