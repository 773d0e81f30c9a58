"""Draw forests: a row a comparison, all of one metric on one scale, as plain SVG.

Places along x are per cent of the drawing's width: it fits any window and its text never scales.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from bertopt_bench.report.duel_scales import Scale
from bertopt_bench.report.duel_wording import kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertopt_bench.results.duels import Finding


def forest_scale(metric: str, findings: Sequence[Finding]) -> Scale:
    """Span every interval, zero, the margins and the noise floors of one metric."""
    values = [0.0]
    for finding in findings:
        ends = (finding.estimate, finding.low, finding.high, finding.gate_low, finding.gate_high)
        values += [end for end in ends if end is not None]
        for edge in (finding.margin_in_force, finding.noise_floor):
            values += [] if edge is None else [edge, -edge]
    return Scale.of(values, metric)


def ruler(scale: Scale, identity: str = "") -> str:
    """Draw a forest's scale."""
    marks = "".join(
        f'<line x1="{x}%" x2="{x}%" y1="16" y2="21"/><text x="{x}%" y="11">{text}</text>'
        for x, text in scale.ticks()
    )
    name = f' id="{identity}"' if identity else ""
    return f'<svg class="ruler-wide"{name} aria-hidden="true">{marks}</svg>'


def bands(scale: Scale, margin: float | None, floor: float | None) -> str:
    """Draw the margin in force as a tinted band with dashed edges, the noise floor in grey."""
    parts = []
    for name, edge in (("margin", margin), ("floor", floor)):
        if edge:
            low, high = scale.at(-edge), scale.at(edge)
            width = round(high - low, 2)
            parts.append(f'<rect class="{name}" x="{low}%" width="{width}%" height="100%"/>')
            if name == "margin":
                parts += [_upright(name, low), _upright(name, high)]
    return "".join([*parts, _upright("zero", scale.at(0.0))])


def _upright(name: str, x: float) -> str:
    return f'<line class="{name}" x1="{x}%" x2="{x}%" y2="100%"/>'


def forest_row(
    finding: Finding,
    scale: Scale,
    *,
    margin: float | None,
    floor: float | None,
    ends: tuple[float | None, float | None],
    target: float | None = None,
) -> str:
    """Draw one comparison: bands, interval, estimate; ``target`` is a value it should find."""
    parts = [bands(scale, margin, floor)]
    low, high = ends
    name = kind(finding)
    if low is not None and high is not None:
        parts.append(
            f'<line class="span {name}" x1="{scale.at(low)}%" x2="{scale.at(high)}%" '
            'y1="50%" y2="50%"/>'
        )
    if target is not None:
        parts.append(
            f'<line class="target" x1="{scale.at(target)}%" x2="{scale.at(target)}%" '
            'y1="18%" y2="82%"/>'
        )
    if finding.estimate is not None:
        parts.append(shape(name, f"{scale.at(finding.estimate)}%", "50%"))
    told = escape(f"{finding.arm} against {finding.baseline}: {finding.verdict}")
    return f'<svg class="forest" role="img" aria-label="{told}">{"".join(parts)}</svg>'


SHAPES = {
    "worse": "M0-6L6 5H-6Z",
    "better": "M0 6L6-5H-6Z",
    "same": "M-5-5H5V5H-5Z",
    "open": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0Z",
    "refused": "M-5-5L5 5M5-5L-5 5",
    "control": "M0-6L6 0L0 6L-6 0Z",
}


def shape(name: str, x: str, y: str, title: str = "") -> str:
    """Draw the mark of a verdict's kind: colour and shape both tell it."""
    inside = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<svg x="{x}" y="{y}" overflow="visible">{inside}'
        f'<path class="mark-{name}" d="{SHAPES[name]}"/></svg>'
    )
