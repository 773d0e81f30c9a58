"""Read torch.profiler's Chrome traces: events, how they nest, and which step and module they serve.

A trace that this package wrote is also mended for its readers (:func:`mend`): TensorBoard's
torch-tb-profiler finds modules only among Python functions, and takes every other annotation for
work of the CPU. Times in a trace are microseconds; what this module gives out is too, and says so.
"""

from __future__ import annotations

import gzip
import json
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

PHASE, MODULE, STEP = "phase: ", "module: ", "ProfilerStep#"
"""How ranges are named while they are recorded."""
PHASES = ("data", "forward", "backward", "optimizer")
REST = "rest"
ROOT = "(model)"
_BACKWARD = "autograd::engine::evaluate_function: "
_PLUGIN_MODULE = "nn.Module: "  # as torch-tb-profiler knows modules
_LAUNCHES = frozenset({"cuda_runtime", "cuda_driver"})
_ON_DEVICE = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
_NESTED = frozenset({"cpu_op", "user_annotation", "phase", "python_function", *_LAUNCHES})


@dataclass(slots=True)
class Node:
    """Something that a thread did from ``begin`` to ``end``, with all that it called.

    ``module`` and ``phase`` say what it was done for; ``step`` is the number of the step, from 0,
    or -1 outside of all.
    """

    name: str
    category: str
    thread: tuple[Any, Any]
    begin: float
    end: float
    args: Mapping[str, Any]
    children: list[Node] = field(default_factory=list)
    module: str = ""
    phase: str = REST
    step: int = -1

    @property
    def duration(self) -> float:
        return self.end - self.begin

    @property
    def self_duration(self) -> float:
        """What is left of its duration without what it called."""
        return self.duration - sum(child.duration for child in self.children)

    @property
    def is_operator(self) -> bool:
        return self.category == "cpu_op"

    @property
    def shapes(self) -> str:
        """Its inputs' shapes, as the trace writes them."""
        return json.dumps(self.args.get("Input Dims", []), separators=(",", ":"))

    def walk(self) -> Iterator[Node]:
        """Give itself and all below it, callers before what they call."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))


@dataclass(frozen=True, slots=True)
class DeviceSpan:
    """A kernel or copy on the device, and the operator that launched it (None: not known)."""

    name: str
    begin: float
    end: float
    launcher: Node | None
    step: int


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """Bytes allocated (positive) or freed; ``total`` is the allocator's own count, 0 where none."""

    at: float
    bytes: int
    on_device: bool
    total: int


@dataclass(frozen=True)
class Trace:
    """A trace put in order: ``steps`` are (begin, end), ``phases`` their ranges, as they came."""

    steps: tuple[tuple[float, float], ...]
    phases: tuple[Node, ...]
    roots: Mapping[tuple[Any, Any], tuple[Node, ...]]
    main_thread: tuple[Any, Any]
    device_spans: tuple[DeviceSpan, ...]
    memory: tuple[MemoryChange, ...]

    @property
    def uses_device(self) -> bool:
        return bool(self.device_spans)

    def operators(self) -> Iterator[Node]:
        """Give every operator that ran within a step."""
        for roots in self.roots.values():
            for root in roots:
                for node in root.walk():
                    if node.is_operator and node.step >= 0:
                        yield node


def read_trace(file: Path) -> dict[str, Any]:
    """Read a trace, gzip'd or plain.

    Raises:
        UserError: it cannot be read, or is no Chrome trace.
    """
    try:
        data = file.read_bytes()
        document = json.loads(gzip.decompress(data) if file.suffix == ".gz" else data)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file} is no trace that can be read: {error}.") from error
    if not isinstance(document, dict) or not isinstance(document.get("traceEvents"), list):
        raise UserError(f"{file} is no Chrome trace: it has no list 'traceEvents'.")
    return document


def write_trace(document: Mapping[str, Any], file: Path) -> int:
    """Write a trace gzip'd, the same bytes for the same trace; give its size."""
    data = json.dumps(document, separators=(",", ":")).encode()
    packed = gzip.compress(data, compresslevel=6, mtime=0)
    file.write_bytes(packed)
    return len(packed)


def mend(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Give the trace as TensorBoard and Perfetto read it best, its numbers untouched.

    Phases become a category of their own, modules the Python functions that torch-tb-profiler
    shows, by their paths. Arrows from forward to backward operators stay, under a name that the
    plugin does not follow: it would drop every backward operator whose forward one stood outside of
    a module, as the loss does. The machine's name and the path first written to go.
    """
    identities: dict[str, int] = {}
    spans = [_mended(dict(event), identities) for event in document["traceEvents"]]
    _nest_modules([span for span in spans if span.get("cat") == "python_function"])
    kept = {key: value for key, value in document.items() if key != "host_name"}
    return {**kept, "traceEvents": spans, "traceName": name}


def _mended(event: dict[str, Any], identities: dict[str, int]) -> dict[str, Any]:
    name = str(event.get("name", ""))
    if event.get("cat") == "fwdbwd":
        event["cat"] = "forward to backward"
    elif event.get("cat") != "user_annotation":
        return event  # a GPU's track repeats the ranges, as gpu_user_annotation
    elif name.startswith(PHASE):
        event["cat"] = "phase"
    elif name.startswith(MODULE):
        path = name.removeprefix(MODULE) or ROOT
        identity = identities.setdefault(path, len(identities))
        event["cat"], event["name"] = "python_function", _PLUGIN_MODULE + path
        event["args"] = {**event.get("args", {}), "Python module id": identity}
    return event


def _nest_modules(spans: Sequence[dict[str, Any]]) -> None:
    """Number module calls and name each one's caller, as torch's own Python tracer does."""
    ordered = sorted(spans, key=lambda span: (str(span["tid"]), span["ts"], -span["dur"]))
    stack: list[dict[str, Any]] = []
    for number, span in enumerate(ordered, start=1):
        while stack and not (
            stack[-1]["tid"] == span["tid"] and span["ts"] < stack[-1]["ts"] + stack[-1]["dur"]
        ):
            stack.pop()
        parent = stack[-1]["args"]["Python id"] if stack else None
        span["args"] |= {"Python id": number, "Python parent id": parent}
        stack.append(span)


def parse_trace(document: Mapping[str, Any]) -> Trace:
    """Nest a mended trace's events, and find each one's step, phase and module.

    Raises:
        UserError: it holds no profiled step.
    """
    threads: dict[tuple[Any, Any], list[Node]] = {}
    for event in document["traceEvents"]:
        if event.get("ph") == "X" and event.get("cat") in _NESTED:
            node = _node(event)
            threads.setdefault(node.thread, []).append(node)
    nested = {thread: nest(nodes) for thread, nodes in threads.items()}
    found = {
        thread: [n for root in roots for n in root.walk() if n.name.startswith(STEP)]
        for thread, roots in nested.items()
    }
    main = max(found, key=lambda thread: len(found[thread]), default=None)
    if main is None or not found[main]:
        raise UserError(f"the trace holds no step (a range named '{STEP}1' and so on).")
    steps = tuple((node.begin, node.end) for node in sorted(found[main], key=lambda n: n.begin))
    phases = tuple(n for root in nested[main] for n in root.walk() if n.category == "phase")
    _place(nested, main, steps, phases)
    roots = {thread: tuple(nodes) for thread, nodes in nested.items()}
    spans = _device_spans(document["traceEvents"], roots)
    return Trace(steps, phases, roots, main, spans, _memory(document["traceEvents"]))


def _node(event: Mapping[str, Any]) -> Node:
    begin = float(event["ts"])
    return Node(
        str(event["name"]),
        str(event["cat"]),
        (event.get("pid"), event.get("tid")),
        begin,
        begin + float(event["dur"]),
        event.get("args") or {},
    )


def nest(nodes: list[Node]) -> list[Node]:
    """Nest one thread's events by their times; give those that stand in no other.

    An operator that only calls one of its own name counts as one, as in torch's own tables.
    """
    nodes.sort(key=lambda node: (node.begin, -node.end))
    roots: list[Node] = []
    stack: list[Node] = []
    for node in nodes:
        while stack and node.begin >= stack[-1].end:
            stack.pop()
        if stack:
            node.end = min(node.end, stack[-1].end)  # rounded to a nanosecond, it may stand out
            stack[-1].children.append(node)
        else:
            roots.append(node)
        stack.append(node)
    for root in roots:
        for node in root.walk():
            _merge_alike(node)
    return roots


def _merge_alike(node: Node) -> None:
    while node.is_operator:
        called = [child for child in node.children if child.category not in _LAUNCHES]
        if len(called) != 1 or not called[0].is_operator or called[0].name != node.name:
            return
        node.children = called[0].children


def _place(
    nested: Mapping[tuple[Any, Any], list[Node]],
    main: tuple[Any, Any],
    steps: Sequence[tuple[float, float]],
    phases: Sequence[Node],
) -> None:
    """Say of every node which step, phase and module it is for."""
    ranges = [(node.begin, node.end, node.name.removeprefix(PHASE)) for node in phases]
    begins, step_begins = [begin for begin, _, _ in ranges], [begin for begin, _ in steps]
    for roots in nested.values():
        for node in (node for root in roots for node in root.walk()):
            step = bisect_right(step_begins, node.begin) - 1
            node.step = step if step >= 0 and node.begin < steps[step][1] else -1
            index = bisect_right(begins, node.begin) - 1
            if index >= 0 and node.begin < ranges[index][1]:
                node.phase = ranges[index][2]
    makers = _makers(nested[main])
    for roots in nested.values():
        for root in roots:
            _assign_modules(root, makers)


def _makers(roots: Sequence[Node]) -> dict[int, str]:
    """Give, by sequence number, the module whose forward operator made an autograd node.

    Operators that call each other share a number; the last to begin with it made the node.
    """
    last: dict[int, tuple[float, str]] = {}
    for root in roots:
        for node, module in _with_modules(root, ""):
            number = node.args.get("Sequence number")
            if node.is_operator and node.phase == "forward" and isinstance(number, int):
                last[number] = max(last.get(number, (node.begin, module)), (node.begin, module))
    return {number: module for number, (_, module) in last.items()}


def _with_modules(root: Node, outer: str) -> Iterator[tuple[Node, str]]:
    stack = [(root, outer)]
    while stack:
        node, module = stack.pop()
        inner = _path_of(node) or module
        yield node, inner
        stack += [(child, inner) for child in node.children]


def _path_of(node: Node) -> str:
    is_module = node.category == "python_function" and node.name.startswith(_PLUGIN_MODULE)
    return node.name.removeprefix(_PLUGIN_MODULE) if is_module else ""


def _assign_modules(root: Node, makers: Mapping[int, str]) -> None:
    """Write modules into a tree; what stands in none is named by its phase, in brackets."""
    stack = [(root, "")]
    while stack:
        node, module = stack.pop()
        if node.name.startswith(_BACKWARD):
            number = node.args.get("Sequence number")
            module = makers.get(number, "") if isinstance(number, int) else ""
            if not module:
                module = "(gradients)" if "AccumulateGrad" in node.name else "(loss)"
        module = _path_of(node) or module
        node.module = module or ("(loss)" if node.phase == "forward" else f"({node.phase})")
        stack += [(child, module) for child in node.children]


def _device_spans(
    events: Sequence[Mapping[str, Any]], roots: Mapping[tuple[Any, Any], Sequence[Node]]
) -> tuple[DeviceSpan, ...]:
    launchers: dict[Any, Node] = {}
    for nodes in roots.values():
        for root in nodes:
            for node in root.walk():
                for child in node.children:
                    if child.category in _LAUNCHES and "correlation" in child.args:
                        launchers[child.args["correlation"]] = node
    spans = []
    for event in events:
        if event.get("ph") == "X" and event.get("cat") in _ON_DEVICE:
            launcher = launchers.get((event.get("args") or {}).get("correlation"))
            begin = float(event["ts"])
            step = launcher.step if launcher is not None else -1
            end = begin + float(event["dur"])
            spans.append(DeviceSpan(str(event["name"]), begin, end, launcher, step))
    return tuple(sorted(spans, key=lambda span: span.begin))


def _memory(events: Sequence[Mapping[str, Any]]) -> tuple[MemoryChange, ...]:
    changes = [
        MemoryChange(
            float(event["ts"]),
            int(event["args"].get("Bytes", 0)),
            event["args"].get("Device Type") != 0,
            int(event["args"].get("Total Allocated") or 0),
        )
        for event in events
        if event.get("ph") == "i" and event.get("name") == "[memory]"
    ]
    return tuple(sorted(changes, key=lambda change: change.at))
