"""Re-derive rates, shares of limits, operation times and compile states from the records alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.labels import workload_choices
from bertopt_bench.matrix.modes import is_inference
from bertopt_bench.results.findings import error, warning
from bertopt_bench.results.limit_rows import CEILING_DTYPES, Limits, limit_columns
from bertopt_bench.workload import classifier_formulas, formulas
from bertopt_bench.workload.classifier_formulas import is_classification
from bertopt_bench.workload.optimizer_work import step_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bertopt_bench.results.findings import Finding
    from bertopt_bench.results.record import Record, Session

RELATIVE_ERROR = 1e-6  # a mean step's FLOPs are rounded to whole ones
TIME_TOLERANCE = 0.02


def check_limits(record: Record, session: Session | None) -> Iterator[Finding]:
    """MFU is tokens a second by the closed form's FLOPs a token, over the peak of its session."""
    if session is None or record.status != "ok" or record.vocabulary_size is None:
        return
    if record.interrupted:
        return  # its times count nowhere
    if is_classification(record.cell) and record.classification is None:
        return  # a replicate of fewer steps: nothing says how many classes its head has
    empty = record.ragged is not None and not sum(record.ragged.slot_tokens)
    if empty or not record.step_seconds or record.slot_tokens_per_step is None:
        return
    row = limit_columns(record, Limits.of(session))
    done = _flops_per_second(record)
    peaks = {"ceiling": _measured_peak(record, session)}
    peaks["datasheet"] = row["datasheet_flops_per_second"]
    for name, peak in peaks.items():
        share = row[f"{name}_share"]
        if not _close(share, done / peak):
            text = f"its MFU is {share:.4f}; tokens a second by formula give {done / peak:.4f}"
            yield error(record, f"{text} of the {name}'s peak")
    if row["datasheet_share"] > 1:
        yield error(
            record,
            f"its MFU is {row['datasheet_share']:.2f} of the datasheet's peak: nothing computes "
            "more than that, so something is counted wrongly",
        )
    if row["ceiling_share"] > 1:
        yield warning(
            record,
            f"its MFU is {row['ceiling_share']:.2f} of the measured peak: the machine was slower "
            "while the peak was measured, and shares of it mean little",
        )


def _flops_per_second(record: Record) -> float:
    """Give slot tokens a second by ``3 [L (8hh + 4hf + 4sh) + rho (2hh + 2hV)]``.

    s is the mean length that a slot attends to, rho the share of slots sent to the head; forward
    only, the factor is 1. A classifier's head has its own formula; a pair whose next sentence is
    told adds a pooler and two logits, 2hh + 4h.
    """
    rate = len(record.step_seconds) / math.fsum(record.step_seconds)
    if record.classification is not None:
        classes = len(record.classification.classes)
        return (
            3 * rate * classifier_formulas.forward_flops(record.cell["workload"], classes=classes)
        )
    workload = workload_choices(record.cell["workload"])
    size = formulas.model_size(workload["model"])
    h, f, vocabulary = size.hidden, size.intermediate, record.vocabulary_size or 0
    slots, pairs, head = _held(record, workload)
    per_token = size.layers * (8 * h * h + 4 * h * f + 4 * pairs / slots * h)
    per_token += head / slots * (2 * h * h + 2 * h * vocabulary)
    told = workload["batch_size"] if workload.get("next_sentence") else 0
    per_token += told / slots * (2 * h * h + 4 * h)
    factor = 1 if is_inference(record.cell) else 3
    return factor * per_token * slots * rate


def _held(record: Record, workload: Mapping[str, Any]) -> tuple[float, float, float]:
    """Give a mean step's slots, attended pairs and head slots."""
    steps, length = record.ragged, workload["seq_len"]
    if steps is not None:
        rows = (steps.slot_tokens, steps.attended_pairs, steps.head_slots)
        slots, pairs, head = (sum(row) / len(row) for row in rows)
        return slots, pairs, head
    slots = workload["batch_size"] * length
    masked = workload["batch_size"] * formulas.masked_slots(length, workload["mask_rate"])
    return slots, slots * length, masked


def _measured_peak(record: Record, session: Session) -> float:
    """Give the highest rate that the session noted for the record's device and data type."""
    device = record.cell["device"]
    dtype = CEILING_DTYPES.get(record.cell["precision"]["name"], "")

    def highest(wanted: Any) -> float:
        return max(
            (
                measured["values"].get("matmul_flops_per_second", {}).get(dtype, 0.0)
                for measured in session.ceilings
                if measured.get("device") == wanted
            ),
            default=0.0,
        )

    return highest(device) or highest(device["name"]) or math.nan


def check_operations(record: Record) -> Iterator[Finding]:
    """Kinds of operation fit into their step; the optimizer's bytes are its formula's."""
    found = record.operations
    if found is None:
        return
    whole = math.fsum(one.seconds for one in found.kinds)
    if whole > (1 + TIME_TOLERANCE) * found.step_seconds:
        yield error(
            record, f"its operations took {whole:.6f} s of a step of {found.step_seconds:.6f} s"
        )
    for one in found.kinds:
        if one.counted_seconds > one.seconds * (1 + RELATIVE_ERROR):
            yield error(record, f"more of {one.kind}'s time is counted than it took")
        if one.kind != "optimizer" or record.parameter_count is None:
            continue
        width = 8 if record.cell["precision"]["name"] == "fp64" else 4
        due = step_bytes(record.cell["optimizer"], record.parameter_count, width) or 0
        if one.bytes != due:
            yield error(record, f"its optimizer moved {one.bytes:,.0f} bytes; by formula {due:,}")


def check_compiling(record: Record) -> Iterator[Finding]:
    """A warm cache had every graph, and nothing is cold or warm where nothing was compiled."""
    cache = record.compile_cache
    if cache is None:
        return
    warm = cache.hits > 0 and not cache.misses and not cache.bypassed
    if (cache.state == "warm") is not warm:
        yield error(
            record,
            f"its compile cache is {cache.state} with {cache.hits} hits, {cache.misses} misses",
        )
    if not record.compile_seconds:
        yield error(record, f"its compile cache is {cache.state}, but it has no compile time")


def _close(value: float, expected: float) -> bool:
    if math.isnan(value) or math.isnan(expected):
        return math.isnan(value) and math.isnan(expected)
    return math.isclose(value, expected, rel_tol=RELATIVE_ERROR)
