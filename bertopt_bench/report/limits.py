"""Show where a step's time goes, and how near to the device's limits: tables, bars, rooflines.

Every number is of the trials of one session, as all times on the page are.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from bertopt_bench.measure.operator_costs import Point
from bertopt_bench.report import step_figures, wording
from bertopt_bench.report.rows import DASH, number_text, safe
from bertopt_bench.stats.estimates import Spread, number, words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bertopt_bench.stats.estimates import Cell, Trial
    from bertopt_bench.stats.facts import Facts

    Trials = Sequence[Trial]

MOST_ROWS, MOST_PLOTS = 40, 12
LEAST_NAMED = 32.0  # per cent of a table's bar that the name of a phase needs
PHASES = ("data", "forward", "backward", "optimizer", "rest")
KINDS = {
    "linear": "linear layers",
    "attention": "attention",
    "layer_norm": "layer norm",
    "gelu": "GELU",
    "mlm_loss": "loss and decoder",
    "optimizer": "optimizer step",
    "other": "other",
}
"""Kinds of operation in the trials table (``operation_<kind>_seconds``), and their names here."""
MOSTLY = 0.95  # of a kind's time that its counted operators took: below, the page says how much
NOISY = 1.25  # the fastest measure of a limit by the slowest: a quiet machine stays below


def limit_section(facts: Facts, sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Give all that the sections show; None where no trial was timed."""
    timed = {cell.id: _timed(facts, cell) for cell in _ordered(facts)}
    cells = [cell for cell in _ordered(facts) if timed[cell.id]]
    parted = [c for c in cells if _spread(timed[c.id], "phase_step_seconds")]
    worked = [c for c in cells if _spread(timed[c.id], "model_flops_per_second")]
    if not parted and not worked:
        return None
    return {
        "phases": [_phase_row(cell, timed[cell.id]) for cell in parted[:MOST_ROWS]],
        "steps": _steps(timed),
        "names": PHASES,
        "rows": [_work_row(cell, timed[cell.id]) for cell in worked[:MOST_ROWS]],
        "left_out": max(len(parted), len(worked)) - MOST_ROWS,
        "reasons": [*_unmeasured(sessions), *_reasons(facts.rows)],
        "gpus": _gpus(facts.rows),
        "measured": [line for session in sessions for line in _ceilings(session)],
        "compiled": any(words(r.get("compile_cache")) for r in facts.rows),
        "rooflines": _rooflines(cells, timed),
    }


def _ordered(facts: Facts) -> list[Cell]:
    """Put the cell of all reference levels first, then the ranked ones, then the others."""

    def place(cell: Cell) -> tuple[bool, float]:
        usual = all(cell.levels.get(axis.name) == axis.reference for axis in facts.axes)
        return not usual, facts.ranks.get(cell.id, float("inf"))

    return sorted(facts.cells, key=place)


def _timed(facts: Facts, cell: Cell) -> list[Trial]:
    """Give the cell's finished trials of the session that its times are taken from."""
    return [
        row
        for row in facts.rows
        if row["cell_id"] == cell.id
        and row["status"] == "ok"
        and words(row.get("session")) == cell.session
    ]


def _spread(trials: Trials, column: str) -> Spread | None:
    return Spread.of(number(row.get(column)) for row in trials)


def _told(trials: Trials, column: str, write: Callable[[float], str]) -> tuple[str, str] | None:
    """Write a median, and for under it its range, in the same unit where it can be, and n."""
    spread = _spread(trials, column)
    text = number_text(spread, write)
    if spread is None or text is None or spread.n == 1:
        return text
    parts = [write(v).replace(wording.NBSP, " ") for v in (spread.low, spread.median, spread.high)]
    if len({part.partition(" ")[2] for part in parts}) == 1:  # the median's unit serves all
        parts = [part.partition(" ")[0] for part in parts]
    low, _, high = parts
    return text[0], f"{low if low == high else f'{low}{DASH}{high}'} · n {spread.n}"


def _median(trials: Trials, column: str) -> float:
    found = _spread(trials, column)
    return found.median if found else 0.0


# --- phases ---


def _phase_row(cell: Cell, trials: Trials) -> dict[str, Any]:
    values = [(phase, max(0.0, _median(trials, f"{phase}_seconds"))) for phase in PHASES]
    whole = sum(value for _, value in values)
    return {
        "label": cell.label,
        "n": len(trials),
        "step": _told(trials, "phase_step_seconds", wording.duration),
        "bar": safe(step_figures.phase_bar(values, cell.label, LEAST_NAMED)),
        "parts": [(wording.share(value / whole), wording.duration(value)) for _, value in values],
    }


def _steps(timed: Mapping[str, Trials]) -> str:
    counts = {number(row.get("phase_steps")) for trials in timed.values() for row in trials}
    return wording.listed([f"{count:g}" for count in sorted(filter(None, counts))])


# --- work and limits ---


def _work_row(cell: Cell, trials: Trials) -> dict[str, Any]:
    def told(column: str, write: Callable[[float], str]) -> tuple[str, str] | None:
        return _told(trials, column, write)

    flops = _median(trials, "flops_per_step")
    return {
        "label": cell.label,
        "numbers": [
            (_prefixed("FLOP")(flops), f"n {len(trials)}") if flops else None,
            told("model_flops_per_second", _prefixed("FLOP/s")),
            told("ceiling_share", wording.share),
            told("datasheet_share", wording.share),
            told("optimizer_bytes_per_second", _prefixed("B/s")),
            _with_mix(told("optimizer_bandwidth_share", wording.share), trials),
            told("time_to_first_step_seconds", wording.duration),
        ],
        "compiled": _compiled(trials),
    }


def _with_mix(told: tuple[str, str] | None, trials: Trials) -> tuple[str, str] | None:
    """Write under a share which mix of reads and writes it is of, where the trials say one."""
    mixes = {words(row.get("update_mix")) for row in trials} - {""}
    if told is None or len(mixes) != 1:
        return told
    return told[0], f"of {mixes.pop()} · {told[1]}"


def _prefixed(unit: str) -> Callable[[float], str]:
    return lambda value: f"{step_figures.prefixed(value)}{unit}"


def _compiled(trials: Trials) -> list[tuple[str, tuple[str, str]]]:
    """Give the compile times by what the cache on disk was, which are never mixed."""
    by_state: dict[str, list[Trial]] = defaultdict(list)
    for row in trials:
        by_state[words(row.get("compile_cache"))].append(row)
    found = []
    for state, group in sorted(by_state.items()):
        text = _told(group, "compile_seconds", wording.duration)
        if text:
            found.append((state or "cache not recorded", text))
    return found


def _reasons(rows: Trials) -> list[str]:
    """Say why a number is missing, each reason once."""
    names = ("datasheet_missing", "optimizer_bytes_missing", "update_mix_missing")
    found: dict[str, list[str]] = {name: [] for name in names}
    for row in rows:
        for column, reasons in found.items():
            reason = words(row.get(column))
            if reason and row["status"] == "ok" and reason not in reasons:
                reasons.append(reason)
    told = [f"No datasheet share: {reason}." for reason in found["datasheet_missing"]]
    told += [f"No optimizer bandwidth: {r}." for r in found["optimizer_bytes_missing"]]
    return told + [f"Another mix's bandwidth: {r}." for r in found["update_mix_missing"]]


def _unmeasured(sessions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which peaks the sessions did not measure, and why."""
    skipped = [
        f"No measured peak of {dtype}: {why}."
        for session in sessions
        for measured in session.get("ceilings") or ()
        for dtype, why in (measured.get("values", {}).get("skipped") or {}).items()
    ]
    return list({line.split(":")[0]: line for line in skipped}.values())


def _gpus(rows: Trials) -> list[str]:
    """Name the boards that trials ran on, with the power limit that they ran under."""
    found: dict[str, None] = {}
    for row in rows:
        if name := words(row.get("gpu_name")):
            watts, sku = number(row.get("gpu_power_limit_watts")), words(row.get("gpu_sku"))
            limit = f"power limit {watts:g} W" if watts else "power limit not recorded"
            found[f"{name} ({sku or 'no datasheet'}, {limit})"] = None
    return list(found)


def _ceilings(session: Mapping[str, Any]) -> list[str]:
    """Say what a session measured as limits, over how many measures, and whether it was noisy."""
    seen: dict[str, list[float]] = defaultdict(list)
    for measured in session.get("ceilings") or ():
        values = measured.get("values", {})
        device = measured.get("device")
        where = device.get("name", "") if isinstance(device, dict) else str(device or "")
        for dtype, rate in (values.get("matmul_flops_per_second") or {}).items():
            seen[f"{where} {dtype}|FLOP/s"].append(rate)
        of_mixes = values.get("update_bytes_per_second") or {}
        if (moved := values.get("bandwidth_bytes_per_second")) and not of_mixes:
            seen[f"{where} in-place update|B/s"].append(moved)
        for mix, moved in of_mixes.items():
            seen[f"{where} in-place update of {mix}|B/s"].append(moved)
    lines = []
    for key, rates in seen.items():
        name, unit = key.split("|")
        low, high = (f"{step_figures.prefixed(value)}{unit}" for value in (min(rates), max(rates)))
        noisy = max(rates) > NOISY * min(rates)
        note = f", noisy: its measures differ {max(rates) / min(rates):.2g}-fold" if noisy else ""
        lines.append(f"{name}: {high} at most (least {low}, n {len(rates)}{note})")
    return lines


# --- rooflines ---


def _rooflines(cells: Sequence[Cell], timed: Mapping[str, Trials]) -> dict[str, Any] | None:
    """Draw each cell's operations; the first cell stands open, the others fold away."""
    found = [(c, rows) for c in cells if (rows := timed[c.id]) and _median(rows, _TRACED)]
    plots = [_roofline(cell, trials) for cell, trials in found[:MOST_PLOTS]]
    return {"plots": plots, "left_out": len(found) - len(plots)} if plots else None


_TRACED = "traced_step_seconds"


def _roofline(cell: Cell, trials: Trials) -> dict[str, Any]:
    points = sorted(
        (point for kind in KINDS if (point := _point(trials, kind))), key=lambda p: -p.seconds
    )
    roofs, bandwidth = _roofs(trials[0])
    return {
        "label": cell.label,
        "n": len(trials),
        "step": wording.duration(_median(trials, _TRACED)),
        "svg": safe(step_figures.roofline(points, roofs, bandwidth, cell.label)),
        "rows": [
            _point_row(point, i, trials, (roofs, bandwidth)) for i, point in enumerate(points, 1)
        ]
        + [_uncounted(trials, kind) for kind in KINDS if not _point(trials, kind)],
    }


def _figure(trials: Trials, kind: str, name: str) -> float:
    return _median(trials, f"operation_{kind}_{name}")


def _point(trials: Trials, kind: str) -> Point | None:
    """Place a kind by what its formulas say; None where they say nothing of it."""
    flops, moved = _figure(trials, kind, "flops"), _figure(trials, kind, "bytes")
    seconds = _figure(trials, kind, "counted_seconds")
    if not (flops and moved and seconds):
        return None
    is_product = kind in {"linear", "attention", "mlm_loss"}
    return Point(
        KINDS[kind],
        "formula",
        "product" if is_product else "elementwise",
        _figure(trials, kind, "calls"),
        flops,
        moved,
        seconds,
    )


def _roofs(trial: Trial) -> tuple[dict[str, float], float | None]:
    """Give the flat roofs of a cell's precision by name, and the measured bandwidth."""
    dtype = words(trial.get("ceiling_dtype"))
    roofs = {
        f"{dtype}, measured": number(trial.get("ceiling_flops_per_second")),
        f"{dtype}, datasheet": number(trial.get("datasheet_flops_per_second")),
    }
    bandwidth = number(trial.get("bandwidth_ceiling_bytes_per_second"))
    return {name: rate for name, rate in roofs.items() if rate}, bandwidth


def _point_row(
    point: Point, place: int, trials: Trials, limit: tuple[Mapping[str, float], float | None]
) -> dict[str, str]:
    roofs, bandwidth = limit
    kind = next(kind for kind, name in KINDS.items() if name == point.name)
    counted = point.seconds / _figure(trials, kind, "seconds")
    limits = [rate for name, rate in roofs.items() if name.endswith("measured")]
    limits += [bandwidth * point.intensity] if bandwidth else []
    return {
        "number": str(place),
        "name": point.name,
        "source": point.source,
        "partly": "" if counted > MOSTLY else f"of {wording.share(counted)} of its time",
        "seconds": wording.duration(point.seconds),
        "share": wording.share(point.seconds / _median(trials, _TRACED)),
        "flops": f"{step_figures.prefixed(point.flops_per_second)}FLOP/s",
        "bytes": f"{step_figures.prefixed(point.bytes_per_second)}B/s",
        "intensity": wording.significant(point.intensity),
        "roof": wording.share(point.flops_per_second / min(limits)) if limits else DASH,
    }


def _uncounted(trials: Trials, kind: str) -> dict[str, str]:
    """Write a kind that has time and no place under the roofs."""
    seconds = _figure(trials, kind, "seconds")
    return {
        **dict.fromkeys(("flops", "bytes", "intensity", "roof"), DASH),
        "number": DASH,
        "name": KINDS[kind],
        "source": "no formula",
        "partly": "",
        "seconds": wording.duration(seconds) if seconds else DASH,
        "share": wording.share(seconds / _median(trials, _TRACED)) if seconds else DASH,
    }
