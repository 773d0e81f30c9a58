"""Say how a duel was made, from what was declared and what really ran: nothing is boilerplate."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bertopt_bench.report import wording
from bertopt_bench.report.duel_facts import CONTROL, is_disturbed
from bertopt_bench.report.duel_wording import measure, unit, width
from bertopt_bench.report.wording import NBSP
from bertopt_bench.stats.comparisons import RATIOS
from bertopt_bench.stats.power import smallest_p

if TYPE_CHECKING:
    from bertopt_bench.report.duel_facts import Duel
    from bertopt_bench.results.duels import Declaration, DeclaredArm

TIMED = ("step_time", "time_to_target")
TRAINED = ("loss", "time_to_target")


def declared_sentence(declared: Declaration) -> str:
    """Say in a sentence what was fixed before the first measurement."""
    same = f"{declared.arms[0].label} with itself, the A/A arm"
    compared = [f"{arm} with {baseline}" for baseline, arm in declared.comparisons] or [same]
    metrics = [measure(metric).noun for metric in declared.metrics]
    return (
        f"Before anything ran it was fixed to compare {wording.listed(compared)} in "
        f"{wording.listed(metrics)}, at alpha {wording.percent(declared.alpha)} a comparison and "
        f"{wording.percent(declared.family_error)} a family, {_looks(declared)}."
    )


def _looks(declared: Declaration) -> str:
    if len(declared.looks) == 1:
        return f"with one look, after {wording.plural(declared.looks[0], 'replicate')}"
    looks = wording.listed([str(look) for look in declared.looks])
    return f"with looks after {looks} replicates, each at a {_part(len(declared.looks))} of both"


def _part(count: int) -> str:
    return {2: "half", 3: "third", 4: "quarter"}.get(count, f"{count}th part")


def declared_rows(declared: Declaration, order_seed: Any) -> list[tuple[str, str]]:
    """List what was declared: a name and its value each."""
    margins = [f"{measure(metric).noun} {margin(declared, metric)}" for metric in declared.metrics]
    rows = [
        ("arms", "; ".join(map(arm_words, declared.arms))),
        (
            "comparisons",
            "; ".join(f"{arm} against {base}" for base, arm in declared.comparisons) or "none",
        ),
        ("metrics, each a family of its own", ", ".join(declared.metrics)),
        ("alpha of a comparison", wording.percent(declared.alpha)),
        ("error rate of a family", f"{wording.percent(declared.family_error)} (Holm)"),
        ("directions asked for", "both" if declared.sides == 2 else "one: is the arm worse?"),
        ("margin", "; ".join(margins)),
        ("looks after replicates", ", ".join(map(str, declared.looks))),
        ("rounds a replicate", str(declared.rounds)),
        (
            "a block",
            f"{declared.block_seconds:g} s and {declared.least_block_steps} {unit()}s or more, "
            f"after {wording.plural(declared.rewarm_steps, f'discarded {unit()}')}"
            + (f", in bursts of {burst(declared.burst_seconds)}" if declared.burst_seconds else ""),
        ),
        ("design", DESIGNS[declared.design]),
        ("order seed", str(order_seed)),
        ("seeds of weights and data", ", ".join(map(str, declared.seeds))),
        ("purpose", declared.purpose),
    ]
    optional = (
        ("half-width asked for", declared.until, wording.percent),
        ("budget", declared.budget_seconds, wording.duration),
        ("target loss", declared.target_loss, wording.loss),
    )
    return rows + [(name, write(value)) for name, value, write in optional if value is not None]


DESIGNS = {
    "rounds": "all arms alive, one runs at a time, rounds in drawn order",
    "alternating": "one process at a time, the arms forwards and then backwards (ABBA)",
}


def arm_words(arm: DeclaredArm) -> str:
    """Say what an arm is: its role and what it was given as."""
    told = {"baseline": "the baseline", "control": "the baseline once more"}.get(arm.role, "")
    parts = [told, " ".join(arm.overrides)]
    parts.append(f"Python {arm.python}" if arm.python else "")
    parts.append(f"revision {short(arm.revision)}" if arm.revision else "")
    slowed = wording.percent(arm.injected_share) if arm.injected_share else ""
    parts.append(f"slowed by {slowed} on purpose" if slowed else "")
    inside = ", ".join(filter(None, parts))
    return f"{arm.label} ({inside})" if inside else arm.label


def short(revision: str) -> str:
    """Shorten a full commit as git does; names of branches and tags stay."""
    return revision[:12] if re.fullmatch("[0-9a-f]{40}", revision) else revision


def margin(declared: Declaration, metric: str) -> str:
    """Write a declared margin: a share as it was stated, nats, or the rule for a loss."""
    value = declared.margins.get(metric)
    if value is not None:
        return wording.percent(value) if metric in RATIOS else width(metric, value)
    if metric == "loss":
        return "a quarter of the baseline's standard deviation over seeds"
    return "0"


def methods(duel: Duel) -> list[str]:
    """Write a session's methods, a paragraph each: design, warm-up, numbers, test, controls."""
    paragraphs = []
    if duel.replicates:
        paragraphs += [design(duel), warm_up(duel)]
    paragraphs.append(estimator(duel))
    paragraphs += [test(duel)] if duel.declaration.comparisons else []
    return [*paragraphs, exclusions(duel), controls(duel)]


def design(duel: Duel) -> str:
    """Say what a replicate, a round and a block were."""
    declared = duel.declaration
    arms = wording.listed([arm.label for arm in declared.arms if arm.label != CONTROL])
    copies = f", and the A/A arm, a second process of {duel.baseline}"
    start = (
        f"Each of {wording.plural(len(duel.replicates), 'replicate')} started one fresh process an "
        f"arm ({arms}{copies}), forked from a parent of the replicate's own with a hash seed, an "
        f"environment size and bound threads of its own, in an order drawn from order seed "
        f"{duel.session.get('order_seed')}."
    )
    block = (
        f"one block of at least {declared.block_seconds:g} s and {declared.least_block_steps} "
        f"{unit()}s{_block_steps(duel)}, after {wording.plural(declared.rewarm_steps, unit())} "
        "that were run and discarded since the arms had just been switched"
    )
    if declared.design == "alternating":
        return (
            f"{start} The arms did not fit into memory together: one process was alive at a time, "
            f"the arms forwards and then backwards (ABBA), each running blocks in turn, "
            f"{declared.rounds} in all: {block}."
        )
    turns = (
        f" Within a round the arms took turns in bursts of {burst(declared.burst_seconds)} until "
        "each had its block, so that what the machine did in a second hit all of them."
        if declared.burst_seconds
        else ""
    )
    return (
        f"{start} All were alive, one ran at a time, the others slept. In each of "
        f"{declared.rounds} rounds every arm ran, in an order drawn anew, {block}.{turns}"
    )


def burst(seconds: float) -> str:
    """Write a burst's length without the digits of a measurement."""
    return f"{seconds:g} s"


def _block_steps(duel: Duel) -> str:
    found = {
        arm.label: sorted({run.block_steps for run in duel.runs(arm.label) if run.block_steps})
        for arm in duel.declaration.arms
    }
    told = [f"{label}: {wording.listed(list(map(str, n)))}" for label, n in found.items() if n]
    return f" ({unit()}s a block, {', '.join(told)})" if told else ""


def warm_up(duel: Duel) -> str:
    """Say how an arm was warmed up, and how often that succeeded."""
    runs = [run for arm in duel.declaration.arms for run in duel.runs(arm.label)]
    known = [run for run in runs if run.steady is not None]
    steady = sum(bool(run.steady) for run in known)
    reached = (
        f" {steady} of {wording.plural(len(known), 'process', 'processes')} did." if known else ""
    )
    many, apart = (
        ("steps", "Peak memory and the kernels that ran come from one traced step")
        if unit() == "step"
        else ("batches of calls", "Results were checked against float64, and what ran was traced")
    )
    return (
        f"Before its first block an arm ran windows of at least 0.5 s and 5 {many}, untimed, until "
        "two in a row agreed: medians within 3 %, quartiles within 5 % (pyperf's rule)."
        f"{reached} {apart}, apart from the timed ones."
    )


def estimator(duel: Duel) -> str:
    """Say which number a replicate gives and how they are put together."""
    metrics, parts = duel.declaration.metrics, []
    if any(metric in TIMED for metric in metrics):
        parts.append(
            "A replicate gives one number: the mean over its rounds of the difference in "
            f"log(block seconds / {unit()}s) between arm and baseline, whose blocks stood side by "
            "side in time, so that what the machine did to both cancels."
        )
    if "peak_memory" in metrics:
        parts.append("Memory gives the log ratio of peak bytes of a replicate's two processes.")
    if any(metric in TRAINED for metric in metrics):
        parts.append(
            "Losses are paired by seed, which fixes weights, data order and masks: the mean of the "
            "last 5 evaluations at the planned end."
        )
    if "time_to_target" in metrics:
        parts.append(
            "The time to the target is steps to it (by seed) times seconds a step (by replicate), "
            "matched at random; a run that never got there counts as infinite."
        )
    parts.append(
        "The estimate is Hodges and Lehmann's, the median of all averages of two such numbers; the "
        "interval is the exact one of Wilcoxon's signed-rank test. What is counted are replicates "
        f"or seeds, never blocks or {unit()}s."
    )
    return " ".join(parts)


def test(duel: Duel) -> str:
    """Say which test at which level gave a verdict, and what each word takes."""
    declared = duel.declaration
    looks, count = len(declared.looks), len(declared.comparisons)
    level = wording.percent(declared.alpha / looks)
    family = wording.percent(declared.family_error / looks)
    sided = (
        "both directions are asked for, so every p-value is doubled"
        if declared.sides == 2
        else "the question has one direction (is the arm worse?), so p-values are one-sided"
    )
    found = [*duel.findings, *duel.controls]
    shown = wording.confidence(found[0].shown_confidence if found else 1 - 0.05 / looks)
    shared = f" (both rates are divided by {looks} looks)" if looks > 1 else ""
    seeds = set(declared.metrics) <= {"loss"}
    units = len(declared.seeds) if seeds else declared.looks[-1]
    least = wording.p_value(smallest_p(units, declared.sides))
    return (
        "The test is the exact signed-rank test that the true difference does not exceed the "
        f"margin in force; {sided}. A direction takes p ≤ {level} and, after Holm's correction "
        f"over the {wording.plural(count, 'comparison')} of its metric, p ≤ {family}{shared}; with "
        f"{units} {'seeds' if seeds else 'replicates'} p can fall to {least}. Equivalent takes a "
        f"{shown} interval inside the margin. All else is inconclusive: it says neither that "
        "there is a difference nor that there is none. Peak memory that repeats exactly is "
        "compared without a test."
    )


def exclusions(duel: Duel) -> str:
    """Say what was left out: nothing, and what stands out for being odd."""
    disturbed = sum(map(is_disturbed, duel.blocks))
    lost = len(duel.replicates) - len(duel.whole)
    told = f"No replicate, block or {unit()} was dropped as an outlier."
    if duel.blocks:
        told += (
            f" {disturbed:,} of {wording.plural(len(duel.blocks), 'block')} had a {unit()} of more "
            "than five times the block's median; they count like the others."
        )
    if lost:
        told += (
            f" {wording.plural(lost, 'replicate')} did not run to the end and "
            f"{'refuses' if lost == 1 else 'refuse'} the session."
        )
    return told


def controls(duel: Duel) -> str:
    """Say what the A/A arm and the slowed arm are for."""
    slowed = "".join(
        f" {arm.label} is the baseline with a delay of {wording.percent(arm.injected_share)} of "
        f"each measured {unit()}, put in after synchronising: a positive control that must be "
        "found."
        for arm in duel.slowed
    )
    return (
        f"The A/A arm is identical to {duel.baseline} but for its label, and is measured like any "
        "other. Half of its interval's width is the noise floor: no smaller difference could be "
        "told from none between identical arms, so it widens the margin where it is the larger. If "
        f"that interval, at 99{NBSP}%, excludes 0 the session is too noisy for any direction; "
        f"below 8 replicates there is none at 99{NBSP}%, and it raises no alarm.{slowed}"
    )
