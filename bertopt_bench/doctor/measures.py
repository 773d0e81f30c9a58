"""What ``doctor`` measures with: ceilings in a trial process, the noise floor by a short duel.

Every measure looks at the time that is left, does less where it is short, and notes what it cut.
"""

from __future__ import annotations

import secrets
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from bertopt_bench.dispatch.duel import DuelSession
from bertopt_bench.dispatch.duelling import prepare_duel
from bertopt_bench.dispatch.local import Zygote, trial_threads
from bertopt_bench.dispatch.outcomes import ending
from bertopt_bench.dispatch.preparing import ask_capabilities
from bertopt_bench.dispatch.progress import SilentDisplay
from bertopt_bench.dispatch.sessions import utc_now
from bertopt_bench.doctor import Measures
from bertopt_bench.duelling import CALIBRATION
from bertopt_bench.errors import UserError
from bertopt_bench.matrix.arms import read_arms
from bertopt_bench.matrix.duels import Settings
from bertopt_bench.stats.duels import analyse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bertopt_bench.dispatch.duelling import DuelPlan
    from bertopt_bench.doctor.budget import Budget
    from bertopt_bench.results.duels import Replicate

SETTINGS = Settings(purpose="calibration", replicates=6, most_warm_seconds=1.0, rounds=1)
SESSION = "doctor"
REPLICATE_SECONDS = 6.0  # of two shared cores: what the first one is allowed for
NOISE_SECONDS = SETTINGS.replicates * REPLICATE_SECONDS  # ceilings leave it untouched
CEILING_SECONDS = 1.2
LEAST_CEILING_SECONDS = 0.3
WHOLE_SHARE = 4.0  # a process, its arrays and its burn-in, by the seconds that are sampled


@contextmanager
def measures() -> Iterator[Measures]:
    """Give the three measures; two share one trial process, started when one of them asks."""
    threads = trial_threads()
    with ExitStack() as stack:

        @cache
        def zygote() -> Zygote:
            return stack.enter_context(Zygote(threads=threads))

        yield Measures(
            noise=measure_noise,
            ceilings=lambda budget: measure_ceilings(zygote(), threads, budget),
            torch=lambda: zygote().description["torch_build"],
        )


def measure_ceilings(zygote: Zygote, threads: int, budget: Budget) -> dict[str, Any]:
    """Give `measure_ceilings`' values by device, the processor first, as long as there is time."""
    found: dict[str, Any] = {}
    for name, device in devices(zygote.description["torch_build"]).items():
        room = budget.left - NOISE_SECONDS
        seconds = min(CEILING_SECONDS, room / WHOLE_SHARE)
        if seconds < LEAST_CEILING_SECONDS:
            found[name] = {"reason": "no time was left for it"}
            budget.cut(f"the ceilings of {name} were left out")
            continue
        if seconds < CEILING_SECONDS:
            shorter = f"{seconds:.1f} s in place of {CEILING_SECONDS:g} s"
            budget.cut(f"the ceilings of {name} were sampled for {shorter}")
        request = {"device": device, "seconds_budget": seconds, "threads": threads}
        outcome = zygote.run("ceilings", request, timeout_seconds=room)
        if outcome.timed_out:
            found[name] = {"reason": f"they were not done within {room:.0f} s"}
            budget.cut(f"the ceilings of {name} were broken off after {room:.0f} s")
            continue
        values = (outcome.final or {}).get("values")
        found[name] = values or {"reason": ending(outcome, room)["reason"]}
    return found


def devices(torch_build: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name the processor and every GPU, each with its choice on the device axis.

    A torch that was built without GPUs is not asked for any: that takes a process.
    """
    built = torch_build.get("cuda") or torch_build.get("hip")
    count = ask_capabilities()["cuda"]["count"] if built else 0
    gpus = {f"cuda {index}": {"name": "cuda", "index": index} for index in range(count)}
    return {"cpu": {"name": "cpu"}, **gpus}


def measure_noise(budget: Budget) -> dict[str, Any]:
    """Duel the built-in cell with itself, as often as the time that is left allows.

    Raises:
        UserError: there was no time at all, or an arm failed.
    """
    matrix, arms = read_arms(CALIBRATION)  # on the CPU: it can run wherever torch can
    plan = prepare_duel(matrix, arms, SETTINGS, SilentDisplay())
    replicates = _replicates(plan, budget)
    if not replicates:
        raise UserError(
            f"no time was left for it: {budget.spent:.0f} of {budget.seconds:.0f} s are spent. "
            "What was prepared is kept, so that a second run has more."
        )
    verdicts = analyse(plan.declaration, replicates, look=1, session=SESSION, at_utc=utc_now())
    if verdicts.state == "invalid":
        raise UserError(f"the duel of identical arms failed: {verdicts.reasons[0]}")
    if len(replicates) < SETTINGS.replicates:
        asked = f"{len(replicates)} of {SETTINGS.replicates} replicates"
        budget.cut(f"the noise floor rests on {asked}")
    rounds = plan.declaration.rounds
    return {
        "finding": verdicts.controls[0].model_dump(mode="json") if verdicts.controls else None,
        "blocks": [block.model_dump() for one in replicates for block in one.blocks],
        "what": f"a tiny BERT on the CPU, {verdicts.replicates} replicates of "
        f"{rounds} round{'s' if rounds > 1 else ''}",
    }


def _replicates(plan: DuelPlan, budget: Budget) -> list[Replicate]:
    """Run replicates while the longest one so far would still fit into the time that is left."""
    session = DuelSession(
        session=SESSION,
        declaration=plan.declaration,
        contenders=plan.contenders,
        display=SilentDisplay(),
        timing=plan.matrix.timing,
        order_seed=secrets.randbelow(2**32),
        threads=trial_threads(),
        most_warm_seconds=plan.settings.most_warm_seconds,
    )
    done: list[Replicate] = []
    longest = REPLICATE_SECONDS
    while len(done) < SETTINGS.replicates and longest <= budget.left:
        began = budget.spent
        session.timing = {**plan.matrix.timing, "timeout_seconds": budget.left}
        replicate = session.replicate(len(done))
        if replicate.status == "timed_out":  # those before it stand
            break
        took = budget.spent - began
        longest = max(longest, took) if done else took
        done.append(replicate)
        if replicate.status != "ok":
            break
    return done
