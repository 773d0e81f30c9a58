"""Sum up a trace: phases, operators, modules, kernels, idle gaps and memory, step by step.

Every number of seconds is one value a step, in the order of the steps, so that a reader sees the
spread. Host seconds are the thread's, device seconds those of kernels and copies that an operator
launched.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertopt_bench.measure.traces import PHASES, REST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bertopt_bench.measure.traces import Node, Trace

Seconds = tuple[float, ...]
MOST_GAPS = 40
TIMELINE_BUCKETS = 400


@dataclass(frozen=True, slots=True)
class PhaseRow:
    """A part of the step; ``device_seconds`` are those of the work issued in it."""

    phase: str
    seconds: Seconds
    device_seconds: Seconds


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """An operator with inputs of one shape; ``calls`` are those of all steps together.

    ``device_seconds`` are those of what it launched itself.
    """

    name: str
    shapes: str
    types: str
    calls: int
    self_seconds: Seconds
    total_seconds: Seconds
    device_seconds: Seconds


@dataclass(frozen=True, slots=True)
class ModuleRow:
    """What an operator took within a module, layers taken together (``layer.*``), in one phase."""

    module: str
    phase: str
    operator: str
    modules: int
    calls: int
    self_seconds: Seconds
    device_seconds: Seconds


@dataclass(frozen=True, slots=True)
class KernelRow:
    """A kernel or copy on the device, and the operator that launched it."""

    name: str
    operator: str
    calls: int
    seconds: Seconds


@dataclass(frozen=True, slots=True)
class GapRow:
    """Idle time between two pieces of work, in the phase where it began."""

    phase: str
    after: str
    before: str
    count: int
    seconds: Seconds


@dataclass(frozen=True, slots=True)
class Idle:
    """Idle time a step: of the device, or where none was used of the main thread's operators.

    ``gaps`` are the longest kinds; ``seconds`` counts all.
    """

    of: str
    seconds: Seconds
    gaps: tuple[GapRow, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """Allocated bytes over the last profiled step, lowest and highest of each stretch of time.

    ``ends`` are the ends of the step's phases, in seconds from its begin.
    """

    seconds: Seconds
    low_bytes: tuple[int, ...]
    high_bytes: tuple[int, ...]
    step_seconds: float
    ends: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class TraceTables:
    """All that is summed up of one trace."""

    step_seconds: Seconds
    phases: tuple[PhaseRow, ...]
    operators: tuple[OperatorRow, ...]
    modules: tuple[ModuleRow, ...]
    kernels: tuple[KernelRow, ...]
    idle: Idle
    peak_bytes: tuple[int, ...]
    timeline: Timeline | None


class Sums:
    """Adds seconds up by step."""

    def __init__(self, steps: int) -> None:
        self.steps, self.calls = steps, 0
        self.names: set[str] = set()
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0] * steps)

    def add(self, step: int, **microseconds: float) -> None:
        """Add one call's microseconds under their names."""
        self.calls += 1
        for name, value in microseconds.items():
            self._sums[name][step] += value

    def seconds(self, name: str) -> Seconds:
        """Give the seconds of each step, to a tenth of a nanosecond."""
        return tuple(round(value * 1e-6, 10) for value in self._sums[name])


def tabulate_trace(trace: Trace, resident_bytes: int = 0) -> TraceTables:
    """Sum up a trace.

    Args:
        trace: what was parsed.
        resident_bytes: allocated at the begin of a step, for allocators whose changes alone are
            traced (the CPU's).
    """
    launched: dict[int, float] = defaultdict(float)
    for span in trace.device_spans:
        if span.launcher is not None:
            launched[id(span.launcher)] += span.end - span.begin
    device = lambda node: launched[id(node)]  # noqa: E731 - a name for one look-up
    timelines = _timelines(trace, resident_bytes)
    return TraceTables(
        step_seconds=tuple(round((end - begin) * 1e-6, 10) for begin, end in trace.steps),
        phases=_phases(trace),
        operators=_operators(trace, device),
        modules=_modules(trace, device),
        kernels=_kernels(trace),
        idle=_device_idle(trace) if trace.uses_device else _host_idle(trace),
        peak_bytes=tuple(max(held for _, held in changes) for changes in timelines),
        timeline=_timeline(trace, timelines[-1]) if timelines else None,
    )


def largest_first(row: OperatorRow | ModuleRow) -> tuple[float, ...]:
    """Order rows by what they took: device seconds where there are any, else their own."""
    device = sum(row.device_seconds)
    return (-device, -sum(row.self_seconds))


def _phases(trace: Trace) -> tuple[PhaseRow, ...]:
    count = len(trace.steps)
    host = {name: Sums(count) for name in (*PHASES, REST)}
    for step, (begin, end) in enumerate(trace.steps):
        host[REST].add(step, host=end - begin)
    for node in trace.phases:
        if node.step >= 0:
            host[node.phase].add(node.step, host=node.duration)
            host[REST].add(node.step, host=-node.duration)
    for span in trace.device_spans:
        if span.launcher is not None and span.step >= 0:
            host[span.launcher.phase].add(span.step, device=span.end - span.begin)
    return tuple(
        PhaseRow(name, sums.seconds("host"), sums.seconds("device")) for name, sums in host.items()
    )


def _operators(trace: Trace, device: Callable[[Node], float]) -> tuple[OperatorRow, ...]:
    found: dict[tuple[str, str, str], Sums] = {}
    for node in trace.operators():
        types = ",".join(str(t) for t in node.args.get("Input type", []))
        sums = found.setdefault((node.name, node.shapes, types), Sums(len(trace.steps)))
        sums.add(node.step, own=node.self_duration, total=node.duration, device=device(node))
    rows = [
        OperatorRow(
            *key, sums.calls, sums.seconds("own"), sums.seconds("total"), sums.seconds("device")
        )
        for key, sums in found.items()
    ]
    return tuple(sorted(rows, key=largest_first))


def layers_together(module: str) -> str:
    """Name a module without its layer's number.

    >>> layers_together("bert.encoder.layer.3.output.dense")
    'bert.encoder.layer.*.output.dense'
    """
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", module)


def _modules(trace: Trace, device: Callable[[Node], float]) -> tuple[ModuleRow, ...]:
    found: dict[tuple[str, str, str], Sums] = {}
    for node in trace.operators():
        key = (layers_together(node.module), node.phase, node.name)
        sums = found.setdefault(key, Sums(len(trace.steps)))
        sums.names.add(node.module)
        sums.add(node.step, own=node.self_duration, device=device(node))
    rows = [
        ModuleRow(*key, len(sums.names), sums.calls, sums.seconds("own"), sums.seconds("device"))
        for key, sums in found.items()
    ]
    return tuple(sorted(rows, key=largest_first))


def _kernels(trace: Trace) -> tuple[KernelRow, ...]:
    found: dict[tuple[str, str], Sums] = {}
    for span in trace.device_spans:
        if span.step >= 0:
            operator = span.launcher.name if span.launcher else ""
            sums = found.setdefault((span.name, operator), Sums(len(trace.steps)))
            sums.add(span.step, time=span.end - span.begin)
    rows = [KernelRow(*key, sums.calls, sums.seconds("time")) for key, sums in found.items()]
    return tuple(sorted(rows, key=lambda row: -sum(row.seconds)))


# --- idle time ---

Busy = tuple[float, float, str]  # begin and end in microseconds, and what ran


def _device_idle(trace: Trace) -> Idle:
    work = [(span.begin, span.end, span.name) for span in trace.device_spans]
    return _idle("device", trace, [_within(work, step) for step in trace.steps])


def _host_idle(trace: Trace) -> Idle:
    """Take the main thread's operators that no other one called; Python between them is idle."""
    work: list[list[Busy]] = [[] for _ in trace.steps]
    stack = list(trace.roots[trace.main_thread])
    while stack:
        node = stack.pop()
        if node.is_operator and node.step >= 0:
            work[node.step].append((node.begin, node.end, node.name))
        else:
            stack += node.children
    return _idle("host", trace, work)


def _within(work: Iterable[Busy], step: tuple[float, float]) -> list[Busy]:
    begin, end = step
    return [(max(b, begin), min(e, end), what) for b, e, what in work if b < end and e > begin]


def _idle(of: str, trace: Trace, busy: Sequence[Sequence[Busy]]) -> Idle:
    count = len(trace.steps)
    total = Sums(count)
    found: dict[tuple[str, str, str], Sums] = {}
    begins = [node.begin for node in trace.phases]
    for step, ((begin, end), work) in enumerate(zip(trace.steps, busy, strict=True)):
        reached, after = begin, "the step's begin"
        for b, e, what in [*sorted(work), (end, end, "the step's end")]:
            if b > reached:
                index = bisect_right(begins, reached) - 1
                inside = index >= 0 and reached < trace.phases[index].end
                phase = trace.phases[index].phase if inside else REST
                sums = found.setdefault((phase, after, what), Sums(count))
                sums.add(step, gap=b - reached)
                total.add(step, gap=b - reached)
            if e >= reached:
                reached, after = e, what
    rows = [
        GapRow(phase, after, before, sums.calls, sums.seconds("gap"))
        for (phase, after, before), sums in found.items()
    ]
    rows.sort(key=lambda row: -sum(row.seconds))
    return Idle(of, total.seconds("gap"), tuple(rows[:MOST_GAPS]))


# --- memory ---


def _timelines(trace: Trace, resident_bytes: int) -> list[list[tuple[float, int]]]:
    """Give (time, bytes held) of each step; none where no change was traced."""
    changes = [change for change in trace.memory if change.on_device == trace.uses_device]
    if not changes:
        return []
    found = []
    for begin, end in trace.steps:
        inside = [change for change in changes if begin <= change.at < end]
        first = inside[0].total - inside[0].bytes if inside and trace.uses_device else 0
        held = first or resident_bytes
        line = [(begin, held)]
        for change in inside:
            held += change.bytes
            line.append((change.at, held))
        found.append(line)
    return found


def _timeline(trace: Trace, line: Sequence[tuple[float, int]]) -> Timeline:
    """Thin the last step's line to as many stretches as a drawing can show, extremes kept."""
    begin, end = trace.steps[-1]
    width = (end - begin) / TIMELINE_BUCKETS
    low: dict[int, int] = {}
    high: dict[int, int] = {}
    held, reached = line[0][1], 0
    for at, value in line:
        bucket = min(int((at - begin) / width), TIMELINE_BUCKETS - 1)
        for between in range(reached, bucket + 1):  # a stretch without a change keeps what was held
            low[between] = min(low.get(between, held), held)
            high[between] = max(high.get(between, held), held)
        low[bucket], high[bucket] = min(low[bucket], value), max(high[bucket], value)
        held, reached = value, bucket
    for between in range(reached, TIMELINE_BUCKETS):
        low[between] = min(low.get(between, held), held)
        high[between] = max(high.get(between, held), held)
    ends = [(n.phase, n.end) for n in trace.phases if n.step == len(trace.steps) - 1]
    order = sorted(low)
    return Timeline(
        tuple(round(bucket * width * 1e-6, 9) for bucket in order),
        tuple(low[bucket] for bucket in order),
        tuple(high[bucket] for bucket in order),
        round((end - begin) * 1e-6, 10),
        tuple((phase, round((at - begin) * 1e-6, 9)) for phase, at in ends),
    )
