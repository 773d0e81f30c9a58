"""Traces of steps whose allocations and operations are known."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from bertopt_bench.measure.tracing import StepTrace, trace_step

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 2**20


class Cpu:
    """The least a meter asks of a device."""

    type = "cpu"
    clock_kind = "perf_counter"

    def synchronize(self) -> None:
        """Return: the CPU has nothing in flight."""


def buffer(mebibytes: int) -> torch.Tensor:
    return torch.empty(mebibytes * MIB, dtype=torch.uint8)


def test_peak_of_a_hand_built_sequence_is_exact() -> None:
    """1 + 2, then 2 + 0 + 4, then 4: the peak is 6 MiB."""

    def step() -> None:
        first, second = buffer(1), buffer(2)
        del first
        third = buffer(4)
        del second, third

    assert trace_step(step, Cpu()).peak_bytes_above_start == 6 * MIB


def test_memory_held_at_the_start_and_freed_within_counts_against_the_peak() -> None:
    """As gradients do: 8 MiB freed, then 3 + 8 allocated, is 3 MiB above the start.

    The blocks held before the trace were allocated unseen: without the first, unread run the
    profiler would miss their release and say 11.
    """
    held = {"gradients": buffer(8)}

    def step() -> None:
        held.clear()
        activations = buffer(3)
        held["gradients"] = buffer(8)
        del activations

    assert trace_step(step, Cpu()).peak_bytes_above_start == 3 * MIB


def test_only_the_second_run_is_described() -> None:
    """The first run's operations and allocations do not show."""
    runs: list[int] = []

    def step() -> None:
        runs.append(1)
        if len(runs) == 1:
            torch.ones(5 * MIB).cumsum(0)
        else:
            torch.ones(4).neg()

    trace = trace_step(step, Cpu())

    assert len(runs) == 2
    assert "aten::neg" in trace.operations
    assert "aten::cumsum" not in trace.operations
    assert trace.peak_bytes_above_start == 2 * 4 * 4


def attention_step(backend: SDPBackend) -> Callable[[], None]:
    query = torch.randn(1, 2, 8, 4, requires_grad=True)

    def step() -> None:
        with sdpa_kernel(backend):
            out = torch.nn.functional.scaled_dot_product_attention(query, query, query)
        out.sum().backward()

    return step


@pytest.mark.parametrize(
    ("backend", "ran", "did_not"),
    [
        (SDPBackend.MATH, "_scaled_dot_product_attention_math", "flash_attention"),
        (SDPBackend.FLASH_ATTENTION, "flash_attention", "attention_math"),
    ],
)
def test_the_trace_proves_which_attention_ran(backend: SDPBackend, ran: str, did_not: str) -> None:
    """Oracle: the operator names in torch's dispatcher (native_functions.yaml)."""
    trace = trace_step(attention_step(backend), Cpu())

    assert not trace.missing([ran])
    assert trace.missing([did_not])


@pytest.mark.parametrize(
    ("options", "ran"),
    [({"fused": True}, "_fused_adamw_"), ({"foreach": True}, "_foreach_")],
)
def test_the_trace_proves_which_optimizer_step_ran(options: dict[str, Any], ran: str) -> None:
    weight = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.AdamW([weight], **options)

    def step() -> None:
        weight.sum().backward()
        optimizer.step()

    assert not trace_step(step, Cpu()).missing([ran])


def test_nothing_expected_is_never_missing() -> None:
    """A kernel that is not forced expects no name; of several names one is enough."""
    trace = StepTrace(("aten::mm",), 0)

    assert not trace.missing([])
    assert not trace.missing(["flash", "mm"])
    assert trace.missing(["flash"])


def test_the_profiler_leaves_stderr_alone() -> None:
    """Kineto's own announcements would break a progress display.

    In a process of its own, since Kineto reads its level once.
    """
    code = (
        "import torch; from types import SimpleNamespace as S; "
        "from bertopt_bench.measure.tracing import trace_step; "
        "trace_step(lambda: torch.ones(4).neg(), S(type='cpu', synchronize=lambda: None))"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "profiler_st" not in run.stderr
