"""Write what scoring gave: as text, Markdown, JSON, or one of its tables as data."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.report.score_views import views
from bertopt_bench.stats.scoring import TABLES, as_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertopt_bench.report.score_cells import Cell
    from bertopt_bench.report.score_views import View
    from bertopt_bench.stats.scoring import Scored

FORMATS = ("text", "markdown", "json", "csv", "parquet")
WIDTH = 100


def check_form(form: str, table: str | None) -> None:
    """Raise a UserError for a format or table that there is not."""
    if form not in FORMATS:
        allowed = ", ".join(FORMATS)
        raise UserError(f"no format '{form}'. Formats: {allowed}.{nearest(form, FORMATS)}")
    if table is not None and table not in TABLES:
        allowed = ", ".join(TABLES)
        raise UserError(f"no table '{table}'. Tables: {allowed}.{nearest(table, TABLES)}")
    if table is None and form in {"csv", "parquet"}:
        raise UserError(f"{form} holds one table: name it with --table, of {', '.join(TABLES)}.")


def render(scored: Scored, form: str = "text") -> str:
    """Write everything; in JSON NaN is null and infinities are words."""
    if form == "json":
        return json.dumps(as_json(scored), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    return _markdown(scored) if form == "markdown" else _text(scored)


def _text(scored: Scored) -> str:
    notes = [
        textwrap.fill(f"note: {note}.", WIDTH, subsequent_indent="  ") for note in scored.notes
    ]
    parts = [
        "\n".join([view.title, textwrap.fill(view.told, WIDTH), "", *_columns(view)])
        for view in views(scored)
    ]
    return "\n\n".join(["\n".join(notes), *parts]) + "\n"


def _columns(view: View) -> list[str]:
    """Align a table's columns with blanks."""
    lines = [list(view.heads), *([_plain(cell) for cell in row] for row in view.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _markdown(scored: Scored) -> str:
    parts = ["\n".join(f"- {note}" for note in scored.notes)]
    for view in views(scored):
        lines: list[Sequence[str]] = [view.heads, ["---"] * len(view.heads)]
        lines += [[_plain(cell).replace("|", "\\|") for cell in row] for row in view.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"## {view.title}\n\n{view.told}\n\n{table}")
    return "\n\n".join(parts) + "\n"


def _plain(cell: Cell) -> str:
    """Write a cell on one line."""
    small = "; ".join(filter(None, (cell.under, *cell.marks)))
    return f"{cell.text} ({small})" if small else cell.text
