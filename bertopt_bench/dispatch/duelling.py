"""One session of a duel: prepare the arms, declare, run replicates to each look, close."""

from __future__ import annotations

import random
import secrets
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertopt_bench.dispatch.declaring import declare, describe_session, duel_digest
from bertopt_bench.dispatch.duel import Contender, DuelSession
from bertopt_bench.dispatch.environments import prepare_subject
from bertopt_bench.dispatch.local import Zygote, trial_threads
from bertopt_bench.dispatch.preparing import prepare_text
from bertopt_bench.dispatch.sessions import SessionRun, packages_of, utc_now
from bertopt_bench.errors import OutOfBudget
from bertopt_bench.matrix.cells import TrialPlan
from bertopt_bench.matrix.duels import LEAST_REPLICATES, PRESET_REPLICATES
from bertopt_bench.matrix.identity import canonical_json
from bertopt_bench.matrix.labels import drawn_from
from bertopt_bench.matrix.micro import is_micro, memory_bytes
from bertopt_bench.measure.machine import describe_machine
from bertopt_bench.measure.memory import available_bytes
from bertopt_bench.measure.provenance import package_code
from bertopt_bench.measure.suitability import invalid_reasons
from bertopt_bench.results.duels import CONTROL, Declaration
from bertopt_bench.workload.memory_formulas import memory_forecast_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bertopt_bench.dispatch.progress import Display
    from bertopt_bench.matrix.arms import Arm
    from bertopt_bench.matrix.duels import Settings
    from bertopt_bench.matrix.spec import Matrix
    from bertopt_bench.results.duels import Replicate, Verdicts
    from bertopt_bench.results.record import Record
    from bertopt_bench.results.store import ResultsFolder

    Judge = Callable[..., Verdicts]

PROCESS_BYTES = 400 * 2**20  # of a process with torch loaded, before it trains
BUDGET_SHARE = 0.95  # later replicates may be slower than the first
TIMED = frozenset({"step_time", "peak_memory", "time_to_target"})
TRAINED = frozenset({"loss", "time_to_target"})


@dataclass(frozen=True, slots=True)
class DuelPlan:
    """What a duel will run: its arms made ready, everything declared."""

    matrix: Matrix
    settings: Settings
    contenders: tuple[Contender, ...]
    arms: tuple[Arm, ...]
    declaration: Declaration
    digest: str
    least_replicates: int = LEAST_REPLICATES
    """What a budget must pay for: with fewer the declared verdict is out of reach."""


def prepare_duel(
    matrix: Matrix,
    arms: Sequence[Arm],
    settings: Settings,
    display: Display,
    digest: str | None = None,
) -> DuelPlan:
    """Make every arm startable (interpreter, worktree, text), add the A/A arm, declare.

    Raises:
        UserError: an arm's code or text cannot be had.
    """
    baseline, every = arms[0], _with_control(arms)
    texts: dict[str, Mapping[str, Any]] = {}
    contenders = []
    for arm in every:
        workload = arm.cell.content["workload"]
        key = canonical_json(drawn_from(workload))
        if key not in texts:
            texts[key] = prepare_text(workload, matrix.seeds, display.working)
        contenders.append(_contender(arm, baseline, texts[key], display))
    settings = replace(settings, alternate=settings.alternate or not _fit_together(every))
    descriptions = [contender.subject.description for contender in contenders]
    declaration = declare(matrix, every, descriptions, settings)
    digest = digest or duel_digest(matrix, arms, descriptions)
    return DuelPlan(matrix, settings, tuple(contenders), tuple(every), declaration, digest)


def intended(matrix: Matrix, arms: Sequence[Arm], settings: Settings) -> Declaration:
    """Declare a duel before anything of it is made ready: what its arms import is not known yet."""
    every = _with_control(arms)
    return declare(matrix, every, [{}] * len(every), settings)


def _with_control(arms: Sequence[Arm]) -> list[Arm]:
    return [*arms, replace(arms[0], label=CONTROL)]


def _contender(arm: Arm, baseline: Arm, text: Mapping[str, Any], display: Display) -> Contender:
    subject = prepare_subject(
        python=arm.python,
        revision=arm.revision,
        checkout=arm.checkout,
        build=arm.build,
        packages=packages_of([TrialPlan(arm.cell, 0, 0, 0)]),
        say=display.say,
    )
    copied = arm.label == CONTROL or (arm.injected_share and arm.cell.id == baseline.cell.id)
    return Contender(
        label=arm.label,
        cell=arm.cell.content,
        subject=subject,
        text=text,
        injected_share=arm.injected_share,
        same_as=baseline.label if copied else None,
        task="micro_arm" if is_micro(arm.cell.content) else "arm",
    )


def run_duel(plan: DuelPlan, store: ResultsFolder, display: Display, judge: Judge) -> Verdicts:
    """Run a duel's session and give the verdicts of its last look.

    Args:
        plan: what ``prepare_duel`` gave.
        store: the folder, which gets every replicate before the next one starts.
        display: shows progress.
        judge: gives the verdicts on (declaration, replicates, records, look, session, at_utc).

    Raises:
        OutOfBudget: the budget is too small for any verdict; nothing is lost.
    """
    order_seed = secrets.randbelow(2**32)
    for warning in store.warnings:
        display.say(f"warning: {warning}")
    session = store.start_session(describe_session(plan, order_seed))
    running = _Running(plan, store, display, session, order_seed)
    verdicts: Verdicts | None = None
    machine = describe_machine()
    for look, count in running.looks():
        running.fill(count)
        verdicts = judge(
            plan.declaration,
            running.replicates,
            running.records,
            look=look,
            session=session,
            at_utc=utc_now(),
            also=invalid_reasons(machine, describe_machine()),
        )
        store.append_session_event({"kind": "verdicts", **verdicts.model_dump()})
        if running.decided(verdicts):
            break
    assert verdicts is not None
    store.append_session_event(running.ending())
    return verdicts


class _Running:
    """A session under way: its replicates and training trials so far."""

    def __init__(
        self,
        plan: DuelPlan,
        store: ResultsFolder,
        display: Display,
        session: str,
        order_seed: int,
    ) -> None:
        self.plan, self.store, self.display = plan, store, display
        self.session, self.order_seed = session, order_seed
        self.began = time.monotonic()
        self.replicates: list[Replicate] = []
        self.records: list[Record] = []
        self.threads = trial_threads()
        self.duel = DuelSession(
            session=session,
            declaration=plan.declaration,
            contenders=plan.contenders,
            display=display,
            timing=plan.matrix.timing,
            order_seed=order_seed,
            preload=packages_of([TrialPlan(arm.cell, 0, 0, 0) for arm in plan.arms]),
            threads=self.threads,
            most_warm_seconds=plan.settings.most_warm_seconds,
        )

    def ending(self) -> dict[str, Any]:
        """Give the session's last line."""
        return {
            "kind": "end",
            "session": self.session,
            "at_utc": utc_now(),
            "counts": {"replicates": len(self.replicates), "trials": len(self.records)},
            "elapsed_seconds": time.monotonic() - self.began,
            "load": describe_machine()["load"],
        }

    def looks(self) -> Iterator[tuple[int, int]]:
        """Give number and replicates of each look; a budget cuts them by cost alone."""
        if not TIMED & set(self.plan.declaration.metrics):
            yield 1, 0
            return
        for look, count in enumerate(self.plan.declaration.looks, start=1):
            allowed = self._allowed(count)
            if look > 1 and allowed <= len(self.replicates):
                return  # the budget pays for no more: the last look stands
            yield look, allowed
            if allowed < count:
                return

    def _allowed(self, count: int) -> int:
        """Cut a number of replicates to what the budget pays for, by the first one's cost."""
        budget = self.plan.settings.budget_seconds
        if budget is None:
            return count
        if not self.replicates:
            self.fill(1)
        if self.failed:
            return count
        each = self.replicates[0].elapsed_seconds
        left = BUDGET_SHARE * budget - (time.monotonic() - self.began)
        most = int(left / each) + len(self.replicates)
        if most >= count:
            return count
        least = self.plan.least_replicates
        presets = [preset for preset in PRESET_REPLICATES if least <= preset < count]
        fitting = [preset for preset in presets if preset <= most]
        if not fitting:
            needed = min([*presets, count])
            raise OutOfBudget(
                f"a replicate takes {each:.0f} s here, so the budget of {budget:.0f} s pays for "
                f"{most}; {needed} are needed for the declared verdict. Give --budget "
                f"{each * needed * 1.2:.0f}s or more."
            )
        return fitting[-1]

    @property
    def failed(self) -> bool:
        """Say whether a replicate did not end well: more of them change nothing."""
        return any(replicate.status != "ok" for replicate in self.replicates)

    def fill(self, count: int) -> None:
        """Run what is missing up to ``count`` replicates, and the training trials once."""
        while len(self.replicates) < count and not self.failed:
            replicate = self.duel.replicate(len(self.replicates))
            self.store.append_replicate(replicate)
            self.replicates.append(replicate)
            self.display.end(replicate.status, f" in {replicate.elapsed_seconds:.0f} s")
        if TRAINED & set(self.plan.declaration.metrics) and not (self.records or self.failed):
            self._train()

    def decided(self, verdicts: Verdicts) -> bool:
        """Say whether nothing is left to look for: all is decided, or as precise as asked."""
        if verdicts.state == "invalid":
            return True
        until = self.plan.settings.until
        widths = [
            (finding.high - finding.low) / 2
            for finding in verdicts.findings
            if finding.high is not None and finding.low is not None
        ]
        known = bool(widths) and len(widths) == len(verdicts.findings)
        precise = until is not None and known and max(widths) <= until
        return precise or all(f.verdict != "inconclusive" for f in verdicts.findings)

    def _train(self) -> None:
        """Train every arm on every seed, in blocks of one seed, the order drawn anew for each."""
        run = SessionRun(
            self.session,
            self.store,
            self.display,
            self.plan.matrix.timing,
            {a.cell.id: c.text for a, c in zip(self.plan.arms, self.plan.contenders, strict=True)},
            package_code(),
            self.threads,
        )
        pairs = list(zip(self.plan.arms, self.plan.contenders, strict=True))
        total, number = len(pairs) * len(self.plan.matrix.seeds), 0
        for seed in self.plan.matrix.seeds:
            random.Random(f"{self.order_seed}/train/{seed}").shuffle(pairs)
            for arm, contender in pairs:
                number += 1
                plan = TrialPlan(arm.cell, seed, 0, arm.cell.content["workload"]["steps"])
                self.display.begin(number, total, f"{arm.label} seed {seed}", plan.steps)
                with self._zygote(contender, plan) as zygote:
                    record = run.run_one(zygote, plan, contender)
                self.records.append(record)
                self.display.end(record.status, f": {record.reason}" if record.reason else "")
                if record.status not in {"ok", "diverged"}:
                    return  # the duel is refused by now: hours of training would change nothing

    def _zygote(self, contender: Contender, plan: TrialPlan) -> Zygote:
        subject = contender.subject
        return Zygote(
            threads=self.threads,
            preload=packages_of([plan]),
            python=subject.python,
            root=subject.root,
            overlay=subject.overlay,
        )


def _fit_together(arms: Sequence[Arm]) -> bool:
    """Say whether all arms may be in memory at once, by formula."""
    need = sum(PROCESS_BYTES + _forecast_bytes(arm.cell.content) for arm in arms)
    free = available_bytes(arms[0].cell.content["device"]["name"])
    return free is None or need < 0.9 * free


def _forecast_bytes(content: Mapping[str, Any]) -> int:
    return memory_bytes(content) if is_micro(content) else memory_forecast_bytes(content)
