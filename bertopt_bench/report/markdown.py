"""Write the same findings as Markdown, for a terminal, a job summary or a pull request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bertopt_bench.report import rows, sentences, wording
from bertopt_bench.report.frame import joined, title_of
from bertopt_bench.stats.estimates import EFFECT_METRICS
from bertopt_bench.stats.facts import gather

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bertopt_bench.report.frame import ResultSet
    from bertopt_bench.stats.estimates import Effect
    from bertopt_bench.stats.facts import Facts

MOST_ROWS = 30


def summary(results: Sequence[ResultSet]) -> str:
    """Summarise result sets: the three sentences, effects, the results table, what did not finish.

    The results table ends after 30 cells and says so; the page and `tables` have all of them.
    """
    facts = gather(joined(results)["trials"])
    parts = [f"# {escaped(title_of(results, None))}"]
    parts += [escaped(sentence) for sentence in sentences.summary(facts)]
    warnings = [f"- {escaped(str(w))}" for result in results for w in result.warnings]
    if warnings:
        parts += ["## While reading the results", "\n".join(warnings)]
    if facts.axes:
        parts += ["## Effect of each axis", effects(facts)]
    parts += ["## Results", cells(facts)]
    if found := rows.unfinished(facts):
        lines = [(g["status"], g["reason"], g["trials"], len(g["cells"])) for g in found]
        header = ("status", "reason", "trials", "cells")
        parts += ["## Skipped and failed", table(header, lines)]
    return "\n\n".join(parts) + "\n"


def effects(facts: Facts) -> str:
    """Write the effects: median [middle half] and n against the reference, a column a metric."""
    metrics = [m for m in EFFECT_METRICS if facts.measured(m.column)]
    lines = []
    for axis in facts.axes:
        found = {(e.level, e.metric): e for e in facts.effects[axis.name]}
        for level in axis.levels[1:]:
            told = [effect_text(found[level, metric]) for metric in metrics]
            lines.append((axis.name, level, axis.reference, *told))
    return table(("axis", "level", "against", *(m.title for m in metrics)), lines)


def effect_text(effect: Effect) -> str:
    """Write one effect with its n, its spread, and the contexts that gave no pair."""
    lost = f", {effect.unfinished} unfinished" if effect.unfinished else ""
    lost += f", {effect.unlike} on unlike data" if effect.unlike else ""
    spread = effect.spread
    if spread is None:
        return f"no pair{lost}"
    median = wording.change(effect, spread.median)
    if spread.n == 1:
        return f"{median} (one context{lost})"
    low, high = (wording.change(effect, v, unit=False) for v in (spread.q1, spread.q3))
    return f"{median} [{low}, {high}] (n {spread.n}{lost})"


def cells(facts: Facts) -> str:
    """Write the results table, ranked cells first."""
    columns = rows.number_columns(facts)
    found = rows.table_rows(facts, columns)
    lines = []
    for row in found[:MOST_ROWS]:
        numbers = [f"{n[0]} ({n[1]})" if n else rows.DASH for n in row["numbers"]]
        marks = ", ".join(text for _, text in row["marks"])
        lines.append((row["rank"] or rows.DASH, row["label"], *numbers, marks))
    heads = [f"{c.title} ({c.unit})" for c in columns]
    text = table(("#", "cell", *heads, "notes"), lines)
    if len(found) > MOST_ROWS:
        text += f"\n\n{len(found) - MOST_ROWS:,} further cells are on the page."
    return text


def table(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Write a table whose text cannot break out of its cells."""
    rule = ["---"] * len(header)
    every = [header, rule, *([escaped(str(value)) for value in line] for line in lines)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in every)


def escaped(text: str) -> str:
    """Escape what Markdown or HTML would read as markup, and keep to one line."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", flat)
