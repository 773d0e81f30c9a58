"""Time steps without a sync, an allocation or a file between them.

A clock's time falls into segments. `start` and `begin_segment` set the point from which the next
step counts; `mark` ends a step, which is also where the next one begins. Whatever happens between
a mark and `begin_segment` (an evaluation, a drained buffer of losses) belongs to no step.
"""

from __future__ import annotations

import time
from array import array
from typing import TYPE_CHECKING, Any, Protocol

from bertopt_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

CLOCK_KINDS = ("perf_counter", "cuda_events")


class MeasuredDevice(Protocol):
    """What the meters ask of a device: nothing else of it is known here."""

    @property
    def type(self) -> str:
        """Name torch's device type: cpu, cuda, ..."""

    @property
    def clock_kind(self) -> str:
        """Name one of `CLOCK_KINDS`."""

    def synchronize(self) -> None:
        """Wait until everything submitted so far has run."""


class StepClock(Protocol):
    """Time a planned number of steps; how is the device's business."""

    def start(self) -> None:
        """Begin the first step; forget all earlier marks."""

    def mark(self) -> None:
        """End one step and begin the next.

        Raises:
            IndexError: more marks than planned steps.
        """

    def begin_segment(self) -> None:
        """Let the next step begin now, so that the time since the last mark counts for no step."""

    def durations_seconds(self) -> list[float]:
        """Wait for the device and give the seconds of every step marked so far."""


class HostClock:
    """Read the host's monotonic clock at every mark: right where a step returns when it is done."""

    def __init__(self, steps: int, *, now: Callable[[], int] = time.perf_counter_ns) -> None:
        self._now = now
        self._ends = array("q", bytes(8 * steps))
        self._begins: list[tuple[int, int]] = []
        self._marked = 0

    def start(self) -> None:
        """Begin the first step; forget all earlier marks."""
        self._marked = 0
        self._begins = [(0, self._now())]

    def mark(self) -> None:
        """End one step and begin the next."""
        self._ends[self._marked] = self._now()
        self._marked += 1

    def begin_segment(self) -> None:
        """Let the next step begin now."""
        self._begins.append((self._marked, self._now()))

    def durations_seconds(self) -> list[float]:
        """Give the seconds of every step marked so far."""
        _refuse_unstarted(self._begins)
        ends = self._ends[: self._marked]
        begins = array("q", [0]) + ends
        for step, stamp in self._begins:
            begins[step] = stamp
        return [(end - begin) / 1e9 for begin, end in zip(begins, ends, strict=False)]


class CudaEventClock:
    """Record an event at every mark, and read them all once the device is idle.

    The events lie in the stream between the steps' kernels: the host never waits.
    """

    def __init__(
        self,
        steps: int,
        *,
        synchronize: Callable[[], None],
        event: Callable[[], Any] | None = None,
    ) -> None:
        self._event = event or _timing_event
        self._synchronize = synchronize
        self._ends = [self._event() for _ in range(steps)]
        self._begins: list[tuple[int, Any]] = []
        self._marked = 0

    def start(self) -> None:
        """Begin the first step; forget all earlier marks."""
        self._marked = 0
        self._begins = []
        self.begin_segment()

    def mark(self) -> None:
        """End one step and begin the next."""
        self._ends[self._marked].record()
        self._marked += 1

    def begin_segment(self) -> None:
        """Let the next step begin with whatever is submitted from now on."""
        event = self._event()
        event.record()
        self._begins.append((self._marked, event))

    def durations_seconds(self) -> list[float]:
        """Wait for the device and give the seconds of every step marked so far."""
        _refuse_unstarted(self._begins)
        self._synchronize()
        ends = self._ends[: self._marked]
        begins: list[Any] = [None, *ends]
        for step, event in self._begins:
            begins[step] = event
        # torch reads the time between two events in milliseconds.
        return [begin.elapsed_time(end) / 1e3 for begin, end in zip(begins, ends, strict=False)]


def step_clock(device: MeasuredDevice, steps: int) -> StepClock:
    """Make the clock that the device's `clock_kind` names, with room for `steps` marks.

    Raises:
        UserError: the device (a user's own, perhaps) names no clock that exists.
    """
    kind = device.clock_kind
    if kind == "perf_counter":
        return HostClock(steps)
    if kind == "cuda_events":
        return CudaEventClock(steps, synchronize=device.synchronize)
    raise UserError(
        f"device '{device.type}' has clock_kind {kind!r}; it must be one of "
        f"{', '.join(CLOCK_KINDS)}.{nearest(str(kind), CLOCK_KINDS)}"
    )


def _timing_event() -> Any:
    import torch

    make: Callable[..., Any] = torch.cuda.Event
    return make(enable_timing=True)


def _refuse_unstarted(begins: list[Any]) -> None:
    if not begins:
        raise RuntimeError("this clock was never started: call start() before the first step")
