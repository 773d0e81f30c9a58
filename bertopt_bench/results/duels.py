"""The stored form of duels: what was declared before the run, a line a replicate, the findings.

A duel is a session of its own. Its folder has ``sessions.jsonl`` (the first line's
``declared["duel"]`` is a :class:`Declaration`, an event of kind ``verdicts`` holds the
:class:`Verdicts`) and ``replicates.jsonl`` (a :class:`Replicate` a line). Arms whose loss is
compared leave ordinary records beside these.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bertopt_bench.matrix.arms import CONTROL
from bertopt_bench.results.reading import REPLICATES
from bertopt_bench.results.record import SCHEMA_VERSION, Status
from bertopt_bench.results.stored import Number, Numbers, Stored

__all__ = [
    "CONTROL",
    "REPLICATES",
    "ArmRun",
    "Block",
    "Declaration",
    "DeclaredArm",
    "Finding",
    "ReasonKind",
    "Replicate",
    "Verdicts",
]

Role = Literal["baseline", "arm", "control"]
Design = Literal["rounds", "alternating"]
ReasonKind = Literal["invalid", "control", "machine"]


class DeclaredArm(Stored):
    """An arm as it was asked for; ``python`` is a version and never a path."""

    label: str
    role: Role
    cell_id: str
    cell: dict[str, Any]
    overrides: tuple[str, ...] = ()
    python: str | None = None
    revision: str | None = None
    commit: str | None = None
    injected_share: float = 0.0


class Declaration(Stored):
    """Everything that was fixed before the first measurement.

    ``comparisons`` are (baseline, arm) labels and make the family of each metric. ``margin`` is a
    share (0.02: two per cent) for times and bytes, nats for losses (None: a quarter of the
    baseline's standard deviation over seeds). ``looks`` are the replicate numbers at which the data
    may be looked at; alpha and the family-wise rate are divided by their number. ``sides`` is 2
    where both directions are asked for, 1 in a gate. Within a round, blocks take turns in bursts of
    ``burst_seconds`` (None: each block runs at once).
    """

    name: str
    arms: tuple[DeclaredArm, ...]
    comparisons: tuple[tuple[str, str], ...]
    metrics: tuple[str, ...]
    alpha: float
    family_error: float
    margins: dict[str, float | None]
    looks: tuple[int, ...]
    sides: int = 2
    rounds: int = 6
    block_seconds: float = 0.5
    burst_seconds: float | None = None
    least_block_steps: int = 3
    rewarm_steps: int = 2
    design: Design = "rounds"
    until: float | None = None
    budget_seconds: float | None = None
    target_loss: float | None = None
    seeds: tuple[int, ...] = (1,)
    purpose: Literal["duel", "calibration", "gate"] = "duel"


class Block(Stored):
    """The timed steps of one arm in one round, in one go or in bursts.

    ``wall_seconds`` are those of the bursts together. ``clock_seconds`` count from the session's
    start, so that drift can be drawn.
    """

    round: int
    position: int
    arm: str
    clock_seconds: Number
    steps: int
    wall_seconds: Number
    injected_seconds: Number = 0.0
    step_seconds: Numbers = ()
    disturbance: dict[str, Any] = Field(default_factory=dict)


class ArmRun(Stored):
    """One process of one arm: what it imported, how it warmed up, what it holds.

    ``operation`` is an operation's own, measured alone: its work, errors and way of timing.
    """

    arm: str
    status: Status
    reason: str = ""
    process: dict[str, Any] = Field(default_factory=dict)
    imported: dict[str, Any] = Field(default_factory=dict)
    assemble_seconds: Number | None = None
    time_to_first_step_seconds: Number | None = None
    warm_windows: tuple[Numbers, ...] = ()
    steady: bool | None = None
    block_steps: int | None = None
    peak_memory_bytes: int | None = None
    kernels_ran: tuple[str, ...] = ()
    initial_loss: Number | None = None
    initial_weights_sha256: str | None = None
    batches_sha256: str | None = None
    evaluation_sha256: str | None = None
    finite: bool | None = None
    operation: dict[str, Any] = Field(default_factory=dict)


class Replicate(Stored):
    """One fresh process per arm, all alive, one running at a time: the unit of inference."""

    schema_version: int = SCHEMA_VERSION
    session: str
    replicate: int
    seed: int
    status: Status
    reason: str = ""
    started_utc: str
    elapsed_seconds: Number
    design: Design = "rounds"
    start_order: tuple[str, ...] = ()
    arms: tuple[ArmRun, ...] = ()
    blocks: tuple[Block, ...] = ()


class Finding(Stored):
    """What one comparison of one metric says.

    ``estimate``, ``low`` and ``high`` are arm by baseline: log ratios of times and bytes (positive:
    the arm takes more), differences in nats of losses. ``low`` and ``high`` are what is shown, the
    interval at ``shown_confidence`` or more (lines without it are of 95 %), ``gate_low`` and
    ``gate_high`` the one that the test inverts, at ``confidence``. ``p_more`` and ``p_less`` test
    against the margin in force, ``p_any`` against no difference at all.
    """

    metric: str
    baseline: str
    arm: str
    n: int
    differences: Numbers = ()
    estimate: Number | None = None
    low: Number | None = None
    high: Number | None = None
    shown_confidence: float = 0.95
    gate_low: Number | None = None
    gate_high: Number | None = None
    confidence: float | None = None
    p_more: float | None = None
    p_less: float | None = None
    p_any: float | None = None
    corrected_p_more: float | None = None
    corrected_p_less: float | None = None
    q_value: float | None = None
    sign_flip_p: float | None = None
    margin: float | None = None
    margin_in_force: float | None = None
    noise_floor: float | None = None
    verdict: str
    reason: str = ""
    flags: tuple[str, ...] = ()
    needed_replicates: int | None = None
    detectable: float | None = None


class Verdicts(Stored):
    """The findings at one look, with the controls that stand behind them.

    ``state`` is ``valid``, ``too_noisy`` or ``invalid``, with its reasons. ``reason_kinds`` says of
    each reason in turn where it lies: in what was run (``invalid``), in an A/A arm (``control``) or
    in the machine (``machine``); earlier lines have none.
    """

    session: str
    at_utc: str
    look: int
    replicates: int
    state: Literal["valid", "too_noisy", "invalid"]
    reasons: tuple[str, ...] = ()
    reason_kinds: tuple[ReasonKind, ...] = ()
    findings: tuple[Finding, ...]
    controls: tuple[Finding, ...] = ()
    calibration: dict[str, Any] = Field(default_factory=dict)
    achieved: dict[str, Any] = Field(default_factory=dict)
