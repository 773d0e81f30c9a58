"""What the gate asks of a duel and hears of it: the only place where the two meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bertopt_bench.results.duels import Verdicts


@dataclass(frozen=True, slots=True)
class ArmSpec:
    """An arm of a duel: the cell, with its code from a revision of a checkout.

    Without ``revision`` it is the checkout's working tree as it stands.
    """

    label: str
    overrides: tuple[str, ...] = ()
    revision: str | None = None
    checkout: Path | None = None
    python: str | None = None
    build: bool = False


@dataclass(frozen=True, slots=True)
class DuelSpec:
    """One session of one cell.

    Attributes:
        matrix: the matrix file.
        base: overrides that narrow it to the cell.
        arms: the baseline first.
        comparisons: (baseline, arm) labels: the family of each metric.
        margins: by metric, shares of times and bytes, nats of losses (None: a quarter of the
            baseline's standard deviation over seeds).
        alpha: of a comparison; ``family_error`` of the family; both of one session.
        looks: replicate numbers at which to look; a gate has one.
        results: a folder that does not exist yet, this session's own.
        budget_seconds: what the session may take; it then has fewer replicates and says so.
        number: which session of its cell it is; each trains on seeds of its own.
    """

    matrix: Path
    base: tuple[str, ...]
    arms: tuple[ArmSpec, ...]
    comparisons: tuple[tuple[str, str], ...]
    metrics: tuple[str, ...]
    margins: Mapping[str, float | None]
    alpha: float
    family_error: float
    looks: tuple[int, ...]
    results: Path
    sides: int = 1
    budget_seconds: float | None = None
    number: int = 1
    purpose: Literal["gate"] = "gate"


@dataclass(frozen=True, slots=True)
class DuelOutcome:
    """What a session found: its name, its last verdicts, what it took."""

    session: str
    verdicts: Verdicts
    elapsed_seconds: float


class RunDuel(Protocol):
    """Run one session with processes of its own."""

    def __call__(self, spec: DuelSpec, /) -> DuelOutcome:
        """Run it.

        Raises:
            OutOfBudget: it would take too long; the gate leaves its question open.
            UserError: it cannot be asked so.
        """
        ...
