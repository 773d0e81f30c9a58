"""Make rows of records: what a trial chose, what it measured, what follows from both."""

from __future__ import annotations

import json
import math
import statistics
from itertools import accumulate, zip_longest
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.labels import (
    cell_labels,
    choices,
    level_labels,
    model_label,
    workload_choices,
)
from bertopt_bench.matrix.modes import is_inference
from bertopt_bench.results.classification_rows import classification_columns, evaluation_columns
from bertopt_bench.results.inference_rows import inference_columns
from bertopt_bench.results.limit_rows import UNMEASURED, Limits, limit_columns
from bertopt_bench.results.memory_rows import memory_columns
from bertopt_bench.results.operation_rows import operation_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.results.record import Record, Session
    from bertopt_bench.results.record_parts import Evaluation

    Row = dict[str, Any]

NAN = math.nan
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
    limits = {session.session: Limits.of(session) for session in sessions}
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
            **limit_columns(record, limits.get(record.session, UNMEASURED)),
            **{name: _or_nan(getattr(record, name)) for name in COPIED},
            "compile_cache": record.compile_cache.state if record.compile_cache else "",
            **_phases(record),
            **operation_columns(record),
            **inference_columns(record),
            **memory_columns(record),
            **classification_columns(record),
            **_losses(record),
            "epochs_seen": epochs_seen(record),
            "kernels_ran": " ".join(record.kernels_ran),
            **{name: getattr(record, name) for name in HASHES},
            **_tuned(record),
            "code_version": record.code.version,
            "code_commit": record.code.commit,
        }
        for code, record in enumerate(records)
    ]


def _tuned(record: Record) -> Row:
    """Say under which budget the cell's options were chosen, if they were."""
    tuned = record.tuning
    return {
        "tuning_ledger": tuned.ledger if tuned else None,
        "tuned_points": tuned.points if tuned else NAN,
        "edge_optimum": " ".join(tuned.edge_optimum) if tuned else "",
    }


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
                **evaluation_columns(seen),
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


def epochs_seen(record: Record) -> float:
    """Give how often training has gone over the text: word pieces served by those there are.

    [CLS] and [SEP] of each sequence are no text; pairs have one [SEP] more. Of a classifier, texts
    served by those there are. NaN where the record does not say.
    """
    if record.classification is not None:
        served = sum(record.masked_tokens[: len(record.losses)])
        return served / sum(record.classification.training_counts)
    steps = record.real_tokens[: len(record.losses)]
    if not record.train_tokens or not steps:
        return NAN
    workload = record.cell["workload"]
    specials = (3 if workload.get("next_sentence") else 2) * workload["batch_size"] * len(steps)
    epochs: float = (sum(steps) - specials) / record.train_tokens
    return epochs


def _workload(record: Record) -> Row:
    """Give the workload's keys; ``steps`` are the trial's own, a timing replicate's fewer."""
    workload = workload_choices(record.cell["workload"])
    row = {key: value for key, value in workload.items() if key != "name"}
    if not isinstance(row.get("model"), str):
        row["model"] = model_label(row["model"])
    if isinstance(row.get("class_weights"), dict):
        row["class_weights"] = json.dumps(row["class_weights"])
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


def _phases(record: Record) -> Row:
    """Give the parts of a step of the phase pass, that step itself, and how many it was."""
    phases = record.phases
    row = {
        f"{name}_seconds": NAN if phases is None else getattr(phases, f"{name}_seconds")
        for name in PHASES
    }
    row["phase_step_seconds"] = NAN if phases is None else phases.step_seconds
    return {**row, "phase_steps": NAN if phases is None else phases.steps}


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
