"""Time batches of calls: by the host's clock on a processor, by the device's own on a GPU.

On a GPU a batch is queued behind a sleep of the device, so that none of its kernels ever waits for
the host: the time between the two events is the kernels' own. Where the calls can be captured, the
batch is one CUDA graph (``graph``), else it is launched call by call into the waiting queue
(``queue``). What a call costs the host stands apart; where that is more than the device takes, the
batch is ``host_bound``: a training step would wait for the host, not for the kernel.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bertopt_bench.trial.micro.cases import Case

HOST_SECONDS = 10e-3  # a batch on a processor
HOST_TICKS = 1000  # or so many ticks of its clock
DEVICE_SECONDS = 1e-3  # a batch on a GPU
MOST_CALLS = 1 << 20
MOST_QUEUED = 512
"""Calls of a batch that is no graph: a launch queue is about a thousand kernels long."""

PROBED_CALLS, MOST_PROBED = 8, 64
LEAST_REPLAYED_SHARE = 0.5  # of the time that the same calls take in a queue
SLEEP_FACTOR = 2.0
LEAST_SLEEP_SECONDS, MOST_SLEEP_SECONDS = 200e-6, 50e-3
PROBE_SLEEP_SECONDS = 5e-3


@dataclass(frozen=True, slots=True)
class Batch:
    """So many calls in so many seconds; ``host_seconds`` is what the host took to hand them over.

    On a processor both are the same, and nothing waits for anything.
    """

    calls: int
    seconds: float
    host_seconds: float

    @property
    def host_bound(self) -> bool:
        """Say whether the host took longer than the device."""
        return self.host_seconds > self.seconds


class Timer(Protocol):
    """Times batches of a case's calls."""

    way: str
    least_seconds: float
    most_calls: int

    def batch(self, calls: int) -> Batch:
        """Restore the state, then time so many calls."""

    def host_seconds_a_call(self) -> float | None:
        """Give what the host takes for one call; None where it is the device."""


@dataclass(slots=True)
class Turns:
    """Gives the calls of the slots in turn; after a restore from the first one again.

    Restoring writes all slots in order, so that the first ones have left the caches by then.
    """

    calls: Sequence[Callable[[], Any]]
    restore: Callable[[], None] | None
    _turns: Iterator[Callable[[], Any]] = field(init=False)

    def __post_init__(self) -> None:
        self._turns = cycle(self.calls)

    def next(self, count: int) -> list[Callable[[], Any]]:
        """Put the state back and give the next calls."""
        if self.restore is not None:
            self.restore()
            self._turns = cycle(self.calls)
        return list(islice(self._turns, count))


class HostTimer:
    """Read the host's clock around a batch: right where a call returns when it is done."""

    way = "host clock"

    def __init__(self, case: Case, *, now: Callable[[], int] = time.perf_counter_ns) -> None:
        self._turns = Turns(case.calls, case.restore)
        self._flush, self._now = case.flush, now
        self._hot = len(case.calls) == 1 and case.flush is None
        self.least_seconds = max(HOST_SECONDS, HOST_TICKS * clock_tick_seconds())
        self.most_calls = MOST_CALLS

    def batch(self, calls: int) -> Batch:
        """Restore the state, then time so many calls."""
        taken = self._turns.next(calls)
        if self._hot:
            taken[0]()  # what restoring left in the caches is not what a call leaves there
        seconds = self._each(taken) if self._flush else self._all(taken)
        return Batch(calls, seconds, seconds)

    def host_seconds_a_call(self) -> float | None:
        """Give None: the host is the device."""
        return None

    def _all(self, taken: Sequence[Callable[[], Any]]) -> float:
        now = self._now
        begin = now()
        for call in taken:
            call()
        return (now() - begin) / 1e9

    def _each(self, taken: Sequence[Callable[[], Any]]) -> float:
        """Time each call alone, the caches overwritten before it."""
        assert self._flush is not None
        total, now = 0, self._now
        for call in taken:
            self._flush()
            begin = now()
            call()
            total += now() - begin
        return total / 1e9


class Gpu(Protocol):
    """What a GPU's timer asks of it."""

    def event(self) -> Any:
        """Make an event that can be recorded and timed."""

    def sleep(self, cycles: int) -> None:
        """Keep the device busy for so many cycles."""

    def synchronize(self) -> None:
        """Wait until the device is idle."""

    def capture(self, calls: Sequence[Callable[[], Any]]) -> Callable[[], None] | None:
        """Make one graph of calls and give what launches it; None where they cannot be captured."""


class TorchGpu:
    """The GPU as torch has it."""

    def __init__(self, device: Any) -> None:
        self.device = device

    def event(self) -> Any:
        """Make a timing event."""
        import torch

        make: Callable[..., Any] = torch.cuda.Event
        return make(enable_timing=True)

    def sleep(self, cycles: int) -> None:
        """Spin on the device: what nvbench calls a blocking kernel."""
        import torch

        cuda: Any = torch.cuda  # torch leaves it untyped
        cuda._sleep(cycles)  # noqa: SLF001 - torch's own tests use it; it has no public name

    def synchronize(self) -> None:
        """Wait for the device."""
        self.device.synchronize()

    def capture(self, calls: Sequence[Callable[[], Any]]) -> Callable[[], None] | None:
        """Run once beside, then capture.

        Source: torch.cuda.CUDAGraph; what syncs or touches the host's tensors cannot be captured.
        """
        from bertopt_bench.axes.kernels._steps import beside, capture

        def every() -> None:
            for call in calls:
                call()

        import torch

        beside(every)
        current = torch.cuda.current_stream()
        try:
            return capture(every)
        except RuntimeError:  # torch leaves the capture's stream in place where it fails
            torch.cuda.set_stream(current)
            self.synchronize()
            return None


class GpuTimer:
    """Time batches on the device, behind a sleep that lets the queue fill."""

    def __init__(
        self, case: Case, gpu: Gpu, *, now: Callable[[], int] = time.perf_counter_ns
    ) -> None:
        self._gpu, self._now, self._restore = gpu, now, case.restore
        self._turns = Turns(case.calls, case.restore)
        self._slots, self._flush = len(case.calls), case.flush
        self._hot = self._slots == 1 and case.flush is None
        self._longest_host = 0.0
        self.least_seconds, self.most_calls = DEVICE_SECONDS, MOST_CALLS
        self._graphs: dict[int, Callable[[], None]] = {}
        case.calls[0]()  # burn-in: compiles, allocates
        gpu.synchronize()
        self._cycles_a_second = self._calibrated()
        self._call_seconds = self._probed()
        captured = self._flush is None and self._holds_the_work()
        self.way = "graph" if captured else "queue"
        if self.way == "queue":
            self.most_calls = MOST_QUEUED

    def batch(self, calls: int) -> Batch:
        """Restore the state, then time so many calls on the device.

        A graph of cold calls takes whole turns over the slots, so there may be more of them.
        """
        if self.way == "graph":
            calls = -(-calls // self._slots) * self._slots
            launch = self._graph(calls)
            assert launch is not None
            if self._restore is not None:
                self._restore()
            return self._timed([launch], calls)
        launches = self._turns.next(calls)
        if self._flush is not None:
            return self._each(launches)
        if self._hot:
            launches[0]()
        return self._timed(launches, calls)

    def host_seconds_a_call(self) -> float | None:
        """Give what launching one call takes the host, graph or not."""
        return self._call_seconds

    def _timed(self, launches: Sequence[Callable[[], Any]], calls: int) -> Batch:
        """Queue launches between two events behind a sleep that outlasts the host."""
        begin, end = self._gpu.event(), self._gpu.event()
        self._sleep(len(launches))
        begin.record()
        started = self._now()
        for launch in launches:
            launch()
        host = self._longest_host = (self._now() - started) / 1e9
        end.record()
        self._gpu.synchronize()
        return Batch(calls, begin.elapsed_time(end) / 1e3, host)

    def _each(self, launches: Sequence[Callable[[], Any]]) -> Batch:
        """Time each call between events of its own, the caches overwritten before it."""
        assert self._flush is not None
        pairs = [(self._gpu.event(), self._gpu.event()) for _ in launches]
        host = 0
        self._sleep(2 * len(launches))
        for launch, (begin, end) in zip(launches, pairs, strict=True):
            self._flush()
            begin.record()
            started = self._now()
            launch()
            host += self._now() - started
            end.record()
        self._gpu.synchronize()
        seconds = sum(begin.elapsed_time(end) for begin, end in pairs) / 1e3
        return Batch(len(launches), seconds, host / 1e9)

    def _sleep(self, launches: int) -> None:
        """Let the idle device sleep twice as long as handing over the launches takes."""
        guess = SLEEP_FACTOR * max(self._call_seconds * launches, self._longest_host)
        seconds = min(max(LEAST_SLEEP_SECONDS, guess), MOST_SLEEP_SECONDS)
        self._gpu.synchronize()
        self._gpu.sleep(int(seconds * self._cycles_a_second))

    def _calibrated(self) -> float:
        """Measure how many cycles the device sleeps in a second."""
        cycles = 1_000_000
        self._gpu.sleep(cycles)
        begin, end = self._gpu.event(), self._gpu.event()
        begin.record()
        self._gpu.sleep(cycles)
        end.record()
        self._gpu.synchronize()
        seconds: float = begin.elapsed_time(end) / 1e3
        return cycles / seconds

    def _probed(self) -> float:
        """Measure the host's seconds a call while the device sleeps, so that nothing is waited for.

        It is a few calls only: a queue that is full would make the host wait as well.
        """
        taken = self._turns.next(PROBED_CALLS)
        self._gpu.sleep(int(PROBE_SLEEP_SECONDS * self._cycles_a_second))
        started = self._now()
        for call in taken:
            call()
        seconds = (self._now() - started) / 1e9
        self._gpu.synchronize()
        return seconds / PROBED_CALLS

    def _holds_the_work(self) -> bool:
        """Say whether the calls can be captured, and a replay does what they do.

        What a call launches in a stream of its own may escape the capture; a graph without it would
        be fast. A replay is at most a little shorter than the same kernels in a queue.
        """
        replay = self._graph(self._slots)
        if replay is None:
            return False
        launches = self._turns.next(min(max(self._slots, PROBED_CALLS), MOST_PROBED))
        queued = self._timed(launches, len(launches))
        replays = max(1, PROBED_CALLS // self._slots)
        replayed = self._timed([replay] * replays, replays * self._slots)
        share = replayed.seconds * queued.calls / (replayed.calls * queued.seconds)
        return share >= LEAST_REPLAYED_SHARE

    def _graph(self, calls: int) -> Callable[[], None] | None:
        """Capture so many calls once."""
        if calls not in self._graphs:
            launch = self._gpu.capture(self._turns.next(calls))
            if launch is None:
                return None
            self._graphs = {calls: launch}  # one at a time: each holds memory of its own
        return self._graphs[calls]


def clock_tick_seconds() -> float:
    """Give the resolution that the host's clock states."""
    return time.get_clock_info("perf_counter").resolution


def open_timer(case: Case, device: Any) -> Timer:
    """Make the timer that the device's clock asks for."""
    if device.clock_kind == "cuda_events":
        return GpuTimer(case, TorchGpu(device))
    return HostTimer(case)


def calls_a_batch(timer: Timer) -> int:
    """Double the calls of a batch until it lasts long enough; one call where that is longer."""
    calls = 1
    while calls < timer.most_calls and timer.batch(calls).seconds < timer.least_seconds:
        calls *= 2
    return calls
