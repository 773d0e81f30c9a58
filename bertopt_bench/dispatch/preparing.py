"""Ask child processes what needs heavy imports: the machine's capabilities, the prepared text."""

from __future__ import annotations

import json
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any

from bertopt_bench.child import module_command
from bertopt_bench.errors import UserError
from bertopt_bench.matrix.micro import MICRO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def ask_capabilities() -> dict[str, Any]:
    """Probe torch, devices, compiler and packages in a child."""
    done = subprocess.run(
        module_command("bertopt_bench.measure.capabilities"),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise UserError(
            f"this machine's capabilities could not be probed: {last}. Does `python -c 'import "
            "torch'` work here?"
        )
    capabilities: dict[str, Any] = json.loads(done.stdout)
    return capabilities


def prepare_text(
    workload: Mapping[str, Any],
    seeds: Sequence[int],
    progress: Callable[[str, int, int], None],
    train_batches: int = 0,
) -> dict[str, Any]:
    """Prepare tokens, masks and batches of a workload in a child; give where they lie.

    An operation alone has no text.

    Raises:
        UserError: the corpus cannot be had, is damaged, or too small; the text says what to do.
    """
    if workload["name"] == MICRO:  # tensors that are drawn in the arm; nothing lies on disk
        none = {"sha256": None}
        return {"batches": {str(seed): none for seed in seeds}, "evaluation": none}
    request = {"workload": dict(workload), "seeds": list(seeds), "steps": workload["steps"]}
    request["train_batches"] = train_batches
    with tempfile.TemporaryFile("w+") as errors:  # a pipe that nobody reads would fill and block
        process = subprocess.Popen(
            module_command("bertopt_bench.workload.prepare"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the run only
        )
        try:
            last = _follow(process, request, progress)
        except BaseException:
            process.kill()
            process.wait()
            raise
        errors.seek(0)
        said = errors.read().strip()[-500:]
    if "result" in last:
        result: dict[str, Any] = last["result"]
        return result
    raise UserError(last.get("error") or f"preparing the text failed: {said}")


def _follow(
    process: subprocess.Popen[str],
    request: Mapping[str, Any],
    progress: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """Send the request and give the last message, showing progress on the way."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(request))
    process.stdin.close()
    last: dict[str, Any] = {}
    for line in process.stdout:
        last = json.loads(line)
        if "progress" in last:
            progress(*last["progress"])
    process.wait()
    return last
