"""What scoring gave as tables of words: the page, the terminal and Markdown show the same ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertopt_bench.report import wording
from bertopt_bench.report.rows import DASH
from bertopt_bench.report.score_cells import (
    Cell,
    amount,
    interval,
    score_cell,
    spread,
)
from bertopt_bench.report.score_wording import (
    difference,
    improves,
    marks_of,
    metric_writer,
    rank_words,
    role_words,
    speed_up,
    target_words,
    with_unit,
)
from bertopt_bench.report.step_figures import rate

if TYPE_CHECKING:
    from pandas import DataFrame

    from bertopt_bench.stats.scoring import Scored

    Row = dict[str, Any]
    Marks = dict[Any, tuple[str, ...]]

COSTS = {"seconds": "seconds of training", "peak_memory_bytes": "peak memory"}
HOW_ENDS_COMPARE = (
    "A diverged run is infinitely bad. Ranks are by that median; under a rank stand the ranks in "
    "single seeds or, from 6 seeds on, the 95 % interval of a bootstrap over seeds. Differences "
    "are paired by seed (Hodges-Lehmann, exact 95 % interval); below 6 seeds there is no interval "
    "and no verdict. “Lower” and “higher” pass the exact signed-rank test beyond the margin, at "
    ".01 and, corrected by Holm over a workload's rows, at .05; “equivalent” lies within the "
    "margin, and “inconclusive” says that the data cannot tell. The margin is a quarter of the "
    "baseline's standard deviation over seeds where none was stated. Better in so many pairs: of "
    "any run and any of the baseline's, ties by half. The best so far is of all evaluations, at "
    "whichever step: no result, but what early stopping gives."
)


@dataclass(frozen=True)
class View:
    """A table with its title and the sentence that says how to read it."""

    key: str
    title: str
    told: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def views(scored: Scored, model: str = "") -> list[View]:
    """Make the tables that have rows, in the order in which they are read; titles say the model."""
    made = [
        ends(scored),
        *to_targets(scored),
        *scores(scored),
        *fronts(scored),
        rates(scored),
        *effects(scored),
    ]
    found = [view for view in made if view is not None and view.rows]
    return [replace(one, title=f"{one.title}, {model}") for one in found] if model else found


def ends(scored: Scored) -> View:
    """Show the metric at the planned end, its rank, and its difference from the baseline's."""
    aim = scored.asked.aim
    found, marks = _by_key(scored.finals), marks_of(scored)
    groups = dict(iter(scored.runs.groupby(["workload", "submission"])))
    rows = []
    for place in _records(scored.ranks):
        key = (place["workload"], place["submission"])
        finals = sorted(groups[key]["final"].tolist())
        against = found.get(key)
        rows.append(
            (
                *_names(scored, marks, place),
                Cell(*rank_words(place)),
                spread(finals, metric_writer(scored)),
                spread(sorted(groups[key]["best"].tolist()), metric_writer(scored)),
                Cell("baseline")
                if key[1] == scored.baseline
                else difference(against, scored, improves(groups, key, scored)),
            )
        )
    told = (
        f"The {aim.name} at the last planned step, never before it, median over seeds; "
        f"{'higher' if aim.higher_is_better else 'lower'} is better. {HOW_ENDS_COMPARE}"
    )
    heads = (*_heads(scored), "rank", with_unit(aim.name, aim.unit), "best so far",
             f"against {scored.baseline}")  # fmt: skip
    return View("ends", f"{aim.name.capitalize()} at the end", told, heads, tuple(rows))


def to_targets(scored: Scored) -> list[View]:
    """Show what it took to reach each target, and the speed-up over the baseline."""
    made, marks = [], marks_of(scored)
    faster = {
        (r["workload"], r["target"], r["submission"], r["by"]): r
        for r in _records(scored.speed_ups)
    }
    for number, target in enumerate(_target_names(scored)):
        of_target = scored.to_target[scored.to_target["target"] == target]
        kept = sorted(_records(of_target), key=_by_steps)
        rows = [_target_row(scored, marks, row, faster) for row in kept]
        told = (
            f"{target_words(scored, target)} Runs that never got there count as infinite, so a "
            "median is “never” where half of them or more did not. Seconds are those of training, "
            "without evaluations. A speed-up above 1 is faster than the baseline, paired by seed."
        )
        heads = (*_heads(scored), "got there", "steps", "seconds", "real tokens", "gradients",
                 "model work", "speed-up in steps", "speed-up in seconds")  # fmt: skip
        title = f"To the target: {role_words(scored, target)}"
        made.append(View(f"target-{number}", title, told, heads, tuple(rows)))
    return made


def _target_row(scored: Scored, marks: Marks, row: Row, faster: dict[Any, Row]) -> tuple[Cell, ...]:
    key = (row["workload"], row["target"], row["submission"])
    is_baseline = row["submission"] == scored.baseline
    return (
        *_names(scored, marks, row),
        Cell(f"{row['reached']} of {row['n']}", interval(row, "share", wording.percent)),
        *(
            amount(row, name, write)
            for name, write in (
                ("steps", lambda v: wording.significant(v, 3)),
                ("seconds", wording.duration),
                ("tokens", lambda v: wording.significant(v, 3)),
                ("gradient_evaluations", lambda v: wording.significant(v, 3)),
                ("flops", lambda v: rate(v, "FLOP")),
            )
        ),
        *(
            Cell("baseline") if is_baseline else speed_up(faster.get((*key, by)))
            for by in ("steps", "seconds")
        ),
    )


def scores(scored: Scored) -> list[View]:
    """Show AlgoPerf's score of each submission, by steps and by seconds."""
    if not len(scored.scores):
        return []
    marks = marks_of(scored)
    workloads = int(scored.scores["workloads"].max())
    told = (
        "The share of workloads on which a submission's time to the target is within tau times the "
        f"fastest's, averaged over tau from 1 to {scored.asked.tau_max:g} (Dahl et al. 2023): 1 is "
        f"fastest everywhere, 0 is never within {scored.asked.tau_max:g} times the fastest. Over "
        f"{wording.plural(workloads, 'workload')}"
        f"{', so it says no more than the ratio of two medians' if workloads == 1 else ''}; times "
        "are medians over seeds, and from 6 seeds on the interval is a bootstrap over seeds."
    )
    roles = list(dict.fromkeys((r["target"], r["by"]) for r in _records(scored.scores)))
    cells = {(r["submission"], r["target"], r["by"]): r for r in _records(scored.scores)}
    order = sorted(
        set(scored.scores["submission"]), key=lambda s: (-cells[s, *roles[0]]["score"], s)
    )
    rows = [
        (
            Cell(name, marks=marks[name]),
            *(score_cell(cells.get((name, *role))) for role in roles),
        )
        for name in order
    ]
    heads = ("submission", *(f"{role_words(scored, t)}, by {by}" for t, by in roles))
    return [View("scores", "Score over workloads", told, heads, tuple(rows))]


def fronts(scored: Scored) -> list[View]:
    """Show which submissions no other beats in the metric and a cost at once."""
    made, marks = [], marks_of(scored)
    for cost, title in COSTS.items():
        if not len(scored.fronts) or cost not in set(scored.fronts["cost"]):
            continue
        of_cost = scored.fronts[scored.fronts["cost"] == cost]
        kept = [r for r in _records(of_cost) if r["on_front"]]
        write = wording.duration if cost == "seconds" else wording.memory
        rows = [
            (
                *_names(scored, marks, row),
                spread([row["low"], row["median"], row["high"]], metric_writer(scored), row["n"]),
                spread([row[f"cost_{s}"] for s in ("low", "median", "high")], write, row["n"]),
            )
            for row in sorted(kept, key=lambda r: (r["workload"], r["cost_median"]))
        ]
        told = (
            f"{wording.plural(len(rows), 'submission')} of {len(of_cost)} that no other beats in "
            f"median {scored.asked.aim.name} and {title} at once. Spread is not weighed."
        )
        heads = (*_heads(scored), scored.asked.aim.name, title)
        made.append(View(f"front-{cost}", f"Pareto front against {title}", told, heads,
                         tuple(rows)))  # fmt: skip
    return made


def rates(scored: Scored) -> View | None:
    """Show the metric over learning rates."""
    if not len(scored.sensitivity):
        return None
    marks = marks_of(scored)
    rows = [
        (
            *_names(scored, marks, row),
            Cell(f"{row['lr']:g}", marks=("best",) * row["is_best"] + ("edge",) * row["on_edge"]),
            spread([row["low"], row["median"], row["high"]], metric_writer(scored), row["n"]),
            Cell(f"{row['infinite']} of {row['n']}"),
        )
        for row in _records(scored.sensitivity)
    ]
    told = (
        "Median at the last step over seeds by learning rate. A best rate on the edge of those "
        "tried may have a better one beyond it."
    )
    heads = (*_heads(scored), "learning rate", scored.asked.aim.name, "without an end")
    return View("rates", "Sensitivity to the learning rate", told, heads, tuple(rows))


def effects(scored: Scored) -> list[View]:
    """Show the analysis of variance, one table a held-out text and step budget."""
    if not len(scored.variance):
        return []
    made = []
    for number, (text, table) in enumerate(scored.variance.groupby("text", sort=True)):
        rows = [_effect(row) for row in _records(table)]
        told = (
            f"How much of the variance of the {scored.asked.aim.name} at the end each axis and "
            f"pair of axes explains ({text}), by sums of squares of type II over complete blocks, "
            "a block a seed. Omega squared is the share that is left when noise is taken off, "
            "partial eta squared the raw share, both beside the error alone; the interval "
            "takes the errors as normal (Smithson, 2003), from 6 seeds on. Exploratory: no verdict."
        )
        heads = ("term", "partial omega²", "partial eta²", "generalised eta²", "F", "df",
                 "sum of squares", "seeds")  # fmt: skip
        made.append(
            View(f"effects-{number}", "What explains the differences", told, heads, tuple(rows))
        )
    return made


def _effect(row: Row) -> tuple[Cell, ...]:
    def share(name: str) -> Cell:
        return Cell(
            DASH if math.isnan(row[name]) else f"{row[name]:.3f}".replace("-", wording.MINUS)
        )

    omega = share("omega2").text
    return (
        Cell(str(row["term"])),
        Cell(omega, interval(row, "omega2", lambda v: f"{v:.3f}")),
        share("partial_eta2"),
        share("generalised_eta2"),
        Cell(DASH if math.isnan(row["f"]) else wording.significant(row["f"], 3)),
        Cell(str(row["df"])),
        Cell(wording.significant(row["sum_of_squares"], 3)),
        Cell(str(row["n"])),
    )


def _names(scored: Scored, marks: Marks, row: Row) -> tuple[Cell, ...]:
    workload, submission = row["workload"], row["submission"]
    name = Cell(submission, marks=marks.get((workload, submission), ()))
    return (Cell(workload), name) if _has_workloads(scored) else (name,)


def _heads(scored: Scored) -> tuple[str, ...]:
    return ("workload", "submission") if _has_workloads(scored) else ("submission",)


def _has_workloads(scored: Scored) -> bool:
    return len(set(scored.runs["workload"])) > 1


def _records(frame: DataFrame) -> list[Row]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _by_key(frame: DataFrame) -> dict[tuple[str, str], Row]:
    return {(r["workload"], r["submission"]): r for r in _records(frame)}


def _by_steps(row: Row) -> tuple[Any, ...]:
    return (row["workload"], row["steps"], row["steps_low"], row["submission"])


def _target_names(scored: Scored) -> list[str]:
    return list(dict.fromkeys(scored.targets["target"])) if len(scored.targets) else []
