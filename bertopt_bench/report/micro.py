"""Render pytest-benchmark's files as one offline page: tables and crossovers, never a verdict."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from bertopt_bench.report import frame, wording
from bertopt_bench.report.figures import columns, compressed, dumped
from bertopt_bench.report.micro_figures import Crossover, crossover
from bertopt_bench.report.micro_rows import layout
from bertopt_bench.report.page import write_text
from bertopt_bench.report.step_figures import rate
from bertopt_bench.results.micro import NUMBERS, OPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bertopt_bench.results.micro import MicroFile, MicroRow

AXES = (
    "seq_len", "batch_size", "hidden_size", "heads", "head_size", "vocabulary_size", "padding",
)  # fmt: skip
"""Options that a crossover may be drawn over."""

MOST_FIGURES = 40
DIGITS = 6
EXPLORATORY = (
    "Each case ran in one process, after the others and not beside them, with no A/A arm. The "
    "machine's drift and the process' own luck are in these differences, so this page gives no "
    "verdict and cannot gate."
)


def write_micro(files: Sequence[MicroFile], path: Path) -> Path:
    """Write the page whole or not at all, and return its path.

    Raises:
        UserError: the page cannot be written there.
    """
    return write_text(render_micro(files), path)


def render_micro(files: Sequence[MicroFile]) -> str:
    """Render files as HTML that asks nothing of any network."""
    return frame.template("micro.html").render(context(files))


def context(files: Sequence[MicroFile]) -> dict[str, Any]:
    """Gather all that the template shows."""
    groups = [group for number, file in enumerate(files) for group in _groups(files, number, file)]
    shown = sum(len(group["figures"]) for group in groups)
    for group in groups:
        group["figures"] = group["figures"][: max(4, MOST_FIGURES // len(groups))]
    drawn = sum(len(group["figures"]) for group in groups)
    rows = [row for file in files for row in file.rows]
    return {
        "title": f"Operations alone: {wording.listed(sorted({row.operation for row in rows}))}",
        "sessions": [{"started_utc": _at(files[0])}],
        "counts": [
            ("cases", f"{len(rows):,}"),
            ("operations", str(len({row.operation for row in rows}))),
            ("files", str(len(files))),
        ],
        "warnings": _warnings(files),
        "exploratory": EXPLORATORY,
        "groups": groups,
        "undrawn": shown - drawn,
        "environment": [_environment(file, _name(file, files)) for file in files],
        "formulas": _formulas(rows),
        "data": compressed(dumped({"tables": {"calls": _packed(files)}})),
        "left_out": (),
        **frame.assets("page.css", "shell.js", "duel.js"),
    }


def _groups(files: Sequence[MicroFile], number: int, file: MicroFile) -> list[dict[str, Any]]:
    """Lay out each operation, hot and cold calls apart: they are never in one table."""
    found: dict[tuple[str, str], list[MicroRow]] = defaultdict(list)
    for row in file.rows:
        found[row.operation, str(row.options.get("cache", ""))].append(row)
    groups = []
    for (operation, cache), rows in sorted(found.items()):
        name = f"{operation}, {cache} caches" if cache else operation
        title = f"{name} · {_name(file, files)}" if len(files) > 1 else name
        groups.append(
            {
                "key": f"g{number}-{operation}-{cache}".replace(" ", "-"),
                "title": title,
                **layout(rows),
                "figures": figures(rows),
            }
        )
    return groups


def figures(rows: Sequence[MicroRow]) -> list[Crossover]:
    """Draw a crossover over every option that varies while all others stand still."""
    drawn = []
    for axis in AXES:
        panels: dict[tuple[tuple[str, str], ...], dict[str, list[MicroRow]]] = {}
        for row in rows:
            if axis not in row.options or not row.median:  # no place on a logarithm
                continue
            apart = {axis, "parameters"}  # which follow from the hidden size
            rest = tuple((k, str(v)) for k, v in row.options.items() if k not in apart)
            panels.setdefault(rest, {}).setdefault(row.implementation, []).append(row)
        varying = _differing(list(panels))
        for rest, lines in panels.items():
            if all(len({row.options[axis] for row in line}) < 2 for line in lines.values()):
                continue
            where = ", ".join(f"{key} {value}" for key, value in rest if key in varying)
            title = f"Seconds a call over {axis}" + (f" ({where})" if where else "")
            drawn.append(crossover(title, axis, lines))
    return drawn


def _differing(rests: Sequence[Sequence[tuple[str, str]]]) -> set[str]:
    names = {key for rest in rests for key, _ in rest}
    return {key for key in names if len({dict(rest).get(key) for rest in rests}) > 1}


def _at(file: MicroFile) -> str:
    """Give when a file was written, without fractions; pytest-benchmark writes UTC, said or not."""
    return f"{file.at_utc[:19]}Z" if file.at_utc else ""


def _name(file: MicroFile, files: Sequence[MicroFile]) -> str:
    """Name a file: with so many of its folders that no other one is called so."""
    own, others = file.path.parts, [one.path.parts for one in files if one is not file]
    least = next(n for n in range(1, len(own) + 1) if n == len(own) or not _shared(own, others, n))
    return "/".join(own[-least:])


def _shared(own: Sequence[str], others: Sequence[Sequence[str]], count: int) -> bool:
    return any(other[-count:] == own[-count:] for other in others)


def _warnings(files: Sequence[MicroFile]) -> list[str]:
    told = []
    for file in files:
        name = _name(file, files)
        bound = sum(row.host_bound for row in file.rows)
        if bound:
            told.append(
                f"{name}: {wording.plural(bound, 'case')} host-bound: the device waited "
                "for launches, so these say nothing of the kernel."
            )
        if len(files) > 1:
            told.append(f"{name} is a session of its own: no time is compared over files.")
    return told


def _environment(file: MicroFile, name: str) -> dict[str, Any]:
    """List what the file says of machine and ceilings; never the machine's name."""
    machine, commit = file.machine, file.commit
    cpu = machine.get("cpu") if isinstance(machine.get("cpu"), dict) else {}
    rows = [
        ("processor", (cpu or {}).get("brand_raw")),
        ("Python", machine.get("python_version")),
        ("torch", machine.get("torch")),
        ("threads", machine.get("threads")),
        ("system", " ".join(filter(None, (machine.get("system"), machine.get("machine"))))),
        ("commit", commit.get("id")),
        ("uncommitted changes", commit.get("dirty")),
        ("pytest-benchmark", file.version),
        ("written", file.at_utc),
    ]
    for number, one in enumerate(file.ceilings, start=1):
        rates = one.get("matmul_flops_per_second") or {}
        products = ", ".join(f"{dtype} {rate(v, 'FLOP/s')}" for dtype, v in rates.items())
        rows.append((f"matrix products, measurement {number}", products))
        moved = one.get("bandwidth_bytes_per_second")
        if moved:
            text = f"{rate(moved, 'B/s')} ({one.get('bandwidth_mix', '')})"
            rows.append((f"bandwidth, measurement {number}", text))
    return {"name": name, "rows": [(k, str(v)) for k, v in rows if v not in {None, ""}]}


def _formulas(rows: Sequence[MicroRow]) -> list[tuple[str, str, str]]:
    """List the formulas of bytes and FLOPs that rows state, each once."""
    found = [
        (row.operation, str(row.notes["bytes_formula"]), str(row.notes.get("flops_formula", "")))
        for row in rows
        if "bytes_formula" in row.notes
    ]
    return list(dict.fromkeys(found))


def _packed(files: Sequence[MicroFile]) -> Mapping[str, Any]:
    import pandas as pd

    made = [
        {
            "file": _name(file, files),
            "operation": row.operation,
            "implementation": row.implementation,
            **{key: row.options.get(key) for key in OPTIONS},
            "n": row.n,
            "median_seconds": row.median,
            "q1_seconds": row.q1,
            "q3_seconds": row.q3,
            **{key: row.numbers.get(key) for key in NUMBERS},
            "host_bound": row.host_bound,
        }
        for file in files
        for row in file.rows
    ]
    return columns(pd.DataFrame(made), DIGITS)
