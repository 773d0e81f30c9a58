"""Decide, from the sessions of a cell, whether another is needed and what each row comes to.

    first session -> nothing worse: done
                  -> worse: a second session, confirming; only both together are a regression
                  -> too noisy: once more, then too_noisy for good
                  -> invalid: refused

Nothing here runs anything, and nothing is run until green: every session counts. With a rate ``a``
of a session that rejects by chance, that of a confirmed regression by chance is at most ``a`` times
``a``, since the two sessions are independent and one that was too noisy never counts as rejecting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bertopt_bench.results.duels import Finding
from bertopt_bench.stats.verdicts import WORDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Row = tuple[str, str, str]
    """Metric, baseline, arm: what is decided about one cell."""

Purpose = Literal["first", "confirming"]
State = Literal["valid", "too_noisy", "invalid"]
Outcome = Literal[
    "passed",
    "accepted",
    "not_confirmed",
    "inconclusive",
    "unconfirmed",
    "too_noisy",
    "refused",
    "regression",
]
SUSPECT = frozenset({"not_steady", "disturbed"})
"""Flags with which a difference is shown but cannot gate. A wide spread is none of them: it makes
rejecting harder, not wrong."""
MOST_NOISY = 1
"""How many sessions of a cell may be too noisy before no other is bought."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One session of one cell; ``findings`` has a finding for each row that it was asked."""

    session: str
    purpose: Purpose
    state: State
    reasons: tuple[str, ...]
    findings: Mapping[Row, Finding]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Need:
    """A session that is to be run next, for these rows."""

    purpose: Purpose
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What one row comes to, and the finding that says so.

    ``settled`` is false where the question is left open: exit code 4 under ``--strict``.
    """

    row: Row
    outcome: Outcome
    reason: str
    finding: Finding | None = None
    settled: bool = True


def next_need(rows: Sequence[Row], seen: Sequence[Seen]) -> Need | None:
    """Say which session a cell needs next, if any."""
    if not seen:
        return Need("first", tuple(rows))
    last = seen[-1]
    if last.state == "invalid":
        return None
    if last.state == "too_noisy":
        noisy = sum(one.state == "too_noisy" for one in seen)
        return Need(last.purpose, tuple(last.findings)) if noisy <= MOST_NOISY else None
    if last.purpose == "confirming":
        return None
    rejected = tuple(row for row, finding in last.findings.items() if rejects(finding))
    return Need("confirming", rejected) if rejected else None


def rejects(finding: Finding) -> bool:
    """Say whether a finding is a regression, as far as one session can say."""
    return finding.verdict == WORDS[finding.metric][0] and not SUSPECT & set(finding.flags)


def exceeds(finding: Finding, margin: float | None) -> bool:
    """Say whether the arm is shown to be worse than a margin in the finding's unit."""
    low = finding.gate_low
    if low is None and finding.low == finding.high:  # the same in every replicate
        low = finding.low
    return low is not None and low > max(margin or 0.0, finding.noise_floor or 0.0)


def decide(
    row: Row,
    seen: Sequence[Seen],
    *,
    stopped: str = "",
    accepted: str | None = None,
    margin: float | None = None,
) -> Decision:
    """Decide one row.

    Args:
        row: which one.
        seen: the cell's sessions, in order.
        stopped: why a needed session was not run.
        accepted: the reason for which a slow-down of this row is accepted.
        margin: the policy's own, in the finding's unit; what is accepted lies beyond it.
    """
    last = next((one for one in reversed(seen) if row in one.findings), None)
    if last is None:
        return Decision(row, "inconclusive", stopped or "no session was run", settled=False)
    finding = last.findings[row]
    if last.state == "invalid" or finding.verdict == "refused":
        reasons = last.reasons if last.state == "invalid" else ()
        return Decision(row, "refused", _joined(reasons) or finding.reason, finding)
    if last.state == "too_noisy":
        return _noisy(row, last, finding, stopped)
    if last.purpose == "confirming":
        return _confirming(row, finding)
    return _first(row, finding, stopped, accepted, margin)


def exit_code(decisions: Iterable[Decision], *, strict: bool = False) -> int:
    """Give the exit code: a confirmed regression stands, whatever else could not be judged."""
    found = list(decisions)
    outcomes = {one.outcome for one in found}
    if "regression" in outcomes:
        return 1
    if "refused" in outcomes:
        return 3
    return 4 if strict and not all(one.settled for one in found) else 0


def refusal(row: Row, reason: str) -> Finding:
    """Make the finding of a row that has none."""
    metric, baseline, arm = row
    return Finding(metric=metric, baseline=baseline, arm=arm, n=0, verdict="refused", reason=reason)


def _noisy(row: Row, last: Seen, finding: Finding, stopped: str) -> Decision:
    why = _joined(last.reasons) or "too noisy"
    why += f"; {stopped}" if stopped else ""
    if last.purpose == "first":
        return Decision(row, "too_noisy", why, finding, settled=False)
    reason = f"a first session rejects, the second is too noisy: {why}"
    return Decision(row, "unconfirmed", reason, finding, settled=False)


def _confirming(row: Row, finding: Finding) -> Decision:
    if rejects(finding):
        reason = f"two independent sessions say {finding.verdict}: {finding.reason}"
        return Decision(row, "regression", reason, finding)
    open_still = finding.verdict == "inconclusive" or finding.verdict == WORDS[finding.metric][0]
    reason = f"a first session rejects, the second does not: {finding.verdict}, {finding.reason}"
    return Decision(row, "not_confirmed", reason, finding, settled=not open_still)


def _first(
    row: Row, finding: Finding, stopped: str, accepted: str | None, margin: float | None
) -> Decision:
    """Decide by a first session that no second one follows."""
    if rejects(finding):
        reason = f"one session of two says {finding.verdict}: {stopped or 'no second one was run'}"
        return Decision(row, "unconfirmed", reason, finding, settled=False)
    if accepted is not None and exceeds(finding, margin):
        return Decision(row, "accepted", accepted, finding)
    if finding.verdict == WORDS[finding.metric][0]:
        flags = ", ".join(sorted(SUSPECT & set(finding.flags)))
        reason = f"{finding.verdict}, but flagged {flags}, so it cannot gate: {finding.reason}"
        return Decision(row, "inconclusive", reason, finding, settled=False)
    if finding.verdict == "inconclusive":
        return Decision(row, "inconclusive", finding.reason, finding, settled=False)
    return Decision(row, "passed", finding.reason, finding)


def _joined(reasons: Sequence[str]) -> str:
    return "; ".join(reasons)
