"""Write a frame to a file or to standard output: markdown, csv, parquet, json."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from pathlib import Path

    from pandas import DataFrame

FORMATS = ("markdown", "csv", "parquet", "json")
SHOWN = (
    "label",
    "cell_id",
    "seed",
    "replicate",
    "session",
    "status",
    "reason",
    "final_loss",
    "final_masked_accuracy",
    "tokens_per_second",
    "step_seconds",
    "step_seconds_p10",
    "step_seconds_p90",
    "timed_steps",
    "ceiling_share",
    "peak_memory_bytes",
    "peak_resident_bytes",
)
"""Columns of the trials that a person reads; the other formats have all of them."""


def export(frame: DataFrame, form: str, output: Path | None = None) -> None:
    """Write a frame.

    Raises:
        UserError: no such format, a package that is missing, a file that cannot be written.
    """
    if form not in FORMATS:
        allowed = ", ".join(FORMATS)
        raise UserError(f"no format '{form}'. Formats: {allowed}.{nearest(form, FORMATS)}")
    if form == "parquet":
        _write_parquet(frame, output)
        return
    text = {"markdown": markdown, "csv": _csv, "json": _json}[form](frame)
    write_out(text, output)


def write_out(text: str, output: Path | None) -> None:
    """Write a text to a file, whose folder is made, or to standard output.

    Raises:
        UserError: the file cannot be written.
    """
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}.") from error


def markdown(frame: DataFrame) -> str:
    """Write a table for people: trials without the columns that say nothing over the set."""
    if "cell_id" in frame.columns:
        frame = frame[[name for name in SHOWN if name in frame.columns]]
        frame = frame.dropna(axis="columns", how="all")
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    heads = list(map(str, frame.columns))
    numeric = [frame[name].dtype.kind in "iuf" for name in frame.columns]
    lines = [heads, ["---:" if right else "---" for right in numeric], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _csv(frame: DataFrame) -> str:
    """Write every column; NaN is the word, so that it is told from an empty text."""
    text: str = frame.to_csv(index=False, na_rep="NaN", lineterminator="\n")
    return text


def _json(frame: DataFrame) -> str:
    """Write a list of objects; numbers that are not finite are null."""
    text: str = frame.to_json(orient="records", double_precision=15)
    return text + "\n"


def _write_parquet(frame: DataFrame, output: Path | None) -> None:
    if output is None:
        raise UserError("parquet is no text: name a file with --output.")
    texts = [name for name in frame.columns if len(set(map(type, frame[name].dropna()))) > 1]
    plain = frame.assign(**{name: frame[name].map(_text, na_action="ignore") for name in texts})
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        plain.to_parquet(output, index=False)
    except ImportError as error:
        raise UserError("parquet needs pyarrow: pip install 'bertopt-bench[parquet]'.") from error
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}.") from error


def _text(value: Any) -> str:
    return str(value)


def _cell(value: Any) -> str:
    if value is None or value != value:  # noqa: PLR0124 - NaN is the only value unlike itself
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).replace("|", "\\|").replace("\n", " ")
