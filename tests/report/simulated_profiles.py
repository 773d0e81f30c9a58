"""Profiles as they lie on disk, of traces written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from made_traces import two_steps, with_a_device
from simulated_duels import cell

from bertopt_bench.measure.operator_costs import Point
from bertopt_bench.measure.trace_tables import tabulate_trace
from bertopt_bench.measure.traces import mend, parse_trace
from bertopt_bench.results.profiles import Profile, Profiles
from bertopt_bench.results.record import Session
from bertopt_bench.results.record_parts import Code

SESSION = "2026-11-25T07-00-00Z-0000"
CEILINGS = {
    "matmul_flops_per_second": {"float32": 1e11, "bfloat16": 4e11},
    "bandwidth_bytes_per_second": 2e10,
}
COUNTED = Point("void gemm<128>(float const*)", "counted", "kernel", 2, 3e9, 2e6, 40e-6)


def profile(label: str = "adamw", trace: dict[str, Any] | None = None, **fields: Any) -> Profile:
    tables = tabulate_trace(parse_trace(mend(trace or two_steps(), "made")), 5000)
    made = {
        "session": SESSION,
        "cell_id": f"c-{label}",
        "cell": cell("adamw"),
        "label": label,
        "seed": 1,
        "profiled_steps": len(tables.step_seconds),
        "status": "ok",
        "started_utc": "2026-11-25T07:00:00+00:00",
        "elapsed_seconds": 2.5,
        "trace_file": f"traces/{SESSION}/{label}.1.pt.trace.json.gz",
        "trace_bytes": 123_456,
        "resident_bytes": 5000,
        "tables": tables,
    }
    return Profile(**{**made, **fields})


def failed(label: str = "lamb", reason: str = "RuntimeError: <b>no</b> such kernel") -> Profile:
    nothing = {"tables": None, "trace_file": None, "trace_bytes": None, "status": "failed"}
    return profile(label, reason=reason, **nothing)


def profiles(*found: Profile) -> Profiles:
    session = Session(
        session=SESSION,
        started_utc="2026-11-25T07:00:00+00:00",
        matrix={"name": "made", "source": 'name = "made"\n'},
        machine={"cpu": "made"},
        code=Code(version="0.1.0", commit="0123456789abcdef", dirty_hash=""),
        order_seed=0,
        command="bertopt-bench profile made.toml",
        declared={"profile": {"steps": 2}},
        ceilings=({"values": CEILINGS},),
    )
    return Profiles(Path("results/made-profile"), (session,), found, ())


def slower(label: str = "math") -> Profile:
    """Give a profile whose products took twice as long, and an operator that the other lacks."""
    trace = two_steps()
    for event in trace["traceEvents"]:
        if event["name"] == "aten::gelu":
            event["name"] = "aten::tanh"
        if event["name"] == "aten::nll":
            event["dur"] /= 2
    return profile(label, trace)


def on_a_device() -> Profile:
    return profile("cuda", with_a_device(), counted=(COUNTED,))
