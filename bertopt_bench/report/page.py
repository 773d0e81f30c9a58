"""Render result sets as one offline page."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bertopt_bench.report import figures, sentences, strips, wording
from bertopt_bench.report.environment import environment
from bertopt_bench.stats.estimates import EFFECT_METRICS, Cell, Effect, Spread
from bertopt_bench.stats.facts import gather

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from markupsafe import Markup
    from pandas import DataFrame

    from bertopt_bench.stats.facts import Facts

TEMPLATES = Path(__file__).parent / "templates"


class ResultSet(Protocol):
    """What the page reads of `results.tables.Results`."""

    @property
    def sessions(self) -> Sequence[Any]:
        """What ran where, a mapping or model each."""
        ...

    @property
    def trials(self) -> DataFrame:
        """A row a trial."""
        ...

    @property
    def steps(self) -> DataFrame:
        """A row a timed step."""
        ...

    @property
    def evaluations(self) -> DataFrame:
        """A row a held-out evaluation."""
        ...

    @property
    def warnings(self) -> Sequence[object]:
        """What reading the files had to say."""
        ...



# A column of the results table: what it is called, its unit, where it is read, how it is written.
NUMBER_COLUMNS: tuple[tuple[str, str, str, Callable[[float], str]], ...] = (
    ("held-out loss", "nats", "final_loss", wording.loss),
    ("accuracy", "masked tokens", "final_masked_accuracy", wording.share),
    ("throughput", "tokens/s", "tokens_per_second", wording.significant),
    ("step", "time", "step_seconds", wording.duration),
    ("peak memory", "allocator", "peak_memory_bytes", wording.memory),
    ("process memory", "peak resident", "peak_resident_bytes", wording.memory),
    ("first step", "time", "time_to_first_step_seconds", wording.duration),
)


def render(results: Sequence[ResultSet], *, title: str | None = None) -> str:
    """Render result sets as HTML that asks nothing of any network."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(TEMPLATES)
    templates = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("page.html").render(context(results, title))


def write(results: Sequence[ResultSet], path: Path | str, *, title: str | None = None) -> Path:
    """Write the page whole or not at all, and return its path."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = render(results, title=title)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return target


def context(results: Sequence[ResultSet], title: str | None) -> dict[str, Any]:
    """Gather all that the template shows."""
    sessions = [plain_session(s) for result in results for s in result.sessions]
    frames = joined(results)
    facts = gather(frames["trials"])
    packed = figures.pack(facts, frames)
    names = list(dict.fromkeys(matrix_name(s) for s in sessions))
    columns = [c for c in NUMBER_COLUMNS if facts.measured(c[2])]
    return {
        "title": title or wording.listed([name for name in names if name]) or "Results",
        "sentences": sentences.summary(facts),
        "facts": facts,
        "counts": counts(facts),
        "columns": columns,
        "rows": table_rows(facts, columns),
        "effects": effect_rows(facts),
        "rulers": rulers(facts),
        "unfinished": unfinished(facts),
        "sessions": sessions,
        "environment": environment(sessions),
        "methods": sentences.methods(facts, sessions),
        "sources": [text for s in sessions if (text := sentences.source_of(s))][:1],
        "warnings": [str(warning) for result in results for warning in result.warnings],
        "left_out": packed.left_out,
        "data": packed.text,
        "library": figures.plotting_library(),
        **{name.replace(".", "_"): asset(name) for name in ("page.css", "page.js", "charts.js")},
    }


def asset(name: str) -> Markup:
    """Read one of the page's own files, which need no escaping."""
    from markupsafe import Markup

    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))  # noqa: S704 - our own file


def plain_session(session: Any) -> dict[str, Any]:
    """Turn a session, a model or a mapping, into a dictionary."""
    dump = getattr(session, "model_dump", None)
    return dict(dump(mode="json") if dump else session)


def matrix_name(session: Mapping[str, Any]) -> str:
    """Find the matrix' name in a session."""
    matrix = session.get("matrix")
    return str(matrix.get("name", "")) if isinstance(matrix, dict) else str(matrix or "")


def joined(results: Sequence[ResultSet]) -> dict[str, DataFrame]:
    """Join the tables of several result sets, renumbering trials so that none collide."""
    import pandas as pd

    tables: dict[str, list[DataFrame]] = {"trials": [], "steps": [], "evaluations": []}
    offset = 0
    for result in results:
        for name, kept in tables.items():
            frame = getattr(result, name)
            if len(frame):
                kept.append(frame.assign(trial=frame["trial"] + offset))
        offset += len(result.trials)
    empty = {
        "trials": ["trial", "cell_id", "status"],
        "steps": ["trial", "step", "loss"],
        "evaluations": ["trial", "step", "loss"],
    }
    return {
        name: pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=empty[name])
        for name, kept in tables.items()
    }


def counts(facts: Facts) -> list[tuple[str, str]]:
    """List the few counts that stand under the title."""
    finished = facts.statuses.get("ok", 0)
    return [
        ("cells", f"{len(facts.cells):,}"),
        ("trials finished", f"{finished:,} of {len(facts.rows):,}"),
        ("seeds", str(len(facts.seeds))),
        ("replicates", str(facts.replicates)),
        ("sessions", str(len(facts.sessions))),
    ]


def table_rows(facts: Facts, columns: Sequence[Any]) -> list[dict[str, Any]]:
    """Make the rows of the results table, ranked cells first."""
    order = {cell.id: place for place, cell in enumerate(facts.cells)}

    def place(cell: Cell) -> tuple[float, float, int]:
        loss = cell.spreads.get("final_loss")
        rank = facts.ranks.get(cell.id, float("inf"))
        return rank, loss.median if loss else float("inf"), order[cell.id]

    return [
        {
            "index": order[cell.id],
            "rank": facts.ranks.get(cell.id),
            "levels": [cell.levels.get(axis.name, "") for axis in facts.axes],
            "label": cell.label,
            "numbers": [number_text(cell.spreads.get(c[2]), c[3]) for c in columns],
            "marks": marks(cell),
            "session": facts.sessions.index(cell.session) + 1 if cell.session else None,
        }
        for cell in sorted(facts.cells, key=place)
    ]


def number_text(spread: Spread | None, write: Callable[[float], str]) -> tuple[str, str] | None:
    """Write a median, and under it its range and n."""
    if spread is None:
        return None
    if spread.n == 1:
        return write(spread.median), "one run"
    low, high = write(spread.low), write(spread.high)
    reach = low if low == high else f"{low}–{high}"  # noqa: RUF001 - an en dash, as in a range
    return write(spread.median), f"{reach} · n {spread.n}"


def marks(cell: Cell) -> list[tuple[str, str]]:
    """List what a reader must know before trusting a row."""
    found = [
        (status, f"{count} {status.replace('_', ' ')}")
        for status, count in cell.statuses.items()
        if status != "ok"
    ]
    if cell.runs == 1:
        found.append(("one-run", "one run"))
    if not cell.is_tuned and cell.runs:
        found.append(("untuned", "untuned"))
    return found


def rulers(facts: Facts) -> list[dict[str, Any]]:
    """Draw the scale of each metric that has effects."""
    return [
        {"title": metric.title, "unit": unit_of_change(metric.is_ratio), "svg": safe(svg)}
        for metric in EFFECT_METRICS
        if facts.measured(metric.column)
        for svg in [strips.ruler(scale_of(facts, metric.column))]
    ]


def unit_of_change(is_ratio: bool) -> str:  # noqa: FBT001 - the one thing it depends on
    """Name what a strip's axis counts."""
    return "change in per cent" if is_ratio else "difference in nats per masked token"


def scale_of(facts: Facts, column: str) -> strips.Scale:
    """Find the scale that all strips of a metric share."""
    metric = next(m for m in EFFECT_METRICS if m.column == column)
    every = [e for found in facts.effects.values() for e in found if e.metric == metric]
    return strips.Scale.of(metric, every)


def effect_rows(facts: Facts) -> list[dict[str, Any]]:
    """Make a group an axis, a row a level, a cell a metric."""
    metrics = [m for m in EFFECT_METRICS if facts.measured(m.column)]
    scales = {m.column: scale_of(facts, m.column) for m in metrics}
    groups = []
    for axis in facts.axes:
        found = {(e.level, e.metric.column): e for e in facts.effects[axis.name]}
        rows = [
            {
                "level": level,
                "cells": [effect_cell(found[level, m.column], scales[m.column]) for m in metrics],
            }
            for level in axis.levels
            if level != axis.reference
        ]
        groups.append({"axis": axis, "rows": rows})
    return groups


def effect_cell(effect: Effect, scale: strips.Scale) -> dict[str, Any]:
    """Draw and write one level's effect on one metric."""
    lost = [f"{effect.unfinished} unfinished"] if effect.unfinished else []
    lost += [f"{effect.unlike} on unlike data"] if effect.unlike else []
    if effect.spread is None:
        return {"svg": "", "median": "", "spread": ", ".join(lost) or "no matching cells"}
    spread = effect.spread
    median = wording.change(effect, spread.median)
    told = wording.spread_of_changes(effect, spread)
    drawn = strips.strip(effect, spread, scale, f"median {median}, {told}")
    extent = [wording.change(effect, v, unit=False) for v in (spread.low, spread.q1)]
    extent += [wording.change(effect, v, unit=False) for v in (spread.q3, spread.high)]
    text = f"[{extent[1]}, {extent[2]}] of {extent[0]} … {extent[3]} · n {spread.n}"
    return {
        "svg": safe(drawn),
        "median": median,
        "spread": ", ".join(["one context" if spread.n == 1 else text, *lost]),
    }


def safe(svg: str) -> Markup:
    """Mark a drawing as HTML: it holds numbers and our own words only."""
    from markupsafe import Markup

    return Markup(svg)  # noqa: S704 - no text from results is in it


def unfinished(facts: Facts) -> list[dict[str, Any]]:
    """Group trials that did not run to the end by status and reason."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    from bertopt_bench.stats.estimates import words

    for row in facts.rows:
        status = words(row["status"])
        if status == "ok":
            continue
        reason = words(row.get("reason")) or "no reason recorded"
        group = groups.setdefault(
            (status, reason), {"status": status, "reason": reason, "trials": 0, "cells": {}}
        )
        group["trials"] += 1
        label = words(row.get("label")) or row["cell_id"]
        group["cells"].setdefault(label, []).append(words(row.get("seed")))
    return sorted(groups.values(), key=lambda g: (g["status"], -g["trials"], g["reason"]))
