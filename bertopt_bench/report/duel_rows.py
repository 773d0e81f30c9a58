"""Lay out the tables of the page of duels: verdicts, arms, controls, sessions, environments."""

from __future__ import annotations

import math
import re
import statistics
from typing import TYPE_CHECKING, Any

from bertopt_bench.measure.suitability import PRESSURE_SHARE, STEAL_SHARE, mean_of
from bertopt_bench.report import duel_wording, wording
from bertopt_bench.report.duel_facts import CONTROL, Range, is_disturbed
from bertopt_bench.report.duel_methods import arm_words
from bertopt_bench.report.duel_wording import amount, chip, measure, width
from bertopt_bench.report.environment import environment, flattened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.report.duel_facts import Duel
    from bertopt_bench.results.duels import DeclaredArm, Finding

DASH = "–"  # noqa: RUF001 - a dash in a table
WIDEST_ENVIRONMENT = 3


def slug(text: str) -> str:
    """Make a name that can stand in an address."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "arm"


def anchor(duel_key: str, finding: Finding) -> str:
    """Name a comparison's part of the page, so that it can be linked."""
    return f"{duel_key}{slug(finding.arm)}-against-{slug(finding.baseline)}"


def verdict_groups(duel: Duel, key: str) -> list[dict[str, Any]]:
    """Make a group a metric (each is a family of its own), a row a comparison."""
    declared, looks = duel.declaration, len(duel.declaration.looks)
    groups = []
    for metric in declared.metrics:
        rows = [verdict_row(f, key) for f in duel.findings if f.metric == metric]
        family = (
            f"a family of its own: {wording.plural(len(rows), 'comparison')}, each at alpha "
            f"{wording.percent(declared.alpha / looks)}, together at "
            f"{wording.percent(declared.family_error / looks)} (Holm); n counts "
            f"{measure(metric).unit}s"
        )
        title = measure(metric).title
        if rows:
            groups.append({"metric": metric, "title": title, "family": family, "rows": rows})
    return groups


def verdict_row(finding: Finding, key: str) -> dict[str, Any]:
    """Write one comparison: verdict, estimate, interval, n, p, margins, noise floor, notes."""
    p, value = duel_wording.corrected_p(finding), finding.estimate
    widened = finding.margin_in_force != finding.margin
    return {
        "anchor": anchor(key, finding),
        "arm": finding.arm,
        "baseline": finding.baseline,
        "chip": chip(finding),
        "value": DASH if value is None else amount(finding.metric, value),
        "interval": duel_wording.interval(finding),
        "level": duel_wording.level(finding),
        "exact": duel_wording.repeats_exactly(finding),
        "n": finding.n,
        "one": measure(finding.metric).unit,
        "p": DASH if p is None else wording.p_value(p),
        "margin": width(finding.metric, finding.margin),
        "in_force": width(finding.metric, finding.margin_in_force) if widened else "",
        "floor": width(finding.metric, finding.noise_floor),
        "notes": duel_wording.notes(finding),
    }


def arm_rows(duel: Duel) -> list[dict[str, Any]]:
    """Make a row an arm: absolute numbers, good within this session only."""
    return [_arm_row(duel, arm) for arm in duel.declaration.arms]


def _arm_row(duel: Duel, arm: DeclaredArm) -> dict[str, Any]:
    runs, label = duel.runs(arm.label), arm.label
    blocks = [block for block in duel.blocks if block.arm == label]
    firsts = [
        r.time_to_first_step_seconds for r in runs if r.time_to_first_step_seconds is not None
    ]
    peaks = [float(run.peak_memory_bytes) for run in runs if run.peak_memory_bytes]
    steady = [run.steady for run in runs if run.steady is not None]
    finals = [r.evaluations[-1].loss for r in duel.records if r.arm == label and r.evaluations]
    return {
        "label": label,
        "words": arm_words(arm).removeprefix(label).strip().strip("()"),
        "step": spread(duel.step_seconds(label), wording.duration),
        "memory": spread(_range(peaks), wording.memory),
        "first": spread(_range(firsts), wording.duration),
        "loss": spread(_range(finals), wording.loss),
        "steady": f"{sum(map(bool, steady))} of {len(steady)}" if steady else DASH,
        "disturbed": f"{sum(map(is_disturbed, blocks))} of {len(blocks)}" if blocks else DASH,
        "kernels": sorted({kernel for run in runs for kernel in run.kernels_ran}),
    }


def _range(values: Sequence[float]) -> Range | None:
    return Range.of([value for value in values if math.isfinite(value)])


def spread(found: Range | None, write: Any) -> tuple[str, str]:
    """Write a median, and under it the lowest and highest value with n."""
    if found is None:
        return DASH, ""
    if found.n == 1:
        return write(found.median), "one run"
    low, high = write(found.low), write(found.high)
    if found.low == found.high:
        return write(found.median), f"always, n {found.n}"
    number, _, unit = low.rpartition(" ")
    short = number if unit and high.endswith(f" {unit}") else low
    return write(found.median), f"{short} to {high}, n {found.n}"


def control_rows(duel: Duel) -> list[dict[str, Any]]:
    """Make a row an A/A finding, and one a slowed arm."""
    rows = [_control_row(finding) for finding in duel.controls]
    unit = duel_wording.unit()
    for arm in duel.slowed:
        finding = duel.finding("step_time", arm.label)
        realised = duel.realised(arm.label)
        if finding is None:
            continue
        value = finding.estimate
        rows.append(
            {
                "name": arm.label,
                "what": f"{duel.baseline}, slowed on purpose",
                "metric": measure(finding.metric).title,
                "value": DASH if value is None else amount(finding.metric, value),
                "interval": duel_wording.interval(finding),
                "level": duel_wording.level(finding),
                "n": finding.n,
                "floor": "",
                "chip": chip(finding),
                "notes": [
                    f"asked for {wording.percent(arm.injected_share)} of each measured {unit}",
                    f"realised {wording.share(realised)}" if realised else "nothing was put in",
                    *duel_wording.notes(finding),
                ],
            }
        )
    return rows


def _control_row(finding: Finding) -> dict[str, Any]:
    metric, low, high = finding.metric, finding.gate_low, finding.gate_high
    known = low is not None and high is not None
    ends = [amount(metric, end, unit=False) for end in (low, high) if end is not None]
    return {
        "name": CONTROL,
        "what": f"{finding.baseline} once more",
        "metric": measure(metric).title,
        "value": DASH if finding.estimate is None else amount(metric, finding.estimate),
        "interval": " to ".join(ends) if known and low != high else "",
        "level": wording.confidence(finding.confidence) if finding.confidence else "",
        "n": finding.n,
        "floor": width(metric, finding.noise_floor),
        "chip": chip(finding),
        "notes": duel_wording.notes(finding),
    }


def overview(duels: Sequence[Duel], names: Sequence[str]) -> list[dict[str, Any]]:
    """Make a row a session: what it asked, its A/A arm, its verdicts, whether it was refused."""
    return [
        _overview_row(number, duel, name)
        for number, (duel, name) in enumerate(zip(duels, names, strict=True), start=1)
    ]


def _overview_row(number: int, duel: Duel, name: str) -> dict[str, Any]:
    metric = duel.declaration.metrics[0]
    control = duel.control(metric)
    row = _control_row(control) if control else None
    several = len(duel.findings) > 1
    arms = [arm for arm in duel.declaration.arms[1:] if arm.label != CONTROL]
    return {
        "number": number,
        "started": when(duel)[5:16],
        "purpose": duel.declaration.purpose,
        "cell": name,
        "arms": wording.listed([arm.label for arm in arms]) or "A/A alone",
        "baseline": duel.baseline,
        "control": row,
        "p": wording.p_value(control.p_any) if control and control.p_any is not None else DASH,
        "replicates": len(duel.whole),
        "findings": [
            {
                "chip": chip(f),
                "value": "" if f.estimate is None else amount(f.metric, f.estimate),
                "interval": "" if several else duel_wording.interval(f),
                "level": duel_wording.level(f),
                "of": f"{f.arm}, {measure(f.metric).noun}" if several else "",
            }
            for f in duel.findings
        ],
        "state": state_words(duel),
    }


def state_words(duel: Duel) -> tuple[str, str, list[str]]:
    """Give a session's state as a class, a word and its reasons."""
    if duel.verdicts is None:
        return "refused", "ended early", ["the session ended before its first look: no verdict"]
    state = duel.verdicts.state
    word = {"valid": "valid", "too_noisy": "too noisy", "invalid": "refused"}[state]
    kinds = {"valid": "same", "too_noisy": "open", "invalid": "refused"}
    return kinds[state], word, list(duel.verdicts.reasons)


def when(duel: Duel) -> str:
    """Write when a session started."""
    started = str(duel.session.get("started_utc", "")).replace("T", " ")
    return started.replace("Z", " UTC").replace("+00:00", " UTC")


SHARES = (
    ("steal_share", "CPU time that the hypervisor gave to other guests (steal)", STEAL_SHARE),
    ("foreign_pressure_share", "time waited for a CPU while other processes ran", PRESSURE_SHARE),
    ("foreign_cpu_share", "CPU time that other processes used", math.inf),
)
COUNTED = (
    ("involuntary_switches", "involuntary context switches in a block"),
    ("major_faults", "major page faults in a block"),
    ("swapped_pages", "pages swapped in a block"),
    ("throttled_periods", "periods cut off by the CPU quota in a block"),
)


def machine_rows(duel: Duel) -> list[tuple[str, str, bool]]:
    """Say what else the machine did during the blocks; True marks what is above its limit."""
    noted = [{"disturbance": b.disturbance, "wall_seconds": b.wall_seconds} for b in duel.blocks]

    def values(name: str) -> list[float]:
        found = (block.disturbance.get(name) for block in duel.blocks)
        return [float(v) for v in found if isinstance(v, int | float) and math.isfinite(v)]

    rows = []
    for name, told, limit in SHARES:
        mean, found = mean_of(noted, name), values(name)
        if found and mean is not None:
            text = f"mean {wording.share(mean)}, highest {wording.share(max(found))}"
            bound = f", at most {wording.percent(limit)} is fine" if limit < 1 else ""
            rows.append((told, f"{text} (n = {len(found):,} blocks{bound})", mean > limit))
    for name, told in COUNTED:
        if found := values(name):
            text = f"median {statistics.median(found):g}, highest {max(found):g}"
            rows.append((told, f"{text} (n = {len(found):,} blocks)", False))
    return rows


def arm_differences(duel: Duel) -> dict[str, Any]:
    """Lay arms side by side: what they were asked to be, and what they proved to have imported."""
    columns = [_identity(duel, arm) for arm in duel.declaration.arms]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = []
    for name in names:
        values = [column.get(name, DASH) for column in columns]
        rows.append({"name": name, "values": values, "differs": len(set(values)) > 1})
    return {
        "arms": [arm.label for arm in duel.declaration.arms],
        "differing": [row for row in rows if row["differs"]],
        "same": [row for row in rows if not row["differs"]],
    }


def _identity(duel: Duel, arm: DeclaredArm) -> dict[str, str]:
    """Flatten an arm's cell, its code and what its first process proved."""
    found: dict[str, Any] = {"cell": arm.cell, "injected_share": arm.injected_share}
    found |= {"python": arm.python, "revision": arm.revision, "commit": arm.commit}
    if runs := duel.runs(arm.label):
        imported = {k: v for k, v in runs[0].imported.items() if k != "addresses"}
        found |= {"imported": imported, "kernels_ran": list(runs[0].kernels_ran)}
        found["block_steps"] = runs[0].block_steps
        found |= {"operation": runs[0].operation} if runs[0].operation else {}
    flat = flattened({name: value for name, value in found.items() if value is not None})
    return {
        name.removeprefix("cell.").removeprefix("imported.modules."): value
        for name, value in flat.items()
    }


def environments(duels: Sequence[Duel]) -> list[dict[str, Any]]:
    """Lay out the sessions' environments; many share one column that says where they differ."""
    sessions = [_without_duel(duel.session) for duel in duels]
    groups = environment(sessions)
    if len(sessions) <= WIDEST_ENVIRONMENT:
        return groups
    for group in groups:
        for row in group["rows"]:
            row["values"] = [_gathered(row["values"])]
    return groups


def _gathered(values: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(values))
    if len(distinct) <= 3:
        counts = [f"{v} ({values.count(v)} sessions)" for v in distinct]
        return distinct[0] if len(distinct) == 1 else "; ".join(counts)
    return f"{len(distinct)} different values, among them {distinct[0]} and {distinct[-1]}"


def _without_duel(session: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the declaration, which has a section of its own."""
    declared = {k: v for k, v in (session.get("declared") or {}).items() if k != "duel"}
    return {**session, "declared": declared}
