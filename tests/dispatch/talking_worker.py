"""A worker that obeys words: it echoes, counts, fails, dies, hangs, or takes its parent along."""

from __future__ import annotations

import os
import signal
from typing import Any


def run_task(task: str, request: Any, send: Any, counter: Any, receive: Any) -> None:
    """Say who is there, then obey until the channel closes."""
    send({"kind": "ready", "pid": os.getpid(), "task": task})
    while (command := receive()) is not None:
        word = command["do"]
        counter[0] += 1
        if word == "die":
            os._exit(9)
        elif word == "hang":
            signal.pause()
        elif word == "kill_parent":
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()
        elif word == "fail":
            send({"kind": "failure", "status": "failed", "reason": "it was asked to"})
            return
        elif word == "raise":
            raise RuntimeError("not a word of it")
        else:
            send({"kind": word, "text": command.get("text", ""), "count": counter[0]})
