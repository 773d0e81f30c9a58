"""Run tasks one at a time in children of a zygote; block, never spin, lose no message."""

from __future__ import annotations

import json
import mmap
import os
import random
import selectors
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bertopt_bench.child import module_command
from bertopt_bench.dispatch.zygote import COUNTER_BYTES
from bertopt_bench.errors import UserError
from bertopt_bench.measure.machine import allowed_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WORKER = "bertopt_bench.trial.worker"  # by name: this room starts trials and imports none
REDRAW_SECONDS = 1.0
PADDING_BYTES = 4096  # environment size shifts the stack: drawn anew for each replicate


def trial_threads() -> int:
    """Give a trial's OpenMP threads: what OMP_NUM_THREADS asks for, else every core allowed."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) > 0 else allowed_cores()


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


class Zygote:
    """A replicate's preloaded parent: own hash seed, environment padding and thread binding.

    Args:
        threads: OpenMP threads of a trial; 0 leaves the choice to torch.
        wait_policy: OpenMP's; ``passive`` where several trials are alive at once (duels), else
            None for the runtime's own (spin shortly, then sleep).
        worker: the module whose ``run_task`` a child calls.
        preload: modules that trials will import, slow ones.
    """

    def __init__(
        self,
        *,
        threads: int = 0,
        wait_policy: str | None = None,
        worker: str = WORKER,
        preload: Sequence[str] = (),
    ) -> None:
        self.worker, self.preload = worker, preload
        draw = random.SystemRandom()
        self.environment = {
            **os.environ,
            "PYTHONHASHSEED": str(draw.randrange(2**32)),
            "BERTOPT_BENCH_PADDING": "x" * draw.randrange(PADDING_BYTES),
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
            "OPENBLAS_NUM_THREADS": "1",  # NumPy's: a thread made at import would not survive fork
            "TOKENIZERS_PARALLELISM": "false",
            "TORCH_CPP_LOG_LEVEL": "ERROR",  # the profiler warns of blocks older than itself
        }
        self.environment.setdefault("OMP_PROC_BIND", "true")
        self.environment.setdefault("OMP_PLACES", "cores")
        if threads:
            self.environment["OMP_NUM_THREADS"] = str(threads)
        if wait_policy:
            self.environment["OMP_WAIT_POLICY"] = wait_policy
        self.process: subprocess.Popen[bytes] | None = None
        self.description: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the interpreter and wait until it has imported everything."""
        ours, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            module_command("bertopt_bench.dispatch.zygote", str(theirs.fileno()), self.worker),
            env=self.environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C reaches the run only
        )
        theirs.close()
        self.control = ours
        self._lines = _LineReader(ours)
        messages = self._lines.wait()
        if not messages:
            raise UserError(f"the trial process did not start: {self._error_tail(0)}")
        self.description = messages[0]["ready"]

    def stop(self) -> None:
        """End the process and the child it may have."""
        if self.process is None:
            return
        self.control.close()
        self.process.kill()
        self.process.wait()
        self._errors.close()
        self.process = None

    def alive(self) -> bool:
        """Say whether the process can take another task."""
        return self.process is not None and self.process.poll() is None

    def run(
        self,
        task: str,
        request: Mapping[str, Any],
        *,
        timeout_seconds: float,
        on_message: Callable[[dict[str, Any]], None] = lambda _: None,
        tick: Callable[[int], None] = lambda _: None,
    ) -> Outcome:
        """Run a task to its end.

        ``on_message`` gets each message when it comes, ``tick`` the count of updates issued, at
        most once a second.
        """
        if not self.alive():
            self.stop()
            self.start()
        watch = _Watch(self, timeout_seconds, on_message, tick)
        try:
            return watch.follow(task, request)
        finally:
            watch.close()

    def error_position(self) -> int:
        """Give the length of what the process printed so far."""
        return os.fstat(self._errors.fileno()).st_size

    def _error_tail(self, start: int) -> str:
        size = self.error_position()
        data = os.pread(self._errors.fileno(), max(0, size - start), start)
        lines = data.decode(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:])


class _LineReader:
    """Cuts what a socket sends into JSON messages."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.rest = b""
        self.ended = False

    def read(self) -> list[dict[str, Any]]:
        """Give the messages completed by what can be read now."""
        try:
            data = self.connection.recv(1 << 20)
        except ConnectionError:
            data = b""
        self.ended = not data
        *lines, self.rest = (self.rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def wait(self) -> list[dict[str, Any]]:
        """Block until a message is complete, or the other end has closed."""
        messages: list[dict[str, Any]] = []
        while not messages and not self.ended:
            messages = self.read()
        return messages


class _Watch:
    """Follows one child: its channel, its counter, its time limit."""

    def __init__(
        self,
        zygote: Zygote,
        timeout_seconds: float,
        on_message: Callable[[dict[str, Any]], None],
        tick: Callable[[int], None],
    ) -> None:
        self.zygote, self.on_message, self.tick = zygote, on_message, tick
        self.started = time.monotonic()
        self.deadline = self.started + timeout_seconds
        self.channel, self.child_end = socket.socketpair()
        self.memory_file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self.memory_file.truncate(COUNTER_BYTES)
        self.counter_map = mmap.mmap(self.memory_file.fileno(), COUNTER_BYTES)
        self.pid: int | None = None
        self.outcome = Outcome()

    def follow(self, task: str, request: Mapping[str, Any]) -> Outcome:
        """Send the request and wait for the end of the child."""
        errors_from, kills_before = self.zygote.error_position(), _memory_kills()
        message = {"task": task, "request": {**request, "dispatched_ns": time.monotonic_ns()}}
        data = json.dumps(message).encode() + b"\n"
        descriptors = [self.child_end.fileno(), self.memory_file.fileno()]
        sent = socket.send_fds(self.zygote.control, [data], descriptors)
        self.zygote.control.sendall(data[sent:])
        self.child_end.close()
        try:
            self._wait()
        except BaseException:
            self._kill()
            raise
        self.outcome.elapsed_seconds = time.monotonic() - self.started
        self.outcome.killed_for_memory = _memory_kills() > kills_before
        self.outcome.stderr_tail = self.zygote._error_tail(errors_from)  # noqa: SLF001 - one module
        return self.outcome

    def _wait(self) -> None:
        channel, control = _LineReader(self.channel), self.zygote._lines  # noqa: SLF001 - one module
        with selectors.DefaultSelector() as selector:
            selector.register(self.channel, selectors.EVENT_READ, channel)
            selector.register(self.zygote.control, selectors.EVENT_READ, control)
            drawn = time.monotonic()
            while not (channel.ended and (self.outcome.exit_code is not None or control.ended)):
                for key, _ in selector.select(REDRAW_SECONDS):
                    reader: _LineReader = key.data
                    handle = self._child_said if reader is channel else self._zygote_said
                    for message in reader.read():
                        handle(message)
                    if reader.ended:
                        selector.unregister(key.fileobj)
                now = time.monotonic()
                if now > self.deadline and not self.outcome.timed_out:
                    self.outcome.timed_out = True
                    self._kill()
                if now - drawn >= REDRAW_SECONDS:
                    drawn = now
                    self.tick(int.from_bytes(self.counter_map[:8], "little"))

    def _child_said(self, message: dict[str, Any]) -> None:
        if message["kind"] == "evaluation":
            self.outcome.evaluations.append(message)
        elif message["kind"] in {"ready", "burned_in"}:
            self.outcome.ready = self.outcome.ready or message
            self.outcome.known |= {key: v for key, v in message.items() if key != "kind"}
        elif message["kind"] in {"result", "failure"}:
            self.outcome.final = message
        self.on_message(message)

    def _zygote_said(self, message: dict[str, Any]) -> None:
        if "forked" in message:
            self.pid = message["forked"]
            if self.outcome.timed_out:  # over its limit before its number was known
                self._kill()
        else:
            self.outcome.exit_code = message["exit"]

    def _kill(self) -> None:
        if self.pid is not None and self.outcome.exit_code is None and self.zygote.alive():
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Give back what the watch held."""
        self.channel.close()
        self.child_end.close()
        self.counter_map.close()
        self.memory_file.close()


def _memory_kills() -> int:
    """Count the processes that this machine's kernel has killed for want of memory."""
    try:
        lines = Path("/proc/vmstat").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
