"""Make rows of records: what a trial chose, what it measured, what follows from both."""

from __future__ import annotations

import json
import math
import statistics
from itertools import accumulate, zip_longest
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.identity import canonical_json
from bertopt_bench.matrix.labels import (
    cell_labels,
    choices,
    level_labels,
    model_label,
    workload_choices,
)
from bertopt_bench.matrix.modes import is_inference
from bertopt_bench.results.inference_rows import inference_columns
from bertopt_bench.results.memory_rows import memory_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.results.record import Evaluation, Record, Session

    Row = dict[str, Any]

NAN = math.nan
CEILING_DTYPES = {
    "fp32": "float32",
    "tf32": "tf32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp64": "float64",
}
"""Which measured matrix-product rate limits a precision."""

PHASES = ("data", "forward", "backward", "optimizer", "rest")
COPIED = (
    "peak_memory_bytes",
    "peak_resident_bytes",
    "time_to_first_step_seconds",
    "compile_seconds",
    "assemble_seconds",
    "burn_in_seconds",
    "elapsed_seconds",
    "host_syncs_per_step",
    "graphs_compiled",
    "skipped_steps",
    "exact_zero_share",
    "parameter_count",
    "flops_per_step",
    "diverged_at_step",
)
HASHES = (
    "initial_weights_sha256",
    "batches_sha256",
    "evaluation_sha256",
    "text_sha256",
    "tokenizer_sha256",
)


def trial_rows(records: Sequence[Record], sessions: Sequence[Session]) -> list[Row]:
    """Make a row a trial; codes count from 0 in the order of the records."""
    contents = [record.cell for record in records]
    labels, levels = cell_labels(contents), level_labels(contents)
    ceilings = {session.session: _ceilings(session) for session in sessions}
    return [
        {
            "trial": code,
            "cell_id": record.cell_id,
            "label": labels[code],
            "seed": record.seed,
            "replicate": record.replicate,
            "arm": record.arm,
            "session": record.session,
            "status": record.status,
            "reason": record.reason,
            "interrupted": " ".join(map(str, record.interrupted)),
            **_workload(record),
            **levels[code],
            **_options(record.cell),
            **_times(record),
            **_rates(record, ceilings.get(record.session, {})),
            **{name: _or_nan(getattr(record, name)) for name in COPIED},
            **_phases(record),
            **inference_columns(record),
            **memory_columns(record),
            **_losses(record),
            "kernels_ran": " ".join(record.kernels_ran),
            **{name: getattr(record, name) for name in HASHES},
            "code_version": record.code.version,
            "code_commit": record.code.commit,
        }
        for code, record in enumerate(records)
    ]


def step_rows(records: Sequence[Record]) -> list[Row]:
    """Make a row a step; what a killed trial did not tell is NaN."""
    return [
        {
            "trial": code,
            "step": step,
            "loss": loss,
            "step_seconds": seconds,
            "real_tokens": tokens,
        }
        for code, record in enumerate(records)
        for step, (loss, seconds, tokens) in enumerate(_per_step(record), start=1)
    ]


def evaluation_rows(records: Sequence[Record]) -> list[Row]:
    """Make a row an evaluation; ``tokens`` are the real ones trained on before it.

    That of an inference trial is for ``verify``: it shows what its forward pass computes.
    """
    rows = []
    for code, record in enumerate(records):
        if is_inference(record.cell):
            continue
        tokens = [0, *accumulate(record.real_tokens)]
        rows += [
            {
                "trial": code,
                "step": seen.step,
                "loss": seen.loss,
                "perplexity": seen.perplexity,
                "masked_accuracy": seen.masked_accuracy,
                **_next_sentence(seen),
                **({} if seen.train_loss is None else {"train_loss": seen.train_loss}),
                "train_seconds": NAN if record.interrupted else seen.train_seconds,
                "tokens": tokens[seen.step] if seen.step < len(tokens) else NAN,
            }
            for seen in record.evaluations
        ]
    return rows


def _per_step(record: Record) -> list[tuple[float, float, float]]:
    count = max(len(record.losses), len(record.step_seconds))
    tokens = record.real_tokens[:count]
    return list(zip_longest(record.losses, record.step_seconds, tokens, fillvalue=NAN))


def _workload(record: Record) -> Row:
    """Give the workload's keys; ``steps`` are the trial's own, a timing replicate's fewer."""
    workload = workload_choices(record.cell["workload"])
    row = {key: value for key, value in workload.items() if key != "name"}
    if not isinstance(row.get("model"), str):
        row["model"] = model_label(row["model"])
    return {"workload": record.cell["workload"]["name"], **row, "steps": record.steps}


def _options(cell: Mapping[str, Any]) -> Row:
    """Give every option as ``axis.option``; a regularizer's as ``regularizer.name.option``."""
    row = {}
    for axis, choice in choices(cell).items():
        for part in choice if isinstance(choice, list) else [choice]:
            prefix = f"{axis}.{part['name']}" if isinstance(choice, list) else axis
            for option, value in part.items():
                if option != "name":
                    plain = json.dumps(value) if isinstance(value, list) else value
                    row[f"{prefix}.{option}"] = plain
    return row


def _times(record: Record) -> Row:
    seconds = () if record.interrupted else record.step_seconds
    tenths = statistics.quantiles(seconds, n=10, method="inclusive") if len(seconds) > 1 else []
    return {
        "step_seconds": statistics.median(seconds) if seconds else NAN,
        "step_seconds_mean": statistics.fmean(seconds) if seconds else NAN,
        "step_seconds_p10": tenths[0] if tenths else NAN,
        "step_seconds_p90": tenths[-1] if tenths else NAN,
        "timed_steps": len(seconds),
        "train_seconds": math.fsum(seconds) if seconds else NAN,
    }


def _rates(record: Record, ceilings: Mapping[tuple[str, str], float]) -> Row:
    """Give work by time; the share is of the session's own measured matrix-product rate."""
    steps = 0 if record.interrupted else len(record.step_seconds)
    seconds = math.fsum(record.step_seconds[:steps])
    row = dict.fromkeys(
        (
            "tokens_per_second",
            "slot_tokens_per_second",
            "model_flops_per_second",
            "ceiling_share",
            "padding_share",
        ),
        NAN,
    )
    if not seconds:
        return row
    if len(record.real_tokens) >= steps:
        row["tokens_per_second"] = sum(record.real_tokens[:steps]) / seconds
    slots = _slot_tokens(record, steps)
    if slots is not None:
        row["slot_tokens_per_second"] = slots / seconds
        if len(record.real_tokens) >= steps:
            row["padding_share"] = 1 - sum(record.real_tokens[:steps]) / slots
    if record.flops_per_step is not None:
        row["model_flops_per_second"] = record.flops_per_step * steps / seconds
        dtype = CEILING_DTYPES.get(record.cell["precision"]["name"], "")
        device = record.cell["device"]
        of_name = ceilings.get((device["name"], dtype), NAN)
        ceiling = ceilings.get((canonical_json(device), dtype), of_name)
        row["ceiling_share"] = row["model_flops_per_second"] / ceiling
    return row


def _slot_tokens(record: Record, steps: int) -> int | None:
    """Count the slots that the network computed in so many steps, padding included."""
    if record.ragged is not None:
        return sum(record.ragged.slot_tokens[:steps])
    one = record.slot_tokens_per_step
    return None if one is None else one * steps


def _ceilings(session: Session) -> dict[tuple[str, str], float]:
    """Give the highest matrix-product rate of a session by device and dtype: it is a limit.

    A device is its whole choice as canonical JSON (two threads do less than eight); early sessions
    noted its name only.
    """
    best: dict[tuple[str, str], float] = {}
    for measured in session.ceilings:
        device = measured.get("device")
        named = canonical_json(device) if isinstance(device, dict) else str(device)
        rates = measured.get("values", {}).get("matmul_flops_per_second", {})
        for dtype, rate in rates.items():
            key = (named, dtype)
            best[key] = max(rate, best.get(key, 0.0))
    return {key: rate for key, rate in best.items() if rate > 0}


def _phases(record: Record) -> Row:
    phases = record.phases
    return {
        f"{name}_seconds": NAN if phases is None else getattr(phases, f"{name}_seconds")
        for name in PHASES
    }


def _losses(record: Record) -> Row:
    """Give held-out results at the planned end; before it a schedule has not done its work."""
    whole = record.cell["workload"]["steps"]
    row = dict.fromkeys(
        ("final_loss", "best_loss", "final_perplexity", "final_masked_accuracy"), NAN
    )
    if record.steps != whole or is_inference(record.cell):
        return row
    finite = [seen.loss for seen in record.evaluations if math.isfinite(seen.loss)]
    row["best_loss"] = min(finite, default=NAN)
    for seen in record.evaluations:
        if seen.step == whole:
            row["final_loss"], row["final_perplexity"] = seen.loss, seen.perplexity
            row["final_masked_accuracy"] = seen.masked_accuracy
            row |= _next_sentence(seen, "final_")
            if seen.train_loss is not None:
                row["final_train_loss"] = seen.train_loss
                row["generalisation_gap"] = seen.loss - seen.train_loss
    return row


def _next_sentence(seen: Evaluation, prefix: str = "") -> Row:
    """Give the columns of next-sentence prediction, where it was trained."""
    names = ("next_sentence_loss", "next_sentence_accuracy")
    found = {name: getattr(seen, name) for name in names}
    return {f"{prefix}{name}": value for name, value in found.items() if value is not None}


def _or_nan(value: Any) -> Any:
    return NAN if value is None else value
