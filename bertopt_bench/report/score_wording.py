"""How a submission, a target and a verdict of scoring are worded, each in one place."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from bertopt_bench.report import wording
from bertopt_bench.report.rows import DASH
from bertopt_bench.report.score_cells import ONE_RUN, Cell, times
from bertopt_bench.stats.convergence import probability_of_improvement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pandas import DataFrame

    from bertopt_bench.stats.scoring import Scored

    Row = dict[str, Any]

UNTUNED = "untuned"
MOST_NAMED = 6
_DIRECTIONS = ("lower", "higher", "equivalent")


def metric_writer(scored: Scored) -> Callable[[float], str]:
    """Give what writes the metric; an infinite one diverged."""
    unit = scored.asked.aim.unit

    def write(value: float) -> str:
        if math.isinf(value):
            return "diverged"
        return wording.loss(value) if unit == "nats" else wording.significant(value, 4)

    return write


def rank_words(row: Row) -> tuple[str, str]:
    """Write a rank and how firm it is."""
    if math.isnan(row["rank"]):
        return DASH, ONE_RUN if row["n"] == 1 else "not ranked"
    if not math.isnan(row["low"]):
        first = f", first in {wording.percent(row['first'])}"
        return f"{row['rank']:g}", f"{row['low']:g}{DASH}{row['high']:g}{first}"
    if math.isnan(row["seed_low"]):
        return f"{row['rank']:g}", f"n {row['n']}"
    low, high = row["seed_low"], row["seed_high"]
    reach = f"{low:g}" if low == high else f"{low:g}{DASH}{high:g}"
    return f"{row['rank']:g}", f"{reach} in {row['n']} seeds"


def marks_of(scored: Scored) -> dict[Any, tuple[str, ...]]:
    """Say of each submission, and of it on each workload, what must be known to trust its row."""
    groups: dict[Any, Any] = dict(iter(scored.runs.groupby(["workload", "submission"])))
    groups |= dict(iter(scored.runs.groupby("submission")))
    return {key: _marks(runs) for key, runs in groups.items()}


def _marks(runs: DataFrame) -> tuple[str, ...]:
    ends = Counter(status for status in runs["status"] if status != "ok")
    found = [f"{count} {status}" for status, count in ends.items()]
    if len(runs) == 1:
        found.append(ONE_RUN)
    if "tuned" in runs.columns and not runs["tuned"].any():
        found.append(UNTUNED)
    return tuple(found)


def improves(groups: Mapping[Any, DataFrame], key: tuple[str, str], scored: Scored) -> str:
    """Say in which share of pairs of runs a submission ends better than the baseline."""
    sides = [groups.get((key[0], name)) for name in (scored.baseline, key[1])]
    ours, theirs = (
        [] if runs is None else [scored.asked.aim.sign * final for final in runs["final"]]
        for runs in sides
    )
    if not ours or not theirs or any(map(math.isnan, (*ours, *theirs))):
        return ""
    share = probability_of_improvement(ours, theirs)
    return f"better in {wording.percent(share)} of pairs"


def difference(row: Row | None, scored: Scored, improves: str = "") -> Cell:
    """Write a difference from the baseline's metric, its interval and verdict."""
    if row is None or math.isnan(row["estimate"]):
        return Cell(DASH, "" if row is None else _why(row, scored))
    signed = wording.nats
    shown = ""
    if not math.isnan(row["low"]):
        shown = f"95 %: {signed(row['low'])} to {signed(row['high'])}, n {row['n']}"
    marks = () if "of at least" in row["reason"] else (_verdict(row, scored),)
    told = ", ".join(filter(None, (shown or f"n {row['n']}", improves)))
    return Cell(signed(row["estimate"]), told, marks)


def speed_up(row: Row | None) -> Cell:
    """Write a speed-up, its interval and verdict."""
    if row is None or math.isnan(row.get("speed_up", math.nan)):
        return Cell(DASH, "" if row is None else str(row.get("reason") or ""))
    shown = ""
    if not math.isnan(row["low"]):
        shown = f"95 %: {times(row['low'])}{DASH}{times(row['high'])}, "
    verdict = row.get("verdict")
    marks = (verdict,) if isinstance(verdict, str) and verdict != "inconclusive" else ()
    return Cell(times(row["speed_up"]), f"{shown}n {row['n']}", marks)


def verdict_sentences(scored: Scored, workload: str, model: str = "") -> str:
    """Say which submissions end lower or higher than the baseline, and where the data cannot tell.

    Empty where nothing was judged: below six seeds.
    """
    if not len(scored.finals):
        return ""
    told = {word: _named(scored, workload, word) for word in (*_DIRECTIONS, "inconclusive")}
    parts = [f"{word} with {told[word]}" for word in _DIRECTIONS if told[word]]
    what = f"the {scored.asked.aim.name}{f' of {model}' if model else ''} at the end"
    found = [f"Against {scored.baseline}, {what} is {'; '.join(parts)}."] if parts else []
    if told["inconclusive"]:
        against = "" if parts else f" against {scored.baseline}"
        found.append(f"For {told['inconclusive']} the data cannot tell{against}, in {what}.")
    return " ".join(found)


def _named(scored: Scored, workload: str, verdict: str) -> str:
    """List the submissions with a verdict, each with its difference, 95 % interval and n."""
    of = scored.finals[
        (scored.finals["workload"] == workload) & (scored.finals["verdict"] == verdict)
    ]
    unit = f" {scored.asked.aim.unit}".rstrip()
    kept = [
        f"{row['submission']} ({wording.nats(row['estimate'])}{unit} "
        f"[{wording.nats(row['low'])}, {wording.nats(row['high'])}], n {row['n']})"
        for row in of.to_dict("records")
        if "of at least" not in str(row["reason"]) and not math.isnan(row["low"])
    ]
    more = [f"{len(kept) - MOST_NAMED} more"] if len(kept) > MOST_NAMED else []
    return wording.listed(kept[:MOST_NAMED] + more)


def _verdict(row: Row, scored: Scored) -> str:
    verdict = str(row["verdict"])
    return verdict if verdict != "inconclusive" else _why(row, scored)


def _why(row: Row, scored: Scored) -> str:
    """Give the word and, where it is short, the reason; units other than nats are left out."""
    reason = str(row["reason"])
    if "of at least" in reason or row["verdict"] == "refused":
        return reason.replace(" nats", f" {scored.asked.aim.unit}").strip()
    return str(row["verdict"])


def role_words(scored: Scored, target: str) -> str:
    """Name a target for people: its value where there is one, else its role."""
    values = sorted(set(scored.targets.loc[scored.targets["target"] == target, "value"]))
    name = target.replace("of baseline", f"of {scored.baseline}")
    return f"{metric_writer(scored)(values[0])} ({name})" if len(values) == 1 else name


def target_words(scored: Scored, target: str) -> str:
    """Say where a target comes from."""
    if scored.targets.loc[scored.targets["target"] == target, "declared"].all():
        return "The target was declared."
    name, baseline = scored.asked.aim.name, scored.baseline
    what = f"the {name} that three quarters of the seeds of {baseline} reach"
    if target == "looser":
        what = f"the median {name} of {baseline} at three quarters of the steps"
    return f"The target is {what}, in these very runs: exploratory, since it was not fixed before."


def with_unit(name: str, unit: str) -> str:
    """Write a quantity with its unit, where it has one."""
    return f"{name}, {unit}" if unit else name
