"""Traces written by hand, of two steps whose every number is known."""

from __future__ import annotations

from typing import Any

THREAD = {"pid": 7, "tid": 7}


def span(name: str, ts: float, dur: float, cat: str = "cpu_op", **args: Any) -> dict[str, Any]:
    where = {"pid": args.pop("pid", 7), "tid": args.pop("tid", 7)}
    named = {key.replace("_", " "): value for key, value in args.items()}
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, **where, "args": named}


def annotation(name: str, ts: float, dur: float) -> dict[str, Any]:
    return span(name, ts, dur, "user_annotation")


def change(ts: float, size: int, *, device: int = 0, total: int = 0) -> dict[str, Any]:
    args = {"Bytes": size, "Device Type": device, "Total Allocated": total}
    return {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "ts": ts, "args": args}


def step(number: int, at: float, scale: float = 1.0) -> list[dict[str, Any]]:
    """Give a step of 100 us: data 0-10, forward 10-40, backward 40-80, optimizer 80-95, rest 5.

    Forward: a module "encoder" (12-38) with a module "encoder.layer.1" (20-30) in it; a linear of
    14 us (20-34 is cut by nothing) that calls a product of 6; a loss operator of 2 us outside.
    """

    def t(offset: float) -> float:
        return at + offset * scale

    def d(duration: float) -> float:
        return duration * scale

    first = 10 * number
    return [
        annotation(f"ProfilerStep#{number}", t(0), d(100)),
        annotation("phase: data", t(0), d(10)),
        span("aten::select", t(2), d(3)),
        annotation("phase: forward", t(10), d(30)),
        annotation("module: ", t(11), d(26)),
        annotation("module: encoder.layer.1", t(12), d(20)),
        span("aten::linear", t(13), d(14), Sequence_number=first, Input_Dims=[[2, 3], [4, 3]],
             Input_type=["float", "float"]),
        span("aten::mm", t(15), d(6), Sequence_number=first, Input_Dims=[[2, 3], [3, 4]],
             Input_type=["float", "float"]),
        span("aten::gelu", t(28), d(3), Sequence_number=first + 1, Input_Dims=[[2, 4]],
             Input_type=["float"]),
        span("aten::nll", t(38), d(1.5), Sequence_number=first + 2),
        annotation("phase: backward", t(40), d(40)),
        span("autograd::engine::evaluate_function: NllBackward0", t(41), d(4),
             Sequence_number=first + 2, Fwd_thread_id=1),
        span("autograd::engine::evaluate_function: GeluBackward0", t(46), d(10),
             Sequence_number=first + 1, Fwd_thread_id=1),
        span("aten::gelu_backward", t(47), d(8)),
        span("autograd::engine::evaluate_function: torch::autograd::AccumulateGrad", t(60), d(2)),
        annotation("phase: optimizer", t(80), d(15)),
        annotation("Optimizer.step#SGD.step", t(81), d(13)),
        span("aten::add_", t(82), d(10)),
        span("aten::add_", t(84), d(5)),
        change(t(5), 100),
        change(t(20), 1000),
        change(t(50), -600),
        change(t(90), -500),
    ]  # fmt: skip


def two_steps() -> dict[str, Any]:
    """Give two steps, the second twice as slow; the arrow between passes; where they were made."""
    arrow = {"cat": "fwdbwd", "name": "fwdbwd", "id": 1, **THREAD}
    return {
        "schemaVersion": 1,
        "host_name": "a-secret-machine",
        "traceName": "/home/someone/trace.json",
        "traceEvents": [
            *step(1, 1000),
            *step(2, 1100, scale=2),
            {**arrow, "ph": "s", "ts": 1015},
            {**arrow, "ph": "f", "ts": 1046},
            {"ph": "M", "name": "process_name", **THREAD, "args": {"name": "python"}},
        ],
    }


def with_a_device() -> dict[str, Any]:
    """Give a step of 100 us that launches kernels of 20 and 30 us, and one copy of 5 us."""
    launches = [(13, 1), (50, 2), (85, 3)]
    events = [
        annotation("ProfilerStep#1", 0, 100),
        annotation("phase: forward", 10, 30),
        span("aten::mm", 12, 6),
        annotation("phase: backward", 40, 40),
        span("aten::bmm", 49, 6),
        annotation("phase: optimizer", 80, 15),
        span("aten::copy_", 84, 6),
        *(span("cudaLaunchKernel", at, 2, "cuda_runtime", correlation=c) for at, c in launches),
        span("phase: forward", 20, 20, "gpu_user_annotation", pid=0, tid=7),
        span("module: encoder", 20, 20, "gpu_user_annotation", pid=0, tid=7),
        span("gemm", 20, 20, "kernel", pid=0, tid=7, correlation=1),
        span("batched", 55, 30, "kernel", pid=0, tid=7, correlation=2),
        span("Memcpy DtoD", 88, 5, "gpu_memcpy", pid=0, tid=7, correlation=3),
        change(15, 4096, device=1, total=10_096),
        change(60, -2048, device=1, total=8_048),
        change(61, 77),
    ]
    return {"schemaVersion": 1, "traceEvents": events}
