"""A worker that plays training trials and really proves what it imported: no torch, no time passes.

The cell's ``script`` says what it imports and what goes wrong.
"""

from __future__ import annotations

import importlib
import signal
import sys
from typing import Any

from bertopt_bench.measure.imports import prove_imports


def run_task(task: str, request: Any, send: Any, counter: Any, receive: Any) -> None:
    """Play a trial that ends well, unless it is stopped."""
    script = request["cell"]["script"]
    for name in script["imports"]:
        importlib.import_module(name)
    send({"kind": "ready", "assemble_seconds": 0.5})
    send({"kind": "burned_in", "burn_in_seconds": 0.1, **proof(request, script)})
    if script.get("hangs"):
        signal.pause()
    if "late" in script:
        sys.path.append(script["late"])
        importlib.import_module("later")
    send({"kind": "result", "status": "ok", "reason": "", **proof(request, script)})


def proof(request: Any, script: Any) -> dict[str, Any]:
    if script.get("silent") or "modules" not in request:
        return {}
    return {"imported": prove_imports(request["modules"], request["overlay"])}
