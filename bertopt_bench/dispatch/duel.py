"""Run a duel: for each replicate a fresh process per arm, all alive, one running at a time.

    replicate = start order drawn, every second time the last one's reversed
              -> arms assemble and warm up, one by one
              -> rounds: one block of every arm, in an order drawn anew; on a CPU the blocks of a
                 round take turns in bursts of a few steps
              -> one line, on disk before the next replicate starts

Two arms that do not fit in memory together alternate instead: one process at a time, every arm
forwards and then backwards (ABBA), each time in a fresh process.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bertopt_bench.dispatch import environments
from bertopt_bench.dispatch.local import Zygote
from bertopt_bench.dispatch.outcomes import ending
from bertopt_bench.dispatch.sessions import trial_request, utc_now
from bertopt_bench.measure.bursts import merged
from bertopt_bench.measure.steadiness import LEAST_WINDOW_SECONDS, steps_for
from bertopt_bench.results.duels import ArmRun, Block, Replicate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bertopt_bench.dispatch.children import Child
    from bertopt_bench.dispatch.environments import Subject
    from bertopt_bench.dispatch.progress import Display
    from bertopt_bench.results.duels import Declaration

PROTOCOL = 1  # trial.arm.ARM_PROTOCOL: this room starts workers and imports none
MOST_WARM_SECONDS = 60.0
PROCESS_FIELDS = (
    "hash_seed",
    "environment_bytes",
    "threads",
    "thread_variables",
    "affinity",
    "library_bases",
)
WARM_FIELDS = (
    "imported",
    "steady",
    "peak_memory_bytes",
    "kernels_ran",
    "initial_loss",
    "initial_weights_sha256",
    "operation",
)
SIGNIFICANT = 7  # digits kept of a sample: far below what a clock resolves


@dataclass(frozen=True, slots=True)
class Contender:
    """An arm that can be started: its declared cell, its code, its text."""

    label: str
    cell: Mapping[str, Any]
    subject: Subject
    text: Mapping[str, Any]
    injected_share: float = 0.0
    same_as: str | None = None
    """The arm whose block length it takes over, so that copies do the same work."""
    task: str = "arm"
    """What its worker runs: a trial's steps, or the calls of an operation (``micro_arm``)."""

    def modules(self) -> list[str]:
        """Name the top-level packages of entries from outside."""
        axes = ("optimizer", "schedule", "precision", "device")  # an operation alone has two
        named = [self.cell[axis] for axis in axes if axis in self.cell]
        named += [*self.cell.get("regularizer", ()), *self.cell["kernel"].values()]
        return sorted(
            {c["name"].partition(":")[0].partition(".")[0] for c in named if ":" in c["name"]}
        )


class ArmEnded(Exception):  # noqa: N818 - an ending, told as a record's status
    """An arm's process ended before it was told to."""

    def __init__(self, label: str, status: str, reason: str) -> None:
        super().__init__(reason)
        self.label, self.status, self.reason = label, status, reason


@dataclass(slots=True)
class DuelSession:
    """What lasts over a duel's replicates."""

    session: str
    declaration: Declaration
    contenders: Sequence[Contender]
    display: Display
    timing: Mapping[str, Any]
    order_seed: int
    threads: int = 0
    preload: Sequence[str] = ()
    worker: str = "bertopt_bench.trial.worker"
    most_warm_seconds: float = MOST_WARM_SECONDS
    mismatch: Callable[[Mapping[str, Any], Any], str | None] = environments.mismatch
    started_ns: int = field(default_factory=time.monotonic_ns)

    def replicate(self, number: int) -> Replicate:
        """Run one replicate; an arm that ends early ends it, with status and reason."""
        seeds = self.declaration.seeds
        attempt = _Attempt(self, number, seeds[number % len(seeds)])
        begin, started = time.monotonic(), utc_now()
        status, reason = "ok", ""
        try:
            if self.declaration.design == "rounds":
                attempt.together()
            else:
                attempt.alternating()
        except ArmEnded as end:
            status, reason = end.status, f"'{end.label}' {end.reason}"
        finally:
            attempt.close()
        return Replicate(
            session=self.session,
            replicate=number,
            seed=attempt.seed,
            status=status,  # type: ignore[arg-type]  # a record's status, as outcomes gives it
            reason=reason,
            started_utc=started,
            elapsed_seconds=time.monotonic() - begin,
            design=self.declaration.design,
            start_order=tuple(attempt.started),
            arms=tuple(ArmRun.model_validate(run) for run in attempt.runs.values()),
            blocks=tuple(attempt.blocks),
        )


class _Attempt:
    """One replicate in the making: its zygotes, its children, what they said."""

    def __init__(self, session: DuelSession, number: int, seed: int) -> None:
        self.session, self.number, self.seed = session, number, seed
        self.draw = random.Random(f"{session.order_seed}/{number}")
        self.stack = ExitStack()
        self.zygotes: dict[tuple[Any, ...], Zygote] = {}
        self.children: dict[str, Child] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.started: list[str] = []
        self.blocks: list[Block] = []
        self.block_steps: dict[str, int] = {}
        self.done = 0
        declared = session.declaration
        count = len(session.contenders) * declared.rounds
        session.display.begin(number + 1, max(declared.looks), f"replicate {number + 1}", count)

    def together(self) -> None:
        """Start all arms one by one, then run rounds of one block each."""
        for contender in self._start_order():
            self._start(contender)
        self._set_block_steps(self.session.contenders)
        for turn in range(self.session.declaration.rounds):
            self._round(turn)

    def alternating(self) -> None:
        """Run one process at a time, the arms forwards and backwards, half of the rounds each.

        Of an odd number the first half has one more; the order is drawn, so it favours no arm.
        """
        order, rounds = self._drawn(), range(self.session.declaration.rounds)
        middle = len(rounds) - len(rounds) // 2
        for arms, turns in ((order, rounds[:middle]), (order[::-1], rounds[middle:])):
            for position, contender in enumerate(arms if turns else ()):
                self._start(contender)
                self._set_block_steps([contender])
                steps = self.runs[contender.label]["block_steps"]
                for turn in turns:
                    whole = [self._burst(contender, steps)]
                    self._keep(contender.label, turn, position, whole)
                self.children.pop(contender.label).close()

    def close(self) -> None:
        """End every child and zygote."""
        for child in self.children.values():
            child.close()
        self.stack.close()

    def _start_order(self) -> list[Contender]:
        """Draw an order for two replicates, forwards and backwards.

        Whoever starts first stays a little slower: over two replicates that favours no arm.
        """
        order = list(self.session.contenders)
        random.Random(f"{self.session.order_seed}/start/{self.number // 2}").shuffle(order)
        return order[::-1] if self.number % 2 else order

    def _drawn(self) -> list[Contender]:
        order = list(self.session.contenders)
        self.draw.shuffle(order)
        return order

    def _zygote(self, contender: Contender) -> Zygote:
        """Give the replicate's own preloaded parent for the arm's interpreter and code."""
        subject = contender.subject
        key = (subject.python, subject.root, tuple(subject.overlay))
        if key not in self.zygotes:
            self.zygotes[key] = self.stack.enter_context(
                Zygote(
                    threads=self.session.threads,
                    wait_policy="passive",
                    worker=self.session.worker,
                    preload=self.session.preload,
                    python=subject.python,
                    root=subject.root,
                    overlay=subject.overlay,
                )
            )
        return self.zygotes[key]

    def _start(self, contender: Contender) -> None:
        """Fork an arm, let it assemble and warm up while the others sleep."""
        session, label = self.session, contender.label
        zygote = self._zygote(contender)
        self.started.append(label)
        self.runs.setdefault(label, {}).update({"arm": label, "status": "ok"})
        child = self.children[label] = zygote.fork(contender.task, self._request(contender))
        limit = session.timing["timeout_seconds"]
        ready = self._heard(label, child.hear(limit, session.display.tick))
        self._check_protocol(label, ready)
        warm = self._ask(
            label,
            {
                "do": "warm",
                "trace": self.number == 0 or "peak_memory" in session.declaration.metrics,
                "window_seconds": LEAST_WINDOW_SECONDS,
                "most_seconds": session.most_warm_seconds,
            },
        )
        self._check_import(contender, warm["imported"])
        self.runs[label] |= {
            "process": self._process(zygote),
            "assemble_seconds": ready["assemble_seconds"],
            "time_to_first_step_seconds": ready["assemble_seconds"] + warm["first_step_seconds"],
            "warm_windows": tuple(tuple(map(_short, window)) for window in warm["windows"]),
            "batches_sha256": contender.text["batches"][str(self.seed)]["sha256"],
            "evaluation_sha256": contender.text["evaluation"]["sha256"],
            "finite": self.runs[label].get("finite", True),  # of an alternating arm's first half
            **{key: warm[key] for key in WARM_FIELDS if key in warm},
        }

    def _process(self, zygote: Zygote) -> dict[str, Any]:
        """Give what makes this replicate's processes their own; torch's build once a duel."""
        fields = PROCESS_FIELDS if self.number else (*PROCESS_FIELDS, "torch_build")
        return {key: zygote.description.get(key) for key in fields}

    def _request(self, contender: Contender) -> dict[str, Any]:
        """Give what a worker builds the arm from."""
        return {
            **trial_request(
                contender.cell,
                contender.text,
                seed=self.seed,
                steps=contender.cell["workload"].get("steps", 0),
                timing=self.session.timing,
                threads=self.session.threads,
            ),
            "injected_share": contender.injected_share,
            "modules": [*contender.modules(), *contender.subject.modules],
            "overlay": list(contender.subject.overlay),
        }

    def _check_protocol(self, label: str, ready: Mapping[str, Any]) -> None:
        """End the replicate before a worker is told what it would not understand."""
        theirs = ready.get("protocol")
        if theirs != PROTOCOL:
            spoken = "no protocol" if theirs is None else f"protocol {theirs}"
            why = f"speaks {spoken} of duels, this version {PROTOCOL}: name a revision nearer to it"
            self.runs[label] |= {"status": "failed", "reason": why}
            raise ArmEnded(label, "failed", why)

    def _check_import(self, contender: Contender, proof: Mapping[str, Any]) -> None:
        """End the replicate where a worker imported something else than it was asked to."""
        why = self.session.mismatch(proof, contender.subject)
        if why is not None:
            self.runs[contender.label] |= {
                "status": "failed",
                "reason": why,
                "imported": dict(proof),
            }
            raise ArmEnded(contender.label, "failed", f"imported the wrong code: {why}")

    def _set_block_steps(self, contenders: Sequence[Contender]) -> None:
        """Choose the steps of a block by the fastest window; copies of an arm do the same work.

        Where arms alternate, the first process of an arm or a copy of it chooses for all of them.
        """
        declared = self.session.declaration
        fastest: dict[str, float] = {}
        for contender in contenders:
            windows = self.runs[contender.label]["warm_windows"]
            seconds = min(map(statistics.median, windows)) / (1 + contender.injected_share)
            key = contender.same_as or contender.label
            fastest[key] = min(seconds, fastest.get(key, seconds))
        for key, seconds in fastest.items():
            steps = steps_for(declared.block_seconds, seconds, declared.least_block_steps)
            self.block_steps.setdefault(key, steps)
        for contender in contenders:
            key = contender.same_as or contender.label
            self.runs[contender.label]["block_steps"] = self.block_steps[key]

    def _round(self, turn: int) -> None:
        """Run one block of every arm, in bursts that take turns where the duel declares them.

        Each turn's order is drawn anew.
        """
        told: dict[str, list[dict[str, Any]]] = {}
        left = {c.label: self.runs[c.label]["block_steps"] for c in self.session.contenders}
        while any(left.values()):
            for contender in self._drawn():
                steps = min(left[contender.label], self._burst_steps(contender))
                if steps:
                    left[contender.label] -= steps
                    told.setdefault(contender.label, []).append(self._burst(contender, steps))
        for position, (label, bursts) in enumerate(told.items()):
            self._keep(label, turn, position, bursts)

    def _burst_steps(self, contender: Contender) -> int:
        """Give how many steps an arm runs before the next one's turn."""
        declared = self.session.declaration
        steps: int = self.runs[contender.label]["block_steps"]
        if declared.burst_seconds is None:
            return steps
        bursts = max(1, round(declared.block_seconds / declared.burst_seconds))
        return max(declared.least_block_steps, -(-steps // bursts))

    def _burst(self, contender: Contender, steps: int) -> dict[str, Any]:
        label, declared = contender.label, self.session.declaration
        said = self._ask(label, {"do": "block", "steps": steps, "rewarm": declared.rewarm_steps})
        self.runs[label]["finite"] = self.runs[label]["finite"] and said["finite"]
        return said

    def _keep(
        self, label: str, turn: int, position: int, bursts: Sequence[Mapping[str, Any]]
    ) -> None:
        """Make one block of an arm's bursts in a round."""
        self.done += 1
        self.session.display.tick(self.done)
        self.blocks.append(
            Block(
                round=turn,
                position=position,
                arm=label,
                clock_seconds=(bursts[0]["began_ns"] - self.session.started_ns) / 1e9,
                steps=sum(burst["steps"] for burst in bursts),
                wall_seconds=math.fsum(burst["wall_seconds"] for burst in bursts),
                injected_seconds=math.fsum(burst["injected_seconds"] for burst in bursts),
                step_seconds=tuple(_short(x) for burst in bursts for x in burst["step_seconds"]),
                disturbance=_shortened(merged([burst["disturbance"] for burst in bursts])),
            )
        )

    def _ask(self, label: str, command: Mapping[str, Any]) -> dict[str, Any]:
        limit = self.session.timing["timeout_seconds"]
        return self._heard(label, self.children[label].ask(command, limit))

    def _heard(self, label: str, message: dict[str, Any] | None) -> dict[str, Any]:
        """Give the answer, or end the replicate with how the arm ended."""
        if message is not None:
            return message
        outcome = self.children[label].outcome
        end = ending(outcome, self.session.timing["timeout_seconds"])
        self.runs[label] |= end
        raise ArmEnded(label, end["status"], f"{end['status'].replace('_', ' ')}: {end['reason']}")


def _short(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT}g}")


def _shortened(noted: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _short(v) if isinstance(v, float) else v for key, v in noted.items()}
