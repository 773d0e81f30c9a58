"""From sessions to outcomes and exit codes, without anything that runs."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_duels import ROW, finding, seen

from bertopt_bench.gate.decide import (
    MOST_NOISY,
    Seen,
    decide,
    exceeds,
    exit_code,
    next_need,
    rejects,
)
from bertopt_bench.stats.verdicts import WORDS

if TYPE_CHECKING:
    from collections.abc import Iterator

VERDICTS = ("slower", "faster", "equivalent", "inconclusive", "refused")

# What was seen, the next session that it needs, the outcome, exit codes without and with --strict.
CASES = [
    # nothing has run
    ([], "first", "inconclusive", 0, 4),
    # one session
    ([("first", "equivalent", "valid")], None, "passed", 0, 0),
    ([("first", "faster", "valid")], None, "passed", 0, 0),
    ([("first", "inconclusive", "valid")], None, "inconclusive", 0, 4),
    ([("first", "refused", "valid")], None, "refused", 3, 3),
    ([("first", "refused", "invalid")], None, "refused", 3, 3),
    ([("first", "slower", "invalid")], None, "refused", 3, 3),
    ([("first", "slower", "valid")], "confirming", "unconfirmed", 0, 4),
    ([("first", "inconclusive", "too_noisy")], "first", "too_noisy", 0, 4),
    ([("first", "refused", "too_noisy")], "first", "refused", 3, 3),
    # a rejection, then a second session
    ([("first", "slower", "valid"), ("confirming", "slower", "valid")], None, "regression", 1, 1),
    (
        [("first", "slower", "valid"), ("confirming", "equivalent", "valid")],
        None,
        "not_confirmed",
        0,
        0,
    ),
    (
        [("first", "slower", "valid"), ("confirming", "faster", "valid")],
        None,
        "not_confirmed",
        0,
        0,
    ),
    (
        [("first", "slower", "valid"), ("confirming", "inconclusive", "valid")],
        None,
        "not_confirmed",
        0,
        4,
    ),
    ([("first", "slower", "valid"), ("confirming", "refused", "valid")], None, "refused", 3, 3),
    ([("first", "slower", "valid"), ("confirming", "refused", "invalid")], None, "refused", 3, 3),
    (
        [("first", "slower", "valid"), ("confirming", "inconclusive", "too_noisy")],
        "confirming",
        "unconfirmed",
        0,
        4,
    ),
    # noise first
    (
        [("first", "inconclusive", "too_noisy"), ("first", "equivalent", "valid")],
        None,
        "passed",
        0,
        0,
    ),
    (
        [("first", "inconclusive", "too_noisy"), ("first", "inconclusive", "too_noisy")],
        None,
        "too_noisy",
        0,
        4,
    ),
    (
        [("first", "inconclusive", "too_noisy"), ("first", "slower", "valid")],
        "confirming",
        "unconfirmed",
        0,
        4,
    ),
    (
        [
            ("first", "inconclusive", "too_noisy"),
            ("first", "slower", "valid"),
            ("confirming", "slower", "valid"),
        ],
        None,
        "regression",
        1,
        1,
    ),
    (
        [
            ("first", "inconclusive", "too_noisy"),
            ("first", "slower", "valid"),
            ("confirming", "inconclusive", "too_noisy"),
        ],
        None,
        "unconfirmed",
        0,
        4,
    ),
    (
        [
            ("first", "slower", "valid"),
            ("confirming", "inconclusive", "too_noisy"),
            ("confirming", "slower", "valid"),
        ],
        None,
        "regression",
        1,
        1,
    ),
    (
        [
            ("first", "slower", "valid"),
            ("confirming", "inconclusive", "too_noisy"),
            ("confirming", "equivalent", "valid"),
        ],
        None,
        "not_confirmed",
        0,
        0,
    ),
]


@pytest.mark.parametrize(("told", "need", "outcome", "code", "strict"), CASES)
def test_every_course_has_its_next_session_outcome_and_exit_codes(
    told: list[tuple[str, str, str]], need: str | None, outcome: str, code: int, strict: int
) -> None:
    """Oracle: the table above, derived by hand from the design's exit codes."""
    sessions = [seen(*one) for one in told]
    wanted = next_need([ROW], sessions)
    decision = decide(ROW, sessions)

    assert (wanted.purpose if wanted else None) == need
    assert decision.outcome == outcome
    assert exit_code([decision]) == code
    assert exit_code([decision], strict=True) == strict
    assert decision.reason or outcome == "passed"


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (["slower", "refused"], 1),
        (["refused", "slower"], 1),
        (["refused", "inconclusive"], 3),
        (["inconclusive", "equivalent"], 0),
    ],
)
def test_the_gravest_row_decides(verdicts: list[str], code: int) -> None:
    """A confirmed regression beside a refusal is exit 1. Oracle: the brief of the exit codes."""
    decisions = []
    for verdict in verdicts:
        sessions = [seen("first", verdict)]
        sessions += [seen("confirming", verdict)] if verdict == "slower" else []
        decisions.append(decide(ROW, sessions))

    assert exit_code(decisions) == code


def test_only_what_a_first_session_rejects_is_asked_again() -> None:
    """Oracle: rows written out by hand."""
    rows = [("step_time", "base", "head"), ("peak_memory", "base", "head")]
    first = Seen(
        "one",
        "first",
        "valid",
        (),
        {rows[0]: finding("equivalent", rows[0]), rows[1]: finding("larger", rows[1])},
    )
    need = next_need(rows, [first])
    confirming = Seen(
        "two", "confirming", "invalid", ("broken",), {rows[1]: finding("refused", rows[1])}
    )

    assert need is not None
    assert need.rows == (rows[1],)
    assert decide(rows[0], [first, confirming]).outcome == "passed"
    assert decide(rows[1], [first, confirming]).outcome == "refused"


def test_a_suspect_difference_does_not_gate() -> None:
    """Oracle: the protocol: what is not steady is shown flagged and cannot gate."""
    sessions = [seen("first", "slower", flags=("not_steady",))]
    decision = decide(ROW, sessions)

    assert next_need([ROW], sessions) is None
    assert (decision.outcome, decision.settled) == ("inconclusive", False)
    assert "not_steady" in decision.reason
    assert rejects(finding("slower", flags=("detectable_above_twice_margin",)))


@pytest.mark.parametrize(
    ("verdict", "low", "outcome"),
    [
        ("inconclusive", 0.03, "accepted"),
        ("equivalent", 0.03, "accepted"),
        ("equivalent", 0.01, "passed"),
        ("inconclusive", 0.01, "inconclusive"),
        ("slower", 0.09, "unconfirmed"),
    ],
)
def test_what_is_accepted_lies_between_the_margin_and_its_bound(
    verdict: str, low: float, outcome: str
) -> None:
    """Judged by a bound of 8 %, beyond a margin of 2 %. Oracle: the interval against log(1.02)."""
    told = finding(verdict, margin=0.077, margin_in_force=0.077, gate_low=low)
    session = Seen("one", "first", "valid", (), {ROW: told})
    decision = decide(ROW, [session], accepted="a better loss", margin=0.0198)

    assert decision.outcome == outcome
    assert exit_code([decision]) == 0
    assert outcome != "accepted" or decision.reason == "a better loss"


def test_equal_bytes_in_every_replicate_exceed_a_margin_without_an_interval() -> None:
    """Oracle: memory that never varies has no test, and its one value is exact."""
    row = ("peak_memory", "base", "head")
    same = finding("equivalent", row, low=0.05, high=0.05, gate_low=None, noise_floor=None)

    assert exceeds(same, 0.01)
    assert not exceeds(same, 0.06)
    assert not exceeds(finding("inconclusive", gate_low=None), 0.01)


def courses(most: int = 4) -> Iterator[list[tuple[str, str]]]:
    """Give every sequence of (state, verdict) that a machine may answer with."""
    answers = [
        *(("valid", verdict) for verdict in VERDICTS),
        ("too_noisy", "inconclusive"),
        ("invalid", "refused"),
    ]
    yield from map(list, product(answers, repeat=most))


def run(answers: list[tuple[str, str]]) -> list[Seen]:
    """Ask for sessions as the gate does, answered in turn."""
    sessions: list[Seen] = []
    waiting = list(answers)
    while (need := next_need([ROW], sessions)) is not None:
        state, verdict = waiting.pop(0)
        sessions.append(seen(need.purpose, verdict, state))
    return sessions


def test_all_courses_end_and_only_two_rejections_are_a_regression() -> None:
    """Exhaustive over 7 answers to 4 sessions. Oracle: the definition, counted independently."""
    for answers in courses():
        sessions = run(answers)
        decision = decide(ROW, sessions)
        rejected = [
            s for s in sessions if s.state == "valid" and s.findings[ROW].verdict == "slower"
        ]

        assert len(sessions) <= 2 + MOST_NOISY
        assert (decision.outcome == "regression") == (len(rejected) == 2)
        assert exit_code([decision]) in {0, 1, 3}
        assert exit_code([decision], strict=True) in {exit_code([decision]), 4}


@given(
    reject=st.floats(0.001, 0.05),
    noisy=st.floats(0, 0.9),
    invalid=st.floats(0, 0.1),
)
def test_false_alarms_are_at_most_the_squared_rate(
    reject: float, noisy: float, invalid: float
) -> None:
    """Exact over all courses of independent sessions. Oracle: a times a, from a session's rate."""
    judged = (1 - noisy) * (1 - invalid)
    answers = {
        ("too_noisy", "inconclusive"): noisy,
        ("invalid", "refused"): (1 - noisy) * invalid,
        ("valid", "slower"): judged * reject,
        ("valid", "equivalent"): judged * (1 - reject),
    }
    alarm = 0.0
    for course in product(answers, repeat=3):
        chance = 1.0
        for answer in course:
            chance *= answers[answer]
        alarm += chance * (decide(ROW, run(list(course))).outcome == "regression")

    assert alarm <= reject**2 * (1 + 1e-9)


@pytest.mark.parametrize("metric", ["step_time", "peak_memory", "loss"])
def test_each_metric_has_its_own_word_for_worse(metric: str) -> None:
    """Oracle: the table of verdict words; the better word of a metric never rejects."""
    worse, better = WORDS[metric]
    row = (metric, "base", "head")

    assert rejects(finding(worse, row))
    assert not rejects(finding(better, row))
