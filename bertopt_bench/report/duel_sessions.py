"""Lay out what several sessions share: agreement, controls over sessions, calibration."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.labels import cell_labels
from bertopt_bench.report import duel_rows, duel_wording
from bertopt_bench.report.duel_facts import CONTROL
from bertopt_bench.report.duel_forests import forest_row, forest_scale, ruler
from bertopt_bench.report.duel_scales import Scale
from bertopt_bench.report.duel_wording import amount, chip, measure
from bertopt_bench.report.wording import confidence, listed
from bertopt_bench.stats.calibration import summarise
from bertopt_bench.stats.comparisons import RATIOS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertopt_bench.report.duel_facts import Duel
    from bertopt_bench.results.duels import Finding


def agreement(duels: Sequence[Duel]) -> list[dict[str, Any]]:
    """Say of each comparison what the sessions that asked for it found."""
    asked: dict[tuple[str, ...], list[Finding]] = {}
    for duel in duels:
        cells = {arm.label: arm.cell_id for arm in duel.declaration.arms}
        for finding in duel.findings:
            key = (finding.metric, named(duel, duels), cells[finding.baseline], cells[finding.arm])
            asked.setdefault((*key, finding.arm), []).append(finding)
    told = []
    for (metric, name, *_), found in asked.items():
        words = [f"{n} of {len(found)} {word}" for word, n in duel_wording.tally(found)]
        values = [amount(metric, f.estimate) for f in found if f.estimate is not None]
        same = len({f.verdict for f in found}) == 1
        mark = chip(found[0]) if same else {"kind": "open", "icon": "?", "word": "sessions differ"}
        rest = f": {listed(words)}" + (f" ({', '.join(values)})" if values else "") + "."
        where = f" ({name})" if name else ""
        head = f"{found[0].arm} against {found[0].baseline}{where}, {measure(metric).noun}"
        told.append({"chip": mark, "anchor": "sessions", "head": head, "rest": rest})
    return told


def named(duel: Duel, duels: Sequence[Duel]) -> str:
    """Name a session's baseline cell by what sets it apart; empty where all have the same."""
    cells = {one.declaration.arms[0].cell_id: one.declaration.arms[0].cell for one in duels}
    if len(cells) < 2:
        return ""
    names = dict(zip(cells, cell_labels(list(cells.values())), strict=True))
    return names[duel.declaration.arms[0].cell_id]


def across(duels: Sequence[Duel]) -> list[dict[str, Any]]:
    """Draw the A/A estimates of all sessions on one scale, and those of slowed arms on another."""
    same = [(n, duel, duel.control("step_time"), None) for n, duel in enumerate(duels, start=1)]
    slowed = [
        (n, duel, duel.finding("step_time", arm.label), duel.realised(arm.label))
        for n, duel in enumerate(duels, start=1)
        for arm in duel.slowed
    ]
    drawings = []
    for title, told, every in (
        ("A/A arms", "identical code: every interval should hold 0", same),
        ("Slowed arms", "the tall mark is the delay really put in", slowed),
    ):
        known = [(n, duel, f, share) for n, duel, f, share in every if f and f.estimate is not None]
        if known:
            drawings.append({"title": title, "told": told, **_across(known)})
    return drawings


def _across(known: Sequence[tuple[int, Duel, Finding, float | None]]) -> dict[str, Any]:
    whole = forest_scale("step_time", [finding for _, _, finding, _ in known])
    targets = [math.log1p(share) for *_, share in known if share]
    scale = Scale.of([whole.low, whole.high, *targets], "step_time", air=0.0)
    lines = []
    for number, duel, finding, share in known:
        margin = math.log1p(duel.declaration.margins.get("step_time") or 0.0)
        target = math.log1p(share) if share else None
        row = row_of_forest(finding, scale, margin=margin, floor=None, target=target)
        named = {"arm": f"session {number}", "anchor": f"session-{number}"}
        lines.append({**row, **named, "under": duel_rows.when(duel)[5:16]})
    return {"ruler": ruler(scale), "rows": lines}


def folder_calibration(duels: Sequence[Duel]) -> list[str]:
    """Say what these sessions alone show of false alarms and power."""
    entries = [entry for duel in duels if (entry := duel.banked()) is not None]
    return duel_wording.calibration(summarise(entries)) if len(duels) > 1 and entries else []


def bank(duels: Sequence[Duel]) -> list[str]:
    """Say what the machine's bank held after the last session, all its duels among it."""
    found = [d.verdicts.calibration for d in duels if d.verdicts and d.verdicts.calibration]
    return duel_wording.calibration(found[-1]) if found else []


def row_of_forest(
    finding: Finding,
    scale: Scale,
    *,
    margin: float | None,
    floor: float | None,
    target: float | None = None,
    key: str = "",
) -> dict[str, Any]:
    """Draw and write a comparison's line; an A/A arm shows the interval that makes its floor."""
    control, metric = finding.arm == CONTROL, finding.metric
    ends = (finding.gate_low, finding.gate_high) if control else (finding.low, finding.high)
    known = [amount(metric, end, unit=False) for end in ends if end is not None]
    value = finding.estimate
    return {
        "arm": finding.arm,
        "under": "the noise floor" if control else f"against {finding.baseline}",
        "control": control,
        "anchor": "" if control else duel_rows.anchor(key, finding),
        "svg": forest_row(finding, scale, margin=margin, floor=floor, ends=ends, target=target),
        "value": duel_rows.DASH if value is None else amount(metric, value, unit=metric in RATIOS),
        "interval": " to ".join(known) if len(set(known)) == 2 else "",
        "level": confidence((finding.confidence if control else None) or finding.shown_confidence),
        "n": finding.n,
        "chip": chip(finding),
    }
