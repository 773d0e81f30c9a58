"""Say what a duel is before it runs: its declaration, its name, its session's first line."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from bertopt_bench.dispatch.environments import arm_identity
from bertopt_bench.dispatch.local import trial_threads
from bertopt_bench.dispatch.opening import first_line
from bertopt_bench.matrix.identity import canonical_json
from bertopt_bench.measure.provenance import package_code
from bertopt_bench.results.duels import CONTROL, Declaration, DeclaredArm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.dispatch.duelling import DuelPlan
    from bertopt_bench.matrix.arms import Arm
    from bertopt_bench.matrix.duels import Settings
    from bertopt_bench.matrix.spec import Matrix

REWARM_STEPS, BURST_REWARM_STEPS = 2, 1  # discarded after each switch


def declare(
    matrix: Matrix,
    arms: Sequence[Arm],
    descriptions: Sequence[Mapping[str, Any]],
    settings: Settings,
) -> Declaration:
    """Declare a duel; ``descriptions`` are those of its arms' code, empty where not known yet."""
    baseline = arms[0].label
    on_host = all(arm.cell.content["device"]["name"] == "cpu" for arm in arms)
    burst_seconds = settings.burst_seconds if on_host and not settings.alternate else None
    return Declaration(
        name=matrix.name,
        arms=tuple(map(_declare_arm, range(len(arms)), arms, descriptions)),
        comparisons=settings.comparisons
        if settings.comparisons is not None
        else tuple((baseline, arm.label) for arm in arms[1:-1]),
        metrics=settings.metrics,
        alpha=settings.alpha,
        family_error=settings.family_error,
        margins={name: dict(settings.margins)[name] for name in settings.metrics},
        looks=settings.looks,
        sides=settings.sides,
        rounds=settings.rounds,
        block_seconds=settings.block_seconds,
        burst_seconds=burst_seconds,
        rewarm_steps=REWARM_STEPS if burst_seconds is None else BURST_REWARM_STEPS,
        design="alternating" if settings.alternate else "rounds",
        until=settings.until,
        budget_seconds=settings.budget_seconds,
        target_loss=settings.target_loss,
        seeds=matrix.seeds,
        purpose=settings.purpose,  # type: ignore[arg-type]  # one of the declaration's words
    )


def _declare_arm(number: int, arm: Arm, description: Mapping[str, Any]) -> DeclaredArm:
    return DeclaredArm(
        label=arm.label,
        role="control" if arm.label == CONTROL else "arm" if number else "baseline",
        cell_id=arm.cell.id,
        cell=dict(arm.cell.content),
        overrides=arm.overrides,
        python=description.get("python"),
        revision=arm.revision,
        commit=description.get("commit"),
        injected_share=arm.injected_share,
    )


def duel_digest(
    matrix: Matrix, arms: Sequence[Arm], descriptions: Sequence[Mapping[str, Any]] = ()
) -> str:
    """Name what is compared: the matrix, its arms and their code, not how often or how exactly.

    ``descriptions`` are those of the arms' subjects, where they have been made ready.
    """
    said = list(map(arm_identity, arms, descriptions or [{}] * len(arms)))
    text = canonical_json([matrix.digest, said])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe_session(plan: DuelPlan, order_seed: int) -> dict[str, Any]:
    """Give the session's first line."""
    return first_line(
        plan.matrix,
        code=package_code(),
        order_seed=order_seed,
        digest=plan.digest,
        declared={
            "duel": plan.declaration.model_dump(mode="json"),
            "threads": trial_threads(),
            "timing": dict(plan.matrix.timing),
            "subjects": {c.label: dict(c.subject.description) for c in plan.contenders},
        },
    )
