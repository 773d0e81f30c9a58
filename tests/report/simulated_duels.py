"""Simulate sessions of duels as they lie on disk: drift, processes, blocks, findings."""

from __future__ import annotations

import functools
import math
import random
from pathlib import Path
from typing import Any

from simulated_results import MATRIX, digest

from bertopt_bench.report.duel_facts import Duel, gather
from bertopt_bench.results.duels import (
    CONTROL,
    ArmRun,
    Block,
    Declaration,
    DeclaredArm,
    Finding,
    Replicate,
    Verdicts,
)
from bertopt_bench.results.record import Record, Session
from bertopt_bench.results.record_parts import Code, Evaluation
from bertopt_bench.results.tables import Results
from bertopt_bench.stats.duels import analyse

STEP_SECONDS = 0.046
BYTES = {"lion": 0.876, "sgd": 0.752, "math": 1.061}
BANK = {
    "duels": 31,
    "refused": 2,
    "false_alarms": 0,
    "alpha": 0.01,
    "false_alarm_bound": 0.1122,
    "expected_per_1000_gate_runs": 3.15,
}
MARGINS = {"step_time": 0.02, "peak_memory": 0.01, "loss": 0.012, "time_to_target": 0.02}
CODE = {"version": "0.1.0", "commit": "0123456789abcdef", "dirty_hash": ""}


def cell(optimizer: str) -> dict[str, Any]:
    return {
        "workload": {"name": "mlm", "model": "tiny", "corpus": "python_docs", "steps": 400},
        "optimizer": {"name": optimizer, "lr": 0.0003 if optimizer == "lion" else 0.002},
        "schedule": {"name": "linear"},
        "regularizer": [{"name": "none"}],
        "precision": {"name": "fp32"},
        "device": {"name": "cpu"},
        "kernel": {"attention": {"name": "default"}, "compile": {"name": "off"}},
    }


def declaration(arms: dict[str, float], inject: float, **fields: Any) -> Declaration:
    """Declare `adamw`, the arms, a slowed copy where asked for, and the A/A arm."""
    same = {"cell_id": "c-adamw", "cell": cell("adamw"), "python": "3.11.7"}
    slowed = {"label": f"slowed by {inject * 100:g} %", "injected_share": inject}
    named = [
        DeclaredArm(label="adamw", role="baseline", **same),
        *(
            DeclaredArm(
                label=arm,
                role="arm",
                overrides=(f"optimizer={arm}",),
                **{**same, "cell_id": f"c-{arm}", "cell": cell(arm)},
            )
            for arm in arms
        ),
        *([DeclaredArm(role="arm", **same, **slowed)] if inject else []),
        DeclaredArm(label=CONTROL, role="control", **same),
    ]
    metrics = fields.pop("metrics", ("step_time", "peak_memory"))
    values = {
        "name": "simulated",
        "comparisons": tuple(("adamw", arm.label) for arm in named[1:-1]),
        "alpha": 0.01,
        "family_error": 0.05,
        "margins": {metric: MARGINS[metric] for metric in metrics},
        "looks": (12,),
        "burst_seconds": 0.1,
        **fields,
    }
    return Declaration(arms=tuple(named), metrics=metrics, **values)


class Machine:
    """A machine whose speed drifts: an Ornstein-Uhlenbeck process over its own clock."""

    def __init__(self, draw: random.Random) -> None:
        self.draw, self.seconds, self.drift = draw, 4.0, 0.0

    def block(self, arm: str, step: float, turn: int, position: int, share: float) -> Block:
        self.drift = 0.985 * self.drift + self.draw.gauss(0, 0.009)
        steps = 12
        pace = step * math.exp(self.drift)
        times = [pace * math.exp(self.draw.gauss(0, 0.03)) for _ in range(steps)]
        if self.draw.random() < 0.006:
            times[-1] *= 6
        wall = sum(times)
        block = Block(
            round=turn,
            position=position,
            arm=arm,
            clock_seconds=self.seconds,
            steps=steps,
            wall_seconds=wall,
            injected_seconds=wall * share / (1 + share),
            step_seconds=tuple(float(f"{t:.6g}") for t in times),
            disturbance={
                "steal_share": self.draw.random() * 0.01,
                "foreign_cpu_share": self.draw.random() * 0.04,
                "foreign_pressure_share": self.draw.random() * 0.06,
                "load1": 2.1,
                "involuntary_switches": self.draw.randrange(9),
                "major_faults": 0,
                "swapped_pages": 0,
                "gc_collections": 1,
            },
        )
        self.seconds += wall + 0.14
        return block


def replicate(
    declared: Declaration, effects: dict[str, float], number: int, machine: Machine, spread: float
) -> Replicate:
    draw, labels = machine.draw, [arm.label for arm in declared.arms]
    shares = {arm.label: arm.injected_share for arm in declared.arms}
    paces = {
        label: STEP_SECONDS
        * math.exp(
            effects.get(label, 0.0) + math.log1p(shares[label]) + draw.gauss(0, spread / 1.4)
        )
        for label in labels
    }
    start = tuple(draw.sample(labels, len(labels)))
    began = machine.seconds
    blocks = [
        machine.block(label, paces[label], turn, position, shares[label])
        for turn in range(declared.rounds)
        for position, label in enumerate(draw.sample(labels, len(labels)))
    ]
    machine.seconds += 7.5
    return Replicate(
        session="",
        replicate=number,
        seed=declared.seeds[number % len(declared.seeds)],
        status="ok",
        started_utc=f"2026-11-24T02:{10 + number:02d}:00Z",
        elapsed_seconds=machine.seconds - began,
        start_order=start,
        arms=tuple(arm_run(label, number, draw) for label in labels),
        blocks=tuple(blocks),
    )


def arm_run(label: str, number: int, draw: random.Random) -> ArmRun:
    commit = "0123456789abcdef"
    module = {"version": "2.13.0+cpu", "root": "site-packages", "commit": None, "sources": None}
    return ArmRun(
        arm=label,
        status="ok",
        process={"hash_seed": str(1000 + number), "environment_bytes": 3000 + 17 * number},
        imported={
            "python": "3.11.7",
            "modules": {
                "torch": module,
                "bertopt_bench": {**module, "version": "0.1.0", "root": "root", "commit": commit},
            },
            "addresses": {"libc": f"7f{number:02d}"},
        },
        assemble_seconds=0.31,
        time_to_first_step_seconds=0.42 + draw.random() / 20,
        warm_windows=((0.046,) * 11, (0.0462,) * 11),
        steady=draw.random() > 0.04,
        block_steps=12,
        peak_memory_bytes=int(61_000_000 * BYTES.get(label, 1.0)),
        kernels_ran=("attention.default", f"optimizer_step.{label}"),
        initial_loss=8.32,
        initial_weights_sha256=digest("weights"),
        batches_sha256=digest("batches"),
        evaluation_sha256=digest("evaluation"),
        finite=True,
    )


def trained(declared: Declaration, effects: dict[str, float], draw: random.Random) -> list[Record]:
    """Train every arm on every seed, on paper."""
    records = []
    for seed in declared.seeds:
        of_seed = draw.gauss(0, 0.03)
        for arm in declared.arms:
            end = 5.4 + of_seed + effects.get(arm.label, 0.0) + draw.gauss(0, 0.006)
            records.append(
                Record(
                    session="",
                    cell_id=arm.cell_id,
                    cell=arm.cell,
                    seed=seed,
                    replicate=0,
                    arm=arm.label,
                    steps=400,
                    status="ok",
                    code=Code(**CODE),
                    evaluations=tuple(evaluation(step, end) for step in range(0, 401, 20)),
                )
            )
    return records


def evaluation(step: int, end: float) -> Evaluation:
    loss = end + (8.32 - end) * math.exp(-step / 70)
    return Evaluation(
        step=step,
        loss=loss,
        perplexity=math.exp(loss),
        masked_accuracy=0.3,
        train_seconds=step * STEP_SECONDS,
        evaluation_seconds=0.1,
    )


def verdicts(
    declared: Declaration, replicates: list[Replicate], records: list[Record], **fields: Any
) -> Verdicts:
    """Judge as the instrument does; `fields` overwrite what it says."""
    found = analyse(
        declared,
        replicates,
        records,
        look=len(declared.looks),
        session="",
        at_utc="2026-11-24T02:24:00Z",
    )
    return found.model_copy(update={"calibration": BANK, **fields})


def described(name: str, declared: Declaration, order_seed: int) -> Session:
    """Give a session's first line."""
    return Session(
        session=name,
        started_utc=name[:10] + "T" + name[11:19].replace("-", ":") + "Z",
        matrix={"name": "simulated", "digest": "9b1c77aa02", "source": MATRIX},
        machine={
            "cpu_model": "AMD EPYC 7B13",
            "logical_cores": 2,
            "memory_bytes": 25769803776,
            "fingerprint": "ab12cd34ef567890",
        },
        versions={"python": "3.11.7", "torch": "2.13.0+cpu"},
        code=Code(**CODE),
        order_seed=order_seed,
        command="bertopt-bench duel simulated.toml --arm optimizer=lion",
        declared={"duel": declared.model_dump(mode="json"), "threads": 2},
    )


def duel(
    arms: dict[str, float] | None = None,
    *,
    name: str = "2026-11-24T02-10-00Z-7f3a",
    seed: int = 7,
    replicates: int = 12,
    spread: float = 0.012,
    inject: float = 0.0,
    losses: dict[str, float] | None = None,
    judged: bool = True,
    verdict_fields: dict[str, Any] | None = None,
    **fields: Any,
) -> Results:
    """Run a session on paper; `arms` are true log ratios of step time, by name."""
    effects = {"lion": 0.05, "sgd": -0.08, "math": 0.0} if arms is None else arms
    draw = random.Random(seed)
    declared = declaration(effects, inject, **fields)
    machine = Machine(draw)
    made = [replicate(declared, effects, n, machine, spread) for n in range(replicates)]
    records = trained(declared, losses, draw) if losses is not None else []
    found = verdicts(declared, made, records, **(verdict_fields or {})) if judged else None
    stored = found.model_copy(update={"session": name}) if found else None
    session = described(name, declared, 20261124 + seed).model_copy(
        update={"verdicts": (stored.model_dump(mode="json"),) if stored else ()}
    )
    return Results(
        Path("simulated"),
        (session,),
        tuple(record.model_copy(update={"session": name}) for record in records),
        (),
        tuple(one.model_copy(update={"session": name}) for one in made),
    )


def folder(sets: list[Results]) -> Results:
    """Put sessions into one folder."""
    return Results(
        Path("simulated"),
        tuple(s for one in sets for s in one.sessions),
        tuple(r for one in sets for r in one.records),
        (),
        tuple(r for one in sets for r in one.replicates),
    )


def calibrated(same: int = 12, slowed: int = 6) -> Results:
    """Calibrate on paper: A/A duels, and duels of a slowed arm."""
    sets = []
    for number in range(same + slowed):
        name = f"2026-11-24T{3 + number // 6:02d}-{10 * (number % 6):02d}-00Z-{number:04x}"
        sets.append(
            duel(
                {},
                name=name,
                seed=100 + number,
                inject=0.05 if number >= same else 0.0,
                metrics=("step_time",),
                margins={"step_time": 0.01},
                purpose="calibration",
            )
        )
    return folder(sets)


@functools.cache
def plain() -> Results:
    return duel()


@functools.cache
def rich() -> Results:
    """Every metric but time to target, a slowed arm, eight seeds."""
    return duel(
        {"lion": 0.05, "math": 0.0, "lamb": 0.02},
        inject=0.05,
        losses={"lion": -0.07, "lamb": 0.012},
        metrics=("step_time", "peak_memory", "loss"),
        seeds=tuple(range(1, 9)),
    )


def only(results: Results) -> Duel:
    (one,) = gather([results])
    return one


def finding(**fields: Any) -> Finding:
    values = {
        "metric": "step_time",
        "baseline": "adamw",
        "arm": "lion",
        "n": 12,
        "estimate": math.log(1.053),
        "low": math.log(1.041),
        "high": math.log(1.066),
        "corrected_p_more": 0.0005,
        "corrected_p_less": 1.0,
        "margin": math.log1p(0.02),
        "margin_in_force": math.log1p(0.02),
        "noise_floor": math.log1p(0.014),
        "verdict": "slower",
        **fields,
    }
    return Finding(**values)
