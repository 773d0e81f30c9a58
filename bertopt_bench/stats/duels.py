"""Analyse a duel: one difference a replicate and comparison, judged family by family.

Source: the protocol of paired replicates: within a replicate the mean over rounds of the log ratio
of two blocks of one round; over replicates Hodges-Lehmann and exact signed-rank inference.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.labels import drawn_from
from bertopt_bench.measure.suitability import noise_reasons
from bertopt_bench.results.duels import CONTROL, Finding, Verdicts
from bertopt_bench.stats.comparisons import ENDLESS, changed
from bertopt_bench.stats.convergence import (
    MARGIN_SHARE,
    combined_log_ratios,
    loss_at_end,
    step_log_ratio,
    steps_to_target,
)
from bertopt_bench.stats.verdicts import (
    CONTROL_WORDS,
    WORDS,
    Comparison,
    Rule,
    control_finding,
    judge,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bertopt_bench.results.duels import ArmRun, Block, Declaration, ReasonKind, Replicate
    from bertopt_bench.results.record import Record

    Told = tuple[ReasonKind, str]

DISTURBED_FACTOR = 5.0  # a step above this multiple of its block's median disturbs the block
DISTURBED_SHARE = 0.20
LOSS_TOLERANCE = {"fp64": 1e-6, "fp32": 1e-3}  # of the loss at equal weights, by the looser arm
REDUCED_LOSS_TOLERANCE = 2e-2
TIMED = ("step_time", "time_to_target")


def analyse(
    declaration: Declaration,
    replicates: Sequence[Replicate],
    records: Sequence[Record] = (),
    *,
    look: int,
    session: str,
    at_utc: str,
    also: Sequence[str] = (),
) -> Verdicts:
    """Judge every declared comparison of every declared metric on what there is.

    Whatever goes wrong in the statistics refuses; it never becomes a verdict. ``also`` are further
    reasons to refuse that the run itself saw.
    """
    reasons, noise = list(also), []
    try:
        reasons += invalid_reasons(declaration, replicates, records)
        controls, findings = _judged(declaration, replicates, records)
        noise = _noise(replicates)
    except Exception as error:  # noqa: BLE001 - a crash must not read as a difference
        controls, findings = [], []
        reasons.append(f"the statistics failed: {type(error).__name__}: {error}")
    told: list[Told] = [("invalid", why) for why in reasons]
    if reasons:
        findings = refused(declaration, findings, reasons[0])
    else:
        told, findings = _heard(findings, controls, noise)
    return Verdicts(
        session=session,
        at_utc=at_utc,
        look=look,
        replicates=len(whole(replicates)),
        state="invalid" if reasons else "too_noisy" if told else "valid",
        reasons=tuple(why for _, why in told),
        reason_kinds=tuple(kind for kind, _ in told),
        findings=tuple(findings),
        controls=tuple(controls),
    )


def differences(
    metric: str,
    replicates: Sequence[Replicate],
    records: Sequence[Record],
    baseline: str,
    arm: str,
    declaration: Declaration,
) -> tuple[float, ...]:
    """Give one difference a unit (replicate or seed): positive where the arm takes more."""
    if metric == "step_time":
        return step_time_differences(replicates, baseline, arm)
    if metric == "peak_memory":
        return _memory_differences(replicates, baseline, arm)
    losses = _by_seed(records)
    seeds = [seed for seed in declaration.seeds if {baseline, arm} <= losses.get(seed, {}).keys()]
    pairs = [(losses[seed][baseline], losses[seed][arm]) for seed in seeds]
    if metric == "loss":
        return tuple(_minus(_final_loss(b), _final_loss(a)) for a, b in pairs)
    target = _target(declaration, records)
    steps = [step_log_ratio(_steps_to(a, target), _steps_to(b, target)) for a, b in pairs]
    times = step_time_differences(replicates, baseline, arm)
    return tuple(combined_log_ratios(steps, times, 0))


def step_time_differences(
    replicates: Sequence[Replicate], baseline: str, arm: str
) -> tuple[float, ...]:
    """Give each whole replicate's mean over rounds of log(arm / baseline), seconds a step."""
    found = []
    for replicate in whole(replicates):
        rounds: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for block in replicate.blocks:
            seconds = math.log(block.wall_seconds / block.steps)
            rounds[block.round][block.arm].append(seconds)
        found.append(
            statistics.fmean(
                statistics.fmean(arms[arm]) - statistics.fmean(arms[baseline])
                for arms in rounds.values()
            )
        )
    return tuple(found)


def whole(replicates: Iterable[Replicate]) -> list[Replicate]:
    """Give the replicates in which every arm ran to the end."""
    return [replicate for replicate in replicates if replicate.status == "ok"]


def invalid_reasons(
    declaration: Declaration, replicates: Sequence[Replicate], records: Sequence[Record] = ()
) -> list[str]:
    """Say why nothing here may be believed: failed arms, unlike work, wrong numerics."""
    reasons = [
        f"replicate {replicate.replicate}: {replicate.reason}"
        for replicate in replicates
        if replicate.status != "ok"
    ]
    reasons += [
        f"'{record.arm}' seed {record.seed}: {record.status}: {record.reason}"
        for record in records
        if record.status not in {"ok", "diverged"}
    ]
    cells = {arm.label: arm.cell for arm in declaration.arms}
    for replicate in whole(replicates):
        runs = {run.arm: run for run in replicate.arms}
        base = runs[declaration.arms[0].label]
        for run in replicate.arms:
            why = _unlike(base, run, cells[base.arm], cells[run.arm])
            reasons += [f"replicate {replicate.replicate}: {why}"] if why else []
    return list(dict.fromkeys(reasons))


def _unlike(
    base: ArmRun, run: ArmRun, base_cell: Mapping[str, Any], cell: Mapping[str, Any]
) -> str | None:
    """Compare what two arms started from and what they computed with it."""
    if not run.finite:
        return f"'{run.arm}' had losses that are not finite"
    if drawn_from(base_cell["workload"]) != drawn_from(cell["workload"]):
        return None  # other work: nothing can be equal
    for field in ("initial_weights_sha256", "batches_sha256", "evaluation_sha256"):
        if getattr(base, field) != getattr(run, field):
            return f"'{run.arm}' and '{base.arm}' differ in {field} at equal workload fields"
    tolerance = max(
        LOSS_TOLERANCE.get(one["precision"]["name"], REDUCED_LOSS_TOLERANCE)
        for one in (base_cell, cell)
    )
    if base.initial_loss is None or run.initial_loss is None:
        return None
    if not math.isclose(base.initial_loss, run.initial_loss, rel_tol=tolerance):
        return (
            f"'{run.arm}' gives held-out loss {run.initial_loss:.6f} at the initial weights where "
            f"'{base.arm}' gives {base.initial_loss:.6f}, more than {tolerance:g} apart: its "
            "numerics are wrong"
        )
    return None


def suspicions(replicates: Sequence[Replicate], *arms: str) -> tuple[str, ...]:
    """Flag a comparison that may be shown but not leant on: any one of its arms is enough."""
    flags = {"not_steady": _is_unsteady, "disturbed": _is_disturbed_often}
    return tuple(
        flag for flag, is_so in flags.items() if any(is_so(replicates, arm) for arm in arms)
    )


def _is_unsteady(replicates: Sequence[Replicate], arm: str) -> bool:
    runs = [run for replicate in replicates for run in replicate.arms if run.arm == arm]
    return sum(run.steady is False for run in runs) > len(runs) / 2


def _is_disturbed_often(replicates: Sequence[Replicate], arm: str) -> bool:
    blocks = [block for replicate in replicates for block in replicate.blocks if block.arm == arm]
    return sum(map(_is_disturbed, blocks)) > DISTURBED_SHARE * len(blocks)


def _is_disturbed(block: Block) -> bool:
    return bool(block.step_seconds) and max(block.step_seconds) > (
        DISTURBED_FACTOR * statistics.median(block.step_seconds)
    )


def _judged(
    declaration: Declaration, replicates: Sequence[Replicate], records: Sequence[Record]
) -> tuple[list[Finding], list[Finding]]:
    """Give the control of every declared metric, and what is found in every metric's family."""
    controls = [_control(declaration, m, replicates, records) for m in declaration.metrics]
    families = [_family(declaration, control, replicates, records) for control in controls]
    return controls, [finding for family in families for finding in family]


def _family(
    declaration: Declaration,
    control: Finding,
    replicates: Sequence[Replicate],
    records: Sequence[Record],
) -> list[Finding]:
    """Judge all comparisons of one metric, the control's, together."""
    metric = control.metric
    comparisons = [
        Comparison(
            baseline,
            arm,
            differences(metric, replicates, records, baseline, arm, declaration),
            _nobody_got_there(declaration, metric, records, baseline, arm),
        )
        for baseline, arm in declaration.comparisons
    ]
    rule = Rule(
        metric=metric,
        alpha=declaration.alpha,
        family_error=declaration.family_error,
        margin=_margin(declaration, metric, records),
        looks=len(declaration.looks),
        sides=declaration.sides,
        noise_floor=control.noise_floor,
    )
    return [
        changed(f, flags=(*f.flags, *suspicions(replicates, f.baseline, f.arm)))
        for f in judge(comparisons, rule)
    ]


def _control(
    declaration: Declaration,
    metric: str,
    replicates: Sequence[Replicate],
    records: Sequence[Record],
) -> Finding:
    baseline = declaration.arms[0].label
    found = differences(metric, replicates, records, baseline, CONTROL, declaration)
    return changed(control_finding(found, metric), baseline=baseline, arm=CONTROL)


def _heard(
    findings: Sequence[Finding], controls: Sequence[Finding], noise: Sequence[str]
) -> tuple[list[Told], list[Finding]]:
    """Say what makes a session too noisy, and take back what was found in it.

    Of bytes and losses a busy machine changes nothing.
    """
    noise = noise if any(control.metric in TIMED for control in controls) else ()
    alarms = {control.metric: why for control in controls if (why := _control_alarm(control))}
    by_metric = {**dict.fromkeys(TIMED, next(iter(noise), "")), **alarms}
    told: list[Told] = [("control", why) for why in alarms.values()]
    told += [("machine", why) for why in noise]
    return told, [_quietened(finding, by_metric.get(finding.metric)) for finding in findings]


def _control_alarm(control: Finding) -> str | None:
    """Say that an A/A arm differs from its baseline beyond chance, by a test at its alpha."""
    if control.verdict == "refused":
        return f"the A/A arm of {control.metric} gives no noise floor: {control.reason}"
    if control.verdict != CONTROL_WORDS[1] or control.confidence is None:
        return None
    return f"the A/A arm's {control.confidence:.1%} interval of {control.metric} excludes 0"


def _noise(replicates: Sequence[Replicate]) -> list[str]:
    blocks = [block for replicate in replicates for block in replicate.blocks]
    return noise_reasons([block.model_dump() for block in blocks]) if blocks else []


def refused(declaration: Declaration, findings: Sequence[Finding], reason: str) -> list[Finding]:
    """Refuse every declared comparison for a reason; what was computed is left out."""
    counts = {(f.metric, f.baseline, f.arm): f.n for f in findings}
    return [
        Finding(
            metric=metric,
            baseline=baseline,
            arm=arm,
            n=counts.get((metric, baseline, arm), 0),
            verdict="refused",
            reason=reason,
        )
        for metric in declaration.metrics
        for baseline, arm in declaration.comparisons
    ]


def _quietened(finding: Finding, reason: str | None) -> Finding:
    """Take back what was found in too much noise, a difference or none."""
    if reason and finding.verdict in {*WORDS[finding.metric], "equivalent"}:
        return changed(finding, verdict="inconclusive", reason=f"too noisy: {reason}")
    return finding


def _margin(declaration: Declaration, metric: str, records: Sequence[Record]) -> float:
    """Give the margin in the finding's unit: a log ratio, or nats."""
    share = declaration.margins.get(metric)
    if metric != "loss":
        return math.log1p(share or 0.0)
    if share is not None:
        return share
    baseline = declaration.arms[0].label
    values = [
        _final_loss(arms[baseline]) for arms in _by_seed(records).values() if baseline in arms
    ]
    finite = [value for value in values if math.isfinite(value)]
    return MARGIN_SHARE * statistics.stdev(finite) if len(finite) > 1 else 0.0


def _target(declaration: Declaration, records: Sequence[Record]) -> float:
    """Give the target: the declared one, else the baseline's median final loss."""
    if declaration.target_loss is not None:
        return declaration.target_loss
    baseline = declaration.arms[0].label
    values = [
        _final_loss(arms[baseline]) for arms in _by_seed(records).values() if baseline in arms
    ]
    target = statistics.median(values) if values else math.nan
    if values and not math.isfinite(target):
        raise ValueError("the baseline's runs end at no finite loss to aim at; give --target")
    return target


def _nobody_got_there(
    declaration: Declaration, metric: str, records: Sequence[Record], baseline: str, arm: str
) -> str:
    """Refuse arms of which no run reached its end or target: to fail alike is no equivalence."""
    if metric not in ENDLESS:
        return ""
    runs = [
        record
        for by_arm in _by_seed(records).values()
        for label, record in by_arm.items()
        if label in {baseline, arm}
    ]
    target = math.nan if metric == "loss" else _target(declaration, records)
    ends = [_final_loss(run) if metric == "loss" else _steps_to(run, target) for run in runs]
    return "no run of either arm got there" if ends and all(map(math.isinf, ends)) else ""


def _memory_differences(
    replicates: Sequence[Replicate], baseline: str, arm: str
) -> tuple[float, ...]:
    found = []
    for replicate in whole(replicates):
        peaks = {run.arm: run.peak_memory_bytes for run in replicate.arms}
        ours, theirs = peaks[arm], peaks[baseline]
        found.append(math.log(ours) - math.log(theirs) if ours and theirs else math.nan)
    return tuple(found)


def _by_seed(records: Sequence[Record]) -> dict[int, dict[str, Record]]:
    """Give the last record of each arm by seed."""
    found: dict[int, dict[str, Record]] = defaultdict(dict)
    for record in records:
        if record.arm is not None and record.status in {"ok", "diverged"}:
            found[record.seed][record.arm] = record
    return found


def _final_loss(record: Record) -> float:
    if record.status == "diverged":
        return math.inf
    steps = [seen.step for seen in record.evaluations]
    losses = [seen.loss for seen in record.evaluations]
    final = loss_at_end(steps, losses, record.steps)
    return math.nan if final is None else final


def _steps_to(record: Record, target: float) -> float:
    steps = [seen.step for seen in record.evaluations]
    return steps_to_target(steps, [seen.loss for seen in record.evaluations], target)


def _minus(ours: float, theirs: float) -> float:
    """Subtract; two runs that both diverged are alike."""
    return 0.0 if math.isinf(ours) and math.isinf(theirs) else ours - theirs
