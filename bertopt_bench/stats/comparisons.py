"""Paired differences of two arms, and what can be said of them before any verdict."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.results.duels import Finding
from bertopt_bench.stats import paired
from bertopt_bench.stats.power import LEAST_REPLICATES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WORDS = {
    "step_time": ("slower", "faster"),
    "peak_memory": ("larger", "smaller"),
    "loss": ("higher", "lower"),
    "time_to_target": ("slower", "faster"),
}
"""By metric: the word for an arm that takes more than its baseline, and for one that takes less."""
RATIOS = ("step_time", "peak_memory", "time_to_target")
ENDLESS = ("loss", "time_to_target")
"""Metrics with legal infinite values: a diverged run, a target that was never reached."""
SHOWN = 0.95
"""The confidence of an interval that is shown; looks divide what is left of 1."""
ROUNDING = 1e-12
"""Differences closer than this, in log ratios or nats, are the same: no clock resolves them."""
OPEN = ""
"""The verdict of a finding that still awaits one."""


@dataclass(frozen=True)
class Comparison:
    """Paired differences of an arm by its baseline; a ``refusal`` says why there are none."""

    baseline: str
    arm: str
    differences: tuple[float, ...]
    refusal: str = ""

    @classmethod
    def paired(
        cls,
        metric: str,
        baseline: str,
        arm: str,
        of_baseline: Sequence[float],
        of_arm: Sequence[float],
    ) -> Comparison:
        """Pair values of equal replicates: log ratios, or plain differences of losses.

        Two infinite values (neither run got there) differ by 0, one makes an infinite difference.
        """
        check_metric(metric)
        refusal = ""
        if len(of_baseline) != len(of_arm):
            refusal = f"{len(of_baseline)} values of the baseline cannot pair {len(of_arm)}"
        elif metric in RATIOS and any(value <= 0 for value in (*of_baseline, *of_arm)):
            refusal = f"a {metric} of zero or less has no ratio"
        elif of_arm and any({*of_baseline, *of_arm} == {end} for end in (math.inf, -math.inf)):
            refusal = "no run of either arm got there"
        if refusal:
            return cls(baseline, arm, (), refusal)
        scale = math.log if metric in RATIOS else float
        pairs = zip(of_baseline, of_arm, strict=True)
        differences = (0.0 if a == b else scale(b) - scale(a) for a, b in pairs)
        return cls(baseline, arm, tuple(differences))


def check_metric(metric: str) -> None:
    """Raise a UserError for a metric that has no words."""
    if metric not in WORDS:
        allowed = ", ".join(WORDS)
        raise UserError(
            f"metric '{metric}' is not known; these are: {allowed}.{nearest(metric, WORDS)}"
        )


def changed(finding: Finding, **fields: Any) -> Finding:
    """Copy a finding with other fields."""
    return finding.model_copy(update=fields)


def guarded(comparison: Comparison, metric: str, step: Callable[[], Finding]) -> Finding:
    """Take a step; whatever goes wrong in it becomes ``refused``, never a verdict."""
    try:
        return step()
    except Exception as error:  # noqa: BLE001 - a statistic that fails must not end as a verdict
        return Finding(
            metric=metric,
            baseline=comparison.baseline,
            arm=comparison.arm,
            n=len(comparison.differences),
            verdict="refused",
            reason=f"the statistics failed: {type(error).__name__}: {error}",
        )


def begun(comparison: Comparison, metric: str) -> Finding:
    """Begin a finding: what was compared, and no verdict yet."""
    return Finding(
        metric=metric,
        baseline=comparison.baseline,
        arm=comparison.arm,
        n=len(comparison.differences),
        differences=tuple(float(value) for value in comparison.differences),
        verdict=OPEN,
    )


def without_test(finding: Finding, refusal: str = "") -> Finding | None:
    """Decide what allows no test, or needs none; None where a test must decide."""
    values, metric = finding.differences, finding.metric
    if not refusal and any(math.isnan(value) for value in values):
        refusal = "a difference is not a number"
    if not refusal and metric not in ENDLESS and any(math.isinf(value) for value in values):
        refusal = f"a difference of {metric} is infinite"
    if refusal:
        return changed(finding, verdict="refused", reason=refusal)
    if len(values) < LEAST_REPLICATES:
        reason = f"{len(values)} of at least {LEAST_REPLICATES} replicates"
        centre = paired.hodges_lehmann(values) if values else None
        return changed(finding, estimate=centre, verdict="inconclusive", reason=reason)
    if any(math.isinf(value) for value in values) or max(values) - min(values) > ROUNDING:
        return None
    return _constant(finding, paired.hodges_lehmann(values))


def _constant(finding: Finding, value: float) -> Finding:
    """Decide differences that are all the same: nothing, bytes, or no measurement."""
    margin, known = finding.margin_in_force or 0.0, {"low": value, "high": value}
    if abs(value) <= ROUNDING:
        reason = f"no difference in any of {finding.n} replicates"
        return changed(finding, estimate=value, verdict="equivalent", reason=reason, **known)
    if finding.metric == "peak_memory":
        more, less = WORDS[finding.metric]
        verdict = more if value > margin else less if value < -margin else "equivalent"
        amount = amount_text(value, finding.metric)
        reason = f"{amount}, the same in every replicate, so no test is needed"
        return changed(finding, estimate=value, verdict=verdict, reason=reason, **known)
    reason = "the same difference in every replicate: measured values never repeat so exactly"
    return changed(finding, verdict="refused", reason=reason)


def summarised(
    finding: Finding, gate_confidence: float, shown_confidence: float = SHOWN
) -> Finding:
    """Fill in the centre, the interval to show, the gate's and the tests against nothing."""
    values = finding.differences
    shown = paired.walsh_interval(values, shown_confidence)
    gate = paired.walsh_interval(values, gate_confidence)
    finite = all(math.isfinite(value) for value in values)
    return changed(
        finding,
        estimate=paired.hodges_lehmann(values),
        low=shown.low if shown else None,
        high=shown.high if shown else None,
        shown_confidence=shown_confidence,
        gate_low=gate.low if gate else None,
        gate_high=gate.high if gate else None,
        confidence=gate.confidence if gate else None,
        p_any=paired.signed_rank(values).any,
        sign_flip_p=paired.sign_flip(values) if finite else None,
    )


def spread_of(values: Sequence[float]) -> float | None:
    """Give the standard deviation between replicates, or None where one is infinite."""
    return statistics.stdev(values) if all(math.isfinite(value) for value in values) else None


def range_text(finding: Finding) -> str:
    """Write the centre with the interval that is shown and n."""
    parts = (finding.estimate, finding.low, finding.high)
    centre, low, high = (
        "unknown" if part is None else amount_text(part, finding.metric) for part in parts
    )
    level = confidence_text(finding.shown_confidence)
    return f"{centre} ({level} interval {low} to {high}, n = {finding.n})"


def confidence_text(confidence: float) -> str:
    """Write a confidence: 95 %, 98.3 %."""
    return f"{100 * confidence:.3g} %"


def amount_text(value: float, metric: str) -> str:
    """Write a difference in its own unit: per cent of a ratio, or nats."""
    if math.isinf(value):
        return f"{value:+} ({'never reached' if metric in RATIOS else 'diverged'})"
    return f"{100 * math.expm1(value):+.2f} %" if metric in RATIOS else f"{value:+.4f} nats"
