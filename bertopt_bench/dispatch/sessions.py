"""Run a session's planned trials: a zygote a replicate, ceilings between trials, a record each."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from bertopt_bench import catalogue
from bertopt_bench.dispatch.local import Zygote
from bertopt_bench.dispatch.outcomes import ending, evaluation_fields, record_fields
from bertopt_bench.dispatch.proofs import WrongCode, check_proof, code_of
from bertopt_bench.errors import UserError
from bertopt_bench.matrix.identity import canonical_json
from bertopt_bench.results.kept import forget, kept_request

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from bertopt_bench.dispatch.duel import Contender
    from bertopt_bench.dispatch.environments import Subject
    from bertopt_bench.dispatch.progress import Display
    from bertopt_bench.matrix.cells import TrialPlan
    from bertopt_bench.results.record import Record
    from bertopt_bench.results.store import ResultsFolder

CEILING_SECONDS = 1.2
CEILINGS_A_SESSION = 3  # first, middle and last: drift hits them as it hits the cells
CEILING_TIMEOUT_SECONDS = 120.0
PROCESS_FIELDS = (
    "pid",
    "hash_seed",
    "environment_bytes",
    "threads",
    "thread_variables",
    "affinity",
)


@dataclass(slots=True)
class SessionRun:
    """What stays the same over the trials of a session."""

    session: str
    folder: ResultsFolder
    display: Display
    timing: Mapping[str, Any]
    texts: Mapping[str, Mapping[str, Any]]  # by cell id
    code: Mapping[str, Any]
    threads: int = 0
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by cell id
    counts: dict[str, int] = field(default_factory=dict)
    measure: Mapping[str, Any] = field(default_factory=dict)
    precisions: set[str] = field(default_factory=set)

    def run(self, plans: Sequence[TrialPlan]) -> None:
        """Record what is skipped, then run the rest in order.

        Each record is safe before the next trial starts.
        """
        self._record_skips([plan for plan in plans if plan.cell.skip is not None])
        live = [plan for plan in plans if plan.cell.skip is None]
        devices = {canonical_json(p.cell.content["device"]): p.cell.content["device"] for p in live}
        at = {round(i * len(live) / (CEILINGS_A_SESSION - 1)) for i in range(CEILINGS_A_SESSION)}
        self.precisions = {plan.cell.content["precision"]["name"] for plan in live}
        preload, replicate = packages_of(live), None
        with ExitStack() as stack:
            for number, plan in enumerate(live):
                if plan.replicate != replicate:
                    stack.close()
                    zygote = stack.enter_context(Zygote(threads=self.threads, preload=preload))
                    replicate = plan.replicate
                if number in at:
                    self._ceilings(zygote, list(devices.values()))
                self._trial(zygote, plan, number + 1, len(live))
            if live:
                self._ceilings(zygote, list(devices.values()))

    def _record_skips(self, plans: Sequence[TrialPlan]) -> None:
        reasons = Counter(plan.cell.skip for plan in plans)
        for reason, count in reasons.items():
            self.display.say(f"{count} skipped: {reason}")
        for plan in plans:
            self._record(plan, utc_now(), {"status": "skipped", "reason": plan.cell.skip})

    def _ceilings(self, zygote: Zygote, devices: Sequence[Mapping[str, Any]]) -> None:
        for device in devices:
            request = ceilings_request(device, self.threads, self.precisions)
            outcome = zygote.run("ceilings", request, timeout_seconds=CEILING_TIMEOUT_SECONDS)
            if outcome.final is None or outcome.final["kind"] != "result":
                why = ending(outcome, CEILING_TIMEOUT_SECONDS)["reason"]
                self.display.say(f"warning: no ceilings of {device['name']}: {why}")
                continue
            self.folder.append_session_event(
                {
                    "kind": "ceilings",
                    "session": self.session,
                    "at_utc": utc_now(),
                    "device": dict(device),
                    "values": outcome.final["values"],
                    "torch": zygote.description["torch_build"],
                }
            )

    def _trial(self, zygote: Zygote, plan: TrialPlan, number: int, count: int) -> None:
        started = utc_now()
        self.display.begin(number, count, trial_label(plan), plan.steps)
        fields = self._live(zygote, plan)
        self._record(plan, started, fields)
        self.display.end(fields["status"], _line(fields))

    def run_one(self, zygote: Zygote, plan: TrialPlan, contender: Contender) -> Record:
        """Run one trial of a duel's arm and record it under the arm's label, with the arm's code.

        A trial whose worker does not prove that code is stopped, and its record is failed; so is
        one whose worker, of another revision, says what no record of this version holds.
        """
        started, subject = utc_now(), contender.subject
        modules = [*contender.modules(), *subject.modules]
        named = partial(
            code_of, subject, modules=modules, ours=self.code, outside=plan.cell.outside
        )
        told: dict[str, Any] = {"arm": contender.label}
        try:
            fields = self._live(zygote, plan, subject, modules)
            told["code"] = named(fields.get("imported", {}))
            return self._record(plan, started, {**fields, **told})
        except UserError:  # the folder cannot be written, or no process started
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            why = f"its worker's messages are not those of this version: {_first_line(error)}"
            told["code"] = named({})
            return self._record(plan, started, {**told, "status": "failed", "reason": why})

    def _record(self, plan: TrialPlan, started: str, fields: Mapping[str, Any]) -> Record:
        record = self.folder.append(
            {
                "session": self.session,
                "cell_id": plan.cell.id,
                "cell": plan.cell.content,
                "seed": plan.seed,
                "replicate": plan.replicate,
                "steps": plan.steps,
                "started_utc": started,
                "code": {**self.code, "outside": dict(plan.cell.outside)},
                "tuning": self.tuned.get(plan.cell.id),
                **self._text_fields(plan),
                **fields,
            }
        )
        if self.measure.get("checkpoints"):
            forget(self.folder.path, plan)
        self.counts[fields["status"]] = self.counts.get(fields["status"], 0) + 1
        return record

    def _live(
        self,
        zygote: Zygote,
        plan: TrialPlan,
        subject: Subject | None = None,
        modules: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Run a trial; with a subject it must prove that it imported the subject's modules."""
        request = trial_request(
            plan.cell.content,
            self.texts[plan.cell.id],
            seed=plan.seed,
            steps=plan.steps,
            timing=self.timing,
            threads=self.threads,
        )
        request["measure"] = dict(self.measure)
        if self.measure.get("checkpoints"):
            request["checkpoint"] = kept_request(self.folder.path, plan, self.code)
        if subject is not None:
            request |= {"modules": list(modules), "overlay": list(subject.overlay)}
        limit, began = self.timing["timeout_seconds"], time.monotonic()
        try:
            outcome = zygote.run(
                "trial",
                request,
                timeout_seconds=limit,
                on_message=partial(self._hear, plan, subject),
                tick=self.display.tick,
            )
            fields = record_fields(outcome, limit)
        except WrongCode as wrong:
            fields = {
                "status": "failed",
                "reason": str(wrong),
                "imported": wrong.proof,
                "elapsed_seconds": time.monotonic() - began,
            }
        return {**fields, "process": {key: zygote.description[key] for key in PROCESS_FIELDS}}

    def _hear(self, plan: TrialPlan, subject: Subject | None, message: dict[str, Any]) -> None:
        if subject is not None:
            check_proof(message, subject)
        if message["kind"] == "evaluation":
            line = {**evaluation_fields(message), "losses": message["losses"]}
            self.folder.append_partial(plan.cell.id, plan.seed, plan.replicate, line)
            self.display.evaluated(message)
        elif message["kind"] == "burned_in":
            self.display.burned_in()

    def _text_fields(self, plan: TrialPlan) -> dict[str, Any]:
        text = self.texts.get(plan.cell.id)
        if text is None:
            return {}
        return {
            "batches_sha256": text["batches"][str(plan.seed)]["sha256"],
            "evaluation_sha256": text["evaluation"]["sha256"],
            "text_sha256": text["text_sha256"],
            "tokenizer_sha256": text["tokenizer_sha256"],
            "vocabulary_size": text["vocabulary_size"],
            "train_tokens": text.get("train_tokens"),
        }


def trial_request(
    content: Mapping[str, Any],
    text: Mapping[str, Any],
    *,
    seed: int,
    steps: int,
    timing: Mapping[str, Any],
    threads: int = 0,
) -> dict[str, Any]:
    """Give what ``trial.assemble`` builds a trial from, as plain JSON; threads 0 leaves them be."""
    return {
        "cell": content,
        "text": text,
        "seed": seed,
        "steps": steps,
        "timing": dict(timing),
        "threads": threads,
    }


def ceilings_request(
    device: Mapping[str, Any], threads: int, precisions: Collection[str]
) -> dict[str, Any]:
    """Ask for a device's limits; those of fp64 only where a cell computes in it."""
    also = ["float64"] if "fp64" in precisions else []
    return {"device": device, "seconds_budget": CEILING_SECONDS, "threads": threads, "also": also}


def packages_of(plans: Sequence[TrialPlan]) -> list[str]:
    """Name the optional packages that the plans' optimizers import."""
    live = [plan.cell.content for plan in plans if plan.cell.skip is None]
    names = {content["optimizer"]["name"] for content in live if "optimizer" in content}
    packages = {catalogue.package_of("optimizer", name) for name in names}
    return sorted(package for package in packages if package is not None)


def trial_label(plan: TrialPlan) -> str:
    """Name a trial to a person: what varies, then seed and replicate."""
    return f"{plan.cell.label} seed {plan.seed} replicate {plan.replicate}"


def _line(fields: Mapping[str, Any]) -> str:
    if fields["status"] == "ok" and not fields["losses"]:
        return _latencies(fields["step_seconds"])
    if fields["status"] == "ok":
        tokens = sum(fields["real_tokens"][: fields["timed_steps"]])
        rate = tokens / sum(fields["step_seconds"])
        return f", held-out loss {fields['evaluations'][-1]['loss']:.4f}, {rate:,.0f} tokens/s"
    return f": {fields['reason']}"


def _latencies(seconds: Sequence[float]) -> str:
    """Say how long the forward passes of an inference trial took."""
    median, most = statistics.median(seconds) * 1e3, max(seconds) * 1e3
    return f", a batch in {median:.3g} ms, at most {most:.3g} ms (n = {len(seconds)})"


def utc_now() -> str:
    """Give the time in UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
