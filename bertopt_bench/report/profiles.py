"""Render profiles as one offline page: where a step's time and bytes went; no verdict."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.content import kernel_name
from bertopt_bench.measure.operator_costs import cost_of, formula_points
from bertopt_bench.report import (
    frame,
    profile_figures,
    profile_rows,
    sentences,
    step_figures,
    wording,
)
from bertopt_bench.report.environment import environment
from bertopt_bench.report.figures import LEAST_BUDGET, Packed, columns, compressed, dumped
from bertopt_bench.report.rows import DASH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertopt_bench.measure.operator_costs import Point
    from bertopt_bench.measure.trace_tables import TraceTables
    from bertopt_bench.results.profiles import Profile, Profiles

DIGITS = 6
MOST_POINTS = 30


def render_profiles(profiles: Profiles) -> str:
    """Render the last session of a folder as HTML that asks nothing of any network."""
    content, template = context(profiles), frame.template("profile.html")
    bare = template.render({**content, "data": "", "left_out": ()})
    packed = pack(profiles.latest, frame.MOST_BYTES - len(bare.encode()))
    return template.render({**content, "data": packed.text, "left_out": packed.left_out})


def context(profiles: Profiles) -> dict[str, Any]:
    """Gather all that the template shows but the packed data."""
    latest = profiles.latest
    name = latest[-1].session if latest else ""
    session = next((frame.plain_session(s) for s in profiles.sessions if s.session == name), {})
    traced = [profile for profile in latest if profile.tables is not None]
    views = [view(profile, session, number) for number, profile in enumerate(traced)]
    return {
        "title": f"Profile of {wording.listed([profile.label for profile in latest])}",
        "sessions": [session] if session else [],
        "counts": counts(traced),
        "lead": [lead(profile) for profile in traced],
        "failed": [profile for profile in latest if profile.tables is None],
        "views": views,
        "difference": difference(traced) if len(traced) > 1 else None,
        "earlier": earlier(profiles, name),
        "folder": profiles.path.name,
        "environment": environment([session]) if session else [],
        "source": sentences.source_of(session),
        "warnings": list(profiles.warnings),
        **frame.assets("page.css", "step.css", "profile.css", "shell.js", "duel.js"),
    }


def counts(traced: Sequence[Profile]) -> list[tuple[str, str]]:
    """List the few counts that stand under the title."""
    operators = sum(
        row.calls for profile in traced if profile.tables for row in profile.tables.operators
    )
    traces = sum(profile.trace_bytes or 0 for profile in traced)
    return [
        ("cells", str(len(traced))),
        ("steps a cell", str(traced[0].profiled_steps) if traced else "0"),
        ("operator calls", f"{operators:,}"),
        ("traces", wording.memory(traces)),
    ]


def lead(profile: Profile) -> str:
    """Say in two sentences where a step's time went."""
    tables = profile.tables
    assert tables is not None
    step = profile_rows.Spread.of(tables.step_seconds)
    phases = sorted(tables.phases, key=lambda row: -sum(row.seconds))
    first, second = ((row.phase, statistics.fmean(row.seconds)) for row in phases[:2])
    operators = profile_rows.operator_rows(tables, by_shape=False)[:2]
    named = wording.listed([f"{row['name']} ({row['share']})" for row in operators])
    spread = (
        f" (mean; quartiles {step.shown()['spread']}, n = {step.n} steps)" if step.n > 1 else ""
    )
    idle = wording.share(sum(tables.idle.seconds) / sum(tables.step_seconds))
    whose = "the device was idle" if tables.idle.of == "device" else "no operator ran"
    shares = " and ".join(
        f"{wording.share(seconds / step.mean)} {phase}" for phase, seconds in (first, second)
    )
    return (
        f"{profile.label}: a profiled step took {wording.duration(step.mean)}{spread}, of it "
        f"{shares}. The most own time went to {named}; {idle} of the time {whose}."
    )


def view(profile: Profile, session: dict[str, Any], number: int) -> dict[str, Any]:
    """Gather what is shown of one cell."""
    tables = profile.tables
    assert tables is not None
    points = points_of(profile)
    return {
        "key": f"cell-{number + 1}-",
        "label": profile.label,
        "on_device": profile_rows.on_device(tables),
        "steps": len(tables.step_seconds),
        "which": profile.which,
        "step": profile_rows.Spread.of(tables.step_seconds).shown(),
        "bar": step_figures.phase_bar(
            [(row.phase, statistics.fmean(row.seconds)) for row in tables.phases], profile.label
        ),
        "phases": profile_rows.phase_rows(tables),
        "operators": profile_rows.operator_rows(tables, by_shape=False),
        "by_shape": profile_rows.operator_rows(tables, by_shape=True),
        "kernels": profile_rows.kernel_rows(tables),
        "modules": profile_rows.module_rows(tables),
        "modules_marked": profile.modules_marked,
        "captured": kernel_name(profile.cell, "cuda_graph") == "step",
        "memory": memory(profile, tables),
        "idle": idle(tables),
        "roofline": roofline(points, ceilings_of(session), profile.label),
        "points": [point_row(point, i) for i, point in enumerate(points, start=1)],
        "without_place": sum(not point.flops for point in points),
        "covered": covered(tables),
        "counted": bool(profile.counted),
        "elsewhere": bool(profile.counted) and profile.cell["device"]["name"] == "cpu",
        "trace": profile.trace_file,
        "trace_size": wording.memory(profile.trace_bytes or 0),
        "session": profile.session,
    }


def points_of(profile: Profile) -> list[Point]:
    """Give the formulas' points and the counters', what takes longest first."""
    assert profile.tables is not None
    formula = formula_points(profile.tables.operators, profile.profiled_steps)
    points = [point for point in (*formula, *profile.counted) if point.seconds]
    return sorted(points, key=lambda point: -point.seconds)[:MOST_POINTS]


def covered(tables: TraceTables) -> str:
    """Say what share of all operators' own time is that of operators with a formula."""
    seconds = profile_rows.own(tables)
    parts = {True: 0.0, False: 0.0}
    for row in tables.operators:
        known = cost_of(row.name, json.loads(row.shapes), row.types.split(",")) is not None
        parts[known] += sum(seconds(row))
    return wording.share(parts[True] / (sum(parts.values()) or 1.0))


def point_row(point: Point, number: int) -> dict[str, Any]:
    """Write a point's numbers."""
    return {
        "number": number,
        "name": point.name,
        "source": point.source,
        "seconds": wording.duration(point.seconds),
        "flops": rate(point.flops_per_second) if point.flops else "none",
        "bytes": f"{step_figures.prefixed(point.bytes_per_second)}B/s",
        "intensity": wording.significant(point.intensity) if point.flops else DASH,
    }


def rate(flops_per_second: float) -> str:
    """Write a rate of FLOPs."""
    return f"{step_figures.prefixed(flops_per_second)}FLOP/s"


def roofline(points: Sequence[Point], ceilings: dict[str, Any], label: str) -> str:
    """Draw the points under all roofs that the session measured."""
    rates = ceilings.get("matmul_flops_per_second") or {}
    return step_figures.roofline(points, rates, ceilings.get("bandwidth_bytes_per_second"), label)


def ceilings_of(session: dict[str, Any]) -> dict[str, Any]:
    """Give the ceilings that the session measured, if it did."""
    measured = session.get("ceilings") or [{}]
    values: dict[str, Any] = measured[0].get("values", {})
    return values


def memory(profile: Profile, tables: TraceTables) -> dict[str, Any] | None:
    """Give the drawing of memory and its numbers."""
    if tables.timeline is None:
        return None
    return {
        "svg": profile_figures.memory_figure(tables.timeline, profile.label),
        "peak": wording.memory(max(tables.peak_bytes)),
        "resident": wording.memory(profile.resident_bytes or 0),
    }


def idle(tables: TraceTables) -> dict[str, Any]:
    """Give the idle time and its longest kinds."""
    return {
        "of": tables.idle.of,
        "own": profile_rows.Spread.of(tables.idle.seconds).shown(),
        "share": wording.share(sum(tables.idle.seconds) / sum(tables.step_seconds)),
        "rows": profile_rows.gap_rows(tables),
    }


def difference(traced: Sequence[Profile]) -> dict[str, Any]:
    """Set the first two cells side by side."""
    a, b = (profile.tables for profile in traced[:2])
    assert a is not None
    assert b is not None
    steps = [profile_rows.Spread.of(tables.step_seconds) for tables in (a, b)]
    return {
        "a": traced[0].label,
        "b": traced[1].label,
        "n": wording.listed(sorted({str(one.n) for one in steps})),
        "steps": [one.shown() for one in steps],
        "total": profile_rows.signed(steps[1].mean - steps[0].mean),
        "by_operator": profile_rows.difference_rows(a, b, by="operator")[:20],
        "by_module": profile_rows.difference_rows(a, b, by="module")[:20],
        "by_both": profile_rows.difference_rows(a, b, by="both"),
    }


def earlier(profiles: Profiles, name: str) -> list[str]:
    """Name the folder's other sessions."""
    labels: dict[str, list[str]] = {}
    for profile in profiles.profiles:
        if profile.session != name:
            labels.setdefault(profile.session, []).append(profile.label)
    return [f"{session}: {wording.listed(found)}" for session, found in labels.items()]


def pack(traced: Sequence[Profile], budget: int) -> Packed:
    """Pack every number for download; where they do not fit, operators by shape go first."""
    import pandas as pd

    tables = profile_rows.flat_tables([(p.label, p.tables) for p in traced if p.tables])
    left_out: list[str] = []
    for name in ("operators", "modules", ""):
        frames = {key: columns(pd.DataFrame(rows), DIGITS) for key, rows in tables.items()}
        text = compressed(dumped({"tables": frames}))
        if len(text) <= max(budget, LEAST_BUDGET) or name not in tables:
            break
        left_out.append(f"the {len(tables.pop(name)):,} rows of {name}")
    return Packed(text, tuple(left_out))
