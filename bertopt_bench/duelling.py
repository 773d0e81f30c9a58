"""What the commands ``duel``, ``calibrate`` and ``doctor`` share: one duel from words to verdicts.

It hands the statistics to the runner, which knows none, and the machine's bank to both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.dispatch.duelling import prepare_duel, run_duel
from bertopt_bench.dispatch.preparing import ask_capabilities
from bertopt_bench.errors import UserError
from bertopt_bench.matrix.arms import Arm, read_arms
from bertopt_bench.matrix.duels import Settings
from bertopt_bench.measure.machine import describe_machine, fingerprint, versions
from bertopt_bench.results.bank import bank_file, deposit, withdraw
from bertopt_bench.stats import calibration
from bertopt_bench.stats.duels import analyse
from bertopt_bench.stats.planning import prospects, refuse_unreachable
from bertopt_bench.workload.cache import cache_root

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertopt_bench.dispatch.duelling import DuelPlan
    from bertopt_bench.dispatch.progress import Display
    from bertopt_bench.matrix.spec import Matrix
    from bertopt_bench.results.duels import Declaration, Replicate, Verdicts
    from bertopt_bench.results.record import Record, Session
    from bertopt_bench.results.store import ResultsFolder
    from bertopt_bench.stats.planning import Prospect


@dataclass(frozen=True, slots=True)
class Asked:
    """The arms that a command names, on this machine."""

    matrix: Matrix
    arms: tuple[Arm, ...]


def read_duel(
    matrix_file: Path | str,
    *,
    base: Sequence[str] = (),
    arms: Sequence[str] = (),
    overrides: Sequence[str] = (),
    inject: float = 0.0,
) -> Asked:
    """Read the arms of a duel; ``inject`` adds a copy of the baseline slowed by that share."""
    matrix, found = read_arms(
        matrix_file,
        base=base,
        arms=arms,
        overrides=overrides,
        capabilities=ask_capabilities(),
    )
    if inject:
        label = f"slowed by {inject * 100:g} %"
        if any(arm.label == label for arm in found):
            raise UserError(f"an arm is called '{label}', which is --inject's. Name it otherwise.")
        found = [*found, replace(found[0], label=label, injected_share=inject)]
    return Asked(matrix, tuple(found))


def plan_duel(
    asked: Asked, settings: Settings, display: Display, digest: str | None = None
) -> tuple[DuelPlan, list[Prospect]]:
    """Make the arms startable and say what their comparison can hope for.

    Raises:
        UserError: a declared verdict that no outcome could give; nothing has run.
    """
    plan = prepare_duel(asked.matrix, asked.arms, settings, display, digest)
    found = prospects(plan.declaration, banked().get("spread"))
    refuse_unreachable(found)
    return replace(plan, least_replicates=max(one.needed_units for one in found)), found


def fight(plan: DuelPlan, store: ResultsFolder, display: Display) -> Verdicts:
    """Run a duel's session; bank its A/A arm, and let the verdicts carry the calibration."""
    file = _bank()
    seen: dict[str, Any] = {}

    def judge(
        declaration: Declaration,
        replicates: Sequence[Replicate],
        records: Sequence[Record],
        **session: Any,
    ) -> Verdicts:
        verdicts = analyse(declaration, replicates, records, **session)
        entry = seen["entry"] = calibration.entry(declaration, replicates, verdicts)
        entries = [*withdraw(file), *([entry] if entry else [])]
        return verdicts.model_copy(
            update={
                "calibration": calibration.summarise(entries),
                "achieved": _achieved(verdicts),
            }
        )

    verdicts = run_duel(plan, store, display, judge)
    if seen["entry"] is not None:
        try:
            deposit(file, seen["entry"])
        except UserError as error:  # the duel itself is safe
            display.say(f"warning: not counted towards the calibration: {error}")
    return verdicts


def banked() -> dict[str, Any]:
    """Give the calibration of this machine so far."""
    return calibration.summarise(withdraw(_bank()))


def _bank() -> Path:
    return bank_file(cache_root(), fingerprint(describe_machine(), versions()))


def _achieved(verdicts: Verdicts) -> dict[str, Any]:
    """Give the widest half of a 95 % interval that was reached."""
    widths = [
        (f.high - f.low) / 2 for f in verdicts.findings if f.high is not None and f.low is not None
    ]
    return {
        "replicates": verdicts.replicates,
        "half_width": max(widths) if widths else None,
    }


CALIBRATION = Path(__file__).parent / "matrix" / "calibration.toml"
CALIBRATION_SETTINGS = Settings(purpose="calibration", budget_seconds=240.0, most_warm_seconds=3.0)


def calibration_turns(done: Sequence[bool], duels: int, injected: int) -> list[bool]:
    """Give what is still to run, in turn: False an A/A duel, True one with a slowed arm.

    ``done`` are the kinds of the sessions that ended before.
    """
    left = {False: duels - done.count(False), True: injected - done.count(True)}
    turns: list[bool] = []
    while left[False] > 0 or left[True] > 0:
        slowed = left[True] > 0 and left[True] * max(duels, 1) >= left[False] * max(injected, 1)
        left[slowed] -= 1
        turns.append(slowed)
    return turns


def finished_kinds(sessions: Sequence[Session]) -> list[bool]:
    """Say of each calibration session that reached its end whether an arm was slowed."""
    return [
        any(arm["injected_share"] for arm in session.declared["duel"]["arms"])
        for session in sessions
        if session.end is not None and "duel" in session.declared
    ]
