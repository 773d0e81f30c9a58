"""Render result sets as one offline page."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bertopt_bench.errors import UserError
from bertopt_bench.report import figures, rows, sentences, wording
from bertopt_bench.report.environment import environment
from bertopt_bench.stats.facts import gather

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup
    from pandas import DataFrame

    from bertopt_bench.stats.facts import Facts

TEMPLATES = Path(__file__).parent / "templates"
# 1,000 trials fit, plotly.js of 1.96 MB included; data are thinned before a page grows beyond it.
MOST_BYTES = 2_480_000


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


def render(results: Sequence[ResultSet], *, title: str | None = None) -> str:
    """Render result sets as HTML that asks nothing of any network."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    frames = joined(results)
    facts = gather(frames["trials"])
    template = templates.get_template("page.html")
    content = context(results, facts, title)
    empty = figures.Packed("", ())
    bare = template.render({**content, "data": empty.text, "left_out": empty.left_out})
    packed = figures.pack(facts, frames, MOST_BYTES - len(bare.encode()))
    return template.render({**content, "data": packed.text, "left_out": packed.left_out})


def write(results: Sequence[ResultSet], path: Path | str, *, title: str | None = None) -> Path:
    """Write the page whole or not at all, and return its path; missing folders are made.

    Raises:
        UserError: the page cannot be written there.
    """
    target = Path(path)
    text = render(results, title=title)
    try:
        _replace(target, text)
    except OSError as error:
        raise UserError(
            f"the page {target} cannot be written: {error.strerror or error}. The results are not "
            "touched. Make room or choose another file: bertopt-bench report RESULTS --output FILE"
        ) from error
    return target


def _replace(target: Path, text: str) -> None:
    """Write a file beside its place and move it there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


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
        "rows": rows.table_rows(facts, columns),
        "effects": rows.effect_table(facts),
        "fates": sentences.fates(facts),
        "unfinished": rows.unfinished(facts),
        "sessions": sessions,
        "environment": environment(sessions),
        "methods": sentences.methods(facts, sessions),
        "sources": list(dict.fromkeys(filter(None, map(sentences.source_of, sessions)))),
        "warnings": [str(warning) for result in results for warning in result.warnings],
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


def title_of(results: Sequence[ResultSet], title: str | None) -> str:
    """Take the title asked for, or the names of the matrices."""
    matrices = [plain_session(s).get("matrix") for result in results for s in result.sessions]
    names = [str(m.get("name", "")) if isinstance(m, dict) else str(m or "") for m in matrices]
    return title or wording.listed(list(dict.fromkeys(filter(None, names)))) or "Results"


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
