"""From paired differences to verdicts with a stated error rate.

A verdict needs two rejections: the exact signed-rank test against the margin in force rejects at
alpha, and it still does after Holm's correction over the declared family. What cannot be judged is
``refused`` or ``inconclusive`` with its reason, never a direction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertopt_bench.errors import UserError
from bertopt_bench.results.duels import CONTROL
from bertopt_bench.stats import paired, power
from bertopt_bench.stats.comparisons import (
    OPEN,
    SHOWN,
    WORDS,
    Comparison,
    amount_text,
    begun,
    changed,
    check_metric,
    guarded,
    range_text,
    spread_of,
    summarised,
    without_test,
)
from bertopt_bench.stats.families import benjamini_hochberg, holm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.results.duels import Finding

__all__ = [
    "CONTROL_WORDS",
    "WORDS",
    "Comparison",
    "Rule",
    "control_finding",
    "exploratory",
    "judge",
]

CONTROL_WORDS = ("agrees", "disagrees")
"""What a control says: its interval holds 0, or excludes it as a test at its alpha does."""


@dataclass(frozen=True)
class Rule:
    """What was declared for one metric, before the run.

    ``alpha`` is a comparison's and ``family_error`` the family's; both are divided by ``looks``.
    ``margin`` and ``noise_floor`` are log ratios, or nats for losses. With two ``sides`` every
    p-value is doubled.
    """

    metric: str
    alpha: float
    family_error: float
    margin: float
    looks: int = 1
    sides: int = 2
    noise_floor: float | None = None

    def __post_init__(self) -> None:
        check_metric(self.metric)
        for name, rate in (("alpha", self.alpha), ("family_error", self.family_error)):
            if not 0 < rate < 0.5:
                raise UserError(
                    f"{name} = {rate}: an error rate lies between 0 and 0.5, like 0.01."
                )
        if not 0 <= self.margin < math.inf:
            raise UserError(f"margin = {self.margin}: a margin is 0 or more, like 0.02.")
        if self.looks < 1 or self.sides not in {1, 2}:
            raise UserError(
                f"looks = {self.looks}, sides = {self.sides}: looks are 1 or more, sides are 1 "
                "(a gate, which asks for slow-downs only) or 2."
            )

    @property
    def margin_in_force(self) -> float:
        """Widen the margin to what identical code has just been seen to differ by."""
        return max(self.margin, self.noise_floor or 0.0)

    @property
    def level(self) -> float:
        """Give the level of one comparison at one look."""
        return self.alpha / self.looks

    @property
    def family_level(self) -> float:
        """Give the level of the whole family at one look."""
        return self.family_error / self.looks

    @property
    def shown_confidence(self) -> float:
        """Give the confidence of the interval that is shown at one look, and decides equivalence.

        What is left of 1 is divided by the looks (Bonferroni), as alpha is: over all of them 95 %
        still holds, though a look at more data is only taken where the last one did not suffice.
        """
        return 1 - (1 - SHOWN) / self.looks

    def strictest(self, family: int) -> float:
        """Give the level at which a p-value passes whatever the others of its family are."""
        return min(self.level, self.family_level / family)


def judge(
    comparisons: Sequence[Comparison],
    rule: Rule,
    refusals: Mapping[tuple[str, str], str] | None = None,
) -> list[Finding]:
    """Judge a whole family at once, in the order given.

    ``refusals`` name, by (baseline, arm), what the records already forbid. A comparison without a
    test (refused, too few, settled exactly) keeps its place in the family: leaving it out would
    make the correction weaker than the declared one. p-values of findings are doubled where the
    rule has two sides; ``gate_low`` and ``gate_high`` are the interval that these tests invert, of
    confidence 1 - alpha / looks, or 1 - 2 alpha / looks where one side is asked for. ``low`` and
    ``high`` are the interval to show, at 95 % or, with several looks, at 1 - 0.05 / looks.
    """
    given = refusals or {}

    def begin(comparison: Comparison) -> Finding:
        refusal = given.get((comparison.baseline, comparison.arm)) or comparison.refusal
        return guarded(comparison, rule.metric, lambda: _measured(comparison, rule, refusal))

    measured = [begin(comparison) for comparison in comparisons]
    more = holm(1.0 if finding.p_more is None else finding.p_more for finding in measured)
    less = holm(1.0 if finding.p_less is None else finding.p_less for finding in measured)
    most = max((finding.n for finding in measured), default=0)

    def end(comparison: Comparison, finding: Finding, up: float, down: float) -> Finding:
        if finding.verdict != OPEN:
            return finding
        corrected = changed(finding, corrected_p_more=up, corrected_p_less=down)
        return guarded(
            comparison, rule.metric, lambda: _decided(corrected, rule, len(measured), most)
        )

    return [end(*parts) for parts in zip(comparisons, measured, more, less, strict=True)]


def control_finding(
    differences: Sequence[float], metric: str, alpha: float = 0.01, baseline: str = "baseline"
) -> Finding:
    """Say what the A/A arm shows: does it agree with its baseline, and to within what.

    ``gate_low`` and ``gate_high`` are the interval at 1 - ``alpha``; where n is too small for one,
    the widest exact interval there is (all Walsh averages). ``confidence`` is what it achieves.
    The noise floor is half that interval's width. The verdict is ``agrees`` (it holds 0) or
    ``disagrees`` (it excludes 0, as a test at ``alpha`` does: the session is too noisy). Where n
    cannot reach ``alpha``, the widest interval excludes 0 more often than that, and so it
    raises no alarm: ``inconclusive``, as below 6 replicates. What gives no floor is ``refused``.
    """
    check_metric(metric)
    comparison = Comparison(baseline, CONTROL, tuple(differences))
    return guarded(comparison, metric, lambda: _control(begun(comparison, metric), alpha))


def exploratory(comparisons: Sequence[Comparison], metric: str) -> list[Finding]:
    """Summarise comparisons that were not declared: q-values, and no verdict.

    ``q_value`` is Benjamini and Hochberg's of ``p_any``. The word is ``exploratory``, or
    ``refused`` and ``inconclusive`` where there is nothing to summarise.
    """
    check_metric(metric)

    def explore(comparison: Comparison) -> Finding:
        return guarded(comparison, metric, lambda: _explored(comparison, metric))

    findings = [explore(comparison) for comparison in comparisons]
    q_values = benjamini_hochberg(1.0 if f.p_any is None else f.p_any for f in findings)
    return [
        changed(f, q_value=None if f.p_any is None else q, flags=(*f.flags, "exploratory"))
        for f, q in zip(findings, q_values, strict=True)
    ]


def _measured(comparison: Comparison, rule: Rule, refusal: str) -> Finding:
    """Estimate one comparison and test it against the margin in force, before any correction."""
    floor, margin = rule.noise_floor, rule.margin_in_force
    if floor is not None and not 0 <= floor < math.inf:
        refusal, margin = refusal or f"the noise floor of the A/A arm is {floor}", math.nan
    finding = changed(
        begun(comparison, rule.metric),
        margin=rule.margin,
        margin_in_force=None if math.isnan(margin) else margin,
        noise_floor=floor,
        flags=("margin_below_noise_floor",) if floor and margin > rule.margin else (),
    )
    decided = without_test(finding, refusal)
    if decided is not None:
        return decided
    values = finding.differences
    p_more = rule.sides * paired.signed_rank(values, margin).more
    p_less = rule.sides * paired.signed_rank(values, -margin).less
    # One-sided tests at alpha invert into an interval of confidence 1 - 2 alpha.
    gate_confidence = 1 - 2 * rule.level / rule.sides
    finding = summarised(finding, gate_confidence, rule.shown_confidence)
    return changed(finding, p_more=min(1.0, p_more), p_less=min(1.0, p_less))


def _decided(finding: Finding, rule: Rule, family: int, most_replicates: int) -> Finding:
    """Give a measured and corrected finding its verdict, reason and flags."""
    margin, spread = rule.margin_in_force, spread_of(finding.differences)
    if spread is not None:
        level = rule.strictest(family)
        found = power.detectable(finding.n, level, spread, margin, rule.sides)
        finding = changed(finding, detectable=found)
    more, less = WORDS[rule.metric]
    # With ties, test and interval may differ by a tie: a direction needs both.
    above = finding.gate_low is not None and finding.gate_low > margin
    below = finding.gate_high is not None and finding.gate_high < -margin
    if above and _passes(rule, finding.p_more, finding.corrected_p_more):
        finding = _directed(finding, more, margin, finding.corrected_p_more or 0.0)
    elif below and _passes(rule, finding.p_less, finding.corrected_p_less):
        finding = _directed(finding, less, margin, finding.corrected_p_less or 0.0)
    elif finding.low is not None and -margin < finding.low and (finding.high or 0.0) < margin:
        reason = f"{range_text(finding)} lies inside {_edge(margin, rule.metric)}"
        finding = changed(finding, verdict="equivalent", reason=reason)
    else:
        finding = _inconclusive(finding, rule, family, spread)
    return changed(finding, flags=(*finding.flags, *_flags(finding, rule, family, most_replicates)))


def _passes(rule: Rule, p: float | None, corrected: float | None) -> bool:
    if p is None or corrected is None:
        return False
    return p <= rule.level and corrected <= rule.family_level


def _directed(finding: Finding, word: str, margin: float, p: float) -> Finding:
    reason = f"{range_text(finding)} is beyond {_edge(margin, finding.metric)}: corrected p {p:.2g}"
    return changed(finding, verdict=word, reason=reason)


def _inconclusive(finding: Finding, rule: Rule, family: int, spread: float | None) -> Finding:
    """Say why neither a direction nor equivalence was shown, and how many replicates would."""
    margin, level, needed = rule.margin_in_force, rule.strictest(family), None
    if spread is not None and finding.estimate is not None:
        needed = power.needed_for_equivalence(
            finding.estimate, spread, margin, alpha=1 - rule.shown_confidence
        )
        if abs(finding.estimate) > margin:
            needed = power.needed_replicates(finding.estimate, spread, level, margin, rule.sides)
    least, raw = power.smallest_p(finding.n, rule.sides), _smaller(finding)
    if least > level:
        reason = (
            f"the smallest p-value that {finding.n} replicates reach is {least:.2g}, above "
            f"{level:.2g}"
        )
    elif raw <= rule.level:
        reason = f"p {raw:.2g} does not stand the correction over {family} comparisons"
    else:
        reason = f"{range_text(finding)} does not settle it against {_edge(margin, rule.metric)}"
    return changed(finding, verdict="inconclusive", reason=reason, needed_replicates=needed)


def _smaller(finding: Finding) -> float:
    return min(p for p in (finding.p_more, finding.p_less, 1.0) if p is not None)


def _edge(margin: float, metric: str) -> str:
    return f"the margin of {amount_text(margin, metric).lstrip('+')}" if margin else "0"


def _flags(finding: Finding, rule: Rule, family: int, most_replicates: int) -> list[str]:
    margin, flip = rule.margin_in_force, finding.sign_flip_p
    found = {
        "fewer_replicates": finding.n < most_replicates,
        "infinite_differences": any(math.isinf(value) for value in finding.differences),
        "level_out_of_reach": power.smallest_p(finding.n, rule.sides) > rule.strictest(family),
        "detectable_above_twice_margin": 0 < 2 * margin < (finding.detectable or 0.0),
        "sign_flip_disagrees": finding.verdict in WORDS[rule.metric]
        and flip is not None
        and flip > 2 * rule.level / rule.sides,
    }
    return [flag for flag, is_so in found.items() if is_so]


def _control(finding: Finding, alpha: float) -> Finding:
    decided = without_test(finding)
    if decided is not None and decided.verdict in {"refused", "inconclusive"}:
        return decided
    shown = summarised(finding, 1 - alpha)
    if shown.confidence is None:
        shown = summarised(finding, 1 - power.smallest_p(finding.n, 2))
    if shown.gate_low is None or shown.gate_high is None or shown.confidence is None:
        raise ArithmeticError("no exact interval")
    low, high = shown.gate_low, shown.gate_high
    floor = (high - low) / 2
    if not math.isfinite(floor):
        reason = "identical arms differ without bound: there is no noise floor"
        return changed(shown, verdict="refused", reason=reason)
    # What repeats exactly (bytes) needs no test, and so no replicates to reach alpha with.
    in_reach = decided is not None or power.smallest_p(finding.n, 2) <= alpha
    excludes = low > 0 or high < 0
    flags = ("interval_excludes_zero",) * excludes + ("confidence_out_of_reach",) * (not in_reach)
    word = CONTROL_WORDS[excludes] if in_reach or not excludes else "inconclusive"
    ends = f"{amount_text(low, finding.metric)} to {amount_text(high, finding.metric)}"
    says = "excludes" if excludes else "holds"
    reason = f"the {100 * shown.confidence:.1f} % interval {ends} {says} 0 (n = {finding.n})"
    if word == "inconclusive":
        reason += f", and an alarm at alpha {alpha:g} takes n = {power.least_replicates(alpha, 2)}"
    return changed(shown, noise_floor=floor, verdict=word, reason=reason, flags=flags)


def _explored(comparison: Comparison, metric: str) -> Finding:
    finding = begun(comparison, metric)
    decided = without_test(finding, comparison.refusal)
    if decided is not None and decided.verdict in {"refused", "inconclusive"}:
        return decided
    shown = summarised(finding, SHOWN)
    return changed(shown, verdict="exploratory", reason=f"{range_text(shown)}, not declared")
