"""The preloaded parent of a replicate's trials: torch is imported once, a fork starts a trial.

``python -m bertopt_bench.dispatch.zygote FD WORKER [MODULE...]`` speaks JSON lines over the socket
FD, with the modules preloaded. A request ``{"task", "request"}`` comes with two file descriptors:
the child's end of a channel, and the shared memory of its step counter; the answer is
``{"forked": pid}``. Several children may live at once. ``{"reap": pid}``, sent once a child's
channel has closed, is answered by ``{"exit": status}``.
It starts no thread and never touches CUDA, so that its children may.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import mmap
import os
import signal
import socket
import sys
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from bertopt_bench.dispatch.channel import LineReader, send
from bertopt_bench.measure.imports import library_addresses
from bertopt_bench.measure.torch_build import describe_torch

if TYPE_CHECKING:
    from types import ModuleType

COUNTER_BYTES = 64
_PR_SET_PDEATHSIG = 1
_MAX_REQUEST_BYTES = 1 << 22


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies (elsewhere a closed socket ends it)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def describe_process() -> dict[str, Any]:
    """Tell what makes this replicate's process its own."""
    status = open("/proc/self/status").read() if sys.platform == "linux" else ""  # noqa: SIM115, PTH123 - read once at the start
    threads = next((int(x.split()[1]) for x in status.splitlines() if x.startswith("Threads")), 0)
    return {
        "pid": os.getpid(),
        "hash_seed": os.environ.get("PYTHONHASHSEED", "random"),
        "environment_bytes": sum(len(k) + len(v) + 2 for k, v in os.environ.items()),
        "threads": threads,
        "thread_variables": {
            key: value
            for key, value in sorted(os.environ.items())
            if key.startswith(("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_"))
        },
        "affinity": sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else None,
        "torch_build": describe_torch() if "torch" in sys.modules else None,
        "library_bases": library_addresses(),
    }


def serve(control: socket.socket, worker: ModuleType) -> None:
    """Fork a child for each request, and reap those that ended, until the other end closes."""
    send(control, {"ready": describe_process()})
    while True:
        data, descriptors, *_ = socket.recv_fds(control, _MAX_REQUEST_BYTES, 2)
        while data and not data.endswith(b"\n"):
            data += control.recv(_MAX_REQUEST_BYTES)
        if not data:
            return
        request = json.loads(data)
        if "reap" in request:
            _, status = os.waitpid(request["reap"], 0)
            send(control, {"exit": os.waitstatus_to_exitcode(status)})
            continue
        pid = os.fork()
        if pid == 0:
            control.close()
            run_child(worker, request, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        send(control, {"forked": pid})


def run_child(worker: ModuleType, message: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Run a task in a fresh child and leave without the parent's exit handlers."""
    code = 1
    try:
        die_with_parent()
        channel = socket.socket(fileno=descriptors[0])
        counter = memoryview(mmap.mmap(descriptors[1], COUNTER_BYTES)).cast("q")
        worker.run_task(
            message["task"],
            message["request"],
            partial(send, channel),
            counter,
            LineReader(channel).next,
        )
        code = 0
    except BaseException:  # noqa: BLE001 - leaving at once would swallow it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Preload and serve."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's to handle
    descriptor, worker_name, *preload = sys.argv[1:]
    worker = importlib.import_module(worker_name)
    for name in (*getattr(worker, "PRELOAD", ()), *preload):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=int(descriptor)), worker)


if __name__ == "__main__":
    main()
