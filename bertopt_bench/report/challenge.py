"""Render a challenge as one offline page, ready to attach: steps and losses, never seconds."""

from __future__ import annotations

import math
import statistics
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

from bertopt_bench.matrix.labels import model_label
from bertopt_bench.report import frame, wording
from bertopt_bench.report.duel_scales import Scale, round_values
from bertopt_bench.report.duel_wording import chip
from bertopt_bench.report.environment import environment
from bertopt_bench.report.figures import columns, compressed, dumped
from bertopt_bench.report.page import write_text
from bertopt_bench.results.rows import epochs_seen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bertopt_bench.results.duels import Finding
    from bertopt_bench.results.record import Record
    from bertopt_bench.stats.challenge import Reached, Reproduction, Standing

DASH = "–"  # noqa: RUF001 - a dash in a table
MINE = "(this challenge)"
ROW, TICKS, HEIGHT, UNITS = 26, 24, 260, 1000
DIGITS = 6


class Found(Protocol):
    """What a page reads of a challenge."""

    @property
    def newcomer(self) -> str: ...
    @property
    def protocol(self) -> Any: ...
    @property
    def reproduction(self) -> Reproduction: ...
    @property
    def targets(self) -> tuple[float, ...]: ...
    @property
    def standings(self) -> list[Standing]: ...
    @property
    def records(self) -> Mapping[str, Mapping[int, Record]]: ...
    @property
    def sessions(self) -> tuple[Any, ...]: ...


def write_challenge(found: Found, page: Path, sentences: Sequence[str]) -> Path:
    """Write the page whole or not at all; ``sentences`` lead it, each naming the model.

    Raises:
        UserError: the page cannot be written there.
    """
    return write_text(frame.template("challenge.html").render(context(found, sentences)), page)


def context(found: Found, sentences: Sequence[str]) -> dict[str, Any]:
    """Gather all that the template shows."""
    sessions = [frame.plain_session(session) for session in found.sessions]
    protocol = found.protocol
    given = protocol.document["workload"]["model"]
    model = given if isinstance(given, str) else model_label(given)
    return {
        "title": f"{found.newcomer} under protocol {protocol.name}",
        "sessions": sessions,
        "counts": [
            ("model", f"BERT {model}"),
            ("arms", str(len(found.standings))),
            ("seeds", str(max(len(one.finals) for one in found.standings))),
            ("steps", f"{protocol.document['workload']['steps']:,}"),
            ("baseline", "bit for bit" if found.reproduction.identical else "within its band"),
        ],
        "lead": sentences,
        "model": f"BERT {model}",
        "protocol": protocol,
        "targets": [wording.loss(target) for target in found.targets],
        "shares": [f"{share:.0%}" for share in protocol.targets_at],
        "rows": [row(one, found.records[one.arm]) for one in found.standings],
        "finals": finals_figure(found.standings),
        "curves": curves_figure(found.records, protocol.baseline),
        "environment": environment(sessions),
        "warnings": [],
        "data": compressed(dumped({"tables": {"evaluations": packed(found.records)}})),
        "left_out": (),
        **frame.assets("page.css", "shell.js", "duel.js"),
    }


def row(one: Standing, records: Mapping[int, Record]) -> dict[str, Any]:
    """Make an arm's row."""
    finite = [loss for loss in one.finals.values() if math.isfinite(loss)]
    tuning = next((r.tuning for r in records.values() if r.tuning is not None), None)
    seen = [value for r in records.values() if math.isfinite(value := epochs_seen(r))]
    epochs = max(seen, default=math.nan)
    return {
        "arm": one.arm,
        "mine": MINE in one.arm,
        "tuned": f"{tuning.points} points" if tuning else "default",
        "edge": ", ".join(tuning.edge_optimum) if tuning else "",
        "loss": wording.loss(one.median) if math.isfinite(one.median) else "infinite",
        "reach": f"{wording.loss(min(finite))} to {wording.loss(max(finite))}" if finite else "",
        "n": len(one.finals),
        "lost": len(one.finals) - len(finite),
        **difference(one.finding),
        "reached": [reached(target) for target in one.reached],
        "epochs": f"{epochs:.2f}" if math.isfinite(epochs) else DASH,
        "repeats": epochs > 1,
    }


def difference(finding: Finding | None) -> dict[str, Any]:
    """Write what is found against the baseline, which has no finding itself."""
    if finding is None or finding.estimate is None:
        return {"difference": DASH, "interval": "", "p": "", "verdict": None}
    shown, tested = "", finding.corrected_p_more is not None
    if finding.low is not None and finding.high is not None:
        shown = f"{_nats(finding.low)} to {_nats(finding.high)}"
    p = min(finding.corrected_p_more or 1.0, finding.corrected_p_less or 1.0)
    return {
        "difference": _nats(finding.estimate),
        "interval": shown,
        "p": f"p {wording.p_value(p)}" if tested else "",
        "verdict": chip(finding),
    }


def reached(one: Reached) -> dict[str, str]:
    """Write the median steps to a target and the share of seeds that got there."""
    share = one.share
    steps = f"{one.median_steps:,.0f}" if math.isfinite(one.median_steps) else "not reached"
    return {
        "steps": steps,
        "share": f"{share.reached} of {share.n} [{share.low:.0%}, {share.high:.0%}]",
    }


def _nats(value: float) -> str:
    return f"{value:+.4f}".replace("-", wording.MINUS)


def finals_figure(standings: Sequence[Standing]) -> str:
    """Draw every seed's final loss, an arm a row; the line is the median."""
    across = Scale.of([loss for one in standings for loss in one.finals.values()], air=0.05)
    foot = ROW * len(standings)
    levels = "".join(
        f'<line class="level" x1="{x}%" x2="{x}%" y2="{foot}"/>'
        f'<text class="middle" x="{x}%" y="{foot + 16}">{value:g}</text>'
        for value in round_values(across.low, across.high, 5)
        for x in (across.at(value),)
    )
    rows = "".join(
        _finals(one, ROW * index + ROW / 2, across) for index, one in enumerate(standings)
    )
    return (
        f'<svg class="area" height="{foot + TICKS}" role="img" aria-label="Final losses">'
        f"{levels}{rows}</svg>"
    )


def _finals(one: Standing, y: float, across: Scale) -> str:
    """Draw an arm's row."""
    colour, name = ("s1" if MINE in one.arm else "s0"), one.arm.replace(MINE, "").strip()
    name = name.partition(":")[2] or name
    parts = [f'<text class="left" x="-8" y="{y + 4}">{escape(name)}</text>']
    parts += [
        f'<circle class="point {colour}" cx="{across.at(loss)}%" cy="{y}" r="4">'
        f"<title>{escape(one.arm)}, seed {seed}: {wording.loss(loss)}</title></circle>"
        for seed, loss in one.finals.items()
        if math.isfinite(loss)
    ]
    if math.isfinite(one.median):
        x = across.at(one.median)
        ends = f'x1="{x}%" x2="{x}%" y1="{y - 9}" y2="{y + 9}"'
        parts.append(f'<line class="series {colour}" {ends}/>')
    return "".join(parts)


def curves_figure(records: Mapping[str, Mapping[int, Record]], baseline: str) -> str:
    """Draw the median held-out loss over steps; the newcomer and the baseline in colour."""
    lines = {arm: median_curve(list(one.values())) for arm, one in records.items()}
    points = [point for line in lines.values() for point in line if point[0] > 0]
    up = Scale.of([loss for _, loss in points], air=0.05)
    last = max((step for step, _ in points), default=1)
    drawn = []
    for arm, line in lines.items():
        colour = "s1" if MINE in arm else "s0" if arm == baseline else "s6"
        path = "L".join(
            f"{UNITS * step / last:.1f} {HEIGHT * (1 - up.at(loss) / 100):.1f}"
            for step, loss in line
            if step > 0
        )
        if path:
            drawn.append(
                f'<path class="series {colour}" vector-effect="non-scaling-stroke" d="M{path}">'
                f"<title>{escape(arm)}</title></path>"
            )
    levels = "".join(
        f'<line class="level" x2="100%" y1="{y}" y2="{y}"/>'
        f'<text class="left" x="-8" y="{y + 3.5:.1f}">{value:g}</text>'
        for value in round_values(up.low, up.high, 5)
        for y in (round(HEIGHT * (1 - up.at(value) / 100), 1),)
    )
    ticks = "".join(
        f'<text class="middle" x="{100 * step / last:.1f}%" y="{HEIGHT + 17}">{step:g}</text>'
        for step in round_values(0, last, 5)
    )
    return (
        f'<svg class="area" height="{HEIGHT + TICKS}" role="img" aria-label="Loss over steps">'
        f'{levels}<svg width="100%" height="{HEIGHT}" viewBox="0 0 {UNITS} {HEIGHT}" '
        f'preserveAspectRatio="none">{"".join(drawn)}</svg>{ticks}</svg>'
    )


def median_curve(records: Sequence[Record]) -> list[tuple[int, float]]:
    """Give the median loss at each step that every seed was evaluated at; lost runs end it."""
    seen = [{one.step: one.loss for one in record.evaluations} for record in records]
    shared = sorted(set.intersection(*map(set, seen))) if seen else []
    curve = [(step, statistics.median(one[step] for one in seen)) for step in shared]
    return [(step, loss) for step, loss in curve if math.isfinite(loss)]


def packed(records: Mapping[str, Mapping[int, Record]]) -> Any:
    """Gather every evaluation as a table, without a second in it."""
    import pandas as pd

    made = [
        {"arm": arm, "seed": seed, "step": seen.step, "loss": seen.loss, "cell_id": record.cell_id}
        for arm, one in records.items()
        for seed, record in one.items()
        for seen in record.evaluations
    ]
    return columns(pd.DataFrame(made), DIGITS)
