"""Profile a few training steps of a trial: torch's profiler, or NVTX ranges for NVIDIA's tools.

The ranges stand here and nowhere in the timed path: the step below is ``Trial.step`` in its parts,
as the phase pass takes it, and modules are marked by hooks that go when the profile is made.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, nullcontext
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from bertopt_bench.measure.memory import storage_bytes
from bertopt_bench.measure.traces import MODULE, PHASE
from bertopt_bench.trial import assemble, checking, passes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    import torch

    from bertopt_bench.trial.live import Trial

    Range = Callable[[str], AbstractContextManager[Any]]


def run_profile(
    request: Mapping[str, Any], send: Callable[[dict[str, Any]], None], counter: Any
) -> None:
    """Assemble, check numbers, burn in, see what ran, restore, and write a trace."""
    trial = assemble.assemble(request)
    send({"kind": "ready", "assemble_seconds": (monotonic_ns() - request["dispatched_ns"]) / 1e9})
    checking.check_numbers(trial)
    passes.burn_in(trial, request["timing"]["burn_in_steps"])
    traced, _ = passes.trace(trial)
    trial.restore()
    first, steps = request["first_profiled_step"], request["profiled_steps"]
    resident_bytes = record_trace(trial, first, steps, request["trace_file"], counter)
    send(
        {
            "kind": "result",
            "status": "ok",
            "reason": "",
            "resident_bytes": resident_bytes,
            "kernels_ran": list(traced.operations),
            "modules_marked": not compiles(trial),
        }
    )
    trial.close()


def record_trace(
    trial: Trial, first: int, steps: int, file: Path | str, counter: Any = None
) -> int:
    """Profile so many steps and write the Chrome trace; give the bytes held between steps.

    Steps before the ``first`` one (from 2 on: step 1 makes the optimizer's state) run untraced.
    Each step ends with a synchronisation, so that a device's work lies in the step that issued it.
    """
    # Kineto announces every start and stop on stderr; a level above its last one silences that.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from torch.profiler import ProfilerActivity, profile, record_function, schedule

    activities = [ProfilerActivity.CPU]
    if trial.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with (
        marked_modules(trial, record_function),
        profile(
            activities=activities,
            schedule=schedule(wait=first - 2, warmup=1, active=steps, repeat=1),
            on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(file)),
            record_shapes=True,
            profile_memory=True,
        ) as profiler,
    ):
        for number in range(first - 1 + steps):
            ranged_step(trial, number % trial.batches.count, record_function)
            trial.device.synchronize()
            profiler.step()
            if counter is not None:
                counter[0] = number + 1
    return storage_bytes(trial.resident_tensors())


def ranged_step(trial: Trial, index: int, ranges: Range) -> None:
    """Train one step, each of its parts in a range of its own."""
    for micro in range(trial.batches.micro_batches):
        with ranges(f"{PHASE}data"):
            batch = trial.fetch(index, micro)
        with ranges(f"{PHASE}forward"):
            loss = trial.penalise(trial.forward(batch, index), batch)
        with ranges(f"{PHASE}backward"):
            trial.backward(loss)
            del loss
    with ranges(f"{PHASE}optimizer"):
        trial.update()


def compiles(trial: Trial) -> bool:
    """Say whether the model runs compiled: its modules are then no longer called one by one."""
    name: str = trial.cell["kernel"]["compile"]["name"]
    return name != "off"


@contextmanager
def marked_modules(trial: Trial, ranges: Range) -> Iterator[None]:
    """Put each module's call in a range that carries its path; not where the model is compiled."""
    with ExitStack() as hooks:
        if not compiles(trial):
            for path, module in trial.model.named_modules():
                for handle in _hook(module, f"{MODULE}{path}", ranges):
                    hooks.callback(handle.remove)
        yield


def _hook(module: torch.nn.Module, name: str, ranges: Range) -> tuple[Any, Any]:
    entered: list[AbstractContextManager[Any]] = []

    def before(*_: Any) -> None:
        entered.append(ranges(name))
        entered[-1].__enter__()

    def after(*_: Any) -> None:
        entered.pop().__exit__(None, None, None)

    return module.register_forward_pre_hook(before), module.register_forward_hook(after)


def run_in_ranges(request: Mapping[str, Any]) -> None:
    """Train the profiled steps under NVTX ranges, between the marks that nsys and ncu start at.

    Without CUDA the ranges are none: the steps run all the same.
    """
    trial = assemble.assemble({**request, "dispatched_ns": monotonic_ns()})
    passes.burn_in(trial, request["timing"]["burn_in_steps"])
    trial.restore()  # no trace of our own: the tool that watches holds CUPTI, which has one owner
    ranges, first = nvtx_ranges(trial), request["first_profiled_step"]
    for number in range(first - 1):
        ranged_step(trial, number % trial.batches.count, nullcontext)
    trial.device.synchronize()
    with marked_modules(trial, ranges), _capture(trial):
        for number in range(request["profiled_steps"]):
            with ranges(f"step {first + number}"):
                ranged_step(trial, (first - 1 + number) % trial.batches.count, ranges)
                trial.device.synchronize()
    trial.close()


def nvtx_ranges(trial: Trial) -> Range:
    """Give NVTX's ranges on CUDA, and ranges that do nothing elsewhere."""
    if trial.device.type != "cuda":
        return nullcontext
    from torch.cuda import nvtx

    made: Range = nvtx.range
    return made


@contextmanager
def _capture(trial: Trial) -> Iterator[None]:
    if trial.device.type != "cuda":
        yield
        return
    import torch

    marks: Any = torch.cuda.profiler  # torch leaves both functions untyped
    marks.start()
    try:
        yield
    finally:
        marks.stop()
