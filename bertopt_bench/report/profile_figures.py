"""Draw a profile's memory over a step.

Plain SVG that needs no script; places along x are per cent of the width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertopt_bench.report.duel_figures import round_duration
from bertopt_bench.report.duel_scales import apart, round_values
from bertopt_bench.report.step_figures import AXIS_HEIGHT, LEAST_NAMED, area

if TYPE_CHECKING:
    from bertopt_bench.measure.trace_tables import Timeline

MEMORY_HEIGHT = 190
UNITS = 1000  # of a stretched drawing's width


def memory_figure(timeline: Timeline, label: str) -> str:
    """Draw the allocated bytes over one step, with the phases' ends."""
    highest = max(timeline.high_bytes)
    factor, unit = next(
        (f, u)
        for f, u in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))
        if highest >= f or f == 1
    )
    top = highest * 1.06
    levels = "".join(
        f'<line class="level" x2="100%" y1="{y}" y2="{y}"/>'
        f'<text class="left" x="-8" y="{round(y + 3.5, 1)}">{value:g} {unit}</text>'
        for value in round_values(0, top / factor, 4)
        for y in (_y(value * factor, top, MEMORY_HEIGHT),)
    )
    shape = _band(timeline, top)
    body = (
        f'{levels}<svg width="100%" height="{MEMORY_HEIGHT}" '
        f'viewBox="0 0 {UNITS} {MEMORY_HEIGHT}" preserveAspectRatio="none">{shape}</svg>'
        f"{_phase_ends(timeline)}{_time_axis(timeline.step_seconds, MEMORY_HEIGHT)}"
    )
    told = f"Allocated bytes over the last profiled step of {label}"
    return area(MEMORY_HEIGHT + AXIS_HEIGHT, told, body)


def _y(value: float, top: float, height: int) -> float:
    return round(height * (1 - value / top), 1)


def _band(timeline: Timeline, top: float) -> str:
    """Fill up to the highest value of each stretch; a line follows it."""
    step = timeline.step_seconds
    places = [round(UNITS * at / step, 1) for at in (*timeline.seconds[1:], step)]
    path, last = [], 0.0
    for place, high in zip(places, timeline.high_bytes, strict=True):
        path.append(f"{last:g} {_y(high, top, MEMORY_HEIGHT):g} {place:g} "
                    f"{_y(high, top, MEMORY_HEIGHT):g}")  # fmt: skip
        last = place
    line = "L".join(path)
    return (
        f'<path class="memory" d="M0 {MEMORY_HEIGHT}L{line}L{UNITS} {MEMORY_HEIGHT}Z"/>'
        f'<path class="memory-line" vector-effect="non-scaling-stroke" d="M{line}"/>'
    )


def _phase_ends(timeline: Timeline) -> str:
    """Mark where each phase ends; a name only where it has room."""
    lines, begin = [], 0.0
    for phase, end in timeline.ends:
        place = 100 * end / timeline.step_seconds
        lines.append(f'<line class="between" x1="{place:.2f}%" x2="{place:.2f}%" '
                     f'y2="{MEMORY_HEIGHT}"/>')  # fmt: skip
        if place - begin >= LEAST_NAMED:
            middle = (place + begin) / 2
            lines.append(f'<text class="middle" x="{middle:.2f}%" y="12">{phase}</text>')
        begin = place
    return "".join(lines)


def _time_axis(seconds: float, y: int) -> str:
    ticks = [(100 * t / seconds, round_duration(t)) for t in round_values(0, seconds, 5)]
    return "".join(
        f'<line class="tick" x1="{x:.2f}%" x2="{x:.2f}%" y1="{y}" y2="{y + 5}"/>'
        f'<text class="middle" x="{x:.2f}%" y="{y + 17}">{text}</text>'
        for x, text in apart([(x, text) for x, text in ticks if 2 < x < 96])
    )
