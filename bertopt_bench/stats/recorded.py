"""Take paired differences from two recorded sets: one number a replicate or seed, B by A.

Memory pairs by cell, seed and replicate, losses by cell and seed. Times of sets that were not
interleaved pair only as ratios to an anchor, an arm of the same cell and code that either set
measured in the same rounds: y is a replicate's mean over rounds of log(arm / anchor), and
d_r = yB_r - yA_r over the first min(nA, nB) replicates in order. The two sides are independent, so
their difference is symmetric where nothing changed, whatever their distribution, and the exact test
of paired replicates holds. It does not cover what sets two sessions apart and no anchor shares.

A measurement that both sets hold says nothing of a difference: such pairs count only where there
are no others.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from bertopt_bench.results.duels import CONTROL
from bertopt_bench.results.matching import unpinned
from bertopt_bench.stats.convergence import (
    MARGIN_SHARE,
    combined_log_ratios,
    loss_at_end,
    step_log_ratio,
    steps_to_target,
)
from bertopt_bench.stats.duels import step_time_differences
from bertopt_bench.stats.verdicts import Comparison, control_finding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bertopt_bench.results.arms import RecordedSet
    from bertopt_bench.results.matching import ArmPair, Matching, Paired
    from bertopt_bench.results.record import Record

Item = TypeVar("Item")
NOT_INTERLEAVED = (
    "the sets were not measured in the same rounds, and a machine drifts by tens of per cent in "
    "between, so their times say nothing of a difference. Measure both at once: `bertopt-bench "
    "duel` interleaves its arms; or let two duels share an arm of unchanged code as anchor"
)
COMBINING_SEED = 0
TIMED = ("step_time", "time_to_target")


@dataclass(frozen=True)
class Taken:
    """A comparison of a cell; ``twice`` where both sets hold one and the same measurement.

    ``left_out`` pairs were such beside others that are not.
    """

    comparison: Comparison
    twice: bool = False
    left_out: int = 0


def take(metric: str, matching: Matching, pair: ArmPair, anchor: ArmPair | None) -> Taken:
    """Give a cell's differences; whatever goes wrong in it refuses."""
    names = (pair.a.label, pair.b.label)
    taker: Callable[[], Taken] = {
        "step_time": lambda: _step_time(matching, pair, anchor),
        "peak_memory": lambda: _peak_memory(pair),
        "loss": lambda: _loss(pair),
        "time_to_target": lambda: _time_to_target(matching, pair, anchor),
    }[metric]
    try:
        return taker()
    except Exception as error:  # noqa: BLE001 - a crash must not read as a difference
        reason = f"the statistics failed: {type(error).__name__}: {error}"
        return Taken(Comparison(*names, (), reason))


def untimed(metric: str, matching: Matching, anchor: ArmPair | None) -> str:
    """Say why two sets have no times to compare, empty where they have."""
    if metric == "time_to_target" and _target(matching) is None:
        return "no target loss was declared before the runs, as `duel --target` does"
    if matching.a.declaration is None or matching.b.declaration is None:
        trials = [trial for pair in matching.pairs for trial in pair.trials()]
        copies = bool(trials) and all(trial.same for trial in trials)
        return "" if copies and metric == "step_time" else NOT_INTERLEAVED
    if anchor is None:
        names = ", ".join(pair.label for pair in matching.pairs)
        return (
            "the baselines of the two duels are not one arm, so there is no anchor to take for "
            f"granted. Name an arm of unchanged code with --anchor; both sets have: {names}"
        )
    why = unpinned(matching, anchor)
    if why:
        return (
            f"the anchor '{anchor.label}' is not the same in both sets: {why}. Name another with "
            f"--anchor, or measure both at once with `bertopt-bench duel`"
        )
    return ""


def noise(matching: Matching, alpha: float) -> tuple[float | None, list[str]]:
    """Give the noise floor of ratios between the two sessions, and why they are too noisy.

    The floor comes from the A/A arms: by their baselines, between the sets, they differ by nothing.
    """
    found = [one for one in (_ratios(s, CONTROL) for s in (matching.a, matching.b)) if one]
    reasons = []
    for name, one in (("A", matching.a), ("B", matching.b)):
        last = one.last_verdicts
        if last is not None and last.state == "too_noisy":
            reasons.append(f"{name} was too noisy when it was measured: {'; '.join(last.reasons)}")
    if len(found) < 2:
        return None, reasons
    control = control_finding(_between(*found), "step_time", alpha)
    if control.verdict in {"disagrees", "refused"}:
        reasons.append(f"the A/A arms of the two sets differ: {control.reason}")
    return control.noise_floor, reasons


def loss_margin(pairs: Sequence[ArmPair]) -> float:
    """Give a quarter of the spread over seeds: the median over cells, 0 where there is none.

    A cell's spread is that of both sets together (the root of their mean variance), so that
    swapping the sets changes nothing.
    """
    spreads = []
    for pair in pairs:
        sides = zip(*((_final(t.a), _final(t.b)) for t in pair.trained()), strict=True)
        finite = [[v for v in side if v is not None and math.isfinite(v)] for side in sides]
        variances = [statistics.variance(values) for values in finite if len(values) > 1]
        if variances:
            spreads.append(math.sqrt(statistics.fmean(variances)))
    return MARGIN_SHARE * statistics.median(spreads) if spreads else 0.0


def _step_time(matching: Matching, pair: ArmPair, anchor: ArmPair | None) -> Taken:
    names = (pair.a.label, pair.b.label)
    if anchor is None:  # the sets are copies: `untimed` lets nothing else pass
        shared = [trial for trial in pair.trials() if trial.a.status == "ok"]
        return Taken(Comparison(*names, (0.0,) * len(shared)), twice=True)
    ours = _ratios(matching.a, pair.a.label, anchor.a.label)
    theirs = _ratios(matching.b, pair.b.label, anchor.b.label)
    return Taken(Comparison(*names, _between(ours, theirs)), _is_one_session(matching))


def _time_to_target(matching: Matching, pair: ArmPair, anchor: ArmPair | None) -> Taken:
    target = _target(matching)
    assert target is not None
    trained = pair.trained()
    fresh = [trial for trial in trained if not trial.same]
    trials = fresh or trained
    steps = [step_log_ratio(_reached(t.a, target), _reached(t.b, target)) for t in trials]
    times = _step_time(matching, pair, anchor)
    refusal = _other_text(trials)
    if trials and not refusal and all(ratio is None for ratio in steps):
        refusal = "no run of either set reached the target"
    ratios = times.comparison.differences
    sums = () if refusal else combined_log_ratios(steps, ratios, COMBINING_SEED)
    return Taken(
        Comparison(pair.a.label, pair.b.label, sums, refusal),
        twice=times.twice and not fresh,
        left_out=len(trained) - len(trials),
    )


def _peak_memory(pair: ArmPair) -> Taken:
    """Take a duel's processes where they tell, else whole trials."""
    told = [
        (one.a.process.peak_memory_bytes, one.b.process.peak_memory_bytes, one.same)
        for one in pair.runs()
    ] or [
        (one.a.peak_memory_bytes, one.b.peak_memory_bytes, one.same)
        for one in pair.trials()
        if one.a.status == one.b.status == "ok"
    ]
    known = [(a, b, same) for a, b, same in told if a is not None and b is not None]
    fresh = [(a, b) for a, b, same in known if not same]
    return _paired("peak_memory", pair, fresh, len(known) - len(fresh))


def _loss(pair: ArmPair) -> Taken:
    trials = pair.trained()
    if refusal := _other_text(trials):
        return Taken(Comparison(pair.a.label, pair.b.label, (), refusal))
    told = [(_final(trial.a), _final(trial.b), trial.same) for trial in trials]
    known = [(a, b, same) for a, b, same in told if a is not None and b is not None]
    fresh = [(a, b) for a, b, same in known if not same]
    return _paired("loss", pair, fresh, len(known) - len(fresh))


def _paired(metric: str, pair: ArmPair, fresh: Sequence[tuple[float, float]], copies: int) -> Taken:
    """Pair values of two measurements; where there are only copies, they differ by nothing."""
    names = (pair.a.label, pair.b.label)
    if not fresh:
        return Taken(Comparison(*names, (0.0,) * copies), twice=copies > 0)
    of_a, of_b = zip(*fresh, strict=True)
    return Taken(Comparison.paired(metric, *names, of_a, of_b), left_out=copies)


def _other_text(trials: Sequence[Paired[Record]]) -> str:
    """Refuse losses on unlike text, even where it was declared to differ."""
    for trial in trials:
        ours, theirs = trial.a.evaluation_sha256, trial.b.evaluation_sha256
        if ours is not None and theirs is not None and ours != theirs:
            return "the held-out text differs, so the losses are of different things"
    return ""


def _final(record: Record) -> float | None:
    return loss_at_end(*_curve(record), record.steps, diverged=record.status == "diverged")


def _reached(record: Record, target: float) -> float:
    return steps_to_target(*_curve(record), target)


def _curve(record: Record) -> tuple[list[int], list[float]]:
    return [seen.step for seen in record.evaluations], [seen.loss for seen in record.evaluations]


def _target(matching: Matching) -> float | None:
    """Give the declared target: one taken from a baseline's runs would not survive a swap."""
    declaration = matching.a.declaration
    return (
        None if declaration is None or matching.b.declaration is None else declaration.target_loss
    )


def _ratios(one: RecordedSet, arm: str, anchor: str | None = None) -> tuple[float, ...]:
    """Give log(arm / anchor) by replicate; the anchor of an A/A arm is its baseline."""
    assert one.declaration is not None
    by = one.declaration.arms[0].label if anchor is None else anchor
    if arm == CONTROL and not all(CONTROL in replicate.start_order for replicate in one.replicates):
        return ()
    return step_time_differences(one.replicates, by, arm)


def _between(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    return tuple(b - a for a, b in zip(ours, theirs, strict=False))


def _is_one_session(matching: Matching) -> bool:
    """Say whether both sets hold the same replicates, as far as the shorter one goes."""
    pairs = list(zip(matching.a.replicates, matching.b.replicates, strict=False))
    return bool(pairs) and all(a.line() == b.line() for a, b in pairs)
