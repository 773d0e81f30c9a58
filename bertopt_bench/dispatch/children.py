"""Follow the children of a zygote: block, never spin, lose no message."""

from __future__ import annotations

import mmap
import os
import selectors
import signal
import socket
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.dispatch.channel import LineReader, send
from bertopt_bench.dispatch.zygote import COUNTER_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bertopt_bench.dispatch.local import Zygote

REDRAW_SECONDS = 1.0


def ignore(_: Any) -> None:
    """Take no notice."""


@dataclass(slots=True)
class Outcome:
    """How a task ended: its last message, the evaluations on the way, and the child's exit."""

    final: dict[str, Any] | None = None
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    known: dict[str, Any] = field(default_factory=dict)  # fields sent before the timed loop
    ready: dict[str, Any] | None = None
    exit_code: int | None = None
    timed_out: bool = False
    killed_for_memory: bool = False
    elapsed_seconds: float = 0.0
    stderr_tail: str = ""


class Child:
    """A live child: its channel, its step counter, its end.

    ``follow`` hears a task out; ``ask`` speaks with one that takes commands.
    """

    def __init__(self, zygote: Zygote, task: str, request: Mapping[str, Any]) -> None:
        self.zygote, self._parent = zygote, zygote.process
        self.started = time.monotonic()
        self.outcome = Outcome()
        self._errors_from, self._kills_before = zygote.error_position(), _memory_kills()
        self.channel, child_end = socket.socketpair()
        self._memory_file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._memory_file.truncate(COUNTER_BYTES)
        self._counter = mmap.mmap(self._memory_file.fileno(), COUNTER_BYTES)
        self._lines = LineReader(self.channel)
        self._waiting: list[dict[str, Any]] = []
        self._ended = False
        message = {"task": task, "request": {**request, "dispatched_ns": time.monotonic_ns()}}
        with child_end:
            descriptors = [child_end.fileno(), self._memory_file.fileno()]
            self.pid = zygote.request(message, descriptors).get("forked")

    def follow(
        self,
        timeout_seconds: float,
        on_message: Callable[[dict[str, Any]], None] = ignore,
        tick: Callable[[int], None] = ignore,
    ) -> Outcome:
        """Hear the child out.

        ``on_message`` gets each message when it comes, ``tick`` the count of updates issued, at
        most once a second.
        """
        deadline = self.started + timeout_seconds
        try:
            while (message := self._next(deadline, tick)) is not None:
                self._note(message)
                on_message(message)
        except BaseException:
            self.kill()
            raise
        return self.end()

    def ask(
        self,
        command: Mapping[str, Any],
        timeout_seconds: float,
        tick: Callable[[int], None] = ignore,
    ) -> dict[str, Any] | None:
        """Send a command and wait for its answer; None where the child ended instead."""
        try:
            send(self.channel, dict(command))
        except ConnectionError:
            self.end()
            return None
        return self.hear(timeout_seconds, tick)

    def hear(
        self, timeout_seconds: float, tick: Callable[[int], None] = ignore
    ) -> dict[str, Any] | None:
        """Wait for the child's next message; None where it ended, which ``outcome`` then tells."""
        message = self._next(time.monotonic() + timeout_seconds, tick)
        if message is not None:
            self._note(message)
        if message is None or message["kind"] == "failure":
            self.end()
            return None
        return message

    def end(self) -> Outcome:
        """Wait for the child's exit once its channel closed, and say how it ended."""
        if self._ended:
            return self.outcome
        while not self._lines.ended:
            self._lines.read()
        self._ended = True
        self.outcome.exit_code = self.zygote.reap(self.pid) if self._has_parent() else None
        self.outcome.elapsed_seconds = time.monotonic() - self.started
        self.outcome.killed_for_memory = _memory_kills() > self._kills_before
        self.outcome.stderr_tail = self.zygote.error_tail(self._errors_from)
        return self.outcome

    def kill(self) -> None:
        """Kill the child if it still lives; its number is its own until its parent reaps it."""
        if self.pid is not None and not self._ended and self._has_parent():
            with suppress(ProcessLookupError):  # its parent died just now, and it with its parent
                os.kill(self.pid, signal.SIGKILL)

    def _has_parent(self) -> bool:
        """Say whether the process that forked it lives, and is not one started in its place."""
        return self.zygote.alive() and self.zygote.process is self._parent

    def close(self) -> None:
        """Give back what was held; a child that still lives is killed and reaped."""
        if not self._ended:
            self.kill()
            self.end()
        self.channel.close()
        self._counter.close()
        self._memory_file.close()

    def _next(self, deadline: float, tick: Callable[[int], None]) -> dict[str, Any] | None:
        """Wait for a message; over the deadline the child is killed, and None comes at its end."""
        if self._waiting:
            return self._waiting.pop(0)
        drawn = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self.channel, selectors.EVENT_READ)
            while not self._waiting and not self._lines.ended:
                if selector.select(REDRAW_SECONDS):
                    self._waiting += self._lines.read()
                now = time.monotonic()
                if now > deadline and not self.outcome.timed_out:
                    self.outcome.timed_out = True
                    self.kill()
                if now - drawn >= REDRAW_SECONDS:
                    drawn = now
                    tick(int.from_bytes(self._counter[:8], "little"))
        return self._waiting.pop(0) if self._waiting else None

    def _note(self, message: dict[str, Any]) -> None:
        if message["kind"] == "evaluation":
            self.outcome.evaluations.append(message)
        elif message["kind"] in {"ready", "burned_in"}:
            self.outcome.ready = self.outcome.ready or message
            self.outcome.known |= {key: v for key, v in message.items() if key != "kind"}
        elif message["kind"] in {"result", "failure"}:
            self.outcome.final = message


def _memory_kills() -> int:
    """Count the processes that this machine's kernel has killed for want of memory."""
    try:
        lines = Path("/proc/vmstat").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
