"""A step's operations by kind: times of a scripted trace, work against torch's own counter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bertopt_bench.measure.operation_sums import OPTIMIZER, OTHER, StepSpans
from bertopt_bench.measure.tracing import trace_step

if TYPE_CHECKING:
    from collections.abc import Sequence

BOUNDARY = "the step"


@dataclass(frozen=True)
class Place:
    name: str


@dataclass(frozen=True)
class Event:
    """A kineto event as far as it is read; times in microseconds."""

    named: str
    begin: int
    end: int
    device: str = "CPU"
    number: int = 0
    linked: int = 0
    dims: Sequence[Any] = ()
    annotation: bool = False
    kinds: Sequence[str] = field(default=())

    def name(self) -> str:
        return self.named

    def start_ns(self) -> int:
        return 10**18 + self.begin * 1000  # a clock that has run for years

    def duration_ns(self) -> int:
        return (self.end - self.begin) * 1000

    def device_type(self) -> Place:
        return Place(self.device)

    def correlation_id(self) -> int:
        return self.number

    def linked_correlation_id(self) -> int:
        return self.linked

    def start_thread_id(self) -> int:
        return 1

    def is_user_annotation(self) -> bool:
        return self.annotation

    def shapes(self) -> Sequence[Any]:
        return self.dims

    def dtypes(self) -> Sequence[str]:
        return self.kinds


def by_name(name: str, _: Sequence[Any]) -> str:
    return {"aten::mm": "product", "attend": "attention"}.get(name, "")


STEP = [
    Event(BOUNDARY, 0, 100, annotation=True),
    Event("before", -20, -10),
    Event("attend", 0, 30, number=1),
    Event("aten::mm", 5, 15, number=2, dims=[[2, 3], [3, 4]], kinds=["float", "float"]),
    Event("aten::mm", 40, 60, number=3, dims=[[2, 3], [3, 4]], kinds=["float", "float"]),
    Event("aten::view", 60, 65, number=4),
    Event("Optimizer.step#AdamW.step", 70, 90, annotation=True),
    Event("aten::mul_", 71, 80, number=5, dims=[[8]], kinds=["float"]),
    Event("cudaLaunchKernel", 41, 42, number=5, linked=3),  # CUDA's own count
    Event("a kernel", 200, 207, "CUDA", linked=3),
    Event("another", 210, 213, "CUDA", linked=5),
]


def test_the_hosts_time_goes_to_the_outermost_kind() -> None:
    """Oracle: by hand: 30 us of attention, its product within it; 20 of another; 20 of the step."""
    sums = StepSpans.of(STEP, BOUNDARY, "cpu").sums(by_name)
    times = {kind: round(found.seconds * 1e6, 3) for kind, found in sums.items()}

    assert times == {"attention": 30, "product": 20, OPTIMIZER: 20, OTHER: 5}
    assert (sums["product"].calls, sums["product"].flops) == (1, 48)
    assert sums["product"].bytes == 4 * (6 + 12 + 8)
    assert sums["attention"].counted_seconds * 1e6 == pytest.approx(10)  # its product's alone
    assert sums["attention"].flops == 48


def test_a_devices_time_is_that_of_the_kernels_launched() -> None:
    """Oracle: by hand: 7 us by the product, 3 by the optimizer, whatever the host took."""
    sums = StepSpans.of(STEP, BOUNDARY, "cuda").sums(by_name)
    times = {kind: round(found.seconds * 1e6, 3) for kind, found in sums.items()}

    assert times == {"attention": 0, "product": 7, OPTIMIZER: 3, OTHER: 0}


def test_ranges_seen_from_the_device_and_what_nobody_launched_are_no_work() -> None:
    """A GPU's trace repeats ranges around the kernels in them. Oracle: the sums without them."""
    beside = [
        Event("a range of the host", 0, 1, number=0),
        Event("Optimizer.step#AdamW.step", 200, 260, "CUDA", linked=3, annotation=True),
        Event("Memset (Device)", 260, 290, "CUDA", linked=0),
    ]

    found = StepSpans.of([*STEP, *beside], BOUNDARY, "cuda")
    times = {kind: round(sum_.seconds * 1e6, 3) for kind, sum_ in found.sums(by_name).items()}

    assert times == {"attention": 0, "product": 7, OPTIMIZER: 3, OTHER: 0}


class Cpu:
    """The least a meter asks of a device."""

    type = "cpu"
    clock_kind = "perf_counter"

    def synchronize(self) -> None:
        """Return: the CPU has nothing in flight."""


def test_products_of_a_real_step_are_those_that_torch_counts() -> None:
    """Oracle: torch.utils.flop_counter over the same forward and backward pass."""
    layer = torch.nn.Linear(16, 32)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    inputs = torch.randn(8, 16)

    def step() -> None:
        optimizer.zero_grad()
        layer(inputs).square().sum().backward()
        optimizer.step()

    kind = lambda name, _: "linear" if name in {"aten::mm", "aten::addmm"} else ""  # noqa: E731
    spans = trace_step(step, Cpu()).spans
    sums = spans.sums(kind)
    with FlopCounterMode(display=False) as counter:
        step()

    assert sums["linear"].flops == counter.get_total_flops()
    assert sums["linear"].seconds > 0
    assert sums[OPTIMIZER].seconds > 0
    assert sum(found.seconds for found in sums.values()) <= spans.seconds
