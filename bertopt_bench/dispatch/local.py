"""The preloaded parents on this machine, seen from the run: start one, fork children from it."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Self

from bertopt_bench.child import module_command
from bertopt_bench.dispatch.channel import LineReader
from bertopt_bench.dispatch.children import Child, Outcome, ignore
from bertopt_bench.errors import UserError
from bertopt_bench.measure.machine import allowed_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Child", "Outcome", "Zygote", "trial_threads"]

WORKER = "bertopt_bench.trial.worker"  # by name: this room starts trials and imports none
PADDING_BYTES = 4096  # environment size shifts the stack: drawn anew for each replicate


def trial_threads() -> int:
    """Give a trial's OpenMP threads: what OMP_NUM_THREADS asks for, else every core allowed."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) > 0 else allowed_cores()


class Zygote:
    """A replicate's preloaded parent: own hash seed, environment padding and thread binding.

    Args:
        threads: OpenMP threads of a trial; 0 leaves the choice to torch.
        wait_policy: OpenMP's; ``passive`` where several trials are alive at once (duels), else
            None for the runtime's own (spin shortly, then sleep).
        worker: the module whose ``run_task`` a child calls.
        preload: modules that trials will import, slow ones.
        python: the interpreter; an arm of a duel may name another.
        root: the folder whose ``bertopt_bench`` runs; None for this one's.
        overlay: folders put before installed packages.
    """

    def __init__(
        self,
        *,
        threads: int = 0,
        wait_policy: str | None = None,
        worker: str = WORKER,
        preload: Sequence[str] = (),
        python: str = sys.executable,
        root: str | None = None,
        overlay: Sequence[str] = (),
    ) -> None:
        self.worker, self.preload = worker, preload
        self.python, self.root, self.overlay = python, root, overlay
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
            module_command(
                "bertopt_bench.dispatch.zygote",
                str(theirs.fileno()),
                self.worker,
                *self.preload,
                python=self.python,
                root=self.root,
                overlay=self.overlay,
            ),
            env=self.environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C reaches the run only
        )
        theirs.close()
        self.control = ours
        self._lines = LineReader(ours)
        first = self._lines.next()
        if first is None:
            raise UserError(f"the trial process did not start: {self.error_tail(0)}")
        self.description = first["ready"]

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

    def fork(self, task: str, request: Mapping[str, Any]) -> Child:
        """Start a task in a child, which the caller must close."""
        if not self.alive():
            self.stop()
            self.start()
        return Child(self, task, request)

    def run(
        self,
        task: str,
        request: Mapping[str, Any],
        *,
        timeout_seconds: float,
        on_message: Callable[[dict[str, Any]], None] = ignore,
        tick: Callable[[int], None] = ignore,
    ) -> Outcome:
        """Run a task to its end (see ``Child.follow``)."""
        child = self.fork(task, request)
        try:
            return child.follow(timeout_seconds, on_message, tick)
        finally:
            child.close()

    def request(
        self, message: Mapping[str, Any], descriptors: Sequence[int] = ()
    ) -> dict[str, Any]:
        """Send a request and wait for its answer; an empty one where the process has died."""
        data = json.dumps(message).encode() + b"\n"
        try:
            sent = socket.send_fds(self.control, [data], list(descriptors))
            self.control.sendall(data[sent:])
        except ConnectionError:
            return {}
        return self._lines.next() or {}

    def reap(self, pid: int | None) -> int | None:
        """Give the exit status of a child whose channel has closed; None if this process died."""
        exit_status: int | None = None
        if pid is not None and self.process is not None:
            exit_status = self.request({"reap": pid}).get("exit")
        return exit_status

    def error_position(self) -> int:
        """Give the length of what the process printed so far."""
        return os.fstat(self._errors.fileno()).st_size

    def error_tail(self, start: int) -> str:
        """Give the last three lines printed since a position."""
        size = self.error_position()
        data = os.pread(self._errors.fileno(), max(0, size - start), start)
        lines = data.decode(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:])
