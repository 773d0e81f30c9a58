"""What a gate writes: for people, for the CI, for programs."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schema_checker import faults
from scripted_duels import ROW, seen

from bertopt_bench.gate import account, outputs
from bertopt_bench.gate.decide import Seen, decide, exit_code
from bertopt_bench.gate.levels import derive
from bertopt_bench.gate.policy import Accepted, GatedCell, Policy
from bertopt_bench.gate.result import GateResult, GateSubject, json_schema, schema_text

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parent.parent.parent
TODAY = date(2026, 11, 25)
COURSES: dict[str, list[Seen]] = {
    "passes": [seen("first", "equivalent")],
    "regresses": [seen("first", "slower"), seen("confirming", "slower")],
    "recovers": [seen("first", "slower"), seen("confirming", "equivalent")],
    "is open": [seen("first", "inconclusive")],
    "is noisy": [seen("first", "inconclusive", "too_noisy")] * 2,
    "is refused": [seen("first", "refused", "invalid")],
    "is accepted": [seen("first", "equivalent", gate_low=0.03)],
}


def policy_of(cells: Iterable[str]) -> Policy:
    """Make the policy of these cells; what is accepted is named so."""
    accepted = [
        Accepted(name, ROW[0], 0.08, "on purpose", TODAY) for name in cells if "acc" in name
    ]
    return Policy(
        file=Path("policy.toml"),
        source="",
        matrix=Path("gated.toml"),
        metrics=("step_time",),
        margins={"step_time": 0.02},
        cells=tuple(GatedCell(name, "0" * 12) for name in cells),
        gate_runs_per_month=60,
        false_alarms_per_year=1.0,
        replicates=12,
        seeds=3,
        budget_seconds=None,
        base="main",
        differs=(),
        accepted=tuple(accepted),
    )


def account_of(
    courses: dict[str, list[Seen]] = COURSES,
    *,
    strict: bool = False,
    page: str | None = "gate.html",
) -> GateResult:
    """Make the result of a gate whose cells are named by what happens to them."""
    policy = policy_of(courses)
    reason = {one.cell: one.reason for one in policy.accepted}
    decisions = {
        name: [decide(ROW, course, accepted=reason.get(name), margin=0.0198)]
        for name, course in courses.items()
    }
    every = [one for made in decisions.values() for one in made]
    return account.result_of(
        policy,
        account.rates_of(policy, derive(policy, 1)),
        courses,
        decisions,
        mode="live",
        subject=GateSubject(base="main", base_commit="a" * 40, head="the working tree"),
        warnings=["look <here>", "look <here>"],
        today=TODAY,
        started_utc="2026-11-25T00:00:00+00:00",
        elapsed_seconds=12.5,
        strict=strict,
        code=exit_code(every, strict=strict),
        page=page,
    )


def test_the_summary_has_counts_rows_and_rates() -> None:
    """Oracle: what the protocol asks of a summary, the numbers by hand."""
    text = outputs.markdown(account_of())

    assert text.startswith("# Gate: confirmed regression (exit 1)\n")
    assert "7 comparisons: 1 confirmed regression, 1 refused, 1 too noisy, 1 inconclusive" in text
    assert "10 sessions, all of them counted" in text
    assert "needs n = 34 for 80 % power" in text
    assert "accepted up to 8.0% until 2026-11-25: on purpose" in text
    assert "at most 1.39" in text
    assert "`gate.html`" in text
    assert text.count("look &lt;here&gt;") == 1
    [row] = [line for line in text.split("\n") if line.startswith("| step\\_time of regresses")][1:]
    for number in ("+4.08 %", "+3.05 %", "+5.13 %", "| 12 |", "0.0005", "2.00 %", "0.80 %"):
        assert number in row
    assert "first: slower; confirming: slower" in row


def test_sections_stand_only_where_they_have_rows() -> None:
    """Oracle: a gate that passes has nothing to explain."""
    text = outputs.markdown(account_of({"passes": [seen("first", "equivalent")]}, page=None))

    assert "# Gate: no confirmed regression (exit 0)" in text
    assert "1 comparison: 1 passed; 1 session, all" in text
    titles = [line for line in text.split("\n") if line.startswith("## ")]
    assert titles == ["## All comparisons", "## How this was decided"]


def test_strict_names_its_exit_code() -> None:
    """Oracle: the design: 4 under --strict."""
    text = outputs.markdown(account_of({"open": [seen("first", "inconclusive")]}, strict=True))

    assert "(exit 4)" in text


def test_junit_has_a_case_a_row() -> None:
    """A regression fails, a refusal errs, what is open is skipped. Oracle: the JUnit schema."""
    root = ET.fromstring(outputs.junit(account_of()))  # noqa: S314 - our own text
    [suite] = root
    kinds = {case.get("name"): case[0].tag for case in suite}

    assert root.tag == "testsuites"
    assert (
        suite.get("tests"),
        suite.get("failures"),
        suite.get("errors"),
        suite.get("skipped"),
    ) == (
        "7",
        "1",
        "1",
        "2",
    )
    assert kinds == {
        "passes: head against base": "system-out",
        "regresses: head against base": "failure",
        "recovers: head against base": "system-out",
        "is open: head against base": "skipped",
        "is noisy: head against base": "skipped",
        "is refused: head against base": "error",
        "is accepted: head against base": "system-out",
    }
    failure = suite.find(".//failure")
    assert failure is not None
    assert "two independent sessions say slower" in str(failure.get("message"))
    assert "margin in force = 2.00 %" in str(suite[1].findtext("system-out"))


@given(label=st.text(min_size=1))
def test_hostile_labels_stay_text(label: str) -> None:
    """Oracle: the XML parser, and the count of bars in the rows of the Markdown tables."""
    result = account_of({"x": [seen("first", "slower")]})
    rows = tuple(
        one.model_copy(update={"cell": label, "baseline": label, "reason": label})
        for one in result.rows
    )
    result = result.model_copy(update={"rows": rows, "policy": label, "page": label})
    case = ET.fromstring(outputs.junit(result))[0][0]  # noqa: S314 - our own text
    lines = outputs.markdown(result).split("\n")

    assert "head against" in str(case.get("name"))
    bars = [line.replace("\\|", "").count("|") for line in lines if line.startswith("|")]
    assert set(bars) == {4, 10}


def test_json_agrees_with_the_published_schema() -> None:
    """Oracle: the schema, by a checker of the keywords that it uses."""
    result = account_of()
    odd = result.rows[0].model_copy(
        update={
            "finding": account_of()
            .rows[0]
            .finding.model_copy(  # type: ignore[union-attr]
                update={"estimate": float("inf"), "low": float("-inf"), "noise_floor": float("nan")}
            )
        }
    )
    value = json.loads(result.model_copy(update={"rows": (odd, *result.rows[1:])}).text())

    assert value["rows"][0]["finding"]["estimate"] == "inf"
    assert list(faults(value, json_schema(), json_schema())) == []
    assert list(faults({**value, "exit_code": 2}, json_schema(), json_schema())) != []
    assert list(faults({**value, "surprise": 1}, json_schema(), json_schema())) != []
    assert GateResult.model_validate(json.loads(result.text())) == result


def test_the_published_schema_is_current() -> None:
    """Oracle: the models. To renew it, write ``schema_text()`` of the module into the file."""
    assert (ROOT / "schemas" / "gate.schema.json").read_text() == schema_text()


@pytest.mark.parametrize("content", ["", "\x00\x1b[31m</testcase>", "]]>", "\ud800"])
def test_what_xml_cannot_write_is_replaced(content: str) -> None:
    """Oracle: the parser; a lone surrogate and control characters have no place in XML."""
    result = account_of({"passes": [seen("first", "equivalent")]})
    rows = (result.rows[0].model_copy(update={"reason": content}),)
    text = outputs.junit(result.model_copy(update={"rows": rows}))

    assert ET.fromstring(text.encode()).tag == "testsuites"  # noqa: S314 - our own text
