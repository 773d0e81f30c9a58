"""The Markdown summary carries the page's findings and cannot be broken out of."""

from __future__ import annotations

from simulated_duels import calibrated, duel
from simulated_results import simulated

from bertopt_bench.report import markdown
from bertopt_bench.results.duels import Verdicts
from bertopt_bench.results.tables import Results


def test_every_table_row_has_the_columns_of_its_header() -> None:
    """A reason with a pipe, a newline and HTML must not add columns, rows or markup."""
    results = simulated(points=2)
    results.trials.loc[0, ["status", "reason"]] = ["failed", "a | b\n| c <script>`*_[x]"]

    text = markdown.summary([results])

    blocks = [b.splitlines() for b in text.split("\n\n") if b.startswith("|")]
    assert len(blocks) == 3
    for block in blocks:
        widths = {line.replace("\\|", "").count("|") for line in block}
        assert len(widths) == 1
    assert "<script>" not in text


def test_it_says_n_and_spread_and_names_what_it_leaves_out() -> None:
    optimizers = tuple(f"o{i}" for i in range(10))

    text = markdown.summary([simulated(optimizers, points=2)])

    assert "50 further cells" in text
    assert "· n 3)" in text
    assert "(n 8)" in text


def test_duels_are_summarised_by_verdict_with_what_is_missing() -> None:
    """Oracle: the stored findings; each stands in one table, in as many columns as its header."""
    results = duel({"lion": 0.08, "math": 0.0, "lamb": 0.025}, inject=0.05, spread=0.015)
    findings = Verdicts.model_validate(results.sessions[0].verdicts[-1]).findings

    text = markdown.summary([results])

    blocks = [b.splitlines() for b in text.split("\n\n") if b.startswith("|")]
    rows = [line for block in blocks[:-1] for line in block[2:]]
    assert len(rows) == len(findings) == 8
    for one in findings:
        told = [row for row in rows if row.startswith(f"| {one.arm} against adamw ")]
        assert sum(f"| {one.verdict} |" in row for row in told) >= 1
        if one.needed_replicates:
            assert any(f"needs n = {one.needed_replicates} replicates" in row for row in told)
    for title in ("## Differences found", "## Cannot tell", "## Equivalent", "## Controls"):
        assert title in text
    assert "asked for 5" in text
    assert "of 1,000 gate runs on unchanged code" in text
    for block in blocks:
        widths = {line.replace("\\|", "").count("|") for line in block}
        assert len(widths) == 1


def test_refused_and_noisy_duels_say_why_and_stay_text() -> None:
    """A reason with a pipe, a newline and HTML must not add columns, rows or markup."""
    reason = "a | b\n| c <script>`*_[x]"
    results = duel({"lion": 0.0}, verdict_fields={"state": "too_noisy", "reasons": (reason,)})
    verdicts = Verdicts.model_validate(results.sessions[0].verdicts[-1])
    refused = verdicts.findings[0].model_copy(update={"verdict": "refused", "reason": reason})
    said = verdicts.model_copy(update={"findings": (refused,)}).model_dump(mode="json")
    session = results.sessions[0].model_copy(update={"verdicts": (said,)})
    results = Results(results.path, (session,), (), (), results.replicates)

    text = markdown.summary([results])

    assert "**Too noisy**" in text
    assert "## Refused" in text
    assert "<script>" not in text
    assert len([b for b in text.split("\n\n") if b.startswith("|")]) == 2


def test_several_sessions_are_summarised_one_by_one() -> None:
    text = markdown.summary([calibrated(2, 1)])

    assert "0 of 3 A/A duels" in text
    assert text.count("## Session ") == 3
    assert text.count("### Controls") == 3
