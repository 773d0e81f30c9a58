"""Measure the instrument: how often it tells identical arms apart, and how often slowed ones.

An entry is what one duel's A/A arm, and its injected arm if it has one, said. A false alarm at
margin 0 is an A/A arm whose two-sided p is at most ``ALPHA``, whatever alpha the duel declared:
only alarms at one rate can be counted together. One at the margin's edge is an injected arm that is
found slower than the delay that was really put in, at ``ALPHA`` too. Bounds are Clopper and
Pearson's.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.micro import is_micro
from bertopt_bench.results.duels import CONTROL
from bertopt_bench.stats.duels import step_time_differences, whole
from bertopt_bench.stats.families import clopper_pearson
from bertopt_bench.stats.power import smallest_p
from bertopt_bench.stats.verdicts import CONTROL_WORDS, Comparison, Rule, judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.results.duels import (
        Declaration,
        DeclaredArm,
        Finding,
        Replicate,
        Verdicts,
    )

ALPHA = 0.01
"""The one rate at which alarms are counted: that of a duel that declares none of its own."""
GATE_RUNS = 1000


def entry(
    declaration: Declaration, replicates: Sequence[Replicate], verdicts: Verdicts
) -> dict[str, Any] | None:
    """Give what a duel adds to the calibration; None where it timed nothing whole.

    A duel refused for anything but its A/A arm is counted beside, and not as a trial.
    """
    control = next((f for f in verdicts.controls if f.metric == "step_time"), None)
    if control is None or not whole(replicates) or is_micro(declaration.arms[0].cell):
        return None  # calls of an operation say nothing of steps
    slowed = _slowed_copy(declaration)
    values = [value for value in control.differences if math.isfinite(value)]
    found: dict[str, Any] = {
        "session": verdicts.session,
        "at_utc": verdicts.at_utc,
        "purpose": declaration.purpose,
        "replicates": verdicts.replicates,
        "alpha": declaration.alpha,
        "refused": _refused(verdicts, control),
        "estimate": control.estimate,
        "low": control.gate_low,
        "high": control.gate_high,
        "p_any": control.p_any,
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "false_alarm": _is_alarm(control.p_any),
    }
    if slowed is not None:
        found["injected"] = _injected(declaration, replicates, verdicts, slowed.label)
    return found


def _refused(verdicts: Verdicts, control: Finding) -> bool:
    """Say whether a duel gave no answer, for a reason other than an A/A arm that differs."""
    if verdicts.state == "invalid" or not _can_alarm(control.p_any, control.n):
        return True
    return verdicts.state == "too_noisy" and _is_busy(verdicts)


def _can_alarm(p_any: float | None, replicates: int) -> bool:
    """Say whether an A/A arm could have given an alarm: what never could would dilute the rate."""
    return p_any is not None and smallest_p(replicates, sides=2) <= ALPHA


def _is_busy(verdicts: Verdicts) -> bool:
    """Say whether the machine, and not an A/A arm alone, made a session too noisy."""
    if verdicts.reason_kinds:
        return "machine" in verdicts.reason_kinds
    # Earlier lines do not tell the kinds; in them each alarm of an A/A arm gave one reason.
    alarms = sum(one.verdict in {CONTROL_WORDS[1], "refused"} for one in verdicts.controls)
    return len(verdicts.reasons) > alarms


def _slowed_copy(declaration: Declaration) -> DeclaredArm | None:
    """Find the arm that is the baseline, slowed: of another cell's arm the delay is not all."""
    baseline = declaration.arms[0]
    same = ("cell_id", "python", "revision", "commit")
    compared = {arm for of, arm in declaration.comparisons if of == baseline.label}
    slowed = (
        arm
        for arm in declaration.arms
        if arm.injected_share
        and arm.label in compared
        and all(getattr(arm, field) == getattr(baseline, field) for field in same)
    )
    return None if baseline.injected_share else next(slowed, None)


def realised_share(replicates: Sequence[Replicate], arm: str) -> float:
    """Give by how much an injected arm was really slowed: injected by other seconds."""
    blocks = [b for r in whole(replicates) for b in r.blocks if b.arm == arm]
    injected = math.fsum(block.injected_seconds for block in blocks)
    return injected / (math.fsum(block.wall_seconds for block in blocks) - injected)


def _injected(
    declaration: Declaration, replicates: Sequence[Replicate], verdicts: Verdicts, arm: str
) -> dict[str, Any]:
    """Say whether the injected arm was found, and whether more than it was claimed."""
    baseline = declaration.arms[0].label
    finding = next(f for f in verdicts.findings if f.arm == arm and f.metric == "step_time")
    share = realised_share(replicates, arm)
    differences = step_time_differences(replicates, baseline, arm)
    edge = Rule("step_time", ALPHA, ALPHA, math.log1p(share), sides=1)
    at_edge = judge([Comparison(baseline, arm, differences)], edge)[0]
    return {
        "asked_share": next(a.injected_share for a in declaration.arms if a.label == arm),
        "realised_share": share,
        "estimate": finding.estimate,
        "low": finding.low,
        "high": finding.high,
        "margin": declaration.margins.get("step_time"),
        "verdict": finding.verdict,
        "found": finding.verdict == "slower",
        "edge_p": at_edge.p_more,
        "edge_false_alarm": _is_alarm(at_edge.p_more),
    }


def _is_alarm(p: float | None) -> bool:
    return p is not None and p <= ALPHA


def summarise(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Count what is banked, with exact bounds; empty where nothing is.

    Alarms are counted anew at ``ALPHA``, whatever the entries say. Power is of duels that declared
    it: an arm that was found at another alpha says nothing of what this one finds.
    """
    if not entries:
        return {}
    whole_ones = [
        one for one in entries if not one["refused"] and _can_alarm(one["p_any"], one["replicates"])
    ]
    alarms = sum(_is_alarm(one["p_any"]) for one in whole_ones)
    summary: dict[str, Any] = {
        "duels": len(whole_ones),
        "refused": len(entries) - len(whole_ones),
        "false_alarms": alarms,
    }
    if whole_ones:
        low, high = clopper_pearson(alarms, len(whole_ones))
        spreads = [one["spread"] for one in whole_ones if one["spread"] is not None]
        summary |= {
            "alpha": ALPHA,
            "false_alarm_low": low,
            "false_alarm_bound": high,
            # Two independent sessions must both reject, each in one direction of the two.
            "expected_per_1000_gate_runs": GATE_RUNS * (high / 2) ** 2,
            "spread": statistics.median(spreads) if spreads else None,
        }
    return summary | _edge(whole_ones) | _power(whole_ones)


def _edge(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Count the slowed arms that were found slower than what was put in."""
    slowed = [one["injected"] for one in entries if one.get("injected")]
    if not slowed:
        return {}
    alarms = sum(_is_alarm(one["edge_p"]) for one in slowed)
    low, high = clopper_pearson(alarms, len(slowed))
    return {
        "edge_trials": len(slowed),
        "edge_false_alarms": alarms,
        "edge_low": low,
        "edge_bound": high,
    }


def _power(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Count the slowed arms that were found slower than their duel's margin."""
    slowed = [one["injected"] for one in entries if one.get("injected") and one["alpha"] == ALPHA]
    if not slowed:
        return {}
    found = sum(one["found"] for one in slowed)
    low, high = clopper_pearson(found, len(slowed))
    return {
        "power_trials": len(slowed),
        "power_found": found,
        "power_low": low,
        "power_high": high,
        "injected_share": statistics.median(one["asked_share"] for one in slowed),
    }


__all__ = ["ALPHA", "CONTROL", "GATE_RUNS", "entry", "realised_share", "summarise"]
