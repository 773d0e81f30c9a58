"""The JSON that a gate run leaves: the models whose schema is ``schemas/gate.schema.json``.

Schema versions:
    1: the first.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from bertopt_bench.gate.decide import Outcome, Purpose, State  # noqa: TC001 - pydantic reads them
from bertopt_bench.results.stored import Number, Stored, to_json

GATE_SCHEMA_VERSION = 1
Measured = Annotated[
    Number,
    WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": ["NaN", "inf", "-inf"]}]}),
]
"""A number; JSON has no word for those that are not finite, so they are texts."""


class GateRates(Stored):
    """What was declared before the run.

    ``session_error`` is the chance that a session of the whole run rejects anything when all is
    alike; ``family_error`` the part of a metric of a cell; ``per_comparison`` what a p-value must
    reach whatever the others are.
    """

    gate_runs_per_month: int
    false_alarms_per_year: float
    session_error: float
    family_error: float
    per_comparison: float
    false_alarms_per_1000_runs: float
    replicates: int
    smallest_p: float


class GateFinding(Stored):
    """What one session says of a row; differences are arm by baseline.

    Estimates and margins are log ratios of times and bytes, nats of losses.
    """

    verdict: str
    reason: str = ""
    n: int
    estimate: Measured | None = None
    low: Measured | None = None
    high: Measured | None = None
    corrected_p: float | None = None
    margin: Measured | None = None
    margin_in_force: Measured | None = None
    noise_floor: Measured | None = None
    needed_replicates: int | None = None
    flags: tuple[str, ...] = ()


class GateRowSession(GateFinding):
    """A finding with the session that it comes from."""

    session: str
    purpose: Purpose
    state: State


class GateAcceptance(Stored):
    """The acknowledged slow-down that a row is judged by."""

    bound: float
    reason: str
    expiry: str


class GateRow(Stored):
    """One comparison of one metric of one cell: what it comes to, and every session's word.

    ``finding`` is the one that decided; of a confirmed regression that is the second session's,
    whose estimate was not chosen for being large.
    """

    cell: str
    cell_id: str
    metric: str
    baseline: str
    arm: str
    outcome: Outcome
    reason: str
    settled: bool
    finding: GateFinding | None = None
    accepted: GateAcceptance | None = None
    sessions: tuple[GateRowSession, ...] = ()


class GateSession(Stored):
    """A session that was run, or a pair of recorded ones; every one is kept and counted."""

    session: str
    cell: str
    purpose: Purpose
    state: State
    reasons: tuple[str, ...] = ()
    elapsed_seconds: Measured


class GateSubject(Stored):
    """What was compared: revisions as asked for with their commits, or two recorded sets."""

    base: str
    base_commit: str | None = None
    anchor: str | None = None
    anchor_commit: str | None = None
    head: str
    head_commit: str | None = None
    head_changed: bool | None = None


class GateResult(Stored):
    """A gate run, whole."""

    schema_version: Annotated[int, Field(ge=1)] = GATE_SCHEMA_VERSION
    version: str
    mode: Literal["live", "recorded"]
    policy: str
    policy_sha256: str
    started_utc: str
    elapsed_seconds: Measured
    strict: bool
    exit_code: Literal[0, 1, 3, 4]
    subject: GateSubject
    rates: GateRates
    rows: tuple[GateRow, ...]
    sessions: tuple[GateSession, ...]
    warnings: tuple[str, ...] = ()
    page: str | None = None

    def text(self) -> str:
        """Write itself as JSON for people and programs."""
        return json.dumps(to_json(self.model_dump(mode="python")), indent=2, allow_nan=False) + "\n"

    def counts(self) -> dict[Outcome, int]:
        """Count the rows by outcome, the gravest first."""
        order: tuple[Outcome, ...] = (
            "regression",
            "refused",
            "unconfirmed",
            "too_noisy",
            "inconclusive",
            "not_confirmed",
            "accepted",
            "passed",
        )
        found = [row.outcome for row in self.rows]
        return {outcome: found.count(outcome) for outcome in order if outcome in found}


def json_schema() -> dict[str, Any]:
    """Give the published schema."""
    schema = GateResult.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def schema_text() -> str:
    """Give the schema as its file holds it."""
    return json.dumps(json_schema(), indent=2) + "\n"
