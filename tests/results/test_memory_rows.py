"""What a record says of memory: its columns, its round trip, what verify makes of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from made_records import content, record, session

from bertopt_bench.results.memory_rows import PARTS, memory_columns
from bertopt_bench.results.record import Record, Session, deterministic_part
from bertopt_bench.results.tables import Results
from bertopt_bench.results.verify import verify

MEMORY: dict[str, Any] = {
    "peak_bytes": 1000,
    "independent_peak_bytes": 1010,
    "measured": {
        "moment": "backward",
        "peak": {"parameter_bytes": 300, "activation_bytes": 600, "temporary_bytes": 100},
        "largest": {"parameter_bytes": 300, "gradient_bytes": 290, "activation_bytes": 650},
    },
    "formula": {
        "moment": "forward",
        "peak": {"parameter_bytes": 300, "activation_bytes": 750},
        "largest": {"parameter_bytes": 300, "gradient_bytes": 300, "activation_bytes": 750},
    },
    "saved_tensor_bytes": 640,
}
RESIDENT = {"peak_resident_bytes": 9000, "resident_before_bytes": 7500}


def made(**fields: Any) -> Record:
    return Record.model_validate(record(memory=MEMORY, **RESIDENT, **fields))


def test_columns_of_a_record_with_memory() -> None:
    """Oracle: the record's own figures; the rest of the resident peak by hand."""
    columns = memory_columns(made())

    assert sum(columns[f"memory_{part}_bytes"] for part in PARTS) == 1000
    assert sum(columns[f"memory_formula_{part}_bytes"] for part in PARTS) == 1050
    assert columns["memory_formula_bytes"] == 1050
    assert columns["memory_most_activation_bytes"] == 650
    assert columns["memory_difference"] == pytest.approx(1000 / 1010 - 1)
    assert columns["memory_unexplained_bytes"] == 9000 - 7500 - 1000
    assert (columns["memory_moment"], columns["memory_formula_moment"]) == ("backward", "forward")
    assert math.isnan(columns["memory_slack_bytes"])


def test_a_record_of_before_has_the_same_columns_without_values() -> None:
    """Oracle: the schema: the field is optional, and old records lack it."""
    old = memory_columns(Record.model_validate(record()))

    assert old.keys() == memory_columns(made()).keys()
    assert all(value == "" or math.isnan(value) for value in old.values())


def test_a_gpus_memory_is_no_part_of_its_process() -> None:
    cell = content(device="cuda")

    columns = memory_columns(Record.model_validate(record(cell, memory=MEMORY, **RESIDENT)))

    assert math.isnan(columns["memory_unexplained_bytes"])


def test_memory_comes_back_equal_and_cannot_depend_on_time() -> None:
    """Oracle: equality of the models; the schema's mark."""
    one = made()

    assert Record.model_validate_json(one.line()) == one
    assert deterministic_part(one)["memory"] == one.memory.model_dump()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "severity", "words"),
    [
        ({"peak_bytes": 1001}, "error", "parts sum to 1,000"),
        ({"independent_peak_bytes": 1050}, "warning", "another pass measured 1,050"),
    ],
)
def test_verify_finds_memory_that_does_not_add_up(
    change: dict[str, int], severity: str, words: str
) -> None:
    """Oracle: the issue's words: the parts sum to the peak, another pass agrees within 2 %."""

    def findings(memory: dict[str, Any]) -> list[tuple[str, str]]:
        records = (Record.model_validate(record(memory=memory)),)
        sessions = (Session.model_validate(session()),)
        found = verify(Results(Path("made"), sessions, records, ()))
        return [(one.severity, one.text) for one in found]

    assert findings(MEMORY) == []
    ((found, text),) = findings({**MEMORY, **change})
    assert found == severity
    assert words in text
