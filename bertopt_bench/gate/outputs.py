"""Write what a gate found: Markdown for people, JUnit XML for the CI, JSON for programs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from bertopt_bench.report.markdown import escaped, table
from bertopt_bench.stats.comparisons import amount_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bertopt_bench.gate.result import GateFinding, GateRates, GateResult, GateRow

HEADLINES = {
    0: "no confirmed regression",
    1: "confirmed regression",
    3: "refused: the answer cannot be trusted",
    4: "inconclusive, and --strict asks for an answer",
}
WORDS = {
    "regression": "confirmed regression",
    "refused": "refused",
    "unconfirmed": "unconfirmed",
    "too_noisy": "too noisy",
    "inconclusive": "inconclusive",
    "not_confirmed": "not confirmed by a second session",
    "accepted": "accepted slow-down",
    "passed": "passed",
}
SECTIONS = (
    ("Confirmed regressions", ("regression",)),
    ("Refused", ("refused",)),
    ("Inconclusive", ("inconclusive", "too_noisy", "unconfirmed")),
    ("Not confirmed by a second session", ("not_confirmed",)),
    ("Accepted slow-downs", ("accepted",)),
)
UNWRITABLE = "backslashreplace"
"""How to write what an encoding has no letter for, as names of branches that are no text."""
MOST_ROWS = 100
"""Of a table in the summary; the JSON has all of them."""
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def markdown(result: GateResult) -> str:
    """Write the summary: counts, what was found by outcome, all rows, how it was decided."""
    parts = [f"# Gate: {HEADLINES[result.exit_code]} (exit {result.exit_code})", _counts(result)]
    parts.append(_subject(result))
    if result.warnings:
        parts.append("\n".join(f"- Warning: {escaped(warning)}" for warning in result.warnings))
    for title, outcomes in SECTIONS:
        rows = [row for row in result.rows if row.outcome in outcomes]
        if rows:
            parts += [f"## {title}", _section(rows)]
    parts += [
        "## All comparisons",
        _numbers(result.rows),
        "## How this was decided",
        rates_text(result.rates),
    ]
    if result.page:
        parts.append(f"The page with every replicate: {_code(result.page)}")
    return "\n\n".join(parts) + "\n"


def junit(result: GateResult) -> str:
    """Write JUnit XML: a regression is a failure, a refusal an error, what is open is skipped."""
    kinds = {"regression": "failure", "refused": "error"}
    open_ones = dict.fromkeys(("inconclusive", "too_noisy", "unconfirmed"), "skipped")
    marked = [({**kinds, **open_ones}.get(row.outcome), row) for row in result.rows]
    counts = {
        name: str(sum(kind == word for kind, _ in marked))
        for name, word in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))
    }
    totals = {"tests": str(len(marked)), **counts, "time": f"{result.elapsed_seconds:.3f}"}
    root = ET.Element("testsuites", totals)
    name = _legal(f"bertopt-bench gate {result.policy}")
    suite = ET.SubElement(
        root, "testsuite", {"name": name, "timestamp": result.started_utc, **totals}
    )
    for kind, row in marked:
        case = ET.SubElement(
            suite,
            "testcase",
            {
                "classname": _legal(f"bertopt_bench.gate.{row.metric}"),
                "name": _legal(f"{row.cell}: {row.arm} against {row.baseline}"),
                "time": "0",
            },
        )
        if kind is not None:
            told = {"message": _legal(f"{WORDS[row.outcome]}: {row.reason}")}
            if kind != "skipped":
                told["type"] = row.outcome
            ET.SubElement(case, kind, told)
        ET.SubElement(case, "system-out").text = _legal(_told(row))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, "unicode") + "\n"


def write_files(
    files: Mapping[Path, Callable[[], str]], summary: Path | None, text: str
) -> list[str]:
    """Write every file that can be written; append the summary; say what could not.

    Args:
        files: what to write, whole, by where it goes.
        summary: a file that others write to as well (``GITHUB_STEP_SUMMARY``): it is added to.
        text: the summary.
    """
    failures = []
    for path, content in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content(), encoding="utf-8", errors=UNWRITABLE)
        except OSError as error:
            failures.append(f"{path} cannot be written: {error.strerror or error}")
    if summary is not None:
        try:
            summary.parent.mkdir(parents=True, exist_ok=True)
            with summary.open("a", encoding="utf-8", errors=UNWRITABLE) as file:
                file.write(text)
        except OSError as error:
            failures.append(f"{summary} cannot be added to: {error.strerror or error}")
    return failures


def _counts(result: GateResult) -> str:
    count = len(result.rows)
    told = ", ".join(f"{number} {WORDS[word]}" for word, number in result.counts().items())
    sessions = len(result.sessions)
    return (
        f"{count} comparison{'s' * (count != 1)}: {told}; {sessions} "
        f"session{'s' * (sessions != 1)}, all of them counted."
    )


def _subject(result: GateResult) -> str:
    subject = result.subject
    head = _revision(subject.head, subject.head_commit)
    head += " with uncommitted changes" if subject.head_changed else ""
    told = f"{head} against {_revision(subject.base, subject.base_commit)}"
    if subject.anchor is not None:
        told += f", and against the anchor {_revision(subject.anchor, subject.anchor_commit)}"
    return f"Policy {_code(result.policy)}: {told}."


def _revision(name: str, commit: str | None) -> str:
    return _code(name) if commit is None else f"{_code(name)} ({commit[:10]})"


def _section(rows: Sequence[GateRow]) -> str:
    lines = [(_what(row), _change(row.finding, row.metric), _why(row)) for row in rows[:MOST_ROWS]]
    return _cut(table(("comparison", "change [95 %]", "why"), lines), rows)


def _why(row: GateRow) -> str:
    needed = row.finding.needed_replicates if row.finding is not None else None
    accepted = row.accepted
    told = row.reason
    if row.outcome == "accepted" and accepted is not None:
        bound = f"{accepted.bound:g} nats" if row.metric == "loss" else f"{accepted.bound:.1%}"
        return f"accepted up to {bound} until {accepted.expiry}: {accepted.reason}"
    return f"{told}; needs n = {needed} for 80 % power" if needed is not None else told


def _numbers(rows: Sequence[GateRow]) -> str:
    header = (
        "comparison",
        "outcome",
        "change [95 %]",
        "n",
        "corrected p",
        "margin",
        "margin in force",
        "noise floor",
        "sessions",
    )
    lines = []
    for row in rows[:MOST_ROWS]:
        finding = row.finding
        margins: tuple[float | None, ...] = (None, None, None)
        if finding is not None:
            margins = (finding.margin, finding.margin_in_force, finding.noise_floor)
        lines.append(
            (
                _what(row),
                WORDS[row.outcome],
                _change(finding, row.metric),
                "" if finding is None else finding.n,
                ""
                if finding is None or finding.corrected_p is None
                else f"{finding.corrected_p:.2g}",
                *(_amount(value, row.metric) for value in margins),
                "; ".join(f"{one.purpose}: {one.verdict}" for one in row.sessions),
            )
        )
    return _cut(table(header, lines), rows)


def rates_text(rates: GateRates) -> str:
    """Say how alpha follows from the policy, and how many false alarms to expect."""
    alarms = (
        f"{rates.false_alarms_per_year:g} false alarm{'s' * (rates.false_alarms_per_year != 1)}"
    )
    return (
        f"alpha: with {rates.gate_runs_per_month:,} gate runs a month and at most "
        f"{alarms} a year, a session may reject by chance with "
        f"a rate of {rates.session_error:.3g}: {rates.family_error:.3g} for each metric of a cell, "
        f"{rates.per_comparison:.3g} for a comparison before Holm's correction has begun (exact "
        f"one-sided signed-rank test against the margin in force; {rates.replicates} replicates "
        f"reach {rates.smallest_p:.2g}). Exit code 1 needs a second, independent session that "
        f"rejects too, so false alarms to expect in 1,000 gate runs: at most "
        f"{rates.false_alarms_per_1000_runs:.3g}."
    )


def _what(row: GateRow) -> str:
    return f"{row.metric} of {row.cell}, {row.arm} against {row.baseline}"


def _change(finding: GateFinding | None, metric: str) -> str:
    """Write the estimate with its 95 % interval, where there is one."""
    if finding is None or finding.estimate is None:
        return "none"
    told = amount_text(finding.estimate, metric)
    if finding.low is None or finding.high is None:
        return f"{told} [no interval]"
    return f"{told} [{amount_text(finding.low, metric)}, {amount_text(finding.high, metric)}]"


def _p(finding: GateFinding | None) -> str:
    return "" if finding is None or finding.corrected_p is None else f"{finding.corrected_p:.2g}"


def _amount(value: float | None, metric: str) -> str:
    return "" if value is None else amount_text(value, metric).removeprefix("+")


def _told(row: GateRow) -> str:
    """Tell every session's numbers, a line each."""
    lines = [f"{WORDS[row.outcome]}: {row.reason}"]
    lines += [
        f"session {one.session} ({one.purpose}, {one.state}): {one.verdict}, "
        f"{_change(one, row.metric)}, n = {one.n}, corrected p = {one.corrected_p}, "
        f"margin in force = {_amount(one.margin_in_force, row.metric) or 'none'}, "
        f"noise floor = {_amount(one.noise_floor, row.metric) or 'unknown'}"
        for one in row.sessions
    ]
    return "\n".join(lines)


def _cut(text: str, rows: Sequence[GateRow]) -> str:
    left = len(rows) - MOST_ROWS
    return f"{text}\n\n{left:,} further rows are in the JSON." if left > 0 else text


def _code(text: str) -> str:
    """Write a name so that nothing in it is markup."""
    return f"`{' '.join(text.split()).replace('`', chr(39))}`"


def _legal(text: str) -> str:
    """Replace what XML has no way to write."""
    return _NO_XML.sub("\ufffd", text)
