"""Measure a case, and say what its seconds mean: rates, and the share of the machine's ceiling."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertopt_bench.measure.ceilings import measure_ceilings
from bertopt_bench.measure.tracing import trace_step
from bertopt_bench.trial.micro.timing import calls_a_batch, open_timer
from bertopt_bench.trial.passes import KernelMismatchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.trial.micro.cases import Case
    from bertopt_bench.trial.micro.timing import Batch, Timer

CEILING_SECONDS = 1.0


@dataclass(slots=True)
class BatchClock:
    """What pytest-benchmark reads as its timer: it moves only by what a batch says of one call.

    So pytest-benchmark's statistics are of seconds a call, measured as the device's kind asks for,
    and nothing that is restored between batches is in them.
    """

    seconds: float = 0.0

    def __call__(self) -> float:
        """Give the seconds that batches have told so far."""
        return self.seconds

    def advance(self, batch: Batch) -> None:
        """Move by one call's seconds."""
        self.seconds += batch.seconds / batch.calls


class Bench:
    """A case under its timer, with the calls that make a batch."""

    def __init__(self, case: Case, device: Any) -> None:
        self.case = case
        with case.context():
            case.calls[0]()
            self.ran = check_ran(case, device)
            self.timer: Timer = open_timer(case, device)
            self.calls = calls_a_batch(self.timer)

    def batch(self, calls: int | None = None) -> Batch:
        """Time a batch."""
        with self.case.context():
            return self.timer.batch(calls or self.calls)


def check_ran(case: Case, device: Any) -> tuple[str, ...]:
    """Trace a call of a forced implementation; give the names of what ran, none if none is forced.

    Raises:
        KernelMismatchError: what was forced did not run, or what it rules out did.
    """
    found = case.implementation
    if not found.expects and not found.forbids:
        return ()

    def once() -> None:
        case.calls[0]()

    traced = trace_step(once, device)
    ran, missing = traced.operations, traced.missing(found.expects)
    others = [name for name in ran if any(part in name for part in found.forbids)]
    if missing or others:
        wanted = f"no operation named {' or '.join(found.expects)}" if missing else others[0]
        seen = ", ".join(name for name in ran if name.startswith("aten::")) or "nothing"
        raise KernelMismatchError(
            f"{case.operation} '{case.name}' was forced, but {wanted} ran; what ran: {seen}."
        )
    return ran


def facts(bench: Bench, batches: Sequence[Batch]) -> dict[str, Any]:
    """Give what a row says besides its seconds: work, rates, errors, how it was timed."""
    case = bench.case
    seconds = statistics.median(batch.seconds / batch.calls for batch in batches)
    host = bench.timer.host_seconds_a_call()
    return {
        "operation": case.operation,
        "implementation": case.name,
        **case.options,
        **({"parameters": case.parameters} if case.parameters else {}),
        **case.cache,
        "calls_a_batch": bench.calls,
        "timed_by": bench.timer.way,
        "host_us": None if host is None else host * 1e6,
        "host_bound": 2 * sum(batch.host_bound for batch in batches) > len(batches),
        "bytes": case.work.bytes,
        "bytes_formula": case.work.bytes_formula,
        "flops": case.work.flops,
        "flops_formula": case.work.flops_formula,
        "gb_per_second": case.work.bytes / seconds / 1e9,
        "tflop_per_second": case.work.flops / seconds / 1e12,
        "error": case.errors.error,
        "reference_error": case.errors.reference_error,
        "allowed_error": case.errors.allowed,
        "worst_of": case.errors.worst,
        "inputs_sha256": case.inputs_sha256,
    }


def session_ceilings(device: Any, dtypes: Sequence[str]) -> dict[str, Any]:
    """Measure the ceilings that shares are of: matrix products by dtype, the optimizer's mix."""
    return measure_ceilings(device, CEILING_SECONDS, dtypes=tuple(dtypes))


def ceiling_of(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Take the best of several measurements: a ceiling is a limit."""
    products: dict[str, float] = {}
    for one in measured:
        for dtype, rate in one["matmul_flops_per_second"].items():
            products[dtype] = max(rate, products.get(dtype, 0.0))
    return {
        "matmul_flops_per_second": products,
        "bandwidth_bytes_per_second": max(one["bandwidth_bytes_per_second"] for one in measured),
    }


def share_of_ceiling(
    info: Mapping[str, Any], seconds: float, ceiling: Mapping[str, Any]
) -> dict[str, Any]:
    """Say which ceiling a call meets first, and which share of its rate it reaches.

    That is the time its bytes or its FLOPs take at the ceiling, the longer one, by the time that it
    took. Where nothing was measured for the dtype only the bandwidth counts. Hot data come from
    the caches, so that their share may exceed 1.
    """
    moving = info["bytes"] / ceiling["bandwidth_bytes_per_second"]
    rate = ceiling["matmul_flops_per_second"].get(info["dtype"])
    computing = info["flops"] / rate if rate else 0.0
    name = f"{info['dtype']} matrix products" if computing > moving else "bandwidth"
    return {"ceiling": name, "share_of_ceiling": max(moving, computing) / seconds}


def complete(document: dict[str, Any], measured: Sequence[Mapping[str, Any]]) -> None:
    """Put a session's ceilings into pytest-benchmark's JSON, and every row's share of them."""
    document["ceilings"] = [dict(one) for one in measured]
    if not measured:
        return
    for row in document["benchmarks"]:
        info = row["extra_info"]
        if "bytes" in info:  # a row's limits are its own device's
            kind = info.get("device")
            limits = ceiling_of([one for one in measured if one.get("device", kind) == kind])
            info |= share_of_ceiling(info, row["stats"]["median"], limits)
