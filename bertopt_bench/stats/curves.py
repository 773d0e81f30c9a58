"""Plain frames of training curves: what they must hold, and what each run came to in the end.

A frame has a row an evaluation, with the columns ``run, workload, submission, step, seconds,
metric``; ``step`` and ``seconds`` count what was trained before it. Further columns are optional
(``OPTIONAL``). Nothing here knows where the curves come from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pandas import DataFrame

REQUIRED = ("run", "workload", "submission", "step", "seconds", "metric")
AMOUNTS = ("steps", "seconds", "tokens", "gradient_evaluations", "flops")
"""What may be spent on the way to a target; the first two are always there."""
OPTIONAL = (
    *("seed", "status", "planned_steps", "tokens", "gradient_evaluations", "flops"),
    *("peak_memory_bytes", "lr", "tuned", "text"),
)
AXIS = "axis."
"""Columns of this prefix are factors for the analysis of variance."""
KEYS = ("workload", "submission", "run")
UNFINISHED = "unfinished"
LOST = ("diverged", UNFINISHED)
STATUSES = ("ok", *LOST)
DIRECTIONS = ("lower", "higher")
UNITS = {"loss": "nats", "perplexity": ""}


@dataclass(frozen=True)
class Aim:
    """The metric that is judged: its name, which direction is better, its unit (may be empty)."""

    name: str = "loss"
    higher_is_better: bool = False
    unit: str = "nats"

    @classmethod
    def of(cls, name: str, better: str | None = None) -> Aim:
        """Take a name; without a direction, losses, errors and perplexities fall and others rise.

        Raises:
            UserError: a direction that is neither ``lower`` nor ``higher``.
        """
        if better is not None and better not in DIRECTIONS:
            raise UserError(
                f"better = '{better}': a metric is better {' or '.join(DIRECTIONS)}."
                f"{nearest(better, DIRECTIONS)}"
            )
        falls = any(word in name for word in ("loss", "error", "perplexity"))
        higher = not falls if better is None else better == "higher"
        return cls(name, higher, UNITS.get(name, "nats" if name.endswith("loss") else ""))

    @property
    def sign(self) -> float:
        """Give the factor that turns the metric into something to lower."""
        return -1.0 if self.higher_is_better else 1.0

    @property
    def worst(self) -> float:
        """Give what a diverged run counts as."""
        return self.sign * math.inf


def checked(frame: DataFrame) -> DataFrame:
    """Check a frame and put it into its own order, so that the order of rows changes nothing.

    Raises:
        UserError: a column that is missing (the nearest is named), not a number, repeated steps.
    """
    _check_columns(frame)
    made = frame.reset_index(drop=True).copy()
    for name in ("workload", "submission"):
        if made[name].isna().any():
            raise UserError(f"column '{name}' has empty cells: each row names its {name}.")
        made[name] = made[name].map(str)
    if "status" in made.columns:
        made["status"] = [_status(value) for value in made["status"]]
    numbers = ("step", "seconds", "metric", *OPTIONAL[2:6], "peak_memory_bytes", "lr")
    for name in numbers:
        if name in made.columns:
            made[name] = _numbers(made, name)
    if (made["step"].isna() | (made["step"] < 0)).any():
        raise UserError("column 'step' has empty or negative cells: it counts updates from 0.")
    made = made.sort_values([*KEYS, "step"], key=_sortable, kind="stable", ignore_index=True)
    if made.duplicated([*KEYS, "step"]).any():
        again = made[made.duplicated([*KEYS, "step"])].iloc[0]
        raise UserError(
            f"run {again['run']} of {again['submission']} on {again['workload']} has step "
            f"{again['step']:g} twice: a run has one row an evaluation."
        )
    return made


def runs_of(curves: DataFrame, aim: Aim) -> DataFrame:
    """Give a row a run: its end, its best, and how it ended.

    ``final`` is the metric at the planned end, never before it: a run that stopped earlier has
    none (NaN) and the status ``unfinished``. A diverged one is infinitely bad. The plan is the
    column ``planned_steps`` or else the workload's last step in any run.
    """
    import pandas as pd

    ends = curves.groupby("workload")["step"].max()
    rows = [{**run, **_end(at, float(ends[run["workload"]]), aim)} for run, at in each_run(curves)]
    return pd.DataFrame(rows)


def each_run(curves: DataFrame) -> Iterator[tuple[dict[str, Any], DataFrame]]:
    """Go through the runs in order: what names one, and its evaluations."""
    for keys, at in curves.groupby(list(KEYS), sort=False, dropna=False):
        yield _named(keys, at), at


def _named(keys: Iterable[Any], at: DataFrame) -> dict[str, Any]:
    seed = at["seed"].iloc[0] if "seed" in at.columns else None
    return {**dict(zip(KEYS, keys, strict=True)), "seed": seed}


def status_of(at: DataFrame) -> str:
    """Say how a run ended; without a status, a metric that is not finite tells of a divergence."""
    if "status" in at.columns:
        return str(at["status"].iloc[0])
    return "ok" if at["metric"].map(math.isfinite).all() else "diverged"


def _end(at: DataFrame, longest: float, aim: Aim) -> dict[str, Any]:
    first, last = at.iloc[0], at.iloc[-1]
    planned = float(first.get("planned_steps", longest))
    status = status_of(at)
    if status == "ok" and last["step"] < planned:
        status = UNFINISHED
    at_end = at.loc[at["step"] == planned, "metric"]
    final = float(at_end.iloc[0]) if status == "ok" and len(at_end) else math.nan
    finite = at["metric"][at["metric"].map(math.isfinite)] * aim.sign
    step, seconds = float(last["step"]), float(last["seconds"])
    return {
        "status": status,
        "planned_steps": planned,
        "evaluations": len(at),
        "final": aim.worst if status == "diverged" else final,
        "best": float(finite.min()) * aim.sign if len(finite) else math.nan,
        "seconds": seconds,
        "step_seconds": seconds / step if step else math.nan,
        **{name: first[name] for name in ("peak_memory_bytes", "lr", "tuned") if name in at},
        **{name: first[name] for name in at.columns if name == "text" or name.startswith(AXIS)},
    }


def each_submission(runs: DataFrame) -> Iterator[tuple[str, dict[str, DataFrame]]]:
    """Go through the workloads, each with the runs of its submissions by name."""
    for workload, group in runs.groupby("workload", sort=True):
        yield str(workload), {str(name): of for name, of in group.groupby("submission", sort=True)}


def common_seeds(groups: Sequence[DataFrame]) -> list[Any]:
    """List the seeds that every group has once; none where runs name no seed."""
    found: set[Any] | None = None
    for group in groups:
        seeds = group["seed"].dropna()
        once = set(seeds) if seeds.is_unique else set()
        found = once if found is None else found & once
    return sorted(found or (), key=_order)


def paired_seeds(groups: Sequence[DataFrame]) -> list[Any]:
    """List the seeds where they are all the runs of every group, 2 or more; else none.

    A group with fewer seeds would cut all others down to its own.
    """
    seeds = common_seeds(groups)
    return seeds if len(seeds) > 1 and all(len(group) == len(seeds) for group in groups) else []


def _check_columns(frame: DataFrame) -> None:
    have = [str(name) for name in frame.columns]
    for name in REQUIRED:
        if name not in have:
            spare = [one for one in have if one not in (*REQUIRED, *OPTIONAL)]
            raise UserError(
                f"no column '{name}'. A frame of curves has: {', '.join(REQUIRED)}; it may have: "
                f"{', '.join(OPTIONAL)} and {AXIS}NAME. This one has: {', '.join(have) or 'none'}."
                f"{nearest(name, spare)}"
            )
    if not len(frame):
        raise UserError("the frame has no row: there is no run to score.")


def _status(value: object) -> str:
    """Read a status; an empty cell is ``ok``, as without the column."""
    import pandas as pd

    if value is None or value is pd.NA or value != value or not str(value).strip():  # noqa: PLR0124
        return "ok"
    if value not in STATUSES:
        raise UserError(
            f"column 'status' has '{value}'. A run is {', '.join(STATUSES)}; an empty cell is ok."
            f"{nearest(str(value), STATUSES)}"
        )
    return str(value)


def _numbers(frame: DataFrame, name: str) -> Any:
    import pandas as pd

    try:
        return pd.to_numeric(frame[name]).astype(float)
    except (TypeError, ValueError) as error:
        wrong = next((v for v in frame[name] if not _is_number(v)), error)
        raise UserError(f"column '{name}' has '{wrong}': it holds numbers.") from error


def _is_number(value: object) -> bool:
    """Say whether pandas takes a cell as a number; ``1_000`` is one to Python alone."""
    import pandas as pd

    try:
        pd.to_numeric(pd.Series([value]))
    except (TypeError, ValueError):
        return False
    return True


def _sortable(column: Any) -> Any:
    """Sort numbers by size and words by letters, in one column too."""
    return column if column.dtype.kind in "iuf" else column.map(_order)


def _order(value: Any) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))
