"""Render a tuning's ledger as one offline page: what was tried, chosen and spent, an arm a part."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.forecast import duration
from bertopt_bench.matrix.labels import model_label, number
from bertopt_bench.report import frame, sentences, wording
from bertopt_bench.report.environment import environment
from bertopt_bench.report.figures import columns, compressed, dumped
from bertopt_bench.report.tuning_figures import Curve, Tried, curve, loss_scale

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.report.duel_scales import Scale
    from bertopt_bench.results.tuning import Choice, Ledger, Outcome, Point, TuningResults

DASH = "–"  # noqa: RUF001 - a dash in a table
DIGITS = 6


def render_tuning(results: TuningResults) -> str:
    """Render a folder of tuning as HTML that asks nothing of any network."""
    return frame.template("tuning.html").render(context(results))


def context(results: TuningResults) -> dict[str, Any]:
    """Gather all that the template shows."""
    ledger = results.ledger
    sessions = [frame.plain_session(session) for session in results.sessions]
    declared = sessions[-1].get("declared", {}).get("tuning", {}) if sessions else {}
    drawn = {arm: tried(ledger, arm) for arm in ledger.arms()}
    scale = loss_scale([point for points in drawn.values() for point in points])
    rows = [row(ledger, choice, declared) for choice in by_loss(ledger.choices)]
    name = str(sessions[-1]["matrix"].get("name", "")) if sessions else results.path.name
    return {
        "title": f"Tuning of {name}",
        "sessions": sessions,
        "counts": counts(ledger),
        "lead": lead(ledger, declared, model_of(sessions)),
        "rows": rows,
        "unfinished": len(ledger.arms()) - len(ledger.choices),
        "arms": [arm_part(ledger, arm, drawn[arm], scale) for arm in ledger.arms()],
        "declared": declared,
        "ledger": results.sha256,
        "environment": environment(sessions),
        "sources": list(dict.fromkeys(filter(None, map(sentences.source_of, sessions)))),
        "warnings": list(results.warnings),
        "data": compressed(dumped({"tables": {"points": packed(ledger)}})),
        "left_out": (),
        **frame.assets("page.css", "shell.js", "duel.js"),
    }


def by_loss(choices: Sequence[Choice]) -> list[Choice]:
    """Sort arms by the loss of their best point."""
    return sorted(choices, key=lambda choice: choice.loss)


def counts(ledger: Ledger) -> list[tuple[str, str]]:
    """List the few counts that stand under the title."""
    seconds = sum(one.seconds for one in ledger.outcomes)
    return [
        ("arms", str(len(ledger.arms()))),
        ("points", f"{len(ledger.points):,}"),
        ("trials", f"{sum(one.trials for one in ledger.outcomes):,}"),
        ("steps", f"{sum(one.steps for one in ledger.outcomes):,}"),
        ("time spent", duration(seconds)),
    ]


def model_of(sessions: Sequence[Mapping[str, Any]]) -> str:
    """Name the model that was tuned on, as far as the kept matrix says it."""
    tables = sentences.matrix_tables(sessions[-1]) if sessions else {}
    model = tables.get("workload", {}).get("model", "tiny")
    return f"BERT {model if isinstance(model, str) else model_label(model)}"


def lead(ledger: Ledger, declared: dict[str, Any], model: str) -> list[str]:
    """Say what was equal for all, and which arms end on an edge."""
    told = []
    if declared:
        told.append(
            f"Each arm had {wording.plural(declared['points'], 'point')}, its documented default "
            f"among them where it has one, and up to {declared['extensions']} more where the best "
            f"lay on the edge of what was tried; each point that was not pruned ran {model} on "
            f"{wording.plural(len(declared['seeds']), 'seed')}. The value of a point is its mean "
            "held-out loss after the last step; a run that did not end ok counts as infinite."
        )
    edges = [choice.arm for choice in ledger.choices if choice.edges]
    if edges:
        arms = wording.listed(edges)
        told.append(
            f"On {model} the best of {arms} still lies on an edge: a better one may lie beyond."
        )
    elif ledger.choices:
        told.append(f"On {model} no arm's best lies on an edge of what was tried.")
    told.append(
        "These losses chose the points, so they flatter them: what the chosen points are worth is "
        "told by the run on other seeds and other held-out documents, not here."
    )
    return told


def row(ledger: Ledger, choice: Choice, declared: dict[str, Any]) -> dict[str, Any]:
    """Make an arm's row: points tried, the best one, its edge, the cost."""
    outcome = next(
        (o for o in ledger.outcomes if (o.arm, o.number) == (choice.arm, choice.number)), None
    )
    default = next((p for p in ledger.of(choice.arm) if p.origin == "default"), None)
    of_default = ledger.outcome(default) if default else None
    return {
        "arm": choice.arm,
        "best": told_options(choice.options) or "no point finished",
        "loss": DASH if choice.number is None else wording.loss(choice.loss),
        "spread": _reach(outcome),
        "default": DASH if of_default is None else _loss(of_default.loss),
        "points": choice.points,
        "extensions": choice.extensions,
        "budget": declared.get("extensions", DASH),
        "edges": ", ".join(choice.edges),
        "trials": choice.trials,
        "steps": f"{choice.steps:,}",
        "time": duration(choice.seconds),
    }


def told_options(options: dict[str, float]) -> str:
    """Write options as people do: lr 0.002, weight_decay 0.1."""
    return ", ".join(f"{key.partition('.')[2]} {number(value)}" for key, value in options.items())


def tried(ledger: Ledger, arm: str) -> list[Tried]:
    """Give an arm's points that have run, as they are drawn."""
    best = {choice.arm: choice.number for choice in ledger.choices}.get(arm)
    found = []
    for point in ledger.of(arm):
        outcome = ledger.outcome(point)
        if outcome is not None and outcome.losses:
            losses = tuple(outcome.losses.values())
            chosen, default = point.number == best, point.origin == "default"
            found.append(Tried(point.options, losses, chosen, default))
    return found


def arm_part(ledger: Ledger, arm: str, points: Sequence[Tried], up: Scale) -> dict[str, Any]:
    """Gather what is shown of one arm: a curve for each searched option, and all its points."""
    options = list(ledger.of(arm)[0].options)
    figures: list[tuple[str, Curve]] = [
        (option, curve(option, points, up))
        for option in options
        if points and all(point.options[option] > 0 for point in points)
    ]
    best = {choice.arm: choice.number for choice in ledger.choices}.get(arm)
    return {
        "name": arm,
        "key": f"arm-{ledger.arms().index(arm)}",
        "options": [option.partition(".")[2] for option in options],
        "figures": figures,
        "points": [point_row(point, ledger.outcome(point), best) for point in ledger.of(arm)],
    }


def point_row(point: Point, outcome: Outcome | None, best: int | None) -> dict[str, Any]:
    """Make a point's row: where it comes from, its loss, what it cost."""
    statuses = list(outcome.statuses.values()) if outcome else []
    bad = [status for status in dict.fromkeys(statuses) if status != "ok"]
    marks = ["chosen"] if point.number == best else []
    marks += ["pruned"] if outcome is not None and outcome.pruned else []
    return {
        "number": point.number,
        "origin": point.origin,
        "options": [number(value) for value in point.options.values()],
        "loss": DASH if outcome is None else _loss(outcome.loss),
        "spread": _reach(outcome),
        "marks": marks + [status.replace("_", " ") for status in bad],
        "trials": outcome.trials if outcome else 0,
        "steps": f"{outcome.steps:,}" if outcome else "0",
        "time": duration(outcome.seconds) if outcome else DASH,
        "cell": point.cell_id,
    }


def _loss(value: float) -> str:
    return wording.loss(value) if math.isfinite(value) else "infinite"


def _reach(outcome: Outcome | None) -> str:
    """Write the range over the seeds and their number."""
    if outcome is None or not outcome.losses:
        return ""
    losses = list(outcome.losses.values())
    if len(losses) == 1:
        return "one seed"
    low, high = _loss(min(losses)), _loss(max(losses))
    return f"{low} to {high} · n {len(losses)}"


def packed(ledger: Ledger) -> Any:
    """Gather every point's numbers as a table."""
    import pandas as pd

    made = []
    for point in ledger.points:
        outcome = ledger.outcome(point)
        for seed, loss in (outcome.losses if outcome else {}).items():
            made.append(
                {
                    "arm": point.arm,
                    "number": point.number,
                    "origin": point.origin,
                    "cell_id": point.cell_id,
                    "options": told_options(point.options),
                    "seed": seed,
                    "loss": loss,
                    "status": outcome.statuses[seed] if outcome else "",
                }
            )
    return columns(pd.DataFrame(made), DIGITS)
