"""The stored form: exact round trips, the schema, and what cannot depend on time."""

from __future__ import annotations

import json
import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_records import record, session
from pydantic import ValidationError

from bertopt_bench.results.record import (
    SCHEMA_VERSION,
    Record,
    Session,
    deterministic_fields,
    deterministic_part,
    json_schema,
    statuses,
)

FLOATS = st.floats(allow_nan=True, allow_infinity=True, width=64)


def bits(values: tuple[float, ...]) -> list[bytes]:
    """Give the bits of floats; every NaN counts as one."""
    return [b"nan" if math.isnan(value) else struct.pack("<d", value) for value in values]


@settings(max_examples=50, deadline=None)
@given(st.lists(FLOATS, max_size=8), FLOATS)
def test_every_float_comes_back_bit_for_bit(losses: list[float], seconds: float) -> None:
    """Oracle: the IEEE bits before and after; NaN, inf and -inf are words in strict JSON."""
    stored = Record.model_validate(record(losses=losses, elapsed_seconds=seconds))

    def refuse(word: str) -> float:
        raise AssertionError(word)

    read = Record.model_validate(json.loads(stored.line(), parse_constant=refuse))
    assert bits(read.losses) == bits(tuple(losses))
    assert bits((read.elapsed_seconds or 0.0,)) == bits((seconds or 0.0,))


def test_numbers_that_are_not_finite_are_the_designs_three_words() -> None:
    """Oracle: the design's sentence: the strings NaN, inf, -inf."""
    stored = Record.model_validate(record(losses=[math.nan, math.inf, -math.inf, 1.0]))

    assert json.loads(stored.line())["losses"] == ["NaN", "inf", "-inf", 1.0]


def test_a_whole_record_and_a_session_come_back_equal() -> None:
    """Oracle: equality of the models; a line is one line of ASCII."""
    for model, fields in ((Record, record(reason="a\nline · é")), (Session, session())):
        stored = model.model_validate(fields)
        line = stored.line()

        assert model.model_validate(json.loads(line)) == stored
        assert line.count(b"\n") == 1
        assert line.isascii()
        assert json.loads(line)["schema_version"] == SCHEMA_VERSION == 2


@pytest.mark.parametrize(
    "change",
    [
        {"losses": ["1.5"]},
        {"elapsed_seconds": "nan"},
        {"losses": "NaN"},
        {"seed": 1.5},
        {"status": "done"},
        {"code": None},
        {"surprise": 1},
        {"evaluations": [{"step": 0}]},
    ],
)
def test_a_wrong_or_unknown_field_is_refused(change: dict[str, object]) -> None:
    """Oracle: the measurement reference: unknown fields refused."""
    with pytest.raises(ValidationError, match=next(iter(change))):
        Record.model_validate(record(**change))


def test_records_cannot_be_changed() -> None:
    """Oracle: the design: every arrow is a frozen value."""
    stored = Record.model_validate(record())

    with pytest.raises(ValidationError, match="frozen"):
        stored.seed = 2  # type: ignore[misc]


def test_the_deterministic_fields_are_those_of_the_contract() -> None:
    """Oracle: the list in the contract between the rooms, written out by hand."""
    assert deterministic_fields() == {
        "cell_id", "cell", "seed", "replicate", "arm", "steps", "status",
        "initial_weights_sha256", "batches_sha256", "evaluation_sha256", "text_sha256",
        "tokenizer_sha256", "train_tokens", "parameter_count", "flops_per_step",
            "slot_tokens_per_step",
        "real_tokens", "masked_tokens", "ragged", "vocabulary_size", "losses", "diverged_at_step",
        "skipped_steps", "exact_zero_share", "memory",
        "evaluations.step", "evaluations.loss",
        "evaluations.perplexity", "evaluations.masked_accuracy",
    }  # fmt: skip


def test_the_deterministic_part_forgets_times_and_keeps_the_rest() -> None:
    """Oracle: two records that differ in times alone, and one that differs in a loss."""
    one = record()
    later = record(
        session="another",
        started_utc="2027-01-01T00:00:00+00:00",
        step_seconds=[9.0] * 6,
        evaluations=[{**seen, "train_seconds": 99.0} for seen in one["evaluations"]],
        phases=None,
        peak_memory_bytes=5,
    )
    other = record(losses=[*one["losses"][:-1], math.nan])
    parts = [deterministic_part(Record.model_validate(fields)) for fields in (one, later, other)]

    assert parts[0] == parts[1]
    assert parts[2]["losses"][-1] == "NaN"
    assert {key for key in parts[0] if parts[0][key] != parts[2][key]} == {"losses"}


def test_the_published_schema_marks_them_too() -> None:
    """Oracle: the mark in the JSON Schema, read without our own code."""
    schema = json_schema()["records.jsonl"]
    marked = {name for name, one in schema["properties"].items() if one.get("deterministic")}

    assert marked - {"evaluations"} == {f for f in deterministic_fields() if "." not in f}
    assert schema["additionalProperties"] is False


def test_the_statuses_are_the_designs() -> None:
    """Oracle: the design's list, word for word."""
    assert " ".join(statuses()) == "ok skipped diverged out_of_memory timed_out failed"
