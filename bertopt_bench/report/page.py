"""Render result sets as one offline page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError
from bertopt_bench.matrix.convergence import declared
from bertopt_bench.report import duels, figures, frame, inference, rows, sentences
from bertopt_bench.report.classification import classification_section
from bertopt_bench.report.convergence import convergence_section
from bertopt_bench.report.environment import environment
from bertopt_bench.report.frame import joined, plain_session, title_of
from bertopt_bench.report.gap import gap_section
from bertopt_bench.report.inside import inside_section
from bertopt_bench.report.limits import limit_section
from bertopt_bench.report.memory import memory_section
from bertopt_bench.results.store import write_whole
from bertopt_bench.stats.facts import gather

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertopt_bench.report.frame import ResultSet
    from bertopt_bench.stats.facts import Facts


def render(results: Sequence[ResultSet], *, title: str | None = None) -> str:
    """Render result sets as HTML that asks nothing of any network.

    Where a session of them is a duel, the page is that of duels, with other trials at its end.
    """
    if duels.present(results):
        return duels.render(results, title)
    frames = joined(results)
    facts = gather(frames["trials"])
    template = frame.template("page.html")
    content = context(results, facts, title)
    declares = declared(content["sources"])
    content["convergence"] = convergence_section(frames, *declares, sentences.models(facts))
    content["classification"] = classification_section(facts, frames)
    content["gap"] = gap_section(facts, frames["evaluations"])
    content["inside"] = inside_section(facts, frames["inside"])
    empty = figures.Packed("", ())
    bare = template.render({**content, "data": empty.text, "left_out": empty.left_out})
    packed = figures.pack(facts, frames, frame.MOST_BYTES - len(bare.encode()))
    return template.render({**content, "data": packed.text, "left_out": packed.left_out})


def write(results: Sequence[ResultSet], path: Path | str, *, title: str | None = None) -> Path:
    """Write the page whole or not at all, and return its path; missing folders are made.

    Raises:
        UserError: the page cannot be written there.
    """
    return write_text(render(results, title=title), path)


def write_text(text: str, path: Path | str) -> Path:
    """Write a rendered page whole or not at all; missing folders are made.

    Raises:
        UserError: the page cannot be written there.
    """
    target = Path(path)
    try:
        write_whole(target, text)
    except OSError as error:
        raise UserError(
            f"the page {target} cannot be written: {error.strerror or error}. The results are not "
            "touched. Make room or choose another file: bertopt-bench report RESULTS --output FILE"
        ) from error
    return target


def context(results: Sequence[ResultSet], facts: Facts, title: str | None) -> dict[str, Any]:
    """Gather all that the template shows but the packed data."""
    sessions = [plain_session(s) for result in results for s in result.sessions]
    columns = rows.number_columns(facts)
    return {
        "title": title_of(results, title),
        "sentences": sentences.summary(facts),
        "facts": facts,
        "counts": counts(facts),
        "columns": columns,
        "table_axes": rows.table_axes(facts),
        "rows": rows.table_rows(facts, columns),
        "effects": rows.effect_table(facts),
        "inference": inference.inference_section(facts),
        "trains": inference.trains(facts),
        "limits": limit_section(facts, sessions),
        "loss_of": sentences.loss_of(facts),
        "memory": memory_section(facts),
        "fates": sentences.fates(facts),
        "unfinished": rows.unfinished(facts),
        "sessions": sessions,
        "environment": environment(sessions),
        "methods": sentences.methods(facts, sessions),
        "sources": list(dict.fromkeys(filter(None, map(sentences.source_of, sessions)))),
        "warnings": [str(warning) for result in results for warning in result.warnings],
        "library": figures.plotting_library(),
        **frame.assets("page.css", "step.css", "shell.js", "page.js", "charts.js"),
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
