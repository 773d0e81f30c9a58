"""Read what NVIDIA Nsight Compute counted: the CSV of ``ncu --csv``, either of its layouts.

``--page details`` (the default) has a row a kernel and metric; ``--page raw`` a row a kernel, a
column a metric, and the units in the row below the names. Lines before the header are ncu's own
messages. Numbers may carry separators of thousands.
"""

from __future__ import annotations

import csv
import io
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
_TIMES = {"second": 1.0, "s": 1.0, "msecond": 1e-3, "ms": 1e-3, "usecond": 1e-6, "us": 1e-6,
          "nsecond": 1e-9, "ns": 1e-9}  # fmt: skip


def read_counted(file: Path, steps: int = 1) -> list[Point]:
    """Give one point a kernel's name, its launches added up over a step, longest first.

    A kernel without counted bytes or time has no place and is left out.

    Raises:
        UserError: the file cannot be read, is no ncu CSV, or holds neither bytes nor seconds.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    launches: dict[str, set[str]] = defaultdict(set)
    for launch, kernel, metric, value in _values(_rows(file, text)):
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


def _point(kernel: str, found: Mapping[str, float], launches: int, steps: int) -> Point:
    flops = sum(found.get(metric, 0.0) * factor for metric, factor in FLOPS.items())
    moved = sum(found.get(metric, 0.0) for metric in BYTES) or found.get(ALL_BYTES, 0.0)
    seconds = found.get(SECONDS, 0.0)
    values = (value / steps for value in (launches, flops, moved, seconds))
    return Point(kernel, "counted", "kernel", *values)


def _rows(file: Path, text: str) -> list[list[str]]:
    """Give the header and what follows, ncu's messages left out."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.lstrip('"').startswith("ID")), None)
    if start is None:
        raise UserError(
            f"{file} is no CSV of ncu: it has no header that begins with ID. Write one with "
            "`ncu --csv --log-file FILE ...`, or from a report with "
            "`ncu --import REPORT --csv --page raw`."
        )
    kept = [line for line in lines[start:] if line and not line.startswith("==")]
    return list(csv.reader(io.StringIO("\n".join(kept))))


def _values(rows: list[list[str]]) -> Iterator[tuple[str, str, str, float]]:
    """Give (launch, kernel, metric, value in base units) of either layout."""
    header, body = rows[0], rows[1:]
    if "Kernel Name" not in header:
        return
    launch, kernel = header.index("ID"), header.index("Kernel Name")
    if "Metric Name" in header:
        name, unit, value = (header.index(f"Metric {part}") for part in ("Name", "Unit", "Value"))
        cells = [
            (row[launch], row[kernel], row[name], row[unit], row[value])
            for row in body
            if len(row) > max(name, unit, value)
        ]
    else:
        units, body = (body[0], body[1:]) if body else ([], [])
        cells = [
            (row[launch], row[kernel], metric, unit, text)
            for row in body
            for metric, unit, text in zip(header, units, row, strict=False)
            if metric in METRICS or metric == ALL_BYTES
        ]
    for place, who, metric, units_of_it, text in cells:
        number = _number(text)
        if number is not None:
            yield place, who, metric, number * _factor(units_of_it)


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None  # n/a: this chip does not count it


def _factor(unit: str) -> float:
    """Give what turns a unit into seconds, bytes or a plain count."""
    if unit in _TIMES:
        return _TIMES[unit]
    for word in ("byte", "inst", "op", "B"):
        if unit.endswith(word):
            return _PREFIXES.get(unit.removesuffix(word).lower(), 1.0)
    return 1.0
