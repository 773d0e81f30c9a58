"""A worker whose arms measure what a script says: no torch, no time passes.

The cell's ``script`` names it: seconds a step, and what goes wrong. Every command is written to the
file that ``BERTOPT_BENCH_SCRIPT_LOG`` names, with the arm and whether another one was running.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any


def run_task(task: str, request: Any, send: Any, counter: Any, receive: Any) -> None:
    """Play an arm."""
    script = request["cell"]["script"]
    send({"kind": "ready", "protocol": script.get("protocol", 1), "assemble_seconds": 0.5})
    while (command := receive()) is not None:
        log(script, command)
        if script.get("dies_at") == command["do"]:
            os._exit(7)
        if script.get("fails_at") == command["do"]:
            send({"kind": "failure", "status": "out_of_memory", "reason": "no room"})
            return
        answer = {"warm": warm, "block": block}[command["do"]](script, command, request)
        log(script, {"do": f"end {command['do']}"})  # before the parent may wake another arm
        send({"kind": command["do"], **answer})


def warm(script: Any, command: Any, request: Any) -> dict[str, Any]:
    step = script["step_seconds"]
    return {
        "initial_loss": script.get("initial_loss", 8.0),
        "initial_weights_sha256": script.get("weights", "w"),
        "first_step_seconds": 1.0,
        "kernels_ran": ["mm"],
        "peak_memory_bytes": 1000,
        "windows": [[step] * 5, [step] * 5],
        "steady": True,
        "imported": {"name": script["name"]},
    }


def block(script: Any, command: Any, request: Any) -> dict[str, Any]:
    step = script["step_seconds"] * (1 + request["injected_share"])
    return {
        "steps": command["steps"],
        "began_ns": time.monotonic_ns(),
        "wall_seconds": step * command["steps"],
        "injected_seconds": script["step_seconds"] * request["injected_share"] * command["steps"],
        "step_seconds": [step] * command["steps"],
        "disturbance": {"load1": 0.1},
        "finite": script.get("finite", True),
    }


def log(script: Any, command: Any) -> None:
    line = json.dumps({"arm": script["name"], "pid": os.getpid(), **command}) + "\n"
    descriptor = os.open(
        os.environ["BERTOPT_BENCH_SCRIPT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT
    )
    os.write(descriptor, line.encode())
    os.close(descriptor)
