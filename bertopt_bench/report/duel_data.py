"""Pack the data of duels into their page: findings, replicates, blocks, steps where they fit."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from bertopt_bench.report.duel_facts import is_disturbed, labels_of, seconds_a_step
from bertopt_bench.report.figures import LEAST_BUDGET, Packed, columns, compressed, dumped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bertopt_bench.report.duel_facts import Duel

Row = dict[str, Any]
FINDING_FIELDS = (
    "metric", "baseline", "arm", "n", "verdict", "reason", "estimate", "low", "high", "gate_low",
    "gate_high", "confidence", "p_more", "p_less", "p_any", "corrected_p_more", "corrected_p_less",
    "sign_flip_p", "margin", "margin_in_force", "noise_floor", "needed_replicates", "detectable",
    "shown_confidence",
)  # fmt: skip
NOTED = (
    "steal_share",
    "foreign_cpu_share",
    "foreign_pressure_share",
    "load1",
    "involuntary_switches",
    "major_faults",
    "gc_collections",
)
DIGITS = 6


def pack(duels: Sequence[Duel], budget: int) -> Packed:
    """Pack all tables; where they do not fit, single steps go first and the blocks' notes next."""
    budget = max(budget, LEAST_BUDGET)
    made = {
        "findings": [row for duel in duels for row in finding_rows(duel)],
        "differences": [row for duel in duels for row in difference_rows(duel)],
        "replicates": [row for duel in duels for row in replicate_rows(duel)],
        "blocks": [row for duel in duels for row in block_rows(duel)],
        "steps": [row for duel in duels for row in step_rows(duel)],
    }
    left_out: list[str] = []
    text = _packed(made)
    if len(text) > budget and made["steps"]:
        left_out.append(f"the {len(made.pop('steps')):,} rows of single steps")
        text = _packed(made)
    if len(text) > budget:
        left_out.append("what the machine did during each block")
        made["blocks"] = [
            {key: value for key, value in row.items() if key not in NOTED} for row in made["blocks"]
        ]
        text = _packed(made)
    if len(text) > budget:
        left_out.append(f"the {len(made.pop('blocks')):,} rows of blocks")
        text = _packed(made)
    return Packed(text, tuple(left_out))


def _packed(made: dict[str, list[Row]]) -> str:
    import pandas as pd

    frames = {name: pd.DataFrame(rows) for name, rows in made.items() if rows}
    tables = {name: columns(frame, DIGITS) for name, frame in frames.items()}
    return compressed(dumped({"tables": tables}))


def finding_rows(duel: Duel) -> Iterator[Row]:
    """Give a row a comparison and metric, the A/A arms among them."""
    for finding in (*duel.findings, *duel.controls):
        fields = {name: getattr(finding, name) for name in FINDING_FIELDS}
        yield {"session": duel.name, **fields, "flags": " ".join(finding.flags)}


def difference_rows(duel: Duel) -> Iterator[Row]:
    """Give a row a difference: a comparison's number of one replicate or seed."""
    for finding in (*duel.findings, *duel.controls):
        labels = labels_of(finding, duel)
        for label, value in zip(labels, finding.differences, strict=False):
            unit, _, number = label.rpartition(" ")
            yield {
                "session": duel.name,
                "metric": finding.metric,
                "baseline": finding.baseline,
                "arm": finding.arm,
                unit: int(number),
                "difference": value,
            }


def replicate_rows(duel: Duel) -> Iterator[Row]:
    """Give a row an arm of a replicate: its process, its median over blocks, its memory."""
    for replicate in duel.replicates:
        for run in replicate.arms:
            seconds = [seconds_a_step(b) for b in replicate.blocks if b.arm == run.arm]
            started = replicate.start_order
            yield {
                "session": duel.name,
                "replicate": replicate.replicate,
                "seed": replicate.seed,
                "started_utc": replicate.started_utc,
                "arm": run.arm,
                "status": run.status,
                "reason": run.reason,
                "start_position": started.index(run.arm) if run.arm in started else None,
                "blocks": len(seconds),
                "step_seconds": statistics.median(seconds) if seconds else None,
                "peak_memory_bytes": run.peak_memory_bytes,
                "time_to_first_step_seconds": run.time_to_first_step_seconds,
                "steady": run.steady,
                "warm_windows": len(run.warm_windows),
                "block_steps": run.block_steps,
                "hash_seed": run.process.get("hash_seed"),
                "initial_loss": run.initial_loss,
            }


def block_rows(duel: Duel) -> Iterator[Row]:
    """Give a row a block, with what the machine did meanwhile."""
    for replicate in duel.replicates:
        for block in replicate.blocks:
            yield {
                "session": duel.name,
                "replicate": replicate.replicate,
                "round": block.round,
                "position": block.position,
                "arm": block.arm,
                "clock_seconds": block.clock_seconds,
                "steps": block.steps,
                "wall_seconds": block.wall_seconds,
                "injected_seconds": block.injected_seconds,
                "disturbed": is_disturbed(block),
                **{name: block.disturbance.get(name) for name in NOTED},
            }


def step_rows(duel: Duel) -> Iterator[Row]:
    """Give a row a timed step."""
    for replicate in duel.replicates:
        for block in replicate.blocks:
            for number, seconds in enumerate(block.step_seconds):
                yield {
                    "session": duel.name,
                    "replicate": replicate.replicate,
                    "round": block.round,
                    "arm": block.arm,
                    "step": number,
                    "step_seconds": seconds,
                }
