"""Simulate result sets with the frames that `results.tables` promises, for the page's tests."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

MATRIX = """\
name = "simulated"
seeds = [1, 2, 3]

[workload]
model = "tiny"
corpus = "python_docs"
steps = 120

[timing]
burn_in_steps = 3
timeout_seconds = 600.0

[axes]
optimizer = ["adamw", "lion", "sgd"]
schedule = ["linear", "cosine"]
regularizer = ["none", "weight_decay"]
precision = ["fp32", "bf16"]

[[exclude]]
reason = "sgd with bf16 is asked elsewhere"
optimizer = "sgd"
precision = "bf16"
regularizer = "weight_decay"
"""


@dataclass
class SimulatedResults:
    """Hold what `load_results` returns."""

    sessions: list[dict[str, Any]]
    trials: pd.DataFrame
    steps: pd.DataFrame
    evaluations: pd.DataFrame
    warnings: list[str] = field(default_factory=list)
    inside: pd.DataFrame = field(default_factory=pd.DataFrame)


def session(name: str = "2026-11-24T02-10-00Z-7f3a") -> dict[str, Any]:
    return {
        "schema_version": 1,
        "session": name,
        "started_utc": "2026-11-24T02:10:00Z",
        "matrix": {"name": "simulated", "digest": "9b1c77aa02", "source": MATRIX},
        "machine": {
            "cpu": "AMD EPYC 7B13",
            "cores": 2,
            "memory_bytes": 25769803776,
            "gpus": [],
            "system": {"kernel": "6.1.0", "virtualisation": "kvm"},
        },
        "versions": {"python": "3.11.7", "torch": "2.13.0+cpu", "bertopt-bench": "0.1.0"},
        "code": {"version": "0.1.0", "commit": "0123456789abcdef", "dirty_hash": None},
        "order_seed": 20261124,
        "command": "bertopt-bench run simulated.toml",
        "declared": {"cells": 24, "trials": 72, "seeds": [1, 2, 3], "replicates": 1},
        "ceilings": [
            {"at_utc": "2026-11-24T02:10:09Z", "values": {"float32": 1.1e11, "bandwidth": 2.1e10}}
        ],
    }


BASE = {"adamw": 5.62, "lion": 5.55, "sgd": 7.4, "muon": 5.41, "lamb": 5.9, "adagrad": 6.3}
SPEED = {"adamw": 0.047, "lion": 0.045, "sgd": 0.041, "muon": 0.069, "lamb": 0.055}


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def row(names: tuple[str, str, str, str], seed: int, draw: random.Random) -> dict[str, Any]:
    optimizer, schedule, regularizer, precision = names
    loss = BASE.get(optimizer, 5.8 + len(optimizer) / 20)
    loss += {"linear": 0.0, "cosine": -0.06}.get(schedule, 0.08)
    loss += {"none": 0.0, "weight_decay": -0.015}.get(regularizer, 0.03)
    loss += draw.gauss(0, 0.02) + 0.03 * math.sin(seed)
    seconds = SPEED.get(optimizer, 0.05) * {"fp32": 1.0, "bf16": 0.82}[precision]
    seconds *= math.exp(draw.gauss(0, 0.03))
    memory = int(61e6 * {"fp32": 1.0, "bf16": 0.91}[precision])
    memory += {"sgd": -9_000_000, "lion": -4_000_000}.get(optimizer, 0)
    return {
        "seed": seed,
        "replicate": 0,
        "session": session()["session"],
        "status": "ok",
        "reason": None,
        "steps": 120,
        "model": "tiny",
        "corpus": "python_docs",
        "seq_len": 64,
        "batch_size": 16,
        "vocabulary_size": 4096,
        "optimizer": optimizer,
        "schedule": schedule,
        "regularizer": regularizer,
        "precision": precision,
        "device": "cpu",
        "kernel.attention": "default",
        "kernel.optimizer_step": "default",
        "kernel.compile": "off",
        "optimizer.lr": {"adamw": 0.002, "lion": 0.0003}.get(optimizer, 0.05),
        "step_seconds": seconds,
        "step_seconds_p10": seconds * 0.94,
        "step_seconds_p90": seconds * 1.11,
        "timed_steps": 120,
        "train_seconds": seconds * 120,
        "tokens_per_second": 880 / seconds,
        "peak_memory_bytes": memory,
        "peak_resident_bytes": memory + 310_000_000,
        "time_to_first_step_seconds": 0.31 + draw.random() / 10,
        "ceiling_share": 0.31 / seconds / 40,
        "parameter_count": 1_180_000,
        "final_loss": loss,
        "best_loss": loss - 0.01,
        "final_perplexity": math.exp(loss),
        "final_masked_accuracy": max(0.02, 0.31 - (loss - 5.4) / 10),
        "diverged_at_step": None,
        "host_syncs_per_step": 0,
        "batches_sha256": digest("batches", seed),
        "initial_weights_sha256": digest("weights", seed),
        "evaluation_sha256": digest("evaluation"),
        "text_sha256": digest("text"),
        "code_version": "0.1.0",
        "code_commit": "0123456789abcdef",
    }


MEASURED = (
    "step_seconds",
    "step_seconds_p10",
    "step_seconds_p90",
    "train_seconds",
    "tokens_per_second",
    "peak_memory_bytes",
    "peak_resident_bytes",
    "final_loss",
    "best_loss",
    "final_perplexity",
    "final_masked_accuracy",
    "ceiling_share",
    "time_to_first_step_seconds",
)


def spoil(trial: dict[str, Any], status: str, reason: str) -> None:
    trial.update({"status": status, "reason": reason}, **dict.fromkeys(MEASURED, math.nan))


def curve(code: int, trial: dict[str, Any], points: int) -> list[dict[str, Any]]:
    rows = []
    last = trial["diverged_at_step"] or 120
    final = trial["final_loss"] if trial["status"] == "ok" else 9.4
    for i in range(points + 1):
        step = round(120 * i / points)
        if step > last:
            break
        loss = final + (8.32 - final) * math.exp(-4 * i / points) * (1 - i / points)
        seconds = (trial["step_seconds"] if trial["status"] == "ok" else 0.05) * step
        measured = {"loss": loss, "perplexity": math.exp(loss), "masked_accuracy": 0.3 * i / points}
        rows.append({"trial": code, "step": step, **measured, "train_seconds": seconds})
    return rows


def spoiled(trial: dict[str, Any]) -> bool:
    """Give some cells the fates of a real matrix; say whether the trial leaves no curve."""
    names = (trial["optimizer"], trial["schedule"], trial["regularizer"], trial["precision"])
    if names[0] == "sgd" and names[2:] == ("weight_decay", "bf16"):
        spoil(trial, "skipped", "excluded: sgd with bf16 is asked elsewhere")
        return True
    if names == ("lion", "cosine", "none", "bf16") and trial["seed"] == 3:
        spoil(trial, "diverged", "training loss is NaN at step 61")
        trial["diverged_at_step"] = 61
    if names == ("sgd", "linear", "none", "fp32") and trial["seed"] == 2:
        spoil(trial, "failed", "RuntimeError: <script>alert('corpus')</script> & more")
        return True
    return False


def simulated(
    optimizers: tuple[str, ...] = ("adamw", "lion", "sgd"),
    schedules: tuple[str, ...] = ("linear", "cosine"),
    regularizers: tuple[str, ...] = ("none", "weight_decay"),
    seeds: tuple[int, ...] = (1, 2, 3),
    points: int = 6,
) -> SimulatedResults:
    """Run a factorial on paper; one cell of it keeps a single run."""
    draw = random.Random(7)
    trials, evaluations, steps = [], [], []
    product = itertools.product(optimizers, schedules, regularizers, ("fp32", "bf16"))
    planned = [(names, seed) for names in product for seed in seeds]
    draw.shuffle(planned)
    for names, seed in planned:
        if names == ("adamw", "cosine", "weight_decay", "bf16") and seed > 1:
            continue
        code = len(trials)
        trial = {"trial": code, "cell_id": digest(names)[:12], "label": " · ".join(names)}
        trial |= row(names, seed, draw)
        trials.append(trial)
        if not spoiled(trial):
            evaluations += curve(code, trial, points)
            steps += [
                {"trial": code, "step": 1 + i, "loss": 8.3 - i / 60, "step_seconds": 0.05}
                for i in range(10)
            ]
    frames = [pd.DataFrame(rows) for rows in (trials, steps, evaluations)]
    return SimulatedResults([session()], *frames)
