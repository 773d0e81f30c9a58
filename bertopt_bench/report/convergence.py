"""Show on the page of a run what its training curves came to."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bertopt_bench.report import convergence_figures as figures
from bertopt_bench.report import wording
from bertopt_bench.report.rows import safe
from bertopt_bench.report.score_views import COSTS, views
from bertopt_bench.report.score_wording import metric_writer, verdict_sentences
from bertopt_bench.stats.curves import Aim, each_submission
from bertopt_bench.stats.scoring import Asked, named_submission, score
from bertopt_bench.stats.training_curves import training_curves

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas import DataFrame

    from bertopt_bench.report.score_views import View
    from bertopt_bench.stats.scoring import Scored

MOST_PANELS, MOST_ROWS, MOST_WORKLOADS, MOST_SUBMISSIONS = 16, 60, 4, 64


def convergence_section(
    frames: Mapping[str, DataFrame],
    targets: Sequence[str] = (),
    baseline: str | None = None,
    model: str = "",
) -> dict[str, Any] | None:
    """Make the section's figures and tables; None without curves of two submissions or more."""
    if not len(frames["evaluations"]):
        return None
    curves = training_curves(frames["trials"], frames["evaluations"])
    if len(set(curves["submission"])) < 2 or not curves["metric"].notna().any():
        return None
    known = set(curves["submission"])
    if len(known) > MOST_SUBMISSIONS:
        note = f"{len(known)} choices are too many for a page; bertopt-bench score RESULTS has them"
        empty = {"workloads": [], "more_workloads": 0, "profiles": [], "tables": []}
        return {"notes": [note], **empty}
    scored = score(curves, with_baseline(Asked(Aim(), None, tuple(targets)), curves, baseline))
    workloads = sorted(set(scored.runs["workload"]))
    return {
        "notes": list(scored.notes),
        "workloads": [
            {
                "name": name if len(workloads) > 1 else "",
                "told": verdict_sentences(scored, name, model),
                "panels": _panels(scored, curves, name, number),
                "left_out": max(0, len(_order(scored, name)) - MOST_PANELS),
                "strips": _strips(scored, name),
                "fronts": _fronts(scored, name),
                "rates": _rates(scored, name),
            }
            for number, name in enumerate(workloads[:MOST_WORKLOADS])
        ],
        "more_workloads": max(0, len(workloads) - MOST_WORKLOADS),
        "profiles": _profiles(scored) if len(workloads) > 1 else [],
        "tables": [_table(view) for view in views(scored, model)],
    }


def with_baseline(asked: Asked, curves: DataFrame, declared: str | None) -> Asked:
    """Ask for the baseline that a matrix declared; one that is not there is remarked on."""
    if not declared:
        return asked
    found = named_submission(curves, declared)
    if found is not None:
        return replace(asked, baseline=found)
    told = f"the declared baseline '{declared}' is no submission here, so another one stands in"
    return replace(asked, remarks=(*asked.remarks, told))


def _table(view: View) -> dict[str, Any]:
    return {
        "key": view.key,
        "title": view.title,
        "told": view.told,
        "heads": view.heads,
        "rows": view.rows[:MOST_ROWS],
        "left_out": max(0, len(view.rows) - MOST_ROWS),
        "is_open": view.key in {"ends", "target-0"},
    }


def _order(scored: Scored, workload: str) -> list[str]:
    """List the submissions of a workload, best first."""
    of = scored.ranks[scored.ranks["workload"] == workload]
    return [str(name) for name in of["submission"]]


def _panels(scored: Scored, curves: DataFrame, workload: str, number: int) -> list[tuple[str, Any]]:
    groups = dict(each_submission(curves[curves["workload"] == workload]))[workload]
    names = _order(scored, workload)[:MOST_PANELS]
    found = [_panel(name, groups[name]) for name in names]
    value = next(
        (float(r["value"]) for r in scored.targets.to_dict("records") if r["workload"] == workload),
        None,
    )
    drawn = figures.panels(found, f"curves-{number}", _short, value)
    return [(name, safe(svg)) for name, svg in zip(names, drawn, strict=True)]


def _panel(name: str, group: DataFrame) -> figures.Panel:
    """Take a submission's curves, the untrained loss left out, and where runs were lost."""
    made, lost = [], []
    for _, run in group.groupby("run", sort=True):
        seen = [(float(s), float(m)) for s, m in zip(run["step"], run["metric"], strict=True) if s]
        finite = [(s, m) for s, m in seen if math.isfinite(m)]
        made.append(tuple(finite))
        if run["status"].iloc[0] == "diverged" and finite:
            lost.append(finite[-1])
    return figures.Panel(name, tuple(made), tuple(lost))


def _strips(scored: Scored, workload: str) -> list[dict[str, Any]]:
    """Draw steps to each target, a dot a seed, a row a submission."""
    made = []
    reached = scored.reached[scored.reached["workload"] == workload]
    for target, runs in reached.groupby("target", sort=True):
        finite = [v for v in runs["steps"] if math.isfinite(v)]
        if not finite:
            continue
        span = figures.Span.of([0.0, *finite], air=0.0)
        of = dict(iter(runs.groupby("submission", sort=True)))
        median = float(of[scored.baseline]["steps"].median()) if scored.baseline in of else math.inf
        summed = scored.to_target[
            (scored.to_target["workload"] == workload) & (scored.to_target["target"] == target)
        ].sort_values(["steps", "steps_low", "submission"])
        rows = [
            _strip(row, of[row["submission"]], span, median) for row in summed.to_dict("records")
        ]
        made.append(
            {
                "title": f"Steps to {metric_writer(scored)(float(runs['value'].iloc[0]))}",
                "of": str(target).replace("of baseline", f"of {scored.baseline}"),
                "scale": safe(figures.strip_scale(span)),
                "rows": rows[:MOST_ROWS],
            }
        )
    return made


def _strip(row: Mapping[Any, Any], runs: DataFrame, span: figures.Span, baseline: float) -> Any:
    values = [float(v) for v in runs["steps"]]
    got = f"{row['reached']} of {row['n']} got there"
    never = math.isinf(row["steps"])
    middle = "never" if never else f"{wording.significant(row['steps'], 3)} steps"
    return {
        "name": row["submission"],
        "svg": safe(figures.strip(values, span, f"{row['submission']}: {middle}, {got}", baseline)),
        "value": middle,
        "got": "one run" if row["n"] == 1 else got,
    }


def _fronts(scored: Scored, workload: str) -> list[dict[str, Any]]:
    made = []
    for cost, title in COSTS.items():
        rows = [
            row
            for row in scored.fronts.to_dict("records")
            if row["workload"] == workload and row["cost"] == cost
        ]
        if not rows:
            continue
        unit, size = _unit(cost, [row["cost_median"] for row in rows])
        spots = [
            figures.Spot(
                row["submission"],
                tuple(row[f"cost_{s}"] / size for s in ("low", "median", "high")),
                (row["low"], row["median"], row["high"]),
                row["on_front"],
                row["on_front"] or row["submission"] == scored.baseline,
            )
            for row in rows
            if math.isfinite(row["median"])
        ]
        if len(spots) < 2:
            continue
        told = f"Loss at the end against {title}, a mark a submission"
        svg = figures.front(spots, told, unit, _short)
        lost = len(rows) - sum(all(map(math.isfinite, s.y)) for s in spots)
        made.append({"title": title, "svg": safe(svg), "lost": lost})
    return made


def _unit(cost: str, values: Sequence[float]) -> tuple[str, float]:
    """Choose the unit of an axis, so that its ticks are round in it."""
    if cost == "seconds":
        return "s", 1.0
    units = (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10))
    return next((unit for unit in units if max(values) >= unit[1]), ("B", 1.0))


def _short(value: float) -> str:
    return f"{value:g}"


def _profiles(scored: Scored) -> list[dict[str, Any]]:
    """Draw AlgoPerf's profiles, the best scores first."""
    made = []
    for (target, by), scores in scored.scores.groupby(["target", "by"], sort=True):
        rows = scored.profile[(scored.profile["target"] == target) & (scored.profile["by"] == by)]
        corners = {str(n): g for n, g in rows.groupby("submission", sort=True)}
        lines = {
            str(name): list(zip(corners[name]["tau"], corners[name]["share"], strict=True))
            for name in scores["submission"]
        }
        title = f"{str(target).replace('of baseline', f'of {scored.baseline}')}, by {by}"
        svg, names = figures.lines(
            lines, f"Performance profile: {title}", wording.percent, steps=True
        )
        made.append({"title": title, "svg": safe(svg), "names": names,
                     "left_out": len(lines) - len(names)})  # fmt: skip
    return made


def _rates(scored: Scored, workload: str) -> dict[str, Any] | None:
    if not len(scored.sensitivity):
        return None
    of = scored.sensitivity[scored.sensitivity["workload"] == workload]
    lines = {
        str(name): [(lr, m) for lr, m in zip(g["lr"], g["median"], strict=True) if lr > 0]
        for name, g in of.groupby("submission", sort=True)
    }
    finite = {n: [(x, y) for x, y in at if math.isfinite(y)] for n, at in lines.items()}
    if not any(finite.values()):
        return None
    svg, names = figures.lines(
        finite, "Median loss at the end by learning rate", _short, log_x=True
    )
    return {"svg": safe(svg), "names": names, "left_out": len(finite) - len(names)}
