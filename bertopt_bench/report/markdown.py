"""Write the same findings as Markdown, for a terminal, a job summary or a pull request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bertopt_bench.report import (
    duel_facts,
    duel_rows,
    duel_sessions,
    duel_wording,
    rows,
    sentences,
    wording,
)
from bertopt_bench.report.frame import joined, title_of
from bertopt_bench.report.inference import inference_section
from bertopt_bench.stats.estimates import EFFECT_METRICS
from bertopt_bench.stats.facts import gather

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bertopt_bench.report.duel_facts import Duel
    from bertopt_bench.report.frame import ResultSet
    from bertopt_bench.results.duels import Finding
    from bertopt_bench.stats.estimates import Effect
    from bertopt_bench.stats.facts import Facts

MOST_ROWS = 30


def summary(results: Sequence[ResultSet]) -> str:
    """Summarise result sets: the three sentences, effects, the results table, what did not finish.

    The results table ends after 30 cells and says so; the page and `tables` have all of them.
    Result sets with duels are summarised by `duel_summary`.
    """
    if duel_facts.present(results):
        return duel_summary(results)
    facts = gather(joined(results)["trials"])
    parts = [f"# {escaped(title_of(results, None))}"]
    parts += [escaped(sentence) for sentence in sentences.summary(facts)]
    warnings = [f"- {escaped(str(w))}" for result in results for w in result.warnings]
    if warnings:
        parts += ["## While reading the results", "\n".join(warnings)]
    if facts.axes:
        parts += ["## Effect of each axis", effects(facts)]
    if section := inference_section(facts):
        parts += ["## Inference", forward_passes(section)]
    parts += ["## Results", cells(facts)]
    if found := rows.unfinished(facts):
        lines = [(g["status"], g["reason"], g["trials"], len(g["cells"])) for g in found]
        header = ("status", "reason", "trials", "cells")
        parts += ["## Skipped and failed", table(header, lines)]
    return "\n\n".join(parts) + "\n"


def duel_summary(results: Sequence[ResultSet]) -> str:
    """Summarise duels: counts of verdicts, each kind in a table of its own, controls.

    Several sessions are summarised one by one, with what they share before them.
    """
    duels = duel_facts.gather(results)
    parts = [f"# {escaped(title_of(results, None))}"]
    parts += [escaped(line) for line in duel_sessions.folder_calibration(duels)]
    for number, duel in enumerate(duels, start=1):
        if len(duels) > 1:
            parts.append(f"## Session {number}: {escaped(duel_rows.when(duel))}")
        parts += session_summary(duel, "#" * (2 if len(duels) == 1 else 3))
    if bank := duel_sessions.bank(duels):
        parts += ["## This machine so far", *map(escaped, bank)]
    return "\n\n".join(parts) + "\n"


def session_summary(duel: Duel, level: str) -> list[str]:
    """Summarise one session: its state, what was found, what is open, what was refused."""
    _, word, reasons = duel_rows.state_words(duel)
    parts = []
    if word != "valid":
        told = [f"**{word[:1].upper()}{word[1:]}**", *(f"- {escaped(why)}" for why in reasons)]
        parts.append("\n".join(told))
    tally = [f"{count} {verdict}" for verdict, count in duel_wording.tally(duel.findings)]
    parts.append(f"{escaped(wording.listed(tally))}." if tally else "No comparison was judged.")
    by_kind: dict[str, list[Finding]] = {}
    for finding in duel.findings:
        by_kind.setdefault(duel_wording.kind(finding), []).append(finding)
    directed = [f for f in duel.findings if duel_wording.kind(f) in {"worse", "better"}]
    if directed:
        parts += [f"{level} Differences found", findings_table(directed)]
    if found := by_kind.get("open"):
        parts += [f"{level} Cannot tell", findings_table(found)]
    if found := by_kind.get("same"):
        parts += [f"{level} Equivalent", findings_table(found)]
    if found := by_kind.get("refused"):
        lines = [(f"{f.arm} against {f.baseline}", f.metric, f.reason) for f in found]
        parts += [f"{level} Refused", table(("comparison", "metric", "reason"), lines)]
    if controls := duel_rows.control_rows(duel):
        parts += [f"{level} Controls", controls_table(controls)]
    return parts


def findings_table(findings: Sequence[Finding]) -> str:
    """Write findings with interval, n, corrected p, margin in force, noise floor and needs."""
    header = ("comparison", "metric", "verdict", "estimate [interval]", "n", "corrected p",
              "margin in force", "noise floor", "remarks")  # fmt: skip
    lines = []
    for finding in findings[:MOST_ROWS]:
        row, ends = duel_rows.verdict_row(finding, ""), duel_wording.interval(finding)
        inside = f"[{ends}] {row['level']}" if ends else "no interval"
        inside = f"in every {row['one']}" if row["exact"] else inside
        lines.append(
            (
                f"{finding.arm} against {finding.baseline}",
                duel_wording.measure(finding.metric).noun,
                finding.verdict,
                f"{row['value']} {inside}",
                f"{finding.n} {row['one']}s",
                row["p"],
                row["in_force"] or row["margin"],
                row["floor"],
                "; ".join(row["notes"]) or rows.DASH,
            )
        )
    text = table(header, lines)
    if len(findings) > MOST_ROWS:
        text += f"\n\n{len(findings) - MOST_ROWS:,} further comparisons are on the page."
    return text


def controls_table(controls: Sequence[Mapping[str, Any]]) -> str:
    """Write what the A/A arm and the slowed arms gave."""
    lines = [
        (
            row["name"],
            row["metric"],
            row["chip"]["word"],
            f"{row['value']} [{row['interval']}] {row['level']}"
            if row["interval"]
            else row["value"],
            row["n"],
            row["floor"] or rows.DASH,
            "; ".join(row["notes"]) or rows.DASH,
        )
        for row in controls
    ]
    heads = ("control", "metric", "says", "estimate", "n", "noise floor (half-width)", "remarks")
    return table(heads, lines)


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


def number_cell(number: tuple[str, str] | None) -> str:
    """Write a number with what lies around it, in brackets where there is any."""
    if number is None:
        return rows.DASH
    return f"{number[0]} ({number[1]})" if number[1] else number[0]


def forward_passes(section: Mapping[str, Any]) -> str:
    """Write latency and throughput of inference cells, a row a setting and batch size."""
    unit = section["unit"]
    lines = [
        (
            group["label"],
            row["batch"],
            *map(number_cell, row["numbers"]),
        )
        for group in section["groups"]
        for row in group["rows"]
    ]
    heads = ("setting", "batch size", f"latency, median ({unit})", f"99th percentile ({unit})",
             "passes a trial", "sequences/s", "tokens/s", "peak memory")  # fmt: skip
    return table(heads, lines)


def table(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Write a table whose text cannot break out of its cells."""
    rule = ["---"] * len(header)
    every = [header, rule, *([escaped(str(value)) for value in line] for line in lines)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in every)


def escaped(text: str) -> str:
    """Escape what Markdown or HTML would read as markup, and keep to one line."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", flat)
