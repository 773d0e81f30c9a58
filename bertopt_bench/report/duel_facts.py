"""Gather what the page of duels shows: sessions with declaration, replicates and verdicts."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bertopt_bench.report.frame import plain_session
from bertopt_bench.results.duels import CONTROL, Declaration, Verdicts
from bertopt_bench.stats.calibration import entry, realised_share
from bertopt_bench.stats.duels import DISTURBED_FACTOR
from bertopt_bench.stats.duels import whole as whole_ones

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bertopt_bench.report.frame import ResultSet
    from bertopt_bench.results.duels import ArmRun, Block, DeclaredArm, Finding, Replicate
    from bertopt_bench.results.record import Record


@dataclass(frozen=True)
class Range:
    """A median with the lowest and highest of n values."""

    n: int
    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Range | None:
        """Summarise, or None where there is nothing."""
        if not values:
            return None
        return cls(len(values), min(values), statistics.median(values), max(values))


@dataclass(frozen=True)
class Duel:
    """One session: ``verdicts`` is its last look, None where it ended before the first."""

    session: Mapping[str, Any]
    declaration: Declaration
    replicates: tuple[Replicate, ...]
    records: tuple[Record, ...]
    verdicts: Verdicts | None

    @property
    def name(self) -> str:
        """Give the session's name."""
        return str(self.session.get("session", ""))

    @property
    def baseline(self) -> str:
        """Give the label of the first arm, which all others are compared with."""
        return self.declaration.arms[0].label

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Give what the last look says of the declared comparisons."""
        return self.verdicts.findings if self.verdicts else ()

    @property
    def controls(self) -> tuple[Finding, ...]:
        """Give what the last look says of the A/A arm, a finding a metric."""
        return self.verdicts.controls if self.verdicts else ()

    @property
    def slowed(self) -> tuple[DeclaredArm, ...]:
        """Give the arms that were slowed on purpose."""
        return tuple(arm for arm in self.declaration.arms if arm.injected_share)

    @cached_property
    def whole(self) -> tuple[Replicate, ...]:
        """Give the replicates in which every arm ran to the end."""
        return tuple(whole_ones(self.replicates))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Give every block of every replicate, whole or not."""
        return tuple(block for replicate in self.replicates for block in replicate.blocks)

    def control(self, metric: str) -> Finding | None:
        """Find the A/A arm's finding of a metric."""
        return next((found for found in self.controls if found.metric == metric), None)

    def finding(self, metric: str, arm: str) -> Finding | None:
        """Find what is said of an arm, the A/A arm among them."""
        every = (*self.findings, *self.controls)
        return next((f for f in every if (f.metric, f.arm) == (metric, arm)), None)

    def runs(self, arm: str) -> list[ArmRun]:
        """Give the processes of an arm."""
        return [run for replicate in self.replicates for run in replicate.arms if run.arm == arm]

    def step_seconds(self, arm: str) -> Range | None:
        """Give the replicates' medians of block seconds a step."""
        medians = []
        for replicate in self.whole:
            seconds = [seconds_a_step(b) for b in replicate.blocks if b.arm == arm]
            medians += [statistics.median(seconds)] if seconds else []
        return Range.of(medians)

    def realised(self, arm: str) -> float | None:
        """Give by what share an arm was really slowed, where any of its blocks was."""
        slowed = any(b.injected_seconds for r in self.whole for b in r.blocks if b.arm == arm)
        return realised_share(self.whole, arm) if slowed else None

    def banked(self) -> dict[str, Any] | None:
        """Give what this session adds to its machine's calibration."""
        if self.verdicts is None:
            return None
        return entry(self.declaration, self.replicates, self.verdicts)


def gather(results: Sequence[ResultSet]) -> list[Duel]:
    """Give the duels of result sets, in the order of their files."""
    return [duel for result in results for duel in _of(result)]


def present(results: Sequence[ResultSet]) -> bool:
    """Say whether any session of the result sets is a duel."""
    return any(_declared(plain_session(s)) for result in results for s in result.sessions)


def seconds_a_step(block: Block) -> float:
    """Give a block's wall time by its steps."""
    return block.wall_seconds / block.steps


def is_disturbed(block: Block) -> bool:
    """Say whether one step took more than five times the block's median."""
    steps = block.step_seconds
    return bool(steps) and max(steps) > DISTURBED_FACTOR * statistics.median(steps)


def labels_of(finding: Finding, duel: Duel) -> list[str]:
    """Name the units that a finding's differences come from, in their order."""
    if finding.metric in {"step_time", "peak_memory"} and len(duel.whole) >= finding.n:
        return [f"replicate {replicate.replicate}" for replicate in duel.whole[: finding.n]]
    seeds = duel.declaration.seeds
    if finding.metric == "loss" and len(seeds) == finding.n:
        return [f"seed {seed}" for seed in seeds]
    return [f"pair {number}" for number in range(1, finding.n + 1)]


def _declared(session: Mapping[str, Any]) -> Any:
    return (session.get("declared") or {}).get("duel")


def _of(result: ResultSet) -> Iterator[Duel]:
    replicates: dict[str, list[Replicate]] = defaultdict(list)
    for replicate in getattr(result, "replicates", ()):
        replicates[replicate.session].append(replicate)
    records: dict[str, list[Record]] = defaultdict(list)
    for record in getattr(result, "records", ()):
        if record.arm is not None:
            records[record.session].append(record)
    for session in map(plain_session, result.sessions):
        if (declared := _declared(session)) is None:
            continue
        looks = session.get("verdicts") or ()
        yield Duel(
            session=session,
            declaration=Declaration.model_validate(declared),
            replicates=tuple(replicates[session["session"]]),
            records=tuple(records[session["session"]]),
            verdicts=Verdicts.model_validate(looks[-1]) if looks else None,
        )


__all__ = [
    "CONTROL",
    "Duel",
    "Range",
    "gather",
    "is_disturbed",
    "labels_of",
    "present",
    "seconds_a_step",
]
