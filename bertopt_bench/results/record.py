"""The stored form of trials and sessions: one JSON object a line.

Schema versions:
    1: the first.
    2: records name their arm; sessions have verdicts (duels).

A field marked deterministic depends on the cell, the seed and the code, never on the time: two
runs of one trial on one machine agree in it exactly.
"""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from bertopt_bench.errors import UserError

SCHEMA_VERSION = 2
Status = Literal["ok", "skipped", "diverged", "out_of_memory", "timed_out", "failed"]

_WORDS = {"NaN": math.nan, "inf": math.inf, "-inf": -math.inf}


def _number(value: Any) -> Any:
    if isinstance(value, str) and value not in _WORDS:
        raise ValueError(f"{value!r} is no number")
    return _WORDS[value] if isinstance(value, str) else value


def _numbers(value: Any) -> Any:
    return [_number(part) for part in value] if isinstance(value, list | tuple) else value


def to_json(value: Any) -> Any:
    """Turn a value into what JSON can hold: numbers that are not finite become their words.

    >>> to_json({"loss": (1.5, float("nan"), float("-inf"))})
    {'loss': [1.5, 'NaN', '-inf']}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {key: to_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(part) for part in value]
    return value


Number = Annotated[float, BeforeValidator(_number)]
Numbers = Annotated[tuple[float, ...], BeforeValidator(_numbers)]
_FIXED: dict[str, Any] = {"deterministic": True}


def fixed(default: Any = None) -> Any:
    """Declare a field that cannot depend on time; ``...`` for one that must be given."""
    return Field(default, json_schema_extra=_FIXED)


class Stored(BaseModel):
    """A stored object: frozen, and strict about its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    def line(self) -> bytes:
        """Write itself as a line of JSON, every field in it, so that all lines have the same."""
        return _line(self.model_dump())


def _line(fields: dict[str, Any]) -> bytes:
    text = json.dumps(to_json(fields), allow_nan=False, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


class Checkout(Stored):
    """A project that an arm ran: ``project`` is its folder below the repository's top.

    ``dirty_hash`` is empty where the commit says it all.
    """

    commit: str
    dirty_hash: str = ""
    project: str = ""


class Code(Stored):
    """Which code of this package ran: ``dirty_hash`` is empty where the commit says it all.

    ``outside`` hashes the source files of the cell's own entries. A revision or a checkout that a
    duel's arm named is in ``checkout``; ``outside`` then hashes the modules that its worker proved
    to have imported, as it does in another interpreter.
    """

    version: str
    commit: str | None = None
    dirty_hash: str | None = None
    outside: dict[str, str] = {}
    checkout: Checkout | None = None


class Evaluation(Stored):
    """One untimed look at held-out text, after so many updates.

    Of a classifier, at the validation part: ``masked_accuracy`` is the share of texts put into
    their class, ``confusion`` counts them, true classes as rows.
    """

    step: int = fixed(...)
    loss: Number = fixed(...)
    perplexity: Number = fixed(...)
    masked_accuracy: Number = fixed(...)
    train_seconds: Number
    evaluation_seconds: Number
    confusion: tuple[tuple[int, ...], ...] | None = fixed()


class Phases(Stored):
    """Mean seconds of the parts of a step, from a pass of their own."""

    data_seconds: Number
    forward_seconds: Number
    backward_seconds: Number
    optimizer_seconds: Number
    rest_seconds: Number
    step_seconds: Number
    steps: int


class Ragged(Stored):
    """What each step of a layout other than ``padded`` held; ``padded`` steps are all alike.

    ``slot_tokens`` went through the network, ``head_slots`` of them through its head, and attention
    looked at ``attended_pairs``, the sum of squared lengths.
    """

    slot_tokens: tuple[int, ...]
    head_slots: tuple[int, ...]
    attended_pairs: tuple[int, ...]

    @model_validator(mode="after")
    def _of_one_length(self) -> Self:
        if not len(self.slot_tokens) == len(self.head_slots) == len(self.attended_pairs):
            raise ValueError("slot_tokens, head_slots and attended_pairs differ in length")
        return self


class MemoryParts(Stored):
    """Bytes of a step by what they are for; ``other`` is what a GPU's allocator held besides."""

    parameter_bytes: int = 0
    gradient_bytes: int = 0
    optimizer_state_bytes: int = 0
    regularizer_state_bytes: int = 0
    activation_bytes: int = 0
    input_bytes: int = 0
    temporary_bytes: int = 0
    other_bytes: int = 0

    def total(self) -> int:
        """Add the parts up."""
        return sum(getattr(self, name) for name in type(self).model_fields)


class MemoryView(Stored):
    """The parts when the step held the most, in which phase that was, and each part's own most."""

    moment: str
    peak: MemoryParts
    largest: MemoryParts


class Memory(Stored):
    """A step's memory as attributed and by formula, from a pass of its own.

    ``independent_peak_bytes`` is the peak that another pass measured; ``saved_tensor_bytes`` what
    autograd saved in one forward pass, by its hooks; ``slack_bytes`` what a GPU's allocator had
    reserved at the peak and not given out.
    """

    peak_bytes: int
    independent_peak_bytes: int
    measured: MemoryView
    formula: MemoryView
    saved_tensor_bytes: int | None = None
    slack_bytes: int | None = None

    def difference(self) -> float:
        """Give the attributed peak's distance from the independent one, as a share of that."""
        return self.peak_bytes / self.independent_peak_bytes - 1


class Tuned(Stored):
    """Under which budget a cell's options were chosen: ``ledger`` is the sha256 of the ledger.

    ``points`` were tried in all, ``extensions`` of them beyond the edge of the declared space, each
    on so many ``seeds``; ``edge_optimum`` names options whose best value is the outermost tried.
    """

    arm: str
    points: int
    extensions: int
    seeds: int
    edge_optimum: tuple[str, ...] = ()
    ledger: str


class CompileCache(Stored):
    """What the compiler's cache on disk had of the trial's graphs; ``warm``: all of them."""

    state: Literal["cold", "warm"]
    hits: int
    misses: int
    bypassed: int = 0


class OperationKind(Stored):
    """One kind of operation within a traced step.

    ``seconds`` are all its own; ``counted_seconds`` those of the ``calls`` whose FLOPs and bytes
    follow by formula (of the optimizer: the least that its update needs).
    """

    kind: str
    calls: int
    seconds: Number
    counted_seconds: Number
    flops: Number
    bytes: Number


class Operations(Stored):
    """A traced step by kinds of operation; what is left of it is Python and the profiler."""

    step_seconds: Number
    kinds: tuple[OperationKind, ...]


class CalibrationBin(Stored):
    """Texts of the test part whose highest probability lies within a bin of equal width."""

    count: int
    correct: int
    confidence_sum: Number


class Classification(Stored):
    """A classifier on its test part, looked at once, after the last step.

    All measures follow from ``confusion`` (true classes as rows) and ``calibration``;
    ``training_counts`` tell the majority class. ``weights_sha256`` is of the pretrained file.
    """

    classes: tuple[str, ...]
    training_counts: tuple[int, ...]
    test_sha256: str
    weights_sha256: str | None = None
    loss: Number
    accuracy: Number
    confusion: tuple[tuple[int, ...], ...]
    calibration: tuple[CalibrationBin, ...]


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
    skipped_steps: int | None = fixed()
    exact_zero_share: Number | None = fixed()
    classification: Classification | None = fixed()
    test_seconds: Number | None = None
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
    own = {name for name in Record.model_fields if _is_fixed(Record, name)} - {"evaluations"}
    inner = {
        f"evaluations.{name}" for name in Evaluation.model_fields if _is_fixed(Evaluation, name)
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


def _is_fixed(model: type[BaseModel], name: str) -> bool:
    return model.model_fields[name].json_schema_extra == _FIXED
