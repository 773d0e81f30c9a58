"""Run a session's planned trials: a zygote a replicate, ceilings between trials, a record each."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bertopt_bench import catalogue
from bertopt_bench.dispatch.local import Zygote
from bertopt_bench.dispatch.outcomes import evaluation_fields, record_fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.dispatch.progress import Display
    from bertopt_bench.matrix.cells import TrialPlan
    from bertopt_bench.results.store import ResultsFolder

CEILING_SECONDS = 1.2
CEILINGS_A_SESSION = 3  # first, middle and last: drift hits them as it hits the cells
PROCESS_FIELDS = ("pid", "hash_seed", "environment_bytes", "threads", "torch_threads")


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
    counts: dict[str, int] = field(default_factory=dict)

    def run(self, plans: Sequence[TrialPlan]) -> None:
        """Run every planned trial, in order; each record is safe before the next trial starts."""
        preload = packages_of(plans)
        at = {round(i * len(plans) / (CEILINGS_A_SESSION - 1)) for i in range(CEILINGS_A_SESSION)}
        replicate = None
        with ExitStack() as stack:
            zygote: Zygote | None = None
            for number, plan in enumerate(plans, start=1):
                if plan.replicate != replicate or zygote is None:
                    stack.close()
                    zygote = stack.enter_context(Zygote(threads=self.threads, preload=preload))
                    replicate = plan.replicate
                if number - 1 in at:
                    self._ceilings(zygote, plan.cell.content["device"])
                self._trial(zygote, plan, number, len(plans))
            if zygote is not None:
                self._ceilings(zygote, plans[-1].cell.content["device"])

    def _ceilings(self, zygote: Zygote, device: Mapping[str, Any]) -> None:
        request = {"device": device, "seconds_budget": CEILING_SECONDS, "threads": self.threads}
        outcome = zygote.run("ceilings", request, timeout_seconds=60)
        if outcome.final is not None and outcome.final["kind"] == "result":
            self.folder.append_session_event(
                {
                    "kind": "ceilings",
                    "session": self.session,
                    "at_utc": utc_now(),
                    "device": device["name"],
                    "values": outcome.final["values"],
                }
            )

    def _trial(self, zygote: Zygote, plan: TrialPlan, number: int, count: int) -> None:
        cell = plan.cell
        started = utc_now()
        self.display.begin(number, count, trial_label(plan), plan.steps)
        if cell.skip is not None:
            fields: dict[str, Any] = {"status": "skipped", "reason": cell.skip}
        else:
            fields = self._live(zygote, plan)
        self.folder.append(
            {
                "session": self.session,
                "cell_id": cell.id,
                "cell": cell.content,
                "seed": plan.seed,
                "replicate": plan.replicate,
                "steps": plan.steps,
                "started_utc": started,
                "code": {**self.code, "outside": dict(cell.outside)},
                **self._text_fields(plan),
                **fields,
            }
        )
        self.counts[fields["status"]] = self.counts.get(fields["status"], 0) + 1
        self.display.end(fields["status"], _line(fields))

    def _live(self, zygote: Zygote, plan: TrialPlan) -> dict[str, Any]:
        def on_message(message: dict[str, Any]) -> None:
            if message["kind"] == "evaluation":
                partial = {**evaluation_fields(message), "losses": message["losses"]}
                self.folder.append_partial(plan.cell.id, plan.seed, plan.replicate, partial)
                self.display.evaluated(message)

        limit = self.timing["timeout_seconds"]
        outcome = zygote.run(
            "trial",
            trial_request(
                plan.cell.content,
                self.texts[plan.cell.id],
                seed=plan.seed,
                steps=plan.steps,
                timing=self.timing,
                threads=self.threads,
            ),
            timeout_seconds=limit,
            on_message=on_message,
            tick=self.display.tick,
        )
        process = {key: zygote.description[key] for key in PROCESS_FIELDS}
        return {**record_fields(outcome, limit), "process": process}

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


def packages_of(plans: Sequence[TrialPlan]) -> list[str]:
    """Name the optional packages that the plans' optimizers import."""
    names = {plan.cell.content["optimizer"]["name"] for plan in plans if plan.cell.skip is None}
    packages = {catalogue.package_of("optimizer", name) for name in names}
    return sorted(package for package in packages if package is not None)


def trial_label(plan: TrialPlan) -> str:
    """Name a trial to a person: what varies, then seed and replicate."""
    return f"{plan.cell.label} seed {plan.seed} replicate {plan.replicate}"


def _line(fields: Mapping[str, Any]) -> str:
    if fields["status"] == "ok":
        tokens = sum(fields["real_tokens"][: fields["timed_steps"]])
        rate = tokens / sum(fields["step_seconds"])
        return f", held-out loss {fields['evaluations'][-1]['loss']:.4f}, {rate:,.0f} tokens/s"
    return f": {fields['reason']}"


def utc_now() -> str:
    """Give the time in UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
