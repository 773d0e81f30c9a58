"""Make duels on paper whose every difference is known: declarations, replicates, records."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

from bertopt_bench.results.duels import (
    CONTROL,
    ArmRun,
    Block,
    Declaration,
    DeclaredArm,
    Replicate,
)
from bertopt_bench.results.record import Record
from bertopt_bench.results.record_parts import Code, Evaluation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROUNDS = 3
STEPS = 10
SECONDS = 0.05
QUIET = {"observed_seconds": 0.5, "steal_share": 0.0, "foreign_pressure_share": 0.0}


def cell(optimizer: str = "adamw", precision: str = "fp32", steps: int = 40) -> dict[str, Any]:
    return {
        "workload": {"name": "mlm", "steps": steps},
        "optimizer": {"name": optimizer},
        "precision": {"name": precision},
        "device": {"name": "cpu"},
        "kernel": {},
    }


def declare(*arms: str | DeclaredArm, **fields: Any) -> Declaration:
    """Declare ``base``, these arms and the A/A arm."""
    named = [
        arm
        if isinstance(arm, DeclaredArm)
        else DeclaredArm(label=arm, role="arm", cell_id=arm, cell=cell(arm))
        for arm in arms
    ]
    metrics = fields.get("metrics", ("step_time",))
    margins = {"step_time": 0.02, "peak_memory": 0.01, "loss": 0.01, "time_to_target": 0.02}
    values = {
        "name": "made",
        "arms": (
            DeclaredArm(label="base", role="baseline", cell_id="c", cell=cell()),
            *named,
            DeclaredArm(label=CONTROL, role="control", cell_id="c", cell=cell()),
        ),
        "comparisons": tuple(("base", arm.label) for arm in named),
        "metrics": metrics,
        "alpha": 0.01,
        "family_error": 0.05,
        "margins": {metric: margins[metric] for metric in metrics},
        "looks": (12,),
        "rounds": ROUNDS,
        "seeds": (1, 2, 3, 4, 5, 6, 7, 8),
        **fields,
    }
    return Declaration(**values)


def slowed(share: float = 0.05, **fields: Any) -> DeclaredArm:
    """Declare a copy of the baseline that is slowed on purpose."""
    given = {"label": "slowed", "role": "arm", "cell_id": "c", "cell": cell(), **fields}
    return DeclaredArm(injected_share=share, **given)


def replicate(
    number: int,
    ratios: Mapping[str, float],
    *,
    injected: Mapping[str, float] | None = None,
    peaks: Mapping[str, int] | None = None,
    run: Mapping[str, Any] | None = None,
    block: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Replicate:
    """Make a replicate whose arms differ from its baseline by these log ratios exactly.

    The machine's own speed changes from round to round, as a drifting machine's does.
    """
    draw = random.Random(number)
    shares = dict(injected or {})
    blocks = []
    for turn in range(ROUNDS):
        speed = SECONDS * math.exp(draw.gauss(0, 0.2))
        for position, (arm, ratio) in enumerate(ratios.items()):
            wall = STEPS * speed * math.exp(ratio)
            share = shares.get(arm, 0.0)
            values = {
                "round": turn,
                "position": position,
                "arm": arm,
                "clock_seconds": float(turn),
                "steps": STEPS,
                "wall_seconds": wall,
                "injected_seconds": wall * share / (1 + share),
                "step_seconds": (wall / STEPS,) * STEPS,
                "disturbance": QUIET,
            }
            blocks.append(Block(**{**values, **(block or {})}))
    runs = [
        ArmRun(
            **{
                "arm": arm,
                "status": "ok",
                "steady": True,
                "peak_memory_bytes": (peaks or {}).get(arm, 1_000_000),
                "initial_loss": 8.3,
                "initial_weights_sha256": "w",
                "batches_sha256": "b",
                "evaluation_sha256": "e",
                "finite": True,
                **(run or {}),
            }
        )
        for arm in ratios
    ]
    given = {"session": "s", "seed": 1, "status": "ok", "started_utc": "t", "elapsed_seconds": 9.0}
    return Replicate(
        replicate=number, arms=tuple(runs), blocks=tuple(blocks), **{**given, **fields}
    )


def replicates(
    effects: Mapping[str, float], n: int = 12, spread: float = 0.004, seed: int = 0, **fields: Any
) -> list[Replicate]:
    """Make n replicates of arms with these true log ratios and this spread between replicates."""
    draw = random.Random(seed)
    made = []
    for number in range(n):
        ratios = {"base": 0.0} | {
            arm: effect + draw.gauss(0, spread) for arm, effect in effects.items()
        }
        made.append(replicate(number, {**ratios, CONTROL: draw.gauss(0, spread)}, **fields))
    return made


def record(arm: str, seed: int, losses: Sequence[float], **fields: Any) -> Record:
    """Make a training run whose held-out losses at steps 0, 10, 20, ... are these."""
    steps = 10 * (len(losses) - 1)
    seen = tuple(
        Evaluation(
            step=10 * i,
            loss=loss,
            perplexity=1.0,
            masked_accuracy=0.0,
            train_seconds=1.0,
            evaluation_seconds=0.1,
        )
        for i, loss in enumerate(losses)
    )
    given = {"session": "s", "cell_id": arm, "cell": cell(), "replicate": 0, "status": "ok"}
    return Record(
        arm=arm,
        seed=seed,
        steps=fields.pop("steps", steps),
        evaluations=seen,
        code=Code(version="0"),
        **{**given, **fields},
    )


def trained(ends: Mapping[str, Sequence[float]], **fields: Any) -> list[Record]:
    """Train every arm on seeds 1, 2, ...: from 8 down to these losses, in nine evaluations."""
    return [
        record(
            arm, seed, [8.0, *(8.0 + (end - 8.0) * min(1, i / 4) for i in range(1, 9))], **fields
        )
        for arm, values in ends.items()
        for seed, end in enumerate(values, start=1)
    ]
