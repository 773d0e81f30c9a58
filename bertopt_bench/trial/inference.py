"""Run a cell forward only: T forward passes under a clock, one after the other.

What is measured is the network as it is trained here: the encoder, and the head on the masked slots
of each batch. Between two clock marks nothing but a forward pass happens; on a GPU the host never
waits, so that a sample is the time between the ends of two passes, back to back.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from time import monotonic_ns, perf_counter
from typing import TYPE_CHECKING, Any

import torch

from bertopt_bench.measure import clock, memory
from bertopt_bench.measure.compiling import compiled_so_far
from bertopt_bench.measure.disturbance import Disturbance
from bertopt_bench.measure.torch_build import gpu_name, gpu_state
from bertopt_bench.trial import checking, passes
from bertopt_bench.trial.live import Evaluation, Trial
from bertopt_bench.trial.operations import operations_record
from bertopt_bench.trial.work import held_work

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableSequence
    from contextlib import AbstractContextManager

    Send = Callable[[dict[str, Any]], None]


class InferenceTrial(Trial):
    """A trial whose step is a forward pass: nothing is dropped, changed, or kept for a backward."""

    __slots__ = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._initial = {}  # nothing is put back: the copy would count as resident memory
        self.scaler = None
        self.model.eval()

    def restore(self) -> None:
        """Leave all as it is: a forward pass changes no weight and draws no random number."""

    @torch.inference_mode()
    def step(self, index: int) -> None:
        """Issue one forward pass over a batch; its logits are dropped, no host sync."""
        self.logits(self.fetch(index, 0))

    @torch.inference_mode()
    def evaluate(self) -> Evaluation:
        """Evaluate on all held-out batches, by the very pass that is timed."""
        seen = super().evaluate()
        self.model.eval()
        return seen


def run_inference(
    trial: Trial,
    request: Mapping[str, Any],
    send: Send,
    counter: MutableSequence[int],
    *,
    every_core: Callable[[], AbstractContextManager[None]],
    count_graphs: Callable[[], int],
) -> None:
    """Burn in, measure apart, evaluate once, time the forward passes, send the record's fields.

    Args:
        trial: what was assembled for the request.
        request: see ``dispatch.local.trial_request``.
        send: takes messages to the parent.
        counter: its first number follows the passes issued.
        every_core: gives a context in which a compiler may use every core.
        count_graphs: counts the graphs compiled so far.
    """
    assembled = (monotonic_ns() - request["dispatched_ns"]) / 1e9
    send({"kind": "ready", "assemble_seconds": assembled})
    fields = {
        "assemble_seconds": assembled,
        **_prepare(trial, request, assembled, every_core),
        "graphs_compiled": count_graphs(),
    }
    send({"kind": "burned_in", **fields})
    fields |= _look(trial, send)
    if fields["status"] == "ok":
        fields |= _timed(trial, counter)
        fields["graphs_compiled"] = count_graphs() - fields["graphs_compiled"]
    send({"kind": "result", **fields})
    trial.close()


def _prepare(
    trial: Trial,
    request: Mapping[str, Any],
    assembled: float,
    every_core: Callable[[], AbstractContextManager[None]],
) -> dict[str, Any]:
    """Burn in and take the separate passes; give the fields known before the timed loop."""
    compiles = any(kernel.compiles for kernel in trial.kernels.values())
    with every_core() if compiles else nullcontext():
        begun = perf_counter()
        kernel_errors = checking.check_numbers(trial)
        started = perf_counter()
        burn_in = passes.burn_in(trial, request["timing"]["burn_in_steps"])
    burn_in_seconds = perf_counter() - started
    traced, peak_bytes = passes.trace(trial)
    return {
        "burn_in_seconds": burn_in_seconds,
        "time_to_first_step_seconds": assembled + (started - begun) + burn_in[0],
        "host_syncs_per_step": passes.count_syncs(trial),
        "operations": operations_record(trial, traced.spans),
        "kernels_ran": list(traced.operations),
        "gpu_name": gpu_name(trial.device),
        **compiled_so_far().fields(),
        "kernel_errors": kernel_errors,
        "peak_memory_bytes": peak_bytes,
        "initial_weights_sha256": trial.initial_weights_sha256,
        "parameter_count": sum(p.numel() for p in trial.model.parameters()),
        **held_work(trial, request, factor=1),
    }


def _look(trial: Trial, send: Send) -> dict[str, str]:
    """Evaluate once, untimed, so that ``verify`` sees what the pass computes; give the status."""
    begin = perf_counter()
    seen = trial.evaluate()
    seconds = perf_counter() - begin
    send(
        {
            "kind": "evaluation",
            "step": 0,
            "losses": [],
            "loss": seen.loss,
            "masked_accuracy": seen.masked_accuracy,
            "train_seconds": 0.0,
            "evaluation_seconds": seconds,
            "elapsed_seconds": seconds,
        }
    )
    if math.isfinite(seen.loss):
        return {"status": "ok", "reason": ""}
    return {
        "status": "failed",
        "reason": f"the forward pass gives a held-out loss of {seen.loss} at the initial weights",
    }


def _timed(trial: Trial, counter: MutableSequence[int]) -> dict[str, Any]:
    """Issue the passes under a clock; the loop does nothing else."""
    timer = clock.step_clock(trial.device, trial.steps)
    from_loop = memory.reset_resident_peak()
    disturbance = Disturbance(gpu=gpu_state(trial.device))
    disturbance.start()
    step, mark = trial.step, timer.mark
    timer.start()
    for index in range(trial.steps):
        step(index)
        mark()
        counter[0] = index + 1
    trial.synchronize()
    seconds = timer.durations_seconds()
    return {
        "step_seconds": seconds,
        "timed_steps": len(seconds),
        "peak_resident_bytes": memory.resident_peak_bytes() if from_loop else None,
        "disturbance": disturbance.stop(),
    }
