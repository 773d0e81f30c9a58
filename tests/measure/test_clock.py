"""Clocks against scripted time: every stamp and every event is written down in the test."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from bertopt_bench.errors import UserError
from bertopt_bench.measure.clock import CudaEventClock, HostClock, step_clock


@dataclass
class Device:
    """A device that counts how often it was waited for."""

    type: str = "cpu"
    clock_kind: str = "perf_counter"
    waits: int = 0

    def synchronize(self) -> None:
        """Count one wait."""
        self.waits += 1


@dataclass
class Stream:
    """A scripted CUDA stream: `now` is what an event recorded next will carry, in milliseconds."""

    now: float = 0.0
    idle: bool = True
    log: list[str] = field(default_factory=list)

    def event(self) -> Event:
        """Make an event of this stream."""
        return Event(self)

    def synchronize(self) -> None:
        """Let everything recorded happen."""
        self.idle = True
        self.log.append("wait")


@dataclass
class Event:
    """A CUDA event: readable only once the stream is idle, as on a device."""

    stream: Stream
    at: float | None = None

    def record(self) -> None:
        """Take the stream's time."""
        self.at = self.stream.now
        self.stream.idle = False
        self.stream.log.append("record")

    def elapsed_time(self, end: Event) -> float:
        """Give the milliseconds to a later event."""
        assert self.stream.idle
        assert self.at is not None
        assert end.at is not None
        return end.at - self.at


def test_host_clock_counts_from_the_start_and_from_mark_to_mark() -> None:
    """Oracle: stamps written by hand, in nanoseconds."""
    stamps = iter([1_000, 3_000, 10_000])
    clock = HostClock(2, now=lambda: next(stamps))

    clock.start()
    clock.mark()
    clock.mark()

    assert clock.durations_seconds() == [2e-6, 7e-6]


def test_host_clock_leaves_out_what_lies_before_a_segment() -> None:
    """An evaluation between mark and begin_segment counts for no step (stamps by hand)."""
    stamps = iter([0, 5, 100, 107, 1_000, 1_011])
    clock = HostClock(3, now=lambda: next(stamps))

    clock.start()
    clock.mark()
    clock.begin_segment()
    clock.mark()
    clock.begin_segment()
    clock.mark()

    assert clock.durations_seconds() == [5e-9, 7e-9, 11e-9]


def test_host_clock_reads_what_is_marked_so_far_and_restarts() -> None:
    """A look in the middle of a run changes nothing; start() forgets earlier marks."""
    stamps = iter([0, 5, 50, 56, 100, 107])
    clock = HostClock(3, now=lambda: next(stamps))

    clock.start()
    clock.mark()
    first = clock.durations_seconds()
    clock.begin_segment()
    clock.mark()
    both = clock.durations_seconds()
    clock.start()
    clock.mark()

    assert (first, both, clock.durations_seconds()) == ([5e-9], [5e-9, 6e-9], [7e-9])


def test_segment_after_the_last_step_adds_no_duration() -> None:
    """The evaluation after the last step may begin a segment in which no step runs."""
    stamps = iter([0, 5, 90])
    clock = HostClock(1, now=lambda: next(stamps))

    clock.start()
    clock.mark()
    clock.begin_segment()

    assert clock.durations_seconds() == [5e-9]


def test_clock_refuses_a_mark_too_many_and_a_read_before_the_start() -> None:
    clock = HostClock(1)

    with pytest.raises(RuntimeError, match="never started"):
        clock.durations_seconds()
    clock.start()
    clock.mark()

    with pytest.raises(IndexError):
        clock.mark()


def test_cuda_clock_waits_once_at_the_end_and_never_between_steps() -> None:
    """Oracle: events scripted in milliseconds; the log shows every call on the stream."""
    stream = Stream(now=10.0)
    clock = CudaEventClock(3, synchronize=stream.synchronize, event=stream.event)

    clock.start()
    stream.now = 12.0
    clock.mark()
    stream.now = 40.0
    clock.begin_segment()
    stream.now = 43.0
    clock.mark()
    stream.now = 48.0
    clock.mark()

    assert clock.durations_seconds() == [0.002, 0.003, 0.005]
    assert stream.log == ["record"] * 5 + ["wait"]


def test_cuda_clock_restarts() -> None:
    """Events of an earlier run (a burn-in) are forgotten by start()."""
    stream = Stream()
    clock = CudaEventClock(2, synchronize=stream.synchronize, event=stream.event)
    clock.start()
    clock.mark()
    clock.mark()

    stream.now = 100.0
    clock.start()
    stream.now = 101.0
    clock.mark()

    assert clock.durations_seconds() == [0.001]


def test_the_device_names_its_clock() -> None:
    assert isinstance(step_clock(Device(), 3), HostClock)


def test_an_unknown_clock_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"perf_counter, cuda_events.*'cuda_events'"):
        step_clock(Device(clock_kind="cuda_event"), 3)
