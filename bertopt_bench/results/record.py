"""The stored form of trials and sessions: one JSON object a line.

Schema versions:
    1: the first.
    2: records name their arm; sessions have verdicts (duels).

A field marked deterministic depends on the cell, the seed and the code, never on the time: two
runs of one trial on one machine agree in it exactly.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, get_args

from bertopt_bench.errors import UserError
from bertopt_bench.results.record_parts import (
    Classification,
    Code,
    CompileCache,
    Evaluation,
    Explained,
    Inside,
    Memory,
    Operations,
    Phases,
    Ragged,
    Tuned,
)
from bertopt_bench.results.stored import Number, Numbers, Stored, _line, fixed, is_fixed, to_json

SCHEMA_VERSION = 2
Status = Literal["ok", "skipped", "diverged", "out_of_memory", "timed_out", "failed"]


class Record(Stored):
    """What a trial left behind, raw samples included."""

    schema_version: int = SCHEMA_VERSION
    session: str
    cell_id: str = fixed(...)
    cell: dict[str, Any] = fixed(...)
    seed: int = fixed(...)
    replicate: int = fixed(...)
    arm: str | None = fixed()
    steps: int = fixed(...)
    status: Status = fixed(...)
    reason: str = ""
    started_utc: str = ""
    elapsed_seconds: Number | None = None
    code: Code
    tuning: Tuned | None = None

    initial_weights_sha256: str | None = fixed()
    batches_sha256: str | None = fixed()
    evaluation_sha256: str | None = fixed()
    text_sha256: str | None = fixed()
    tokenizer_sha256: str | None = fixed()
    train_tokens: int | None = fixed()
    parameter_count: int | None = fixed()
    flops_per_step: int | None = fixed()
    slot_tokens_per_step: int | None = fixed()
    real_tokens: tuple[int, ...] = fixed(())
    masked_tokens: tuple[int, ...] = fixed(())
    ragged: Ragged | None = fixed()
    vocabulary_size: int | None = fixed()

    assemble_seconds: Number | None = None
    burn_in_seconds: Number | None = None
    compile_seconds: Number | None = None
    compile_cache: CompileCache | None = None
    time_to_first_step_seconds: Number | None = None
    step_seconds: Numbers = ()
    timed_steps: int | None = None
    losses: Numbers = fixed(())
    evaluations: tuple[Evaluation, ...] = fixed(())
    diverged_at_step: int | None = fixed()
    interrupted: tuple[int, ...] = ()
    skipped_steps: int | None = fixed()
    exact_zero_share: Number | None = fixed()
    classification: Classification | None = fixed()
    test_seconds: Number | None = None
    explained: tuple[Explained, ...] = ()
    inside: Inside | None = fixed()
    host_syncs_per_step: Number | None = None
    graphs_compiled: int | None = None

    peak_memory_bytes: int | None = None
    memory: Memory | None = fixed()
    peak_resident_bytes: int | None = None
    resident_before_bytes: int | None = None
    phases: Phases | None = None
    operations: Operations | None = None
    gpu_name: str | None = None
    kernels_ran: tuple[str, ...] = ()
    kernel_errors: tuple[dict[str, Any], ...] = ()
    process: dict[str, Any] = {}
    imported: dict[str, Any] = {}
    disturbance: dict[str, Any] = {}


class Session(Stored):
    """One invocation of ``run`` on one machine, with what was measured and noted along the way."""

    schema_version: int = SCHEMA_VERSION
    session: str
    started_utc: str
    matrix: dict[str, Any]
    machine: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    code: Code
    order_seed: int
    command: str = ""
    declared: dict[str, Any] = {}
    ceilings: tuple[dict[str, Any], ...] = ()
    verdicts: tuple[dict[str, Any], ...] = ()
    end: dict[str, Any] | None = None

    def line(self) -> bytes:
        """Write the session's first line; its events are lines of their own."""
        return _line(self.model_dump(exclude={"ceilings", "verdicts", "end"}))


EVENTS = ("ceilings", "verdicts", "end")
"""Kinds of later lines about a session, folded into it on reading."""


def check_version(fields: dict[str, Any]) -> None:
    """Refuse what a newer version of the package wrote.

    Raises:
        UserError: the schema version is not known here.
    """
    version = fields.get("schema_version")
    if version not in range(1, SCHEMA_VERSION + 1):
        raise UserError(
            f"has schema version {version!r}; this bertopt-bench reads 1 to {SCHEMA_VERSION}. "
            "Install a newer one."
        )


@cache
def deterministic_fields() -> frozenset[str]:
    """Name the record's fields that cannot depend on time; those of evaluations as ``a.b``."""
    own = {name for name in Record.model_fields if is_fixed(Record, name)} - {"evaluations"}
    inner = {
        f"evaluations.{name}" for name in Evaluation.model_fields if is_fixed(Evaluation, name)
    }
    return frozenset(own | inner)


def deterministic_part(record: Record) -> dict[str, Any]:
    """Give the record's deterministic content as JSON, for comparing two runs of a trial."""
    fields = record.model_dump(include=set(deterministic_fields()) | {"evaluations"})
    fields["evaluations"] = [
        {
            key: value
            for key, value in seen.items()
            if f"evaluations.{key}" in deterministic_fields()
        }
        for seen in fields["evaluations"]
    ]
    plain: dict[str, Any] = to_json(fields)
    return plain


def json_schema() -> dict[str, Any]:
    """Give the JSON Schema of a line of each file, by the file's name."""
    return {
        "records.jsonl": Record.model_json_schema(),
        "sessions.jsonl": Session.model_json_schema(),
    }


def statuses() -> tuple[str, ...]:
    """List every status that a record may have."""
    return get_args(Status)
