"""Read what NVIDIA Nsight Compute counted: the CSV of ``ncu --csv``, either of its layouts.

``--page details`` (the default) has a row a kernel and metric; ``--page raw`` a row a kernel, a
column a metric, and the units in the row below the names. Lines before the header are ncu's own
messages. Numbers may carry commas between thousands; ncu writes them as its locale does, and any
other way of writing, as an unknown unit, is refused: it would be wrong by powers of ten.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from typing import TYPE_CHECKING

from bertopt_bench.errors import UserError
from bertopt_bench.measure.operator_costs import Point

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SECONDS = "gpu__time_duration.sum"
BYTES = ("dram__bytes_read.sum", "dram__bytes_write.sum")
ALL_BYTES = "dram__bytes.sum"
_THREADS = "smsp__sass_thread_inst_executed_op_{}_pred_on.sum"
FLOPS = {
    **{_THREADS.format(f"{width}add"): 1 for width in "hfd"},
    **{_THREADS.format(f"{width}mul"): 1 for width in "hfd"},
    **{_THREADS.format(f"{width}fma"): 2 for width in "hfd"},
    "sm__ops_path_tensor_src_fp16_dst_fp32.sum": 1,
    "sm__ops_path_tensor_src_fp16_dst_fp16.sum": 1,
    "sm__ops_path_tensor_src_bf16_dst_fp32.sum": 1,
    "sm__ops_path_tensor_src_tf32_dst_fp32.sum": 1,
    "sm__ops_path_tensor_src_fp64.sum": 1,
}
"""FLOPs an instruction; tensor cores count operations themselves, two a multiply-add."""
METRICS = (SECONDS, *BYTES, *FLOPS)
"""What to ask ncu for."""
_PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_COUNTS = ("byte", "inst", "op", "b")
_NUMBER = re.compile(r"(\d{1,3}(,\d{3})+|\d+)(\.\d+)?(e[+-]?\d+)?", re.IGNORECASE)
_NOT_COUNTED = ("", "n/a", "nan")
_TIMES = {"second": 1.0, "s": 1.0, "msecond": 1e-3, "ms": 1e-3, "usecond": 1e-6, "us": 1e-6,
          "nsecond": 1e-9, "ns": 1e-9}  # fmt: skip


def read_counted(file: Path, steps: int = 1) -> list[Point]:
    """Give one point a kernel's name, its launches added up over a step, longest first.

    A kernel without counted bytes or time has no place and is left out.

    Raises:
        UserError: the file cannot be read, is no ncu CSV, holds neither bytes nor seconds, or a
            number or unit that is not known.
    """
    sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    launches: dict[str, set[str]] = defaultdict(set)
    for launch, kernel, metric, value in _values(file, _rows(file, _text(file))):
        sums[kernel][metric] += value
        launches[kernel].add(launch)
    points = [_point(kernel, found, len(launches[kernel]), steps) for kernel, found in sums.items()]
    usable = [point for point in points if point.bytes and point.seconds]
    if not usable:
        raise UserError(
            f"{file} holds no kernel with DRAM bytes and time. Ask ncu for them: --metrics "
            f"{SECONDS},{','.join(BYTES)} (`bertopt-bench profile --ncu` prints the whole command)."
        )
    return sorted(usable, key=lambda point: -point.seconds)


def _text(file: Path) -> str:
    """Read a file; what PowerShell redirected is UTF-16."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    return data.decode("utf-16" if wide else "utf-8-sig", errors="replace")


def _point(kernel: str, found: Mapping[str, float], launches: int, steps: int) -> Point:
    flops = sum(found.get(metric, 0.0) * factor for metric, factor in FLOPS.items())
    moved = sum(found.get(metric, 0.0) for metric in BYTES) or found.get(ALL_BYTES, 0.0)
    seconds = found.get(SECONDS, 0.0)
    values = (value / steps for value in (launches, flops, moved, seconds))
    return Point(kernel, "counted", "kernel", *values)


def _rows(file: Path, text: str) -> list[list[str]]:
    """Give the header and what follows, ncu's messages left out."""
    lines = text.splitlines()
    starts = ("ID,", '"ID",')
    start = next((i for i, line in enumerate(lines) if line.startswith(starts)), None)
    if start is None:
        raise UserError(
            f"{file} is no CSV of ncu: it has no header that begins with ID. Write one with "
            "`ncu --csv --log-file FILE ...`, or from a report with "
            "`ncu --import REPORT --csv --page raw`."
        )
    kept = [line for line in lines[start:] if line and not line.startswith("==")]
    return list(csv.reader(io.StringIO("\n".join(kept))))


def _values(file: Path, rows: list[list[str]]) -> Iterator[tuple[str, str, str, float]]:
    """Give (launch, kernel, metric, value in base units) of either layout."""
    header, body = rows[0], rows[1:]
    details = "Metric Name" in header
    names = ["ID", "Kernel Name", *(f"Metric {p}" for p in ("Name", "Unit", "Value") if details)]
    missing = [name for name in names if name not in header]
    if missing:
        raise UserError(f"{file} has no column '{missing[0]}': keep all columns that ncu writes.")
    launch, kernel, *places = (header.index(name) for name in names)
    if details:
        cells = [
            (row[launch], row[kernel], *(row[place] for place in places))
            for row in body
            if len(row) > max(places)
        ]
    else:
        cells = _raw_cells(file, header, body)
    for place, who, metric, unit, text in cells:
        if metric in METRICS or metric == ALL_BYTES:
            number = _number(file, metric, text)
            if number is not None:
                yield place, who, metric, number * _factor(file, metric, unit)


def _raw_cells(file: Path, header: list[str], body: list[list[str]]) -> list[tuple[str, ...]]:
    """Take ``--page raw`` apart, whose row below the header has units and no launch."""
    launch, kernel = header.index("ID"), header.index("Kernel Name")
    units, *rows = body or [[]]
    if len(units) > launch and units[launch]:
        raise UserError(
            f"{file} has no row of units below its header, so its numbers may be of any. Keep the "
            "row that ncu writes."
        )
    return [
        (row[launch], row[kernel], metric, unit, text)
        for row in rows
        if len(row) > max(launch, kernel)
        for metric, unit, text in zip(header, units, row, strict=False)
    ]


def _number(file: Path, metric: str, text: str) -> float | None:
    """Read a number as ncu writes it in English; None where this chip does not count it."""
    plain = text.strip()
    if plain.lower() in _NOT_COUNTED:
        return None
    if not _NUMBER.fullmatch(plain):
        raise UserError(
            f"{file}: {metric} is {text!r}; a number is due as 1,234.5 is written. ncu writes "
            "numbers as its locale does: run it with LC_ALL=C, or import the report again so."
        )
    return float(plain.replace(",", ""))


def _factor(file: Path, metric: str, unit: str) -> float:
    """Give what turns a unit into seconds, bytes or a plain count."""
    if metric == SECONDS:
        known = _TIMES
    else:
        known = {f"{p}{word}": by for p, by in _PREFIXES.items() for word in ("", *_COUNTS)}
    if unit.lower() not in known:
        raise UserError(
            f"{file}: {metric} is in {unit or 'no unit'!r}, which is not known. Let ncu write base "
            "units: --print-units base."
        )
    return known[unit.lower()]
