"""The short passes beside the timed one: burn-in, phases, and a traced step.

All of them run before the exact restore, so that none leaves a mark on the trajectory.
"""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.modes import is_inference
from bertopt_bench.measure.compiling import graphs_left_out
from bertopt_bench.measure.memory import graph_pool_bytes, storage_bytes
from bertopt_bench.measure.operation_sums import OPTIMIZER_RANGE
from bertopt_bench.measure.syncs import count_host_syncs
from bertopt_bench.measure.tracing import StepTrace, trace_step
from bertopt_bench.workload.memory_formulas import memory_forecast_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from bertopt_bench.trial.live import Trial

_TOLD = ("attention", "_f", "cross_entropy", "layer_norm", "gelu", "Compiled", "Graph")
"""Parts of the names that an error about kernels lists."""


SETTLED = 6
"""Steps after which a step takes what later ones take: RAdam's sixth is its first rectified one."""


class KernelMismatchError(RuntimeError):
    """A kernel that the cell forces did not run; the text names those that did."""


def burn_in(trial: Trial, steps: int) -> list[float]:
    """Run every shape of the trial (training steps, one evaluation); give each step's seconds."""
    seconds = []
    for index in range(steps):
        start = perf_counter()
        trial.step(index % trial.batches.count)
        trial.device.synchronize()
        seconds.append(perf_counter() - start)
    trial.evaluate()
    trial.drain()
    return seconds


def count_syncs(trial: Trial) -> int:
    """Count the host syncs of a step; on a CPU an fp16 scaler's question is the only wait."""
    counted = count_host_syncs(lambda: trial.step(0), trial.device)
    trial.drain()
    return counted if trial.device.type == "cuda" else int(trial.scaler is not None)


def step_in_phases(trial: Trial, index: int, end: Callable[[str], None]) -> None:
    """Take ``Trial.step``'s step and say where each phase ends; `end` may look around then.

    A step that is captured whole is taken in its parts as well, on the gradients that it keeps.
    """
    total: torch.Tensor | None = None
    for micro in range(trial.batches.micro_batches):
        batch = trial.fetch(index, micro)
        end("data")
        loss = trial.forward(batch, index)
        penalised = trial.penalise(loss, batch)
        end("forward")
        trial.backward(penalised)
        total = loss.detach() if total is None else total + loss.detach()
        del loss, penalised, batch  # freed here and not behind the last phase, where none counts it
        end("backward")
    trial.update()
    end("optimizer")
    assert total is not None
    trial.losses.append(total)


def time_phases(trial: Trial, steps: int) -> dict[str, Any]:
    """Time the parts of a step, synchronising after each; mean seconds over ``steps`` steps."""
    names = ("data", "forward", "backward", "optimizer")
    sums = dict.fromkeys(names, 0.0)
    total = 0.0
    for number in range(steps):
        index = number % trial.batches.count
        begin = last = perf_counter()

        def lap(name: str) -> None:
            nonlocal last
            trial.device.synchronize()
            now = perf_counter()
            sums[name] += now - last
            last = now

        step_in_phases(trial, index, lap)
        total += perf_counter() - begin
    phases: dict[str, Any] = {f"{name}_seconds": value / steps for name, value in sums.items()}
    trial.drain()
    phases["rest_seconds"] = (total - sum(sums.values())) / steps
    return {**phases, "step_seconds": total / steps, "steps": steps}


def fullest(trial: Trial) -> int:
    """Give the batch whose step needs most memory, by formula; the second where all are equal.

    Layouts that leave padding out have micro-batches of unequal slots and lengths.
    """
    cell = trial.prepared_cell
    filled = [trial.batches.filled(index) for index in range(trial.batches.count)]
    needs = {one: memory_forecast_bytes(cell, one) for one in set(filled)}
    return max(range(len(filled)), key=lambda index: (needs[filled[index]], index == 1))


def trace(trial: Trial) -> tuple[StepTrace, int]:
    """Trace the step that needs most memory: what ran, and the peak of allocated bytes.

    Untraced ones run first until the optimizer has settled.

    The peak is what lies resident between steps (weights, optimizer state, gradients that are kept)
    plus the largest sum of the step's own allocations. A step that is captured whole allocates
    nothing when it is replayed, and shows no operator: its peak is that of the same step in its
    parts, traced apart, and so are the kernels that were forced into it. What graphs of
    `torch.compile` keep in pools of their own is added.

    Raises:
        KernelMismatchError: a forced kernel is not among the operations.
    """
    index = fullest(trial)
    for _ in range(trial.schedule_step, 0 if is_inference(trial.cell) else SETTLED):
        trial.step(index)
    resident = storage_bytes(trial.resident_tensors())
    traced = trace_step(lambda: trial.step(index), trial.device)
    seen = [traced]
    if trial.whole_step is not None:
        seen.append(trace_step(lambda: step_in_phases(trial, index, lambda _: None), trial.device))
    trial.drain()
    check_kernels(trial, seen)
    ran = tuple(sorted({name for one in seen for name in one.operations}))
    peak = resident + seen[-1].peak_bytes_above_start
    if trial.whole_step is None:
        peak += graph_pool_bytes(trial.device.type)
    return replace(traced, operations=ran), peak


def check_kernels(trial: Trial, traces: Sequence[StepTrace]) -> None:
    """Compare what each kernel expects and forbids with what ran, in the update and elsewhere.

    Raises:
        KernelMismatchError: a forced kernel did not run, or one ran that it rules out.
    """
    update, rest = _by_place(traces)
    seen = ", ".join(n for n in sorted(update | rest) if any(part in n for part in _TOLD))
    on_cuda = trial.device.type == "cuda"
    for operation, kernel in trial.kernels.items():
        ran = update if operation == "optimizer_step" else rest
        for wanted in (kernel.expects, kernel.expects_on_cuda if on_cuda else ()):
            if wanted and not _among(ran, wanted):
                raise KernelMismatchError(
                    f"kernel.{operation} was forced, but no operation named "
                    f"{' or '.join(wanted)} ran; what ran: {seen or 'none of its kind'}."
                )
        others = _among(ran, kernel.forbids)
        if others:
            raise KernelMismatchError(
                f"kernel.{operation} was forced, but {', '.join(others)} ran as well."
            )
        if on_cuda and kernel.expects_on_cuda and graphs_left_out():
            raise KernelMismatchError(
                f"kernel.{operation} was forced, but torch made no CUDA graph of "
                f"{graphs_left_out()} of its graphs; TORCH_LOGS=cudagraphs says why."
            )


def _among(ran: set[str], parts: Sequence[str]) -> list[str]:
    return sorted(name for name in ran if any(part in name for part in parts))


def _by_place(traces: Sequence[StepTrace]) -> tuple[set[str], set[str]]:
    """Part the names into those of the optimizers' steps and all others, a device's among these."""
    update: set[str] = set()
    rest: set[str] = set()
    for traced in traces:
        within, elsewhere = traced.spans.names(OPTIMIZER_RANGE)
        update |= within
        rest |= elsewhere | (set(traced.operations) - within)
    return update, rest
