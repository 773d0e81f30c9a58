"""Say what duels found: in sentences, in chips, and in lines for a terminal."""

from __future__ import annotations

import math
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertopt_bench.report import wording
from bertopt_bench.report.wording import NBSP
from bertopt_bench.results.duels import CONTROL
from bertopt_bench.stats.comparisons import RATIOS, WORDS, range_text
from bertopt_bench.stats.families import clopper_pearson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bertopt_bench.results.duels import Finding

TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Measure:
    """How a metric is spoken of; ``more``, ``less`` and ``alike`` take an arm and its baseline."""

    title: str
    noun: str
    unit: str
    more: str
    less: str
    alike: str
    unsure: str


MEASURES = {
    "step_time": Measure(
        "Step time",
        "step time",
        "replicate",
        "{arm} is slower than {base}",
        "{arm} is faster than {base}",
        "{arm} is as fast as {base}",
        "whether {arm} is slower or faster than {base}",
    ),
    "peak_memory": Measure(
        "Peak memory",
        "peak memory",
        "replicate",
        "{arm} needs more memory than {base}",
        "{arm} needs less memory than {base}",
        "{arm} needs as much memory as {base}",
        "whether {arm} needs more or less memory than {base}",
    ),
    "loss": Measure(
        "Held-out loss",
        "held-out loss",
        "seed",
        "{arm} ends at a higher loss than {base}",
        "{arm} ends at a lower loss than {base}",
        "{arm} ends at the same loss as {base}",
        "whether {arm} ends at a higher or lower loss than {base}",
    ),
    "time_to_target": Measure(
        "Time to target",
        "time to the target loss",
        "pair",
        "{arm} reaches the target later than {base}",
        "{arm} reaches the target sooner than {base}",
        "{arm} reaches the target as soon as {base}",
        "whether {arm} reaches the target later or sooner than {base}",
    ),
}
KINDS = {"equivalent": "same", "refused": "refused", "agrees": "control", "disagrees": "refused"}
ICONS = {"worse": "▲", "better": "▼", "same": "=", "open": "?", "refused": "✕", "control": "◆"}
TOLD = ("margin_below_noise_floor", "detectable_above_twice_margin")
"""Flags that are told in another way: by a column, or with a number."""
FLAGS = {
    "fewer_replicates": "fewer replicates than other comparisons",
    "infinite_differences": "some differences are infinite: a run diverged or never got there",
    "level_out_of_reach": "no outcome of so few replicates could reach the level",
    "sign_flip_disagrees": "the sign-flip test on the mean does not agree",
    "not_steady": "most processes had not warmed up in time",
    "disturbed": "more than 20 % of the blocks were disturbed",
    "interval_excludes_zero": "the interval excludes 0",
    "confidence_out_of_reach": "too few replicates for an interval of the wanted confidence",
}
CALL_TIME = Measure(
    "Call time",
    "call time",
    "replicate",
    "{arm} is slower than {base}",
    "{arm} is faster than {base}",
    "{arm} is as fast as {base}",
    "whether {arm} is slower or faster than {base}",
)
_UNIT: ContextVar[str] = ContextVar("unit", default="step")


@contextmanager
def speaking_of(unit: str) -> Iterator[None]:
    """Speak of steps, or of calls: what the time of a duel of operations is of."""
    token = _UNIT.set(unit)
    try:
        yield
    finally:
        _UNIT.reset(token)


def unit() -> str:
    """Give what is timed: a step, or a call."""
    return _UNIT.get()


def measure(metric: str) -> Measure:
    """Give a metric's words."""
    return CALL_TIME if metric == "step_time" and unit() == "call" else MEASURES[metric]


def kind(finding: Finding) -> str:
    """Class a verdict: worse, better, same, open or refused; colours and shapes follow it."""
    more, less = WORDS[finding.metric]
    return {more: "worse", less: "better", **KINDS}.get(finding.verdict, "open")


def chip(finding: Finding) -> dict[str, str]:
    """Give the class, the mark and the word of a verdict."""
    found = kind(finding)
    return {"kind": found, "icon": ICONS[found], "word": finding.verdict}


def amount(metric: str, value: float, *, unit: bool = True) -> str:
    """Write an estimate or an end of an interval: a ratio, or signed nats."""
    if metric in RATIOS:
        return f"{TIMES}{NBSP}{wording.ratio(value)}" if unit else wording.ratio(value)
    return f"{wording.nats(value)}{f'{NBSP}nats' if unit else ''}"


def width(metric: str, value: float | None) -> str:
    """Write a margin or a noise floor: a share, or nats; a dash where there is none."""
    if value is None:
        return "–"  # noqa: RUF001 - a dash in a table
    if metric not in RATIOS:
        return f"{wording.significant(value, 2) if value else '0'}{NBSP}nats"
    share = math.expm1(value)
    return wording.percent(round(share, 9)) if _stated(share) else wording.share(share)


def _stated(share: float) -> bool:
    """Tell a margin somebody wrote (whole tenths of a per cent) from a measured width."""
    return abs(share * 1000 - round(share * 1000)) < 1e-6


def interval(finding: Finding) -> str:
    """Write the interval that is shown; empty where there is none."""
    if finding.low is None or finding.high is None:
        return ""
    ends = (amount(finding.metric, end, unit=False) for end in (finding.low, finding.high))
    return " to ".join(ends)


def level(finding: Finding) -> str:
    """Write the confidence of the interval that is shown."""
    return wording.confidence(finding.shown_confidence)


def count(finding: Finding) -> str:
    """Write n with what it counts."""
    return f"n = {wording.plural(finding.n, measure(finding.metric).unit)}"


def corrected_p(finding: Finding) -> float | None:
    """Give the corrected p-value of the direction that the data point to."""
    found = [p for p in (finding.corrected_p_more, finding.corrected_p_less) if p is not None]
    return min(found, default=None)


def repeats_exactly(finding: Finding) -> bool:
    """Say whether every unit gave the same difference, as allocators do."""
    return finding.n > 1 and finding.low is not None and finding.low == finding.high


def sentence(finding: Finding) -> tuple[str, str]:
    """Say what a comparison found: the answer, and the numbers it rests on."""
    words = measure(finding.metric)
    names = {"arm": finding.arm, "base": finding.baseline}
    found = kind(finding)
    if found == "refused":
        head = "No answer on {arm} against {base} in " + words.noun
        return head.format(**names), f": refused, because {finding.reason}."
    if found == "open":
        return f"Cannot tell {words.unsure.format(**names)}", f": {_open(finding)}"
    edge = _edge(finding)
    numbers = _numbers(finding)
    if found == "same":
        if not finding.margin_in_force:
            return words.alike.format(**names), f": {numbers}."
        head = f"{words.alike}, to within {width(finding.metric, finding.margin_in_force)}"
        return head.format(**names), f": {numbers}, inside {edge}."
    told = words.more if found == "worse" else words.less
    beyond = f", beyond {edge}" if finding.margin_in_force else ""
    return told.format(**names), f": {numbers}{beyond}."


def _numbers(finding: Finding) -> str:
    """Write estimate, interval and n; a difference that repeats exactly needs no interval."""
    value, words = finding.estimate, measure(finding.metric)
    if value is None:
        return f"nothing was measured ({count(finding)})"
    told = (
        f"{wording.ratio(value)} times the {words.noun}"
        if finding.metric in RATIOS
        else f"{wording.nats(value)} nats of {words.noun}"
    )
    if repeats_exactly(finding):
        return f"{told}, the same in each of {wording.plural(finding.n, words.unit)}"
    if not (ends := interval(finding)):
        return f"{told} ({count(finding)}: no interval below 6)"
    return f"{told} ({level(finding)} interval {ends}, {count(finding)})"


def _edge(finding: Finding) -> str:
    """Name the margin that the test stood against, and why it is wider than the declared one."""
    margin, used = finding.margin, finding.margin_in_force
    told = f"the margin of {width(finding.metric, used)}"
    if margin is not None and used is not None and used > margin:
        told += f" (declared {width(finding.metric, margin)}, widened to the noise floor)"
    return told


def _open(finding: Finding) -> str:
    """Say what an inconclusive comparison has, why that is not enough, and what would be."""
    rest = finding.reason.removeprefix(range_text(finding)).strip()
    told = _numbers(finding)
    if rest.startswith("does not settle"):
        told += f" does not settle it against {_edge(finding)}."
    else:
        told += f". {rest[:1].upper()}{rest[1:]}." if rest else "."
    needed = needs(finding)
    return told + (f" {needed[:1].upper()}{needed[1:]}." if needed else "")


def needs(finding: Finding) -> str:
    """Say how many units would settle an inconclusive comparison; empty where nobody knows."""
    if finding.verdict != "inconclusive" or finding.needed_replicates is None:
        return ""
    unit = measure(finding.metric).unit
    return f"needs n = {finding.needed_replicates} {unit}s for 80{NBSP}% power"


def notes(finding: Finding) -> list[str]:
    """List what a row of the table has to add: reasons, needs, flags."""
    told = []
    if finding.verdict == "refused":
        told.append(finding.reason)
    elif finding.verdict == "inconclusive":
        rest = finding.reason.removeprefix(range_text(finding)).strip()
        told += [] if rest.startswith("does not settle") else [rest]
        told.append(needs(finding))
    elif repeats_exactly(finding):
        told.append("no test is needed")
    decided = kind(finding) in {"worse", "better"}
    if "detectable_above_twice_margin" in finding.flags and not decided:
        found = width(finding.metric, finding.detectable)
        told.append(f"only {found} or more is found with 80{NBSP}% power here")
    told += [FLAGS.get(flag, flag.replace("_", " ")) for flag in finding.flags if flag not in TOLD]
    return [text for text in told if text]


def verdict_lines(findings: Sequence[Finding], controls: Sequence[Finding] = ()) -> list[str]:
    """Write a line a comparison and one an A/A arm, in aligned columns, for a terminal."""
    rows = [[_plain(part) for part in _columns(finding)] for finding in (*findings, *controls)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "   ".join(
            part.ljust(width) for part, width in zip(row, widths, strict=True) if width
        ).rstrip()
        for row in rows
    ]


def _columns(finding: Finding) -> list[str]:
    """Give a line's columns: comparison, verdict, estimate, p, n, noise floor, what is missing."""
    name, metric = f"{finding.arm} by {finding.baseline}", measure(finding.metric).noun
    if finding.estimate is None:
        return [name, finding.verdict, metric, "", f"n {finding.n}", "", finding.reason]
    shown, ends = level(finding), (finding.low, finding.high)
    if finding.arm == CONTROL and finding.confidence is not None:
        shown, ends = wording.confidence(finding.confidence), (finding.gate_low, finding.gate_high)
    p = finding.p_any if finding.arm == CONTROL else corrected_p(finding)
    floor = width(finding.metric, finding.noise_floor)
    return [
        name,
        finding.verdict,
        f"{metric} {amount(finding.metric, finding.estimate)}{_bracket(finding, shown, ends)}",
        "" if p is None else f"p {wording.p_value(p)}",
        f"n {finding.n}",
        "" if finding.noise_floor is None else f"noise floor {floor}",
        finding.reason if finding.verdict == "refused" else needs(finding),
    ]


def _bracket(finding: Finding, level: str, ends: tuple[float | None, float | None]) -> str:
    low, high = ends
    if low is None or high is None:
        return ""
    if repeats_exactly(finding):
        return ", always"
    told = (amount(finding.metric, end, unit=False) for end in (low, high))
    return f" [{', '.join(told)}] {level}"


def _plain(text: str) -> str:
    for character, plain in ((TIMES, "x"), (NBSP, " "), (wording.MINUS, "-"), ("∞", "inf")):
        text = text.replace(character, plain)
    return text


def calibration_lines(found: Mapping[str, Any]) -> list[str]:
    """Say what is known of this machine's false alarms and power, a line each, for a terminal."""
    return [_plain(line) for line in calibration(found)]


def calibration(found: Mapping[str, Any]) -> list[str]:
    """Say what is known of a machine's false alarms and power, a sentence each."""
    if not found.get("duels"):
        refused = found.get("refused", 0)
        beside = f" ({wording.plural(refused, 'duel')} refused)" if refused else ""
        return [f"No A/A duel is banked for this machine yet{beside}, so no rate can be stated."]
    told = [_false_alarms(found)]
    if (expected := found.get("expected_per_1000_gate_runs")) is not None:
        told.append(
            "A gate fails only when two independent sessions both reject: of 1,000 gate runs on "
            f"unchanged code at most {wording.significant(expected, 2)} would fail by chance, at "
            "that upper bound."
        )
    if trials := found.get("edge_trials"):
        alarms, bound = found.get("edge_false_alarms", 0), found.get("edge_bound")
        told.append(
            f"At the margin's edge {alarms} of {wording.plural(trials, 'slowed arm')} "
            f"{'was' if alarms == 1 else 'were'} called slower than the delay really put in"
            + (
                f": a rate of {_from(found.get('edge_low'))}at most {wording.share(bound)} "
                f"(95{NBSP}% interval)."
                if bound
                else "."
            )
        )
    if found.get("power_trials"):
        told.append(_power(found))
    return told


def _false_alarms(found: Mapping[str, Any]) -> str:
    duels, alarms = found["duels"], found.get("false_alarms", 0)
    refused, alpha = found.get("refused", 0), found.get("alpha")
    level = f" at alpha {wording.percent(alpha)}" if alpha else ""
    told = (
        f"{alarms} of {wording.plural(duels, 'A/A duel')} gave a false alarm{level}"
        f" ({refused} refused, counted beside)"
    )
    if (bound := found.get("false_alarm_bound")) is None:
        return f"{told}."
    least = _from(found.get("false_alarm_low"))
    return f"{told}: the rate is {least}at most {wording.share(bound)} (95{NBSP}% interval)."


def _from(low: float | None) -> str:
    """Write the lower end of a rate's interval, where it is known and not 0."""
    return f"at least {wording.share(low)} and " if low else ""


def _power(found: Mapping[str, Any]) -> str:
    trials, hits = found["power_trials"], found.get("power_found", 0)
    low, high = found.get("power_low"), found.get("power_high")
    if low is None or high is None:
        low, high = clopper_pearson(hits, trials)
    share = found.get("injected_share")
    what = f"an injected {wording.percent(share)}" if share else "an injected delay"
    return (
        f"{what[:1].upper()}{what[1:]} was found in {hits} of {wording.plural(trials, 'duel')}: "
        f"power {wording.share(low)} to {wording.share(high)} (95{NBSP}% interval)."
    )


def tally(findings: Iterable[Finding]) -> list[tuple[str, int]]:
    """Count verdicts by word: directions first, then equivalent, inconclusive, refused."""
    counts: dict[str, int] = {}
    order = [word for words in WORDS.values() for word in words]
    order += ["equivalent", "inconclusive", "refused"]
    for finding in findings:
        counts[finding.verdict] = counts.get(finding.verdict, 0) + 1
    return sorted(counts.items(), key=lambda item: (*_place(order, item[0]), item[0]))


def _place(order: Sequence[str], word: str) -> tuple[int]:
    return (order.index(word) if word in order else len(order),)
