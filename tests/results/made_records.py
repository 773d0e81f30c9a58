"""Make records and sessions that hold together, for the tests of the results room."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.cells import Cell, TrialPlan
from bertopt_bench.matrix.identity import cell_id
from bertopt_bench.results.store import ResultsFolder
from bertopt_bench.workload import formulas

if TYPE_CHECKING:
    from pathlib import Path

CODE = {"version": "0.1.0", "commit": "a" * 40, "dirty_hash": ""}
DIGEST = "0123456789abcdef"
SESSION = "2026-11-24T02-10-00Z-7f3a"
STEPS = 6
VOCABULARY = 512
SIZES = {"hidden": 16, "layers": 1, "heads": 2, "intermediate": 32, "positions": 512, "segments": 2}
WORKLOAD = {
    "name": "mlm",
    "model": SIZES,
    "corpus": "python_docs",
    "vocabulary_size": VOCABULARY,
    "seq_len": 16,
    "batch_size": 4,
    "micro_batches": 1,
    "steps": STEPS,
    "position_embedding": "learned",
    "mask_rate": 0.15,
    "evaluate_every": 3,
    "evaluation_batches": 1,
    "held_out_fraction": 0.1,
    "lower_case": True,
}


def content(**axes: Any) -> dict[str, Any]:
    """Give a canonical cell; ``optimizer="sgd"`` and the like change one axis."""
    workload = {**WORKLOAD, **axes.pop("workload", {})}
    named = {
        "optimizer": {"name": "adamw", "lr": 0.001},
        "schedule": {"name": "linear", "end": 0.0},
        "regularizer": [{"name": "none"}],
        "precision": {"name": "fp32"},
        "device": {"name": "cpu"},
    }
    for axis, choice in axes.items():
        named[axis] = {"name": choice} if isinstance(choice, str) else choice
    kernels = {"attention": "default", "optimizer_step": "default", "compile": "off"}
    return {
        "workload": workload,
        **named,
        "kernel": {operation: {"name": name} for operation, name in kernels.items()},
    }


def record(cell: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Give the fields of a finished trial; ``fields`` replace any of them."""
    cell = cell or content()
    steps = fields.get("steps", cell["workload"]["steps"])
    return {
        "session": SESSION,
        "cell_id": cell_id(cell),
        "cell": cell,
        "seed": 1,
        "replicate": 0,
        "steps": steps,
        "status": "ok",
        "started_utc": "2026-11-24T02:11:00+00:00",
        "code": CODE,
        "initial_weights_sha256": "1" * 64,
        "batches_sha256": "2" * 64,
        "evaluation_sha256": "3" * 64,
        "text_sha256": "4" * 64,
        "tokenizer_sha256": "5" * 64,
        **counted(cell["workload"]),
        **sampled(cell["workload"], steps),
        "kernels_ran": ["aten::addmm", "aten::native_layer_norm"],
        "process": {"pid": 1},
        "disturbance": {"load1": 0.5},
        **fields,
    }


def counted(workload: dict[str, Any]) -> dict[str, Any]:
    """Give what follows from the workload by formula."""
    size = formulas.model_size(workload["model"])
    batch, length = workload["batch_size"], workload["seq_len"]
    masked = batch * formulas.masked_slots(length, workload["mask_rate"])
    parameters = formulas.parameter_count(size, vocabulary=VOCABULARY)
    return {
        "vocabulary_size": VOCABULARY,
        "slot_tokens_per_step": batch * length,
        "parameter_count": parameters,
        "flops_per_step": formulas.train_flops(
            size, vocabulary=VOCABULARY, batch=batch, seq_len=length, masked=masked
        ),
        "peak_memory_bytes": 32 * parameters,
        "peak_resident_bytes": 300_000_000,
    }


def sampled(workload: dict[str, Any], steps: int) -> dict[str, Any]:
    """Give what is measured step by step, and around the steps."""
    due = sorted({*range(0, steps, workload["evaluate_every"]), steps})
    return {
        "assemble_seconds": 0.05,
        "burn_in_seconds": 0.1,
        "time_to_first_step_seconds": 0.2,
        "real_tokens": [60 + step % 3 for step in range(steps)],
        "masked_tokens": [8] * steps,
        "step_seconds": [0.01 + 0.001 * step for step in range(steps)],
        "timed_steps": steps,
        "losses": [6.2 - 0.1 * step for step in range(steps)],
        "evaluations": [evaluation(step) for step in due],
        "skipped_steps": 0,
        "host_syncs_per_step": 0,
        "graphs_compiled": 0,
        "phases": {
            "data_seconds": 0.001,
            "forward_seconds": 0.004,
            "backward_seconds": 0.006,
            "optimizer_seconds": 0.002,
            "rest_seconds": 0.0001,
            "step_seconds": 0.0131,
            "steps": 3,
        },
    }


def evaluation(step: int, loss: float | None = None) -> dict[str, Any]:
    """Give an evaluation; untrained, the loss is that of a uniform guess."""
    loss = math.log(VOCABULARY) - 0.05 * step if loss is None else loss
    return {
        "step": step,
        "loss": loss,
        "perplexity": math.exp(loss) if loss < 700 else math.inf,
        "masked_accuracy": 0.01 * step,
        "train_seconds": 0.01 * step,
        "evaluation_seconds": 0.02,
    }


def session(**fields: Any) -> dict[str, Any]:
    """Give a session's first line."""
    return {
        "session": SESSION,
        "started_utc": "2026-11-24T02:10:00+00:00",
        "matrix": {"name": "made", "digest": DIGEST, "source": ""},
        "machine": {"cpu": "a CPU"},
        "versions": {"torch": "2.13.0"},
        "code": CODE,
        "order_seed": 7,
        "command": "bertopt-bench run made.toml",
        "declared": {"cells": 1},
        **fields,
    }


def ceiling(rate: float = 1e11, device: Any = "cpu", name: str = SESSION) -> dict[str, Any]:
    """Give an event with a measured fp32 matrix-product rate."""
    values = {"matmul_flops_per_second": {"float32": rate}, "bandwidth_bytes_per_second": 1e10}
    return {
        "kind": "ceilings",
        "session": name,
        "at_utc": "2026-11-24T02:10:30+00:00",
        "device": device,
        "values": values,
    }


def write(path: Path, *records: dict[str, Any], **fields: Any) -> Path:
    """Write a results folder with one session, one ceiling and these records."""
    with ResultsFolder.open(path, DIGEST) as store:
        name = store.start_session(session(**fields))
        store.append_session_event(ceiling(name=name))
        for one in records:
            store.append({**one, "session": name})
    return path


def plan(cell: dict[str, Any] | None = None, **fields: Any) -> TrialPlan:
    """Give a planned trial of a cell."""
    cell = cell or content()
    made = Cell(cell_id(cell), cell, fields.pop("skip", None), "made", fields.pop("outside", {}))
    return TrialPlan(made, **{"seed": 1, "replicate": 0, "steps": STEPS, **fields})
