"""Sum up a traced step by kinds of operation: time, and FLOPs and bytes where shapes give them.

What a kind is, the caller says: this room knows operators and their shapes only.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertopt_bench.measure.operator_costs import cost_of
from bertopt_bench.measure.traces import Node, nest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Classify = Callable[[str, Sequence[Any]], str]

_RUNTIME = re.compile(r"cu(da)?[A-Z]")
OTHER = "other"
OPTIMIZER, OPTIMIZER_RANGE = "optimizer", "Optimizer.step#"
"""torch puts every optimizer's step into a range that begins so."""


@dataclass(slots=True)
class OperationSum:
    """One kind's work in one step.

    ``seconds`` is all its time: the device's where it launched work there, else the host's own.
    ``counted_seconds``, ``flops`` and ``bytes`` are of its operators whose cost is known.
    """

    calls: int = 0
    seconds: float = 0.0
    counted_seconds: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0


@dataclass(frozen=True)
class StepSpans:
    """What ran in a step, nested; ``launched`` gives device seconds by the ``id`` of a node."""

    seconds: float
    roots: Sequence[Node]
    launched: Mapping[int, float]
    on_device: bool

    @classmethod
    def of(cls, events: Iterable[Any], boundary: str, device_type: str) -> StepSpans:
        """Nest what the profiler saw on the host within a range (kineto's events)."""
        listed = list(events)
        within = next(event for event in listed if event.name() == boundary)
        begin, end = within.start_ns(), within.start_ns() + within.duration_ns()
        threads: dict[int, list[Node]] = defaultdict(list)
        by_correlation: dict[int, Node] = {}
        for event in listed:
            known = event.device_type().name == "CPU" and event.name() not in {boundary, "[memory]"}
            if known and begin <= event.start_ns() < end:
                node = _node(event, begin)
                threads[event.start_thread_id()].append(node)
                if not _RUNTIME.match(node.name):  # CUDA numbers its own calls by itself
                    by_correlation[event.correlation_id()] = node
        roots = [root for nodes in threads.values() for root in nest(nodes)]
        launched: dict[int, float] = defaultdict(float)
        for event in listed:
            launcher = by_correlation.get(event.linked_correlation_id())
            if launcher is not None and _is_work(event):
                launched[id(launcher)] += event.duration_ns() * 1e-9
        return cls((end - begin) * 1e-9, roots, launched, device_type != "cpu")

    def sums(self, classify: Classify) -> dict[str, OperationSum]:
        """Sum up by kind.

        Args:
            classify: gives the kind of an operator's name and its inputs' shapes; empty where it
                has none of its own and takes its caller's.
        """
        found: dict[str, OperationSum] = defaultdict(OperationSum)
        stack = [(root, OTHER) for root in self.roots]
        while stack:
            node, kind = stack.pop()
            if node.name.startswith(OPTIMIZER_RANGE):
                _add(found[OPTIMIZER], self._time(node))
                continue
            shapes, types = node.args["shapes"], node.args["types"]
            if kind == OTHER and node.is_operator:
                kind = classify(node.name, shapes) or OTHER
            cost = cost_of(node.name, shapes, types)
            if cost is None:
                _add(found[kind], self._own(node))
                stack += [(child, kind) for child in node.children]
                continue
            seconds = self._time(node)
            _add(found[kind], seconds)
            found[kind].calls += 1
            found[kind].counted_seconds += seconds
            found[kind].flops += cost.flops
            found[kind].bytes += cost.bytes
        return dict(found)

    def names(self, prefix: str) -> tuple[set[str], set[str]]:
        """Part the host's names: what ran within ranges that begin so, and what ran elsewhere."""
        within: set[str] = set()
        elsewhere: set[str] = set()
        stack = [(root, elsewhere) for root in self.roots]
        while stack:
            node, found = stack.pop()
            found = within if node.name.startswith(prefix) else found
            found.add(node.name)
            stack += [(child, found) for child in node.children]
        return within, elsewhere

    def _own(self, node: Node) -> float:
        """Give a node's time without what it called."""
        return self.launched.get(id(node), 0.0) if self.on_device else node.self_duration

    def _time(self, node: Node) -> float:
        """Give a node's time with all that it called."""
        return sum(self._own(one) for one in node.walk()) if self.on_device else node.duration


def _add(found: OperationSum, seconds: float) -> None:
    found.seconds += seconds


def _is_work(event: Any) -> bool:
    """Say whether a device did something, and for whom: no range of a user's, seen from there."""
    linked = event.linked_correlation_id() != 0  # 0: nobody's, though host events have it too
    on_device = event.device_type().name != "CPU"
    return linked and on_device and not event.is_user_annotation()


def _node(event: Any, origin_ns: int) -> Node:
    """Make a node; both ends come from whole nanoseconds, so that what touches does not overlap."""
    begin, end = event.start_ns() - origin_ns, event.start_ns() + event.duration_ns() - origin_ns
    category = "user_annotation" if event.is_user_annotation() else "cpu_op"
    args = {"shapes": event.shapes(), "types": event.dtypes()}
    thread = (0, event.start_thread_id())
    return Node(event.name(), category, thread, begin * 1e-9, end * 1e-9, args)
