"""Turn how a trial ended into the fields of its record: every end has a status and a reason."""

from __future__ import annotations

import math
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertopt_bench.dispatch.children import Outcome


def record_fields(outcome: Outcome, timeout_seconds: float) -> dict[str, Any]:
    """Give the fields that the outcome decides, the curve so far included."""
    fields = {**outcome.known, **(outcome.final or {})}
    fields.pop("kind", None)
    fields.update(ending(outcome, timeout_seconds))
    fields["elapsed_seconds"] = outcome.elapsed_seconds
    fields["losses"] = [loss for seen in outcome.evaluations for loss in seen["losses"]]
    fields["evaluations"] = _evaluations(outcome)
    return fields


def ending(outcome: Outcome, timeout_seconds: float) -> dict[str, str]:
    """Give the status and the reason."""
    if outcome.timed_out:
        return {
            "status": "timed_out",
            "reason": f"still running after timing.timeout_seconds = {timeout_seconds:g}",
        }
    if outcome.final is not None:
        return {"status": outcome.final["status"], "reason": outcome.final["reason"]}
    said = f"; it printed: {outcome.stderr_tail}" if outcome.stderr_tail else ""
    if outcome.exit_code is None:
        return {"status": "failed", "reason": f"the preloaded parent of the trial died{said}"}
    if outcome.exit_code >= 0:
        code = outcome.exit_code
        return {"status": "failed", "reason": f"exited with {code} and no result{said}"}
    name = signal_name(-outcome.exit_code)
    if outcome.killed_for_memory and name == "SIGKILL":
        return {"status": "out_of_memory", "reason": "killed by the kernel for want of memory"}
    return {"status": "failed", "reason": f"killed by {name}{said}"}


def signal_name(number: int) -> str:
    """Name a signal; real-time ones have a number only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _evaluations(outcome: Outcome) -> list[dict[str, Any]]:
    return [evaluation_fields(seen) for seen in outcome.evaluations]


def evaluation_fields(seen: Mapping[str, Any]) -> dict[str, Any]:
    """Give an evaluation as it is stored; perplexity is exp(loss), inf where that overflows."""
    loss = seen["loss"]
    overflow = math.log(1.7e308)
    return {
        "step": seen["step"],
        "loss": loss,
        "perplexity": math.exp(loss)
        if loss < overflow
        else (math.nan if loss != loss else math.inf),  # noqa: PLR0124 - NaN is the only value unlike itself
        "masked_accuracy": seen["masked_accuracy"],
        "train_seconds": seen["train_seconds"],
        "evaluation_seconds": seen["evaluation_seconds"],
        "confusion": seen.get("confusion"),
    }
