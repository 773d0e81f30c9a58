"""Compare two recorded sets, A the baseline, cell by cell: what paired numbers can still say.

A metric is a family: Holm over its cells, q-values beside. What is compared was declared after the
fact, so all of it is exploratory and gates nothing. How differences are taken: ``stats.recorded``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.matrix.quantities import read_share
from bertopt_bench.results.duels import Finding
from bertopt_bench.results.matching import match
from bertopt_bench.stats.comparisons import amount_text, changed, check_metric
from bertopt_bench.stats.families import benjamini_hochberg
from bertopt_bench.stats.recorded import TIMED, loss_margin, noise, take, untimed
from bertopt_bench.stats.verdicts import WORDS, Rule, judge

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from bertopt_bench.results.differing import Difference
    from bertopt_bench.results.matching import ArmPair, Matching
    from bertopt_bench.results.tables import Results
    from bertopt_bench.stats.recorded import Taken

METRICS = tuple(WORDS)
USUAL_METRICS = ("step_time", "peak_memory", "loss")
MARGINS: dict[str, float | None] = {
    "step_time": 0.02,
    "peak_memory": 0.01,
    "loss": None,
    "time_to_target": 0.02,
}
"""Shares; nats for a loss, where None is a quarter of the spread over seeds."""

TWICE = "the same measurement twice"


@dataclass(frozen=True)
class Family:
    """One metric over all cells that pair; with a ``refusal`` all of its findings are refused.

    ``labels`` name the cells, in the order of the findings. ``margin_words`` say where the margin
    comes from.
    """

    metric: str
    findings: tuple[Finding, ...]
    labels: tuple[str, ...]
    refusal: str = ""
    margin_words: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_refused(self) -> bool:
        """Say whether it has no answer at all."""
        return all(finding.verdict == "refused" for finding in self.findings)


@dataclass(frozen=True)
class SetComparison:
    """What comparing two sets gave: families in the order asked for, and what stands behind them.

    ``asked`` are the metrics that were named; without any all that can be had are there.
    """

    families: tuple[Family, ...]
    asked: tuple[str, ...]
    alpha: float
    family_error: float
    differences: tuple[Difference, ...]
    undeclared: tuple[Difference, ...]
    declared: tuple[str, ...]
    anchor: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Give one finding a metric and cell."""
        return tuple(finding for family in self.families for finding in family.findings)

    @property
    def refusals(self) -> dict[str, str]:
        """Give why metrics are refused altogether, by metric."""
        return {f.metric: f.refusal for f in self.families if f.refusal}

    @property
    def exit_code(self) -> int:
        """Give 3 where what was asked for is refused, else 0: a difference is no failure here."""
        refused = [family.is_refused for family in self.families]
        return 3 if self.undeclared or all(refused) or (self.asked and any(refused)) else 0


def compare_sets(
    a: Results,
    b: Results,
    *,
    metrics: Sequence[str] = (),
    margins: Mapping[str, float | None] | None = None,
    alpha: float = 0.01,
    family_error: float = 0.05,
    differs: Sequence[str] = (),
    anchor: str | None = None,
    cells: Collection[str] | None = None,
) -> SetComparison:
    """Judge what B does differently from A, metric by metric, over all cells that both have.

    Without ``metrics`` all that can be had are judged. ``margins`` go over ``MARGINS``, ``anchor``
    is the label of the arm that times are ratios to (None: the common baseline), ``cells`` are
    labels or ids. Raises UserError for an unknown name in any of these, and without a common cell.
    """
    for metric in (*metrics, *(margins or {})):
        check_metric(metric)
    matching = match(a, b, differs)
    pairs, pinned = _chosen(matching, cells), _anchor(matching, anchor)
    rules = {metric: Rule(metric, alpha, family_error, 0.0) for metric in metrics or USUAL_METRICS}
    ruled = {**MARGINS, **(margins or {})}
    return SetComparison(
        families=tuple(
            _family(metric, matching, pairs, pinned, rule, ruled[metric])
            for metric, rule in rules.items()
        ),
        asked=tuple(metrics),
        alpha=alpha,
        family_error=family_error,
        differences=matching.differences,
        undeclared=matching.undeclared,
        declared=matching.declared,
        anchor=pinned.label if pinned is not None else "",
        notes=matching.notes,
    )


def read_margins(texts: Sequence[str]) -> dict[str, float]:
    """Read margins as they are written: ``step_time=1%`` is a share, ``loss=0.02`` is in nats.

    Raises:
        UserError: no metric of this name, or no number that can be a margin.
    """
    margins = {}
    for text in texts:
        metric, _, value = text.partition("=")
        check_metric(metric)
        margins[metric] = _margin(text, metric, value)
    return margins


def _margin(text: str, metric: str, value: str) -> float:
    if metric != "loss":
        return read_share(value, lambda reason: UserError(f"--margin {text}: {reason}"))
    try:
        nats = float(value)
    except ValueError:
        nats = math.nan
    if not 0 <= nats < math.inf:
        raise UserError(f"--margin {text}: a loss's margin is in nats, 0 or more, as loss=0.02.")
    return nats


def _chosen(matching: Matching, cells: Collection[str] | None) -> tuple[ArmPair, ...]:
    if cells is None:
        return matching.pairs
    known = {name for pair in matching.pairs for name in (pair.label, pair.a.cell_id)}
    for name in cells:
        if name not in known:
            labels = [pair.label for pair in matching.pairs]
            raise UserError(
                f"no cell '{name}' in both sets. Cells: {', '.join(labels)}.{nearest(name, known)}"
            )
    return tuple(p for p in matching.pairs if {p.label, p.a.cell_id} & set(cells))


def _anchor(matching: Matching, label: str | None) -> ArmPair | None:
    """Find the pair of arms that times are ratios to: without a label, the common baseline.

    Raises:
        UserError: sets with rounds have no pair of this label.
    """
    a, b = matching.a.declaration, matching.b.declaration
    if a is None or b is None:
        return None
    if label is None:
        baselines = (a.arms[0].label, b.arms[0].label)
        return next((p for p in matching.pairs if (p.a.label, p.b.label) == baselines), None)
    for names in ("label", "a.label", "b.label"):
        for pair in matching.pairs:
            if attrgetter(names)(pair) == label:
                return pair
    known = [pair.label for pair in matching.pairs]
    raise UserError(
        f"--anchor {label}: no such arm in both sets. Arms: {', '.join(known)}."
        f"{nearest(label, known)}"
    )


def _family(
    metric: str,
    matching: Matching,
    pairs: Sequence[ArmPair],
    anchor: ArmPair | None,
    rule: Rule,
    margin: float | None,
) -> Family:
    """Judge one metric over all cells together."""
    refusal = matching.refusal or _invalid(matching)
    if metric in TIMED:
        refusal = refusal or untimed(metric, matching, anchor)
        others = [pair for pair in pairs if pair is not anchor]
        if not others:
            refusal = refusal or "the anchor is no arm to compare: it measures the others"
        pairs = others or pairs
    if refusal:
        return _refused(metric, pairs, refusal)
    floor, noisy = noise(matching, rule.alpha) if metric in TIMED and anchor else (None, [])
    rule = replace(rule, margin=_in_unit(metric, pairs, margin), noise_floor=floor)
    taken = [take(metric, matching, pair, anchor) for pair in pairs]
    if not any(one.comparison.differences or one.comparison.refusal for one in taken):
        return _refused(metric, pairs, f"the sets have no {metric} that pairs")
    found = _with_q_values(judge([one.comparison for one in taken], rule))
    return Family(
        metric=metric,
        labels=tuple(pair.label for pair in pairs),
        findings=tuple(
            _quietened(_told(finding, one), noisy)
            for finding, one in zip(found, taken, strict=True)
        ),
        margin_words=_margin_words(metric, rule, margin),
        notes=(*noisy, *_family_notes(metric, matching, taken)),
    )


def _refused(metric: str, pairs: Sequence[ArmPair], refusal: str) -> Family:
    findings = tuple(
        Finding(
            metric=metric,
            baseline=pair.a.label,
            arm=pair.b.label,
            n=0,
            verdict="refused",
            reason=refusal,
        )
        for pair in pairs
    )
    return Family(metric, findings, tuple(pair.label for pair in pairs), refusal)


def _invalid(matching: Matching) -> str:
    """Say which duel gave no valid answer itself; its numbers mean nothing here either."""
    for name, one in (("A", matching.a), ("B", matching.b)):
        if one.last_verdicts is not None and one.last_verdicts.state == "invalid":
            return (
                f"{name} was invalid when it was measured: {'; '.join(one.last_verdicts.reasons)}"
            )
    return ""


def _in_unit(metric: str, pairs: Sequence[ArmPair], margin: float | None) -> float:
    """Give the margin in the findings' unit: a log ratio, or nats."""
    if metric == "loss":
        return loss_margin(pairs) if margin is None else margin
    return math.log1p(margin or 0.0)


def _margin_words(metric: str, rule: Rule, margin: float | None) -> str:
    words = amount_text(rule.margin, metric).lstrip("+")
    if metric == "loss" and margin is None:
        words += ", a quarter of the spread over seeds (both sets, the median over cells)"
    if rule.noise_floor is not None and rule.noise_floor > rule.margin:
        floor = amount_text(rule.noise_floor, metric).lstrip("+")
        words += f"; in force is {floor}, by which the A/A arms of the two sets may differ"
    return words


def _family_notes(metric: str, matching: Matching, taken: Sequence[Taken]) -> Iterator[str]:
    left_out = sum(one.left_out for one in taken)
    if left_out:
        yield (
            f"{left_out} pairs are one measurement that both sets hold: they say nothing of a "
            "difference and are left out"
        )
    if metric in TIMED and any("machine" in one.fields for one in matching.differences):
        yield "the machines differ: a ratio to an anchor may be another one there"


def _told(finding: Finding, taken: Taken) -> Finding:
    """Say of a copy that it is one."""
    if not taken.twice:
        return finding
    reason = f"{TWICE}: {finding.reason}"
    return changed(finding, reason=reason, flags=(*finding.flags, "same_measurement"))


def _quietened(finding: Finding, noisy: Sequence[str]) -> Finding:
    """Take back a direction that was found in too much noise."""
    if not noisy or finding.verdict not in WORDS[finding.metric]:
        return finding
    return changed(finding, verdict="inconclusive", reason=f"too noisy: {noisy[0]}")


def _with_q_values(findings: Sequence[Finding]) -> list[Finding]:
    """Add Benjamini and Hochberg's q-value of ``p_any`` over the family."""
    q_values = benjamini_hochberg(1.0 if f.p_any is None else f.p_any for f in findings)
    return [
        changed(finding, q_value=None if finding.p_any is None else q)
        for finding, q in zip(findings, q_values, strict=True)
    ]
