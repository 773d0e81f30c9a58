"""Render duels as one offline page: the answer first, then all that it stands on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.micro import is_micro
from bertopt_bench.report import duel_data, duel_rows, duel_wording, frame, rows, sentences
from bertopt_bench.report import duel_figures as drawn
from bertopt_bench.report.duel_facts import CONTROL, gather, labels_of, present
from bertopt_bench.report.duel_forests import SHAPES, forest_scale, ruler, shape
from bertopt_bench.report.duel_methods import declared_rows, declared_sentence, methods
from bertopt_bench.report.duel_sessions import (
    across,
    agreement,
    bank,
    folder_calibration,
    named,
    row_of_forest,
)
from bertopt_bench.report.duel_wording import (
    amount,
    calibration_lines,
    chip,
    measure,
    verdict_lines,
    width,
)
from bertopt_bench.report.figures import Packed
from bertopt_bench.report.wording import listed
from bertopt_bench.results.duels import Finding
from bertopt_bench.stats.comparisons import RATIOS
from bertopt_bench.stats.facts import gather as gather_trials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertopt_bench.report.duel_facts import Duel
    from bertopt_bench.report.frame import ResultSet

__all__ = ["calibration_lines", "present", "render", "verdict_lines"]

MOST_ANSWERS = 8
MOST_OPEN = 4  # comparisons whose figures are unfolded at once
MOST_DOTS = 50_000  # over all figures of a page, some 11 bytes each


def render(results: Sequence[ResultSet], title: str | None = None) -> str:
    """Render the duels of result sets as HTML that asks nothing of any network."""
    duels = gather(results)
    calls = all(is_micro(duel.declaration.arms[0].cell) for duel in duels)
    with duel_wording.speaking_of("call" if calls else "step"):
        content, template = context(results, duels, title), frame.template("duel.html")
    empty = Packed("", ())
    bare = template.render({**content, "data": empty.text, "left_out": empty.left_out})
    packed = duel_data.pack(duels, frame.MOST_BYTES - len(bare.encode()))
    return template.render({**content, "data": packed.text, "left_out": packed.left_out})


def context(
    results: Sequence[ResultSet], duels: Sequence[Duel], title: str | None
) -> dict[str, Any]:
    """Gather all that the template shows but the packed data."""
    figures = sum(len(duel.findings) + len(duel.controls) for duel in duels)
    most_blocks = max(24, MOST_DOTS // (2 * max(1, figures)))
    views = [
        session_view(duel, number, duels, most_blocks) for number, duel in enumerate(duels, start=1)
    ]
    return {
        "title": frame.title_of(results, title),
        "sessions": [duel.session for duel in duels],
        "counts": counts(duels),
        "answers": answers(duels),
        "views": views,
        "overview": duel_rows.overview(duels, [named(duel, duels) for duel in duels]),
        "across": across(duels) if len(duels) > 1 else [],
        "folder_calibration": folder_calibration(duels),
        "bank": bank(duels),
        "declared": declared(duels),
        "environment": duel_rows.environments(duels),
        "sources": list(
            dict.fromkeys(filter(None, (sentences.source_of(d.session) for d in duels)))
        ),
        "warnings": [str(warning) for result in results for warning in result.warnings],
        "trials": trials(results),
        "constants": {"control": CONTROL},
        "shapes": {name: shape(name, "0", "0") for name in SHAPES},
        **frame.assets("page.css", "shell.js", "duel.js"),
    }


def counts(duels: Sequence[Duel]) -> list[tuple[str, str]]:
    """List the few counts that stand under the title."""
    blocks = sum(len(duel.blocks) for duel in duels)
    replicates = sum(len(duel.whole) for duel in duels)
    compared = {c for duel in duels for c in duel.declaration.comparisons}
    listed = [("sessions", len(duels)), ("comparisons", len(compared))]
    listed += [("replicates", replicates), ("timed blocks", blocks)]
    trained = sum(len(duel.records) for duel in duels)
    listed += [("training runs", trained)] if trained else []
    return [(name, f"{count:,}") for name, count in listed if count]


# --- the answer ---


def answers(duels: Sequence[Duel]) -> dict[str, Any]:
    """Give what stands at the top: of one session its findings, of several what they share."""
    if len(duels) == 1:
        return _of_one(duels[0].findings)
    if all(duel.declaration.purpose == "calibration" for duel in duels):
        return {"lead": folder_calibration(duels), "list": []}
    told = f"{len(duels)} sessions were run; times are never pooled over them."
    return {"lead": [told], "list": agreement(duels)}


def _of_one(findings: Sequence[Finding]) -> dict[str, Any]:
    """Say each finding in a sentence; of many only those with a direction, the others by name."""
    if len(findings) <= MOST_ANSWERS:
        return {"lead": [], "list": [_answer(finding) for finding in findings]}
    tally = [f"{count} {word}" for word, count in duel_wording.tally(findings)]
    directed = [f for f in findings if duel_wording.kind(f) in {"worse", "better"}][:MOST_ANSWERS]
    others: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        if not any(finding is one for one in directed):
            others.setdefault((finding.verdict, finding.metric), []).append(finding)
    return {
        "lead": [f"{len(findings)} comparisons: {listed(tally)}."],
        "list": [*map(_answer, directed), *map(_answer_of_many, others.values())],
    }


def _answer(finding: Finding) -> dict[str, Any]:
    head, rest = duel_wording.sentence(finding)
    anchor = duel_rows.anchor("", finding)
    return {"chip": chip(finding), "anchor": anchor, "head": head, "rest": rest}


def _answer_of_many(found: Sequence[Finding]) -> dict[str, Any]:
    """Name the comparisons that share a verdict; their numbers stand in the table."""
    first = found[0]
    noun = measure(first.metric).noun
    heads = {
        "open": f"Cannot tell in {noun}",
        "same": f"Alike in {noun}, to within {width(first.metric, first.margin_in_force)}",
        "refused": f"No answer in {noun}",
    }
    head = heads.get(duel_wording.kind(first), f"Also {first.verdict} in {noun}")
    rest = f": {listed([finding.arm for finding in found])} against {first.baseline}."
    return {"chip": chip(first), "anchor": "verdicts", "head": head, "rest": rest}


# --- a session ---


def session_view(
    duel: Duel, number: int, duels: Sequence[Duel], most_blocks: int
) -> dict[str, Any]:
    """Prepare all that is shown of one session."""
    key = "" if len(duels) == 1 else f"s{number}-"
    kind, word, reasons = duel_rows.state_words(duel)
    return {
        "key": key,
        "number": number,
        "name": duel.name,
        "started": duel_rows.when(duel),
        "asked": " · ".join(filter(None, [asked(duel), named(duel, duels)])),
        "chips": [chip(finding) for finding in duel.findings or duel.controls],
        "state": {"kind": kind, "word": word, "reasons": reasons},
        "look": look(duel),
        "groups": duel_rows.verdict_groups(duel, key),
        "forests": forests(duel, key),
        "comparisons": comparisons(duel, key, most_blocks),
        "control_figures": control_figures(duel, most_blocks),
        "arms": duel_rows.arm_rows(duel),
        "controls": duel_rows.control_rows(duel),
        "machine": duel_rows.machine_rows(duel),
        "identity": duel_rows.arm_differences(duel),
        "baseline": duel.baseline,
        "trained": bool(duel.records),
        "unit": duel_wording.unit(),
        "methods": methods(duel),
    }


def asked(duel: Duel) -> str:
    """Say in a few words what a session compared."""
    arms = [arm for _, arm in duel.declaration.comparisons]
    return f"{listed(arms)} against {duel.baseline}" if arms else f"A/A of {duel.baseline}"


def look(duel: Duel) -> str:
    """Say which look the verdicts are of, where there could be several."""
    looks = duel.declaration.looks
    if duel.verdicts is None or len(looks) < 2:
        return ""
    at = f"Verdicts of look {duel.verdicts.look} of {len(looks)}, after {duel.verdicts.replicates}"
    half = duel.verdicts.achieved.get("half_width")
    level = f" at {duel_wording.level(duel.findings[0])}" if duel.findings else ""
    reached = f"; half-width reached{level}: {width('step_time', half)}" if half else ""
    return f"{at} replicates{reached}."


def forests(duel: Duel, key: str) -> list[dict[str, Any]]:
    """Draw all comparisons of each metric on one scale, the A/A arm in a row of its own."""
    drawings = []
    for metric in duel.declaration.metrics:
        found = [f for f in duel.findings if f.metric == metric]
        control = duel.control(metric)
        every = [*found, *([control] if control else [])]
        if not any(f.estimate is not None for f in every):
            continue
        scale = forest_scale(metric, every)
        margin = max((f.margin_in_force or 0.0 for f in found), default=None)
        drawings.append(
            {
                "title": measure(metric).title,
                "ratio": metric in RATIOS,
                "ruler": ruler(scale),
                "rows": [
                    row_of_forest(f, scale, margin=margin, floor=f.noise_floor, key=key)
                    for f in every
                ],
            }
        )
    return drawings


def comparisons(duel: Duel, key: str, most_blocks: int) -> list[dict[str, Any]]:
    """Draw each comparison: its blocks against the clock, its differences, its curves.

    What was never looked at shows its blocks alone.
    """
    told = []
    for baseline, arm in duel.declaration.comparisons:
        found = [f for f in duel.findings if (f.baseline, f.arm) == (baseline, arm)]
        drawn_ones = found or [unjudged(baseline, arm)]
        made = [comparison_figure(duel, finding, most_blocks) for finding in drawn_ones]
        figures = [figure for figure in made if figure is not None]
        if (curves := drawn.curves_figure(duel, baseline, arm)) is not None:
            figures.append({"kind": "curves", "title": "Held-out loss", "figure": curves, "n": ""})
        told.append(
            {
                "anchor": duel_rows.anchor(key, drawn_ones[0]),
                "arm": arm,
                "baseline": baseline,
                "findings": [
                    {"chip": chip(f), "metric": measure(f.metric).noun, "numbers": numbers(f)}
                    for f in found
                ],
                "figures": figures,
                "open": len(duel.declaration.comparisons) <= MOST_OPEN,
            }
        )
    return [one for one in told if one["figures"] or one["findings"]]


def unjudged(baseline: str, arm: str) -> Finding:
    """Stand in for a finding that there is not: no look, no difference, no verdict."""
    return Finding(metric="step_time", baseline=baseline, arm=arm, n=0, verdict="inconclusive")


def numbers(finding: Finding) -> str:
    """Write a finding's estimate with interval and n, short."""
    if finding.estimate is None:
        return ""
    ends = duel_wording.interval(finding)
    shown = ends and not duel_wording.repeats_exactly(finding)
    inside = f"{duel_wording.level(finding)} {ends}, " if shown else ""
    return f"{amount(finding.metric, finding.estimate)} ({inside}{duel_wording.count(finding)})"


def comparison_figure(duel: Duel, finding: Finding, most_blocks: int) -> dict[str, Any] | None:
    """Draw what a finding's numbers are; nothing where they are all alike or none."""
    title, n = measure(finding.metric).title, duel_wording.count(finding)
    pair = {finding.baseline, finding.arm}
    if finding.metric == "step_time" and any(block.arm in pair for block in duel.blocks):
        figure = drawn.pair_figure(duel, finding, most_blocks)
        return {"kind": "blocks", "title": title, "figure": figure, "n": n}
    varied = len(set(finding.differences)) > 1
    if not varied or not any(map(math.isfinite, finding.differences)):
        return None
    figure = drawn.difference_figure(finding, labels_of(finding, duel))
    return {"kind": "differences", "title": title, "figure": figure, "n": n}


def control_figures(duel: Duel, most_blocks: int) -> list[dict[str, Any]]:
    """Draw the A/A arm like any other."""
    controls = duel.controls or (unjudged(duel.baseline, CONTROL),)
    figures = [comparison_figure(duel, finding, most_blocks) for finding in controls]
    return [figure for figure in figures if figure is not None]


def declared(duels: Sequence[Duel]) -> list[dict[str, Any]]:
    """List what was declared, once for sessions that declared the same."""
    found: list[dict[str, Any]] = []
    for number, duel in enumerate(duels, start=1):
        every = declared_rows(duel.declaration, duel.session.get("order_seed"))
        lines = [row for row in every if row[0] != "order seed"] if len(duels) > 1 else every
        same = next((one for one in found if one["rows"] == lines), None)
        if same is not None:
            same["sessions"].append(str(number))
        else:
            told = declared_sentence(duel.declaration)
            found.append({"sentence": told, "rows": lines, "sessions": [str(number)]})
    return found


def trials(results: Sequence[ResultSet]) -> dict[str, Any] | None:
    """Lay out the trials that lie beside the duels; None where there are none."""
    frames = frame.joined(results)
    if not len(frames["trials"]):
        return None
    facts = gather_trials(frames["trials"])
    columns = rows.number_columns(facts)
    return {
        "sentences": sentences.summary(facts),
        "facts": facts,
        "columns": columns,
        "rows": rows.table_rows(facts, columns),
        "own": "arm" not in frames["trials"] or bool(frames["trials"]["arm"].isna().any()),
    }
