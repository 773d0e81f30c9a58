"""The share of padding that a plan takes from an earlier preparation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bertopt_bench.workload.padding import known_padding, note_padding

if TYPE_CHECKING:
    from pathlib import Path

WORKLOAD: dict[str, Any] = {
    "corpus": "news", "vocabulary_size": 512, "seq_len": 16, "lower_case": True,
    "held_out_fraction": 0.1, "batch_size": 4, "steps": 9,
}  # fmt: skip


def test_the_share_is_that_of_slots_without_a_token(tmp_path: Path) -> None:
    """Oracle: by hand: 10 sequences of 16 slots hold 100 pieces and 20 special tokens."""
    assert known_padding(WORKLOAD, tmp_path) == 0.0
    note_padding(WORKLOAD, sequences=10, tokens=100, cache=tmp_path)

    assert known_padding(WORKLOAD, tmp_path) == pytest.approx(40 / 160)
    assert known_padding({**WORKLOAD, "batch_size": 8, "steps": 3}, tmp_path) == 0.25
    assert known_padding({**WORKLOAD, "seq_len": 32}, tmp_path) == 0.0


def test_pairs_and_damaged_files_are_not_known(tmp_path: Path) -> None:
    """Oracle: the module's own word: what is not known is 0."""
    note_padding({**WORKLOAD, "next_sentence": True}, sequences=10, tokens=100, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
    note_padding(WORKLOAD, sequences=10, tokens=100, cache=tmp_path)
    (file,) = tmp_path.glob("padding/*")
    file.write_text("{")

    assert known_padding(WORKLOAD, tmp_path) == 0.0
