"""What the commands ``duel``, ``calibrate`` and ``doctor`` share: one duel from words to verdicts.

It hands the statistics to the runner, which knows none, and the machine's bank to both.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bertopt_bench.catalogue.outside import describe_apart
from bertopt_bench.dispatch.duelling import TRAINED, intended, prepare_duel, run_duel
from bertopt_bench.dispatch.preparing import ask_capabilities
from bertopt_bench.dispatch.progress import open_display
from bertopt_bench.errors import OutOfBudget, UserError
from bertopt_bench.gate.checkout import importable
from bertopt_bench.gate.duels import DuelOutcome
from bertopt_bench.matrix.arms import Arm, read_arms
from bertopt_bench.matrix.duels import Settings, session_seeds
from bertopt_bench.matrix.micro import is_micro, read_micro_arms
from bertopt_bench.matrix.modes import is_inference
from bertopt_bench.matrix.quantities import read_share
from bertopt_bench.measure.machine import describe_machine, fingerprint, versions
from bertopt_bench.results.bank import bank_file, deposit, withdraw
from bertopt_bench.results.store import ResultsFolder
from bertopt_bench.stats import calibration
from bertopt_bench.stats.duels import analyse
from bertopt_bench.stats.planning import (
    describe,
    prospects,
    refuse_short_budget,
    refuse_unreachable,
)
from bertopt_bench.workload.cache import cache_root

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from bertopt_bench.dispatch.duelling import DuelPlan
    from bertopt_bench.dispatch.progress import Display
    from bertopt_bench.gate.duels import ArmSpec, DuelSpec
    from bertopt_bench.matrix.spec import Matrix
    from bertopt_bench.results.duels import Declaration, Replicate, Verdicts
    from bertopt_bench.results.record import Record
    from bertopt_bench.stats.planning import Prospect


CALIBRATION = Path(__file__).parent / "matrix" / "calibration.toml"


@dataclass(frozen=True, slots=True)
class Asked:
    """The arms that a command names, on this machine."""

    matrix: Matrix
    arms: tuple[Arm, ...]

    def require_arms(self) -> Self:
        """Refuse a baseline alone.

        Raises:
            UserError: there is nothing to compare it with.
        """
        if len(self.arms) < 2:
            raise UserError(
                f"{self.matrix.file} has no arm besides the baseline. Name one: --arm "
                "optimizer=lion, a table [arms], or --inject 5%."
            )
        return self


def read_duel(
    matrix_file: Path | str,
    *,
    base: Sequence[str] = (),
    arms: Sequence[str] = (),
    overrides: Sequence[str] = (),
    inject: str | float = 0.0,
) -> Asked:
    """Read the arms of a duel; ``inject`` adds a copy of the baseline slowed by that share.

    Raises:
        UserError: a mistake in an arm or in the share.
    """
    share = read_share(inject, lambda text: UserError(f"--inject {text}"))
    read = partial(read_arms, matrix_file, base=base, arms=arms, overrides=overrides)
    read()  # mistakes are told at once, before torch is loaded to ask what this machine can do
    matrix, found = read(capabilities=ask_capabilities())
    return Asked(matrix, tuple(_with_slowed(found, share)))


def read_micro_duel(
    operation: str,
    *,
    base: Sequence[str] = (),
    arms: Sequence[str] = (),
    overrides: Sequence[str] = (),
    inject: str | float = 0.0,
) -> Asked:
    """Read the arms of a duel of an operation's implementations, the first one the baseline.

    Raises:
        UserError: an unknown operation, implementation or option; what cannot run here.
    """
    share = read_share(inject, lambda text: UserError(f"--inject {text}"))
    matrix, found = read_micro_arms(operation, base=base, arms=arms, overrides=overrides)
    for arm in found:
        name = arm.cell.content["kernel"][operation]["name"]
        if ":" in name and arm.revision is None and arm.checkout is None and arm.python is None:
            describe_apart(f"kernel.{operation}", name)  # imports it in a child, or says why not
    on_gpu = any(arm.cell.content["device"]["name"] == "cuda" for arm in found)
    if on_gpu and not ask_capabilities()["cuda"]["count"]:
        raise UserError("device=cuda: torch sees no CUDA device here. Take device=cpu.")
    return Asked(matrix, tuple(_with_slowed(found, share)))


def read_either(matrix_file: Path | str | None, micro: str, **words: Any) -> Asked:
    """Read the arms of a matrix, or of an operation alone.

    Raises:
        UserError: neither or both are named; a mistake in the arms.
    """
    if micro and matrix_file is not None:
        raise UserError(
            f"both {matrix_file} and --micro {micro} are given: an operation alone has no matrix. "
            "Leave one of them out."
        )
    if micro:
        return read_micro_duel(micro, **words)
    if matrix_file is None:
        raise UserError("there is no matrix. Name a TOML file, or an operation: --micro attention.")
    return read_duel(matrix_file, **words)


def _with_slowed(found: Sequence[Arm], share: float) -> list[Arm]:
    """Add a copy of the baseline slowed by a share, where one is asked for."""
    if not share:
        return list(found)
    label = f"slowed by {share * 100:g} %"
    if any(arm.label == label for arm in found):
        raise UserError(f"an arm is called '{label}', which is --inject's. Name it otherwise.")
    return [*found, replace(found[0], label=label, injected_share=share)]


def foresee(asked: Asked, settings: Settings) -> list[Prospect]:
    """Say what the declared comparisons can hope for.

    Raises:
        UserError: a declared verdict that no outcome could give, or training that is to be cut.
    """
    calls = is_micro(asked.arms[0].cell.content)
    if calls and settings.metrics != ("step_time",):
        raise UserError(
            f"--micro times calls: leave --metric out. It got {', '.join(settings.metrics)}."
        )
    _refuse_training(asked.arms, settings)
    declaration = intended(asked.matrix, asked.arms, settings)
    found = prospects(declaration, None if calls else banked().get("spread"))
    refuse_unreachable(found)
    return found


def foretell(asked: Asked, settings: Settings) -> str:
    """Say in words what a duel can hope for and what it takes, before anything of it runs.

    Raises:
        UserError: as ``foresee``, or a budget that by forecast is too small for any verdict.
    """
    found = foresee(asked, settings)
    refuse_short_budget(found, settings.budget_seconds)
    return describe(found)


def _refuse_training(arms: Sequence[Arm], settings: Settings) -> None:
    """Refuse metrics of training where nothing trains, and what would cut training short.

    Raises:
        UserError: inference trains nothing, and training knows neither looks nor a budget.
    """
    trained = [metric for metric in settings.metrics if metric in TRAINED]
    if not trained:
        return
    forward = next((a for a in arms if is_inference(a.cell.content)), None)
    if forward is not None:
        raise UserError(
            f"{trained[0]} is of training, and '{forward.label}' runs forward only (its mode is "
            "inference). Compare step_time, which is the latency of a batch, or peak_memory."
        )
    if settings.until is not None or settings.budget_seconds is not None:
        raise UserError(
            f"{trained[0]} takes neither until nor budget: they choose replicates of timed blocks. "
            "Leave them out; the matrix' seeds say how often is trained."
        )


def plan_duel(
    asked: Asked, settings: Settings, display: Display, digest: str | None = None
) -> tuple[DuelPlan, list[Prospect]]:
    """Say what a comparison can hope for, and make its arms startable.

    Raises:
        UserError: a declared verdict that no outcome could give; nothing was prepared for it.
    """
    found = foresee(asked, settings)
    plan = prepare_duel(asked.matrix, asked.arms, settings, display, digest)
    return replace(plan, least_replicates=max(one.needed_units for one in found)), found


def fight(plan: DuelPlan, store: ResultsFolder, display: Display) -> Verdicts:
    """Run a duel's session; bank its A/A arm, and let the verdicts carry the calibration."""
    file = _bank()
    before = withdraw(file)  # a bank that cannot be read is told before anything is measured
    seen: dict[str, Any] = {}

    def judge(
        declaration: Declaration,
        replicates: Sequence[Replicate],
        records: Sequence[Record],
        **session: Any,
    ) -> Verdicts:
        verdicts = analyse(declaration, replicates, records, **session)
        entry = seen["entry"] = calibration.entry(declaration, replicates, verdicts)
        entries = [*before, *([entry] if entry else [])]
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


def fight_within_budget(plan: DuelPlan, store: ResultsFolder, display: Display) -> Verdicts:
    """Run a duel; a session that was too noisy buys one more where the budget has room for it."""
    began = time.monotonic()
    verdicts = fight(plan, store, display)
    taken = time.monotonic() - began
    budget = plan.settings.budget_seconds
    if verdicts.state != "too_noisy" or budget is None or budget - taken < taken:
        return verdicts
    display.say(f"too noisy: {verdicts.reasons[0]}. One more session, within the budget")
    left = replace(plan.settings, budget_seconds=budget - taken)
    try:
        return fight(replace(plan, settings=left), store, display)
    except OutOfBudget as error:  # what the first session said stands
        display.say(f"no second session: {error}")
        return verdicts


def gate_duel(spec: DuelSpec) -> DuelOutcome:
    """Run one session for the gate: arms of one cell, each with its own code.

    Raises:
        OutOfBudget: the session's budget pays for too few replicates.
        UserError: the cell or the code cannot be had.
    """
    began = time.monotonic()
    capabilities = ask_capabilities()
    with _importable(spec):  # while reading only: the arms' code is their own revision's
        matrix, found = read_arms(spec.matrix, base=spec.base, capabilities=capabilities)
        matrix = replace(matrix, seeds=session_seeds(matrix.seeds, spec.number))
        cells = [_cell_of(spec, arm, found[0]) for arm in spec.arms]
    arms = [
        replace(
            cell,
            label=arm.label,
            overrides=arm.overrides,
            revision=arm.revision,
            checkout=arm.checkout,
            python=arm.python,
            build=arm.build,
        )
        for arm, cell in zip(spec.arms, cells, strict=True)
    ]
    with open_display() as display:
        plan, _ = plan_duel(Asked(matrix, tuple(arms)), _settings_of(spec), display)
        with ResultsFolder.open(spec.results, plan.digest) as store:
            verdicts = fight(plan, store, display)
    return DuelOutcome(verdicts.session, verdicts, time.monotonic() - began)


def _settings_of(spec: DuelSpec) -> Settings:
    return Settings(
        metrics=spec.metrics,
        margins=tuple(spec.margins.items()),
        alpha=spec.alpha,
        family_error=spec.family_error,
        replicates=spec.looks[-1],
        budget_seconds=spec.budget_seconds,
        sides=spec.sides,
        comparisons=spec.comparisons,
        purpose=spec.purpose,
    )


def _importable(spec: DuelSpec) -> AbstractContextManager[None]:
    """Let a user's own entries be found in the gated checkout, wherever the gate was started."""
    checkout = spec.arms[0].checkout
    return nullcontext() if checkout is None else importable(checkout)


def _cell_of(spec: DuelSpec, arm: ArmSpec, base: Arm) -> Arm:
    """Give the baseline's cell, or the one that an arm's own overrides make of it."""
    if not arm.overrides:
        return base
    return read_arms(spec.matrix, base=spec.base, arms=[" ".join(arm.overrides)])[1][-1]


def exit_code(verdicts: Verdicts, *, strict: bool = False) -> int:
    """Give a duel's exit code: 3 refused; under ``strict`` 4 inconclusive or too noisy; else 0."""
    if verdicts.state == "invalid" or any(f.verdict == "refused" for f in verdicts.findings):
        return 3
    open_ones = any(f.verdict == "inconclusive" for f in verdicts.findings)
    return 4 if strict and (open_ones or verdicts.state == "too_noisy") else 0


def banked() -> dict[str, Any]:
    """Give the calibration of this machine so far."""
    return calibration.summarise(withdraw(_bank()))


def _bank() -> Path:
    return bank_file(cache_root(), fingerprint(describe_machine(), versions()))


def _achieved(verdicts: Verdicts) -> dict[str, Any]:
    """Give the widest half of an interval that is shown."""
    widths = [
        (f.high - f.low) / 2 for f in verdicts.findings if f.high is not None and f.low is not None
    ]
    return {
        "replicates": verdicts.replicates,
        "half_width": max(widths) if widths else None,
    }
