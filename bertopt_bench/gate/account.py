"""Make the account of a gate run from its sessions and decisions."""

from __future__ import annotations

import hashlib
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

from bertopt_bench.gate.levels import SIDES
from bertopt_bench.gate.result import (
    GateAcceptance,
    GateFinding,
    GateRates,
    GateResult,
    GateRow,
    GateRowSession,
    GateSession,
)
from bertopt_bench.stats.power import smallest_p

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date

    from bertopt_bench.gate.decide import Decision, Seen
    from bertopt_bench.gate.levels import Levels
    from bertopt_bench.gate.policy import Policy
    from bertopt_bench.gate.result import GateSubject
    from bertopt_bench.results.duels import Finding

_COPIED = (
    "verdict",
    "reason",
    "n",
    "estimate",
    "low",
    "high",
    "margin",
    "margin_in_force",
    "noise_floor",
    "needed_replicates",
    "flags",
)


def rates_of(policy: Policy, levels: Levels) -> GateRates:
    """Give what is declared of the error rates."""
    return GateRates(
        gate_runs_per_month=policy.gate_runs_per_month,
        false_alarms_per_year=policy.false_alarms_per_year,
        session_error=levels.session_error,
        family_error=levels.family_error,
        per_comparison=levels.per_comparison,
        false_alarms_per_1000_runs=levels.false_alarms_per_1000_runs,
        replicates=policy.replicates,
        smallest_p=smallest_p(policy.replicates, SIDES),
    )


def result_of(
    policy: Policy,
    rates: GateRates,
    seen: Mapping[str, Sequence[Seen]],
    decisions: Mapping[str, Sequence[Decision]],
    *,
    mode: Literal["live", "recorded"],
    subject: GateSubject,
    warnings: Iterable[str],
    today: date,
    started_utc: str,
    elapsed_seconds: float,
    strict: bool,
    code: int,
    page: str | None,
) -> GateResult:
    """Put everything together; ``seen`` and ``decisions`` are by the cell's text."""
    return GateResult(
        version=metadata.version("bertopt-bench"),
        mode=mode,
        policy=policy.file.name,
        policy_sha256=hashlib.sha256(policy.source.encode()).hexdigest(),
        started_utc=started_utc,
        elapsed_seconds=elapsed_seconds,
        strict=strict,
        exit_code=code,  # type: ignore[arg-type]  # one of decide.exit_code's
        subject=subject,
        rates=rates,
        rows=tuple(
            _row(policy, cell.text, cell.id, one, seen[cell.text], today)
            for cell in policy.cells
            for one in decisions[cell.text]
        ),
        sessions=tuple(_session(cell, one) for cell, found in seen.items() for one in found),
        warnings=tuple(dict.fromkeys(warnings)),
        page=page,
    )


def _row(
    policy: Policy, cell: str, cell_id: str, made: Decision, seen: Sequence[Seen], today: date
) -> GateRow:
    metric, baseline, arm = made.row
    accepted = policy.acceptance(cell, metric, today)
    return GateRow(
        cell=cell,
        cell_id=cell_id,
        metric=metric,
        baseline=baseline,
        arm=arm,
        outcome=made.outcome,
        reason=made.reason,
        settled=made.settled,
        finding=None if made.finding is None else GateFinding(**_told(made.finding)),
        accepted=None
        if accepted is None
        else GateAcceptance(
            bound=accepted.bound, reason=accepted.reason, expiry=accepted.expiry.isoformat()
        ),
        sessions=tuple(
            GateRowSession(
                session=one.session,
                purpose=one.purpose,
                state=one.state,
                **_told(one.findings[made.row]),
            )
            for one in seen
            if made.row in one.findings
        ),
    )


def _told(finding: Finding) -> dict[str, Any]:
    copied = {name: getattr(finding, name) for name in _COPIED}
    return {**copied, "corrected_p": finding.corrected_p_more}


def _session(cell: str, seen: Seen) -> GateSession:
    return GateSession(
        session=seen.session,
        cell=cell,
        purpose=seen.purpose,
        state=seen.state,
        reasons=seen.reasons,
        elapsed_seconds=seen.seconds,
    )
