"""What a forked child does: run one task and send what it sees to the parent.

Messages are dictionaries with a ``kind``: ``ready`` (assembled), ``burned_in``, ``evaluation``,
``result`` (the record's fields) and ``failure`` (a status with its reason).
A trial of a duel's arm, whose request has ``modules`` and ``overlay``, proves in ``burned_in`` and
in ``result`` what it imported. Parent and worker may be of two revisions there: who changes these
messages raises ``trial.arm.ARM_PROTOCOL``.
"""

from __future__ import annotations

import os
import textwrap
from contextlib import contextmanager, nullcontext
from functools import partial
from time import monotonic_ns, perf_counter
from typing import TYPE_CHECKING, Any

import torch

from bertopt_bench.errors import UserError, place_of
from bertopt_bench.matrix.cells import evaluation_steps
from bertopt_bench.matrix.modes import is_inference
from bertopt_bench.measure import ceilings, clock, memory
from bertopt_bench.measure.compiling import compiled_so_far
from bertopt_bench.measure.disturbance import Disturbance
from bertopt_bench.measure.imports import prove_imports
from bertopt_bench.measure.torch_build import gpu_name, gpu_state
from bertopt_bench.trial import (
    assemble,
    attributing,
    checking,
    explaining,
    inside,
    keeping,
    loop,
    passes,
    probe,
)
from bertopt_bench.trial.arm import run_arm
from bertopt_bench.trial.classifying import take_test
from bertopt_bench.trial.inference import run_inference
from bertopt_bench.trial.micro.arm import run_micro_arm
from bertopt_bench.trial.operations import operations_record
from bertopt_bench.trial.profiling import run_profile
from bertopt_bench.trial.work import held_work
from bertopt_bench.workload import formulas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence

    from bertopt_bench.trial.live import Trial

    Send = Callable[[dict[str, Any]], None]


MOST_REASON = 400
PRELOAD = ("torch._dynamo", "torch.profiler")
"""What trials would import one by one: the preloaded parent does it once."""


def run_task(
    task: str,
    request: Mapping[str, Any],
    send: Send,
    counter: Any,
    receive: Callable[[], dict[str, Any] | None],
) -> None:
    """Run a task to its end; whatever goes wrong becomes a ``failure`` message."""
    tasks: dict[str, Callable[[Mapping[str, Any], Send, Any], None]] = {
        "trial": run_trial,
        "arm": partial(run_arm, receive=receive),
        "micro_arm": partial(run_micro_arm, receive=receive),
        "ceilings": run_ceilings,
        "precision_ratios": run_precision_ratios,
        "profile": run_profile,
    }
    if request.get("threads"):
        torch.set_num_threads(request["threads"])
    try:
        tasks[task](request, send, counter)
    except BaseException as error:  # noqa: BLE001 - a child's every end is told to the parent
        status, reason = classify(error)
        send({"kind": "failure", "status": status, "reason": reason})


def classify(error: BaseException) -> tuple[str, str]:
    """Turn an exception into a record's status and reason: a compiler's may be pages long."""
    said = f"{type(error).__name__}: {error}".strip()
    text = textwrap.shorten(said, MOST_REASON, placeholder=" ...")
    out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
    if out_of_memory:
        return "out_of_memory", said.splitlines()[0]
    if isinstance(error, UserError | passes.KernelMismatchError | checking.KernelCheckError):
        return "failed", str(error)
    return "failed", f"{text} (at {place_of(error)})"


def run_trial(request: Mapping[str, Any], send: Send, counter: MutableSequence[int]) -> None:
    """Assemble, burn in, measure apart, restore, train, and send the record's fields."""
    resident_before = memory.resident_bytes()
    trial = assemble.assemble(request)
    if is_inference(request["cell"]):
        ways: dict[str, Any] = {"every_core": _every_core, "count_graphs": _graphs_compiled}
        run_inference(trial, request, send, counter, **ways)
        return
    seconds = {"assemble_seconds": (monotonic_ns() - request["dispatched_ns"]) / 1e9}
    send({"kind": "ready", **seconds})
    fields = {**seconds, **_prepare(trial, request, seconds["assemble_seconds"])}
    fields["resident_before_bytes"] = resident_before
    send({"kind": "burned_in", **fields, **_proof(request)})
    steps = trial.steps
    timer = clock.step_clock(trial.device, steps)
    resident_from_loop = memory.reset_resident_peak()
    disturbance = Disturbance(gpu=gpu_state(trial.device))
    disturbance.start()
    timer.start()
    keeper = keeping.Keeper(trial, request)
    start = keeper.continue_from()
    seen = _Seen(trial, send, timer, keeper)
    at = evaluation_steps(steps, request["cell"]["workload"]["evaluate_every"])
    told: dict[str, Any] = {"evaluate_at": at, "counter": counter, "report": seen.report}
    diverged = loop.train(trial, timer, start=start, **told)
    result = {
        "kind": "result",
        **_ending(diverged),
        **fields,
        **_after(trial, timer, keeper),
        "peak_resident_bytes": memory.resident_peak_bytes() if resident_from_loop else None,
        "disturbance": disturbance.stop(),
        "graphs_compiled": _graphs_compiled() - fields["graphs_compiled"],
        **_proof(request),
    }
    if diverged is None:
        result |= take_test(trial, request)
        result |= explaining.explained_fields(trial, request)
    send({**result, **_inside(trial, request, seen.losses, diverged)})
    trial.close()


def _inside(
    trial: Trial, request: Mapping[str, Any], losses: Sequence[float], diverged: int | None
) -> dict[str, Any]:
    """Train again and look inside, where the matrix asks for it; what goes wrong is said there."""
    count = request.get("measure", {}).get("inside_steps", 0)
    if not count:
        return {}
    until = inside.deadline(request)
    try:
        seen = inside.look_inside(trial, losses, count, diverged=diverged, deadline_ns=until)
    except (RuntimeError, MemoryError) as error:  # the trial has ended well: its figures stay
        return {"inside": {"reason": f"not seen: {classify(error)[1]}"}}
    return {"inside": seen}


def _ending(diverged: int | None) -> dict[str, Any]:
    """Say how training ended."""
    reason = "" if diverged is None else f"loss not finite or doubled at step {diverged}"
    status = "ok" if diverged is None else "diverged"
    return {"status": status, "reason": reason, "diverged_at_step": diverged}


def _proof(request: Mapping[str, Any]) -> dict[str, Any]:
    """Prove what was imported so far, where an arm of a duel is asked to; else nothing."""
    if "modules" not in request:
        return {}
    return {"imported": prove_imports(request["modules"], request["overlay"])}


def _prepare(trial: Trial, request: Mapping[str, Any], assembled: float) -> dict[str, Any]:
    """Burn in, take the separate passes, restore; give the fields known before the timed loop."""
    timing = request["timing"]
    compiles = any(kernel.compiles for kernel in trial.kernels.values())
    with _every_core() if compiles else nullcontext():
        begun = perf_counter()
        kernel_errors = checking.check_numbers(trial)
        started = perf_counter()
        burn_in = passes.burn_in(trial, timing["burn_in_steps"])
    burn_in_seconds = perf_counter() - started
    host_syncs = passes.count_syncs(trial)
    phases = passes.time_phases(trial, timing["phase_steps"])
    traced, peak_bytes = passes.trace(trial)  # after the others, which settle the optimizer
    attributed = attributing.attribute_memory(trial, peak_bytes)
    trial.restore()
    return {
        "burn_in_seconds": burn_in_seconds,
        "time_to_first_step_seconds": assembled + (started - begun) + burn_in[0],
        "phases": phases,
        "operations": operations_record(trial, traced.spans),
        "kernels_ran": list(traced.operations),
        "kernel_errors": kernel_errors,
        "peak_memory_bytes": peak_bytes,
        "memory": attributed,
        "initial_weights_sha256": trial.initial_weights_sha256,
        "parameter_count": sum(p.numel() for p in trial.model.parameters()),
        **held_work(trial, request, formulas.TRAIN_FACTOR),
        "host_syncs_per_step": host_syncs,
        "gpu_name": gpu_name(trial.device),
        "graphs_compiled": _graphs_compiled(),
        **compiled_so_far().fields(),
    }


def _after(trial: Trial, timer: Any, keeper: keeping.Keeper) -> dict[str, Any]:
    """Give the fields that are known when training ended."""
    step_seconds = [*keeper.seconds, *timer.durations_seconds()]
    return {
        "interrupted": keeper.interrupted,
        "step_seconds": step_seconds,
        "timed_steps": len(step_seconds),
        "skipped_steps": trial.skipped_steps,
        "exact_zero_share": trial.exact_zero_share(),
    }


@contextmanager
def _every_core() -> Iterator[None]:
    """Let compilers run on every core: a bound main thread hands its one core down to them."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    bound = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        yield
    finally:
        os.sched_setaffinity(0, bound)


class _Seen:
    """Sends each evaluation on, with the seconds trained so far; those of a killed trial again."""

    def __init__(self, trial: Trial, send: Send, timer: Any, keeper: keeping.Keeper) -> None:
        self.trial, self.send, self.timer, self.keeper = trial, send, timer, keeper
        self.began = perf_counter()
        self.losses: list[float] = []
        for message in keeper.messages:
            self.losses += message["losses"]
            send(message)

    def report(self, checkpoint: loop.Checkpoint) -> None:
        evaluation = checkpoint.evaluation
        self.losses += checkpoint.losses
        durations = self.timer.durations_seconds()
        message = {
            "kind": "evaluation",
            "step": checkpoint.step,
            "losses": checkpoint.losses,
            "loss": evaluation.loss,
            "masked_accuracy": evaluation.masked_accuracy,
            "confusion": getattr(evaluation, "confusion", None),
            "next_sentence_loss": evaluation.next_sentence_loss,
            "next_sentence_accuracy": evaluation.next_sentence_accuracy,
            "train_loss": evaluation.train_loss,
            "train_seconds": sum(self.keeper.seconds) + sum(durations),
            "evaluation_seconds": checkpoint.evaluation_seconds,
            "elapsed_seconds": perf_counter() - self.began,
        }
        self.send(message)
        self.keeper.messages.append(message)
        if checkpoint.diverged_at_step is None:
            self.keeper.save(checkpoint.step, durations)


def _graphs_compiled() -> int:
    """Count the graphs that torch.compile has made in this process."""
    return compiled_so_far().graphs


def run_ceilings(request: Mapping[str, Any], send: Send, _counter: Any) -> None:
    """Measure what the device can do at most."""
    device = assemble.build("device", request["device"])
    device.seed(0)  # makes it the current one, where there are several
    also = request.get("also", ())
    values = ceilings.measure_ceilings(device, request["seconds_budget"], also=also)
    send({"kind": "result", "values": values})


def run_precision_ratios(request: Mapping[str, Any], send: Send, _counter: Any) -> None:
    """Time each precision against the first one, interleaved."""
    send({"kind": "result", "ratios": probe.step_time_ratios(request["requests"])})
