"""Say what a matrix would run here: cells, the arms of a duel, or the points of a tuning."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from bertopt_bench.dispatch.preparing import ask_capabilities
from bertopt_bench.errors import UserError
from bertopt_bench.matrix.cells import expand, plan_trials
from bertopt_bench.matrix.forecast import describe_plan, duration, fitting, forecast, known_texts
from bertopt_bench.matrix.labels import number
from bertopt_bench.matrix.quantities import read_limit
from bertopt_bench.matrix.spec import load, read_document
from bertopt_bench.matrix.tuning import read_tuning

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bertopt_bench.matrix.tuning import TunedArm, Tuning


def plan_matrix(
    matrix_file: Path | str,
    *,
    overrides: Sequence[str] = (),
    max_memory: str | int | None = None,
) -> None:
    """Print what a matrix would run here: cells, skips, time and memory; of arms, their duel.

    Raises:
        UserError: a mistake in the matrix; a limit of memory for arms.
    """
    from bertopt_bench.pipeline import duel

    matrix = load(matrix_file, overrides)
    most_bytes = read_limit(max_memory)
    document = read_document(matrix.file)
    of_arms = [name for name in ("arms", "tuning") if name in document]
    if of_arms and most_bytes is not None:
        raise UserError(
            f"--max-memory {max_memory}: what is compared drops no arm. Leave the option out: the "
            "arms of a duel that do not fit into memory together take turns."
        )
    if "tuning" in of_arms:
        plan_tuning(matrix_file, overrides)
    elif of_arms:
        duel(matrix_file, overrides=overrides, plan_only=True)
    else:
        cells = expand(matrix, ask_capabilities())
        texts = known_texts(cells)
        cells = fitting(cells, most_bytes, texts)
        sys.stdout.write(describe_plan(matrix, cells, texts) + "\n")


def plan_tuning(matrix_file: Path | str, overrides: Sequence[str] = ()) -> None:
    """Print what `tune` would run, and then `run`: points, trials, forecast of time."""
    tuning = read_tuning(matrix_file, overrides, ask_capabilities())
    arms = [arm for arm in tuning.arms if arm.cell.skip is None]
    defaults = [arm for arm in arms if arm.name in tuning.report_defaults]
    head = (
        f"{tuning.matrix.name}: {len(arms)} arms, {tuning.points} points each and up to "
        f"{tuning.extensions} beyond an edge; seeds: {len(tuning.seeds)} to tune on, "
        f"{len(tuning.report_seeds)} others to report on; sampler "
        f"{tuning.sampler}, prune {tuning.prune}"
    )
    lines = [head, ""]
    lines += [_arm_line(arm, tuning) for arm in tuning.arms]
    seconds = {
        "the points": tuning.points * _seconds(tuning, arms, tuning.seeds),
        "extensions, at most": tuning.extensions * _seconds(tuning, arms, tuning.seeds),
        "the report": _seconds(tuning, [*arms, *defaults], tuning.report_seeds),
    }
    parts = "; ".join(f"{what} {duration(value)}" for what, value in seconds.items())
    lines += ["", f"forecast: {parts}; all of it {duration(sum(seconds.values()))}"]
    sys.stdout.write("\n".join(lines) + "\n")


def _arm_line(arm: TunedArm, tuning: Tuning) -> str:
    if arm.cell.skip is not None:
        return f"{arm.name}: skipped: {arm.cell.skip}"
    told = []
    for one in arm.dimensions:
        values = one.values if tuning.sampler == "grid" and one.values else (one.low, one.high)
        word = ", ".join(map(number, values)) if values is one.values else " to ".join(
            map(number, values)
        )  # fmt: skip
        default = "none" if one.default is None else number(one.default)
        told.append(f"{one.key} {word} (default {default})")
    return f"{arm.name}: {'; '.join(told)}"


def _seconds(tuning: Tuning, arms: Sequence[TunedArm], seeds: Sequence[int]) -> float:
    """Forecast one point of every arm on some seeds."""
    matrix = replace(tuning.matrix, seeds=tuple(seeds))
    plans = [plan for arm in arms for plan in plan_trials([arm.cell], matrix, 0)]
    return forecast(plans, matrix).seconds
