"""Show where a run is: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Display(Protocol):
    """What the pipeline tells of its progress."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """End, and leave the terminal tidy."""

    def say(self, text: str) -> None:
        """Show a line that stays."""

    def working(self, what: str, done: int, total: int) -> None:
        """Show preparation (fetching, tokenising)."""

    def begin(self, number: int, count: int, label: str, steps: int) -> None:
        """Show that a trial starts."""

    def burned_in(self) -> None:
        """Note that the trial's timed loop begins."""

    def tick(self, step: int) -> None:
        """Show how many updates the trial has issued."""

    def evaluated(self, seen: dict[str, Any]) -> None:
        """Show an evaluation."""

    def end(self, status: str, line: str) -> None:
        """Show how the trial ended."""


def open_display(stream: TextIO | None = None) -> Display:
    """Choose the display that the stream (standard error by default) can show."""
    stream = stream or sys.stderr
    return LiveDisplay(stream) if stream.isatty() else PlainDisplay(stream)


def format_seconds(seconds: float) -> str:
    """Write a duration as a person says it.

    >>> format_seconds(75)
    '1 min 15 s'
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _losses(seen: dict[str, Any]) -> str:
    """Say an evaluation's losses, the last training loss first where there is one."""
    trained = f"loss {seen['losses'][-1]:.4f}, " if seen["losses"] else ""
    return f"{trained}held-out loss {seen['loss']:.4f}"


class _Pace:
    """Reckons throughput and time left from what was seen."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.trial_started = self.loop_started = self.started
        self.number = self.count = self.steps = 0

    def begin(self, number: int, count: int, steps: int) -> None:
        self.trial_started = self.loop_started = time.monotonic()
        self.number, self.count, self.steps = number, count, steps

    def left(self, done: int) -> str:
        """Give the time left by the mean of ``done`` trials, or nothing before the first."""
        if done < 1 or done >= self.count:
            return ""
        mean = (time.monotonic() - self.started) / done
        return f"{format_seconds(mean * (self.count - done))} left"


class SilentDisplay:
    """Show nothing: what runs is a part of something that says enough itself."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def working(self, what: str, done: int, total: int) -> None:
        pass

    def begin(self, number: int, count: int, label: str, steps: int) -> None:
        pass

    def burned_in(self) -> None:
        pass

    def tick(self, step: int) -> None:
        pass

    def evaluated(self, seen: dict[str, Any]) -> None:
        pass

    def end(self, status: str, line: str) -> None:
        pass


class PlainDisplay:
    """One line a trial and one an evaluation, for logs and pipes."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.pace = stream, _Pace()
        self.last_work = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def working(self, what: str, done: int, total: int) -> None:
        del done, total
        if what != self.last_work:
            self.last_work = what
            self.say(what)

    def begin(self, number: int, count: int, label: str, steps: int) -> None:
        self.pace.begin(number, count, steps)
        self.prefix = f"[{number}/{count}] {label}"

    def burned_in(self) -> None:
        pass

    def tick(self, step: int) -> None:
        pass

    def evaluated(self, seen: dict[str, Any]) -> None:
        if seen["step"] < self.pace.steps and seen["elapsed_seconds"] > 10:
            self.say(f"{self.prefix}: step {seen['step']}/{self.pace.steps}, {_losses(seen)}")

    def end(self, status: str, line: str) -> None:
        left = self.pace.left(self.pace.number)
        self.say(f"{self.prefix}: {status}{line}" + (f"  ({left})" if left else ""))


class LiveDisplay:
    """A bar of the matrix and one of the running trial, redrawn when told to."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.console = Console(file=stream)
        self.progress: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            auto_refresh=False,  # a redraw a second at most, by the tick
        )
        self.pace = _Pace()
        self.matrix: TaskID | None = None
        self.trial: TaskID | None = None
        self.loss = ""

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._drop_trial()
        self.progress.refresh()
        self.progress.stop()

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def working(self, what: str, done: int, total: int) -> None:
        from rich.markup import escape

        what = escape(what)
        if self.trial is None:
            self.trial = self.progress.add_task(what, total=total, note="")
        self.progress.update(
            self.trial, description=what, completed=done, total=total or None, refresh=True
        )
        if total and done >= total:
            self._drop_trial()

    def begin(self, number: int, count: int, label: str, steps: int) -> None:
        self._drop_trial()
        self.pace.begin(number, count, steps)
        if self.matrix is None:
            self.matrix = self.progress.add_task("trials", total=count, note="")
        from rich.markup import escape

        left = self.pace.left(number - 1)
        self.progress.update(self.matrix, completed=number - 1, note=left)
        self.trial = self.progress.add_task(escape(label), total=steps, note="")
        self.loss, self.label = "", label
        self.progress.refresh()

    def tick(self, step: int) -> None:
        if self.trial is None:
            return
        seconds = time.monotonic() - self.pace.loop_started
        note = f"{step / seconds:.1f} steps/s{self.loss}" if step and seconds else "burning in"
        if self.matrix is not None:
            self.progress.update(self.matrix, note=self.pace.left(self.pace.number - 1))
        self.progress.update(self.trial, completed=step, note=note, refresh=True)

    def burned_in(self) -> None:
        self.pace.loop_started = time.monotonic()

    def evaluated(self, seen: dict[str, Any]) -> None:
        self.loss = f", {_losses(seen)}"

    def end(self, status: str, line: str) -> None:
        if self.matrix is not None:
            left = self.pace.left(self.pace.number)
            self.progress.update(self.matrix, completed=self.pace.number, note=left)
        if status not in {"ok", "skipped"} and self.trial is not None:
            self.say(f"{self.label}: {status}{line}")
        self._drop_trial()

    def _drop_trial(self) -> None:
        if self.trial is not None:
            self.progress.remove_task(self.trial)
            self.trial = None
