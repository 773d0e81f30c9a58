"""Write what comparing two recorded sets gave: as text, Markdown or JSON."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.results.stored import to_json
from bertopt_bench.stats.comparisons import amount_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bertopt_bench.results.differing import Difference
    from bertopt_bench.results.duels import Finding
    from bertopt_bench.stats.sets import Family, SetComparison

WIDTH = 100
FORMATS = ("text", "markdown", "json")
HEADS = ("cell", "B against A", "95 % interval", "n", "p (Holm)", "q", "verdict")
SETTLED = ("slower", "faster", "larger", "smaller", "higher", "lower", "equivalent")
MOST_REASONS = 8
NO_GATE = (
    "What was compared was chosen after the data were recorded: this is exploratory and gates "
    "nothing. `bertopt-bench duel` declares first and measures both at once."
)


def check_format(form: str) -> None:
    """Raise a UserError for a form that there is not."""
    if form not in FORMATS:
        raise UserError(
            f"no format '{form}'. Formats: {', '.join(FORMATS)}.{nearest(form, FORMATS)}"
        )


def render(comparison: SetComparison, names: tuple[str, str], form: str = "text") -> str:
    """Write a comparison; ``names`` are what the user called A and B.

    Raises:
        UserError: no such format.
    """
    check_format(form)
    if form == "json":
        return json.dumps(to_json(as_json(comparison, names)), indent=2, allow_nan=False) + "\n"
    return _markdown(comparison, names) if form == "markdown" else _text(comparison, names)


def as_json(comparison: SetComparison, names: tuple[str, str]) -> dict[str, Any]:
    """Give everything as plain values: findings whole, differences with whether declared."""
    return {
        "a": names[0],
        "b": names[1],
        "exit_code": comparison.exit_code,
        "alpha": comparison.alpha,
        "family_error": comparison.family_error,
        "anchor": comparison.anchor or None,
        "declared": list(comparison.declared),
        "differences": [_difference(one, comparison) for one in comparison.differences],
        "metrics": {
            family.metric: {
                "refusal": family.refusal or None,
                "margin": family.margin_words or None,
                "notes": list(family.notes),
                "findings": [
                    {"cell": label, **finding.model_dump()}
                    for label, finding in zip(family.labels, family.findings, strict=True)
                ],
            }
            for family in comparison.families
        },
        "notes": list(comparison.notes),
    }


def _difference(one: Difference, comparison: SetComparison) -> dict[str, Any]:
    return {
        "key": one.key,
        "a": one.a,
        "b": one.b,
        "declared": one not in comparison.undeclared,
        "place": one.place or None,
        "count": one.count,
    }


def _text(comparison: SetComparison, names: tuple[str, str]) -> str:
    parts = [f"A (baseline): {names[0]}\nB:            {names[1]}"]
    if comparison.undeclared:
        return _paragraphs([*parts, _wrapped(f"refused: {_refusal(comparison)}")])
    for family in comparison.families:
        head = _wrapped(f"{family.metric}: {_summary(family, comparison)}")
        rows = [] if family.refusal else _aligned([HEADS, *_rows(family)])
        parts.append("\n".join([head, *rows, *(_wrapped(f"- {r}") for r in _reasons(family))]))
    told = [*_declared(comparison), *comparison.notes]
    parts += ["\n".join(_wrapped(f"- {line}") for line in told)] if told else []
    return _paragraphs([*parts, _wrapped(NO_GATE)])


def _wrapped(text: str) -> str:
    return textwrap.fill(
        text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def _markdown(comparison: SetComparison, names: tuple[str, str]) -> str:
    from bertopt_bench.report.markdown import escaped, table

    parts = [f"# {escaped(names[1])} compared with {escaped(names[0])}"]
    if comparison.undeclared:
        return _paragraphs([*parts, f"**Refused**: {escaped(_refusal(comparison))}"])
    for family in comparison.families:
        parts += [f"## {escaped(family.metric)}", escaped(_summary(family, comparison))]
        parts += [] if family.refusal else [table(HEADS, _rows(family))]
        parts += ["\n".join(f"- {escaped(line)}" for line in _reasons(family))]
    told = [*_declared(comparison), *comparison.notes]
    parts += ["## Notes", "\n".join(f"- {escaped(line)}" for line in told)] if told else []
    return _paragraphs([*parts, escaped(NO_GATE)])


def _refusal(comparison: SetComparison) -> str:
    return next(iter(comparison.refusals.values()), "the sets differ")


def _summary(family: Family, comparison: SetComparison) -> str:
    """Say what a table's verdicts stand on, or why there is none."""
    if family.refusal:
        return f"refused: {family.refusal}."
    counts = Counter(finding.verdict for finding in family.findings)
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    by = (
        f", as ratios to the anchor '{comparison.anchor}'"
        if _is_by_anchor(family, comparison)
        else ""
    )
    return (
        f"{said}{by}. Margin {family.margin_words}; alpha {comparison.alpha:g}, "
        f"{comparison.family_error:g} over the {len(family.findings)} cells."
    )


def _is_by_anchor(family: Family, comparison: SetComparison) -> bool:
    return bool(comparison.anchor) and family.metric in {"step_time", "time_to_target"}


def _rows(family: Family) -> list[tuple[str, ...]]:
    return [
        (label, *_numbers(finding), finding.verdict)
        for label, finding in zip(family.labels, family.findings, strict=True)
    ]


def _numbers(finding: Finding) -> tuple[str, ...]:
    """Write estimate, interval, n, the smaller corrected p and q; what there is not is a dash."""
    p_values = [p for p in (finding.corrected_p_more, finding.corrected_p_less) if p is not None]
    return (
        "-" if finding.estimate is None else amount_text(finding.estimate, finding.metric),
        _interval(finding),
        str(finding.n),
        _p(min(p_values, default=None)),
        _p(finding.q_value),
    )


def _interval(finding: Finding) -> str:
    """Write the interval; where n is too small for one, the lowest and the highest difference."""
    low, high, opening = finding.low, finding.high, ""
    if low is None or high is None:
        if finding.n < 2 or finding.verdict == "refused":
            return "one run" if finding.n == 1 else "-"
        low, high, opening = min(finding.differences), max(finding.differences), "none; all "
    return f"{opening}{amount_text(low, finding.metric)} to {amount_text(high, finding.metric)}"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2g}" if value >= 1e-4 else "< 0.0001"


def _reasons(family: Family) -> list[str]:
    """Say why cells have no verdict, or one without a test: equal reasons once."""
    if family.refusal:
        return []
    found: dict[str, list[str]] = {}
    for label, finding in zip(family.labels, family.findings, strict=True):
        if finding.verdict not in SETTLED or finding.p_any is None:
            found.setdefault(f"{finding.verdict}: {finding.reason}", []).append(label)
    lines = [f"{_cells(labels)} {reason}" for reason, labels in found.items()]
    if len(lines) > MOST_REASONS:
        more = len(lines) - MOST_REASONS
        lines = [*lines[:MOST_REASONS], f"and {more} more reasons; --format json has them all"]
    return [*family.notes, *lines]


def _cells(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{len(labels)} cells"


def _declared(comparison: SetComparison) -> list[str]:
    """Say of each declared field whether it differs, and what else differs with it."""
    lines = []
    met: list[Difference] = []
    for field in comparison.declared:
        found = [one for one in comparison.differences if field in one.fields]
        met += found
        told = "; ".join(one.sentence() for one in found)
        lines.append(f"{field} was declared to differ, and does{f': {told}' if told else ' not'}")
    others = [o for o in comparison.differences if o not in met and o not in comparison.undeclared]
    return [*lines, *(f"with it, {one.sentence()}" for one in others)]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Write a table with columns as wide as they need; the first and last are flush left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            text.ljust(width) if place in {0, len(widths) - 1} else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return lines


def _paragraphs(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
