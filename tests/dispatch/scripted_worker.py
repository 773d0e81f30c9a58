"""A worker whose tasks misbehave on purpose."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

PRELOAD = ("torch",)


def run_task(task: str, request: Any, send: Any, counter: Any, receive: Any) -> None:
    """Do what the task's name says."""
    send({"kind": "evaluation", "step": 0, "losses": []})
    if task == "answer":
        counter[0] = 7
        send({"kind": "result", "request": request, "threads": threads(), "pid": os.getpid()})
    elif task == "segfault":
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    elif task == "hang":
        signal.pause()
    elif task == "exit":
        os._exit(5)
    elif task == "kill_zygote":
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
    elif task == "raise":
        raise RuntimeError("unexpected")


def threads() -> int:
    """Count the threads of this process."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Threads:"))
