"""Look into one training step: what ran, for how long, and how much memory it took at most."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertopt_bench.measure.memory import allocation_peak
from bertopt_bench.measure.operation_sums import StepSpans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bertopt_bench.measure.clock import MeasuredDevice

_BOUNDARY = "bertopt_bench: traced step"
_MEMORY = "[memory]"

NOTHING = StepSpans(0.0, (), {}, on_device=False)


@dataclass(frozen=True)
class StepTrace:
    """What one step did.

    `operations` are the distinct names the profiler saw (operators, autograd nodes, kernels),
    sorted. `peak_bytes_above_start` is how far the device's allocator rose above where it stood
    when the step began; memory held then and freed within the step counts against it. `spans` are
    the operations nested, with their times: under the profiler, the smallest of them too long.
    """

    operations: tuple[str, ...]
    peak_bytes_above_start: int
    spans: StepSpans = NOTHING

    def missing(self, expected: Sequence[str]) -> bool:
        """Say whether none of the expected name parts occurs; nothing expected is never missing."""
        return bool(expected) and not any(
            part in name for part in expected for name in self.operations
        )


def trace_step(step: Callable[[], None], device: MeasuredDevice) -> StepTrace:
    """Run `step` twice under torch's profiler and describe the second run.

    The first run is there for the allocator: on the CPU the profiler knows the size of a block
    only when it saw the block being allocated, so gradients left by an unprofiled step would be
    freed unseen, and the peak would be too high by their size. The profiler adds some 10 ms to
    the two steps.
    """
    # Kineto announces every start and stop on stderr; a level above its last one silences that.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from torch.profiler import ProfilerActivity, profile, record_function

    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities, record_shapes=True, profile_memory=True) as profiler:
        step()
        device.synchronize()
        with record_function(_BOUNDARY):
            step()
            device.synchronize()
    # Kineto's own list, since `events()` adds allocations up over an operator and loses the order.
    results: Any = profiler.profiler and profiler.profiler.kineto_results
    return _describe(results.events(), device.type)


def _describe(events: Iterable[Any], device_type: str) -> StepTrace:
    """Sort kineto's events after the boundary into names and memory changes."""
    listed = [(event.start_ns(), event.name(), event) for event in events]
    begin = min(at for at, name, _ in listed if name == _BOUNDARY)
    names = {name for at, name, _ in listed if at >= begin} - {_BOUNDARY, _MEMORY}
    changes = sorted(
        # The index keeps the profiler's order between changes of the same nanosecond.
        (at, index, event.nbytes())
        for index, (at, name, event) in enumerate(listed)
        if name == _MEMORY and at >= begin and event.device_type().name.lower() == device_type
    )
    return StepTrace(
        operations=tuple(sorted(names)),
        peak_bytes_above_start=allocation_peak(change for _, _, change in changes),
        spans=StepSpans.of((event for _, _, event in listed), _BOUNDARY, device_type),
    )
