"""Draw what a comparison rests on: its blocks against the clock, its differences, its curves.

Plain SVG that needs no script. Places along x are per cent of the width; only the blocks' marks
stand in a stretched drawing, as zero-length strokes that do not scale and so stay round or square.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from bertopt_bench.report import wording
from bertopt_bench.report.duel_facts import labels_of, seconds_a_step
from bertopt_bench.report.duel_scales import Scale, apart, round_values
from bertopt_bench.report.duel_wording import amount, kind, measure, unit
from bertopt_bench.report.wording import MINUS
from bertopt_bench.stats.comparisons import RATIOS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertopt_bench.report.duel_facts import Duel
    from bertopt_bench.results.duels import Block, Finding

UNITS = 1000  # of the stretched drawings' width
BLOCKS_HEIGHT, NUMBERS_HEIGHT, DIFFERENCES_HEIGHT, CLOCK_HEIGHT = 190, 26, 112, 22
CLOCK_TICKS = 5
SETTLED = 0.15  # of the training: earlier losses may lie above the drawing
CUT_ABOVE = 1.25  # of the blocks' 95th percentile: what lies higher is told at the upper edge


@dataclass(frozen=True)
class Figure:
    """A drawing, and in words what had to be thinned or cut in it."""

    svg: str
    note: str = ""


def pair_figure(duel: Duel, finding: Finding, most_blocks: int) -> Figure:
    """Draw both arms' seconds a step against the clock, and each replicate's difference below."""
    arms = (finding.baseline, finding.arm)
    every = [block.clock_seconds for block in duel.blocks]
    clock = Scale.of(
        [min(every), max(b.clock_seconds + b.wall_seconds for b in duel.blocks)], air=0.015
    )
    blocks = {arm: [b for b in duel.blocks if b.arm == arm] for arm in arms}
    values = sorted(seconds_a_step(b) for found in blocks.values() for b in found)
    limit = CUT_ABOVE * values[int(0.95 * (len(values) - 1))]
    seconds = Scale.of([value for value in values if value <= limit], air=0.08)
    shown = {arm: thinned(found, most_blocks) for arm, found in blocks.items()}
    body = [_seconds_axis(seconds)]
    body.append(
        f'<svg width="100%" height="{BLOCKS_HEIGHT}" viewBox="0 0 {UNITS} {BLOCKS_HEIGHT}" '
        'preserveAspectRatio="none">'
        + "".join(
            _dots(shown[arm], clock, seconds, name)
            for arm, name in zip(arms, ("base", "arm"), strict=True)
        )
        + "</svg>"
    )
    bottom = BLOCKS_HEIGHT + NUMBERS_HEIGHT
    middles = [clock.at(_middle(r.blocks)) for r in duel.whole][: finding.n]
    if middles and len(middles) == len(finding.differences):
        body.append(
            f'<svg y="{bottom}" height="{DIFFERENCES_HEIGHT}" overflow="visible">'
            f"{_differences(finding, middles, labels_of(finding, duel))}</svg>"
        )
        bottom += DIFFERENCES_HEIGHT
    body = [_separators(duel, clock, bottom), *body, _numbers(duel, clock)]
    body.append(_clock_axis(clock, bottom))
    told = f"Seconds a {unit()} of {arms[0]} and {arms[1]}, block by block, with differences"
    svg = _area(bottom + CLOCK_HEIGHT, told, "".join(body))
    return Figure(svg, _left_out(blocks, shown, seconds.high))


def thinned(blocks: Sequence[Block], most: int) -> Sequence[Block]:
    """Keep at most so many blocks, evenly spaced, the first and the last among them."""
    if len(blocks) <= most:
        return blocks
    last = max(1, most - 1)
    return [blocks[round(i * (len(blocks) - 1) / last)] for i in range(most)]


def _left_out(
    blocks: dict[str, list[Block]], shown: dict[str, Sequence[Block]], limit: float
) -> str:
    every = [block for found in blocks.values() for block in found]
    drawn = sum(map(len, shown.values()))
    told = [] if drawn == len(every) else [f"{drawn:,} of {len(every):,} blocks are drawn"]
    above = [seconds_a_step(block) for block in every if seconds_a_step(block) > limit]
    if above:
        told.append(
            f"{wording.plural(len(above), 'block')} above the drawing, up to "
            f"{wording.duration(max(above))} a {unit()}, {'is' if len(above) == 1 else 'are'} told "
            "by strokes at its upper edge; they count like the others"
        )
    return "; ".join(told)


def _dots(blocks: Sequence[Block], clock: Scale, seconds: Scale, name: str) -> str:
    """Draw blocks as zero-length strokes, whose caps make the arm's shape; they never stretch.

    A block above the drawing is a stroke down from its upper edge.
    """
    inside, above = [], []
    for block in blocks:
        x = _short(clock.at(block.clock_seconds + block.wall_seconds / 2) * UNITS / 100)
        value = seconds_a_step(block)
        if value > seconds.high:
            above.append(f"M{x} 0v8")
        else:
            inside.append(f"M{x} {_short(_height(seconds, value, BLOCKS_HEIGHT))}h0")
    return "".join(
        f'<path class="{kind} {name}" vector-effect="non-scaling-stroke" d="{"".join(places)}"/>'
        for kind, places in (("dots", inside), ("above", above))
        if places
    )


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _height(scale: Scale, value: float, height: int) -> float:
    return round(height * (1 - scale.at(value) / 100), 1)


def _separators(duel: Duel, clock: Scale, height: int) -> str:
    """Draw a faint line before every replicate but the first."""
    firsts = [min(b.clock_seconds for b in r.blocks) for r in duel.replicates if r.blocks]
    lasts = [
        max(b.clock_seconds + b.wall_seconds for b in r.blocks) for r in duel.replicates if r.blocks
    ]
    edges = [(end + begin) / 2 for end, begin in zip(lasts, firsts[1:], strict=False)]
    return "".join(
        f'<line class="between" x1="{x}%" x2="{x}%" y2="{height}"/>' for x in map(clock.at, edges)
    )


def _numbers(duel: Duel, clock: Scale) -> str:
    """Write each replicate's number between the two parts, as many as fit on a phone."""
    with_blocks = [r for r in duel.replicates if r.blocks]
    every = max(1, math.ceil(len(with_blocks) / 15))
    name = f'<text class="left" x="-8" y="{BLOCKS_HEIGHT + 17}">replicate</text>'
    return name + "".join(
        f'<text class="middle" x="{clock.at(_middle(r.blocks))}%" y="{BLOCKS_HEIGHT + 17}">'
        f"{r.replicate}</text>"
        for r in with_blocks[::every]
    )


def _middle(blocks: Sequence[Block]) -> float:
    return statistics.fmean(block.clock_seconds for block in blocks)


def _seconds_axis(scale: Scale) -> str:
    return _levels(
        [(value, round_duration(value)) for value in round_values(scale.low, scale.high, 4)],
        scale,
        BLOCKS_HEIGHT,
    )


def round_duration(seconds: float) -> str:
    """Write a tick of a time axis without the zeros that a measurement would have.

    >>> round_duration(0.05), round_duration(2.0)
    ('50 ms', '2 s')
    """
    if seconds >= 1 or not seconds:
        return f"{seconds:g} s"
    return f"{seconds * 1e3:.6g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.6g} µs"


def _levels(ticks: Sequence[tuple[float, str]], scale: Scale, height: int) -> str:
    """Draw level lines with their texts in the margin to the left."""
    return "".join(
        f'<line class="level" x2="100%" y1="{y}" y2="{y}"/>'
        f'<text class="left" x="-8" y="{round(y + 3.5, 1)}">{text}</text>'
        for value, text in ticks
        if scale.low < value < scale.high
        for y in (_height(scale, value, height),)
    )


def _clock_axis(clock: Scale, y: int) -> str:
    """Write minutes, or seconds of a short session, since the session began."""
    factor, unit = (60, "min") if clock.high > 180 else (1, "s")
    ticks = round_values(clock.low / factor, clock.high / factor, CLOCK_TICKS)
    inside = [(clock.at(t * factor), f"{t:g} {unit}") for t in ticks if t >= 0]
    return "".join(
        f'<line class="tick" x1="{x}%" x2="{x}%" y1="{y}" y2="{y + 5}"/>'
        f'<text class="middle" x="{x}%" y="{y + 17}">{text}</text>'
        for x, text in apart([(x, text) for x, text in inside if 2 < x < 97])
    )


def difference_figure(finding: Finding, labels: Sequence[str]) -> Figure:
    """Draw one dot a replicate or seed, in their order: what has no clock to stand against."""
    count = len(finding.differences)
    middles = [round(100 * (i + 0.5) / count, 2) for i in range(count)]
    every = max(1, math.ceil(count / 15))
    names = "".join(
        f'<text class="middle" x="{x}%" y="{DIFFERENCES_HEIGHT + 16}">'
        f"{escape(label.rpartition(' ')[2])}</text>"
        for x, label in list(zip(middles, labels, strict=True))[::every]
    )
    told = f"Differences of {finding.arm} from {finding.baseline} in {measure(finding.metric).noun}"
    body = (
        f'<svg height="{DIFFERENCES_HEIGHT}" overflow="visible">'
        f"{_differences(finding, middles, labels)}</svg>{names}"
    )
    return Figure(_area(DIFFERENCES_HEIGHT + CLOCK_HEIGHT, told, body))


def _differences(finding: Finding, middles: Sequence[float], labels: Sequence[str]) -> str:
    """Draw margin, interval, estimate and each difference with its name as a title."""
    edge = finding.margin_in_force or 0.0
    values = [0.0, edge, -edge, *finding.differences]
    values += [end for end in (finding.low, finding.high) if end is not None]
    scale, height = Scale.of(values, finding.metric, air=0.12), DIFFERENCES_HEIGHT

    def y(value: float) -> float:
        return _height(scale, value, height)

    parts = []
    if edge:
        top, bottom = y(edge), y(-edge)
        parts.append(_flat("margin", top, bottom))
        parts += [f'<line class="margin" x2="100%" y1="{e}" y2="{e}"/>' for e in (top, bottom)]
    if finding.low is not None and finding.high is not None:
        parts.append(_flat(f"interval {kind(finding)}", y(finding.high), y(finding.low)))
    parts.append(f'<line class="zero" x2="100%" y1="{y(0)}" y2="{y(0)}"/>')
    if finding.estimate is not None:
        e = y(finding.estimate)
        parts.append(f'<line class="centre {kind(finding)}" x2="100%" y1="{e}" y2="{e}"/>')
    parts.append(_difference_axis(scale, height))
    parts += [
        f'<circle class="difference {kind(finding)}" cx="{x}%" cy="{y(value)}" r="4">'
        f"<title>{escape(f'{label}: {_told(finding.metric, value)}')}</title></circle>"
        for x, value, label in zip(middles, finding.differences, labels, strict=True)
    ]
    return "".join(parts)


def _flat(name: str, top: float, bottom: float) -> str:
    return f'<rect class="{name}" width="100%" y="{top}" height="{round(bottom - top, 1)}"/>'


def _difference_axis(scale: Scale, height: int) -> str:
    ticks = scale.ticks(4, least_gap=12.0)
    values = [scale.low + place / 100 * (scale.high - scale.low) for place, _ in ticks]
    found = [(value, text) for value, (_, text) in zip(values, ticks, strict=True)]
    return "".join(
        f'<text class="left" x="-8" y="{round(y + 3.5, 1)}">{text}</text>'
        for value, text in found
        for y in (_height(scale, value, height),)
    )


def _told(metric: str, value: float) -> str:
    if metric in RATIOS and math.isfinite(value):
        return f"{math.expm1(value):+.2%}".replace("-", MINUS).replace("%", " %")
    return amount(metric, value)


def _area(height: int, told: str, body: str) -> str:
    return (
        f'<svg class="area" height="{height}" role="img" aria-label="{escape(told)}">{body}</svg>'
    )


def curves_figure(duel: Duel, baseline: str, arm: str) -> Figure | None:
    """Draw every seed's held-out loss by step, both arms; None where nothing was trained."""
    curves = [
        (record.arm, [(e.step, e.loss) for e in record.evaluations if math.isfinite(e.loss)])
        for record in duel.records
        if record.arm in {baseline, arm}
    ]
    points = [point for _, curve in curves for point in curve]
    if not points:
        return None
    height, steps = BLOCKS_HEIGHT, Scale.of([step for step, _ in points], air=0.01)
    # The fall from random weights would flatten what the arms differ in: it leaves at the top.
    late = max(step for step, _ in points) * SETTLED
    losses = Scale.of([loss for step, loss in points if step >= late], air=0.05)
    lines = "".join(
        f'<path class="curve {"base" if name == baseline else "arm"}" '
        f'vector-effect="non-scaling-stroke" d="{_path(curve, steps, losses)}"/>'
        for name, curve in curves
    )
    levels = [(v, f"{v:g}") for v in round_values(losses.low, losses.high, 4)]
    ticks = [(steps.at(v), f"{v:g}") for v in round_values(steps.low, steps.high, CLOCK_TICKS)]
    numbers = "".join(
        f'<text class="middle" x="{x}%" y="{height + 16}">{text}</text>'
        for x, text in apart(ticks)
        if 2 < x < 98
    )
    body = (
        f'{_levels(levels, losses, height)}<svg width="100%" height="{height}" '
        f'viewBox="0 0 {UNITS} {height}" preserveAspectRatio="none">{lines}</svg>{numbers}'
    )
    told = f"Held-out loss by step of {baseline} and {arm}, a curve a seed"
    return Figure(_area(height + CLOCK_HEIGHT, told, body))


def _path(curve: Sequence[tuple[int, float]], steps: Scale, losses: Scale) -> str:
    return "".join(
        f"{'L' if i else 'M'}{_short(steps.at(step) * UNITS / 100)} "
        f"{_short(losses.beyond(loss, BLOCKS_HEIGHT))}"
        for i, (step, loss) in enumerate(curve)
    )
