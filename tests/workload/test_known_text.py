"""What a plan takes from an earlier preparation: shares of slots left out, and the vocabulary."""

from __future__ import annotations

import json
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bertopt_bench.workload.filling import WHOLE, Filled, expected_most, filled
from bertopt_bench.workload.known_text import KnownText, known_text, note_text
from bertopt_bench.workload.packing import unpad

if TYPE_CHECKING:
    from pathlib import Path

WORKLOAD: dict[str, Any] = {
    "corpus": "news", "vocabulary_size": 512, "seq_len": 16, "lower_case": True,
    "held_out_fraction": 0.1, "batch_size": 4, "micro_batches": 1, "steps": 9,
}  # fmt: skip
UNPADDED, PACKED = ({**WORKLOAD, "layout": layout} for layout in ("unpadded", "packed"))


@pytest.mark.parametrize(("length", "packed", "at_once"), [(12, 1.0, 1), (8, 0.5, 4), (4, 0.25, 4)])
def test_the_shares_are_those_of_what_is_computed(
    tmp_path: Path, length: int, packed: float, at_once: int
) -> None:
    """Oracle: by hand: of four sequences that long in rows of 16, so many lie in one row.

    12 slots leave 4 of padding behind them, so that packed ones are no neighbours.
    """
    assert known_text(UNPADDED, tmp_path).filled is None
    note_text(WORKLOAD, 300, np.full(10, length), tmp_path)
    share, pairs = length / 16, (length / 16) ** 2

    for workload, expected in (
        (UNPADDED, Filled(share, share, pairs, pairs, share)),
        (PACKED, Filled(packed, share, pairs, at_once * pairs / 4, at_once * share / 4)),
    ):
        found = known_text(workload, tmp_path).filled
        assert found is not None
        assert astuple(found) == pytest.approx(astuple(expected))
    assert known_text(WORKLOAD, tmp_path).filled == WHOLE
    assert known_text({**UNPADDED, "steps": 3}, tmp_path).filled
    assert known_text({**UNPADDED, "seq_len": 32}, tmp_path).filled is None


def test_the_shares_are_those_of_a_trials_fullest_batch(tmp_path: Path) -> None:
    """Oracle: by hand: of lengths 4 and 16 a sixteenth of the batches of four leaves nothing out.

    So the fullest of very many does not; of one it is the mean: 10 of 16 slots.
    """
    note_text(WORKLOAD, 300, np.array([4, 16]), tmp_path)
    one, some, many = (
        known_text({**UNPADDED, "steps": steps}, tmp_path).filled for steps in (1, 9, 900)
    )

    assert one is not None
    assert some is not None
    assert many is not None
    assert many.slots == pytest.approx(1.0, abs=1e-6)
    assert one.slots == pytest.approx(10 / 16, abs=0.04)
    assert one.slots < some.slots < many.slots
    assert known_text({**UNPADDED, "steps": 2}, tmp_path).filled != one
    parts = {"batch_size": 8, "micro_batches": 2}  # micro-batches of four, two a step
    note_text({**WORKLOAD, **parts}, 300, np.array([4, 16]), tmp_path)
    twice = known_text({**UNPADDED, **parts, "steps": 1}, tmp_path).filled
    assert twice == known_text({**UNPADDED, "steps": 2}, tmp_path).filled


def test_the_expected_most_of_two() -> None:
    """Oracle: by hand: of 1 to 4 quarters, the largest of two is so often 1, 3, 5, 7 in 16."""
    seen = [Filled(*[quarters / 4] * 5) for quarters in (3, 1, 4, 2)]
    mean = (1 * 1 + 2 * 3 + 3 * 5 + 4 * 7) / 16 / 4

    assert expected_most(seen, 2).slots == pytest.approx(mean)
    assert expected_most(seen, 1).pairs == pytest.approx(10 / 16)


def test_lengths_that_differ_are_attended_to_one_by_one() -> None:
    """Oracle: by hand: 12, 8 and 8 of 16 slots: 144 + 64 + 64 pairs of 768; 8 and 8 in one run.

    That of most pairs has fewer slots than the other.
    """
    lengths = np.array([8, 12, 8])
    found = filled(lengths, unpad(lengths, 16), 16)

    assert found == Filled(28 / 48, 28 / 48, 272 / 768, 144 / 768, 12 / 48)


def test_a_damaged_file_is_not_known(tmp_path: Path) -> None:
    """Oracle: the module's own word: what is not known is None."""
    note_text(WORKLOAD, 300, np.full(10, 8), tmp_path)
    (file,) = tmp_path.glob("known_texts/*")
    for text in ("{", "[]"):
        file.write_text(text)
        assert known_text(PACKED, tmp_path).filled is None


def test_the_vocabulary_is_the_texts_and_pairs_have_no_shares(tmp_path: Path) -> None:
    """Oracle: what was noted; pairs are drawn anew for each batch, so that their share is open."""
    note_text(WORKLOAD, 300, None, tmp_path)

    assert known_text(WORKLOAD, tmp_path) == KnownText(WHOLE, 300)
    assert known_text(PACKED, tmp_path) == KnownText(None, 300)
    assert known_text({**WORKLOAD, "corpus": "python_docs"}, tmp_path) == KnownText(WHOLE, None)


def test_a_note_of_an_earlier_version_keeps_its_vocabulary(tmp_path: Path) -> None:
    """Oracle: the earlier forms: one share a layout, and one share fewer."""
    note_text(WORKLOAD, 300, np.full(10, 8), tmp_path)
    (file,) = tmp_path.glob("known_texts/*")
    note = json.loads(file.read_text())
    fewer = {count: {**one} for count, one in note["shares"]["packed"].items()}
    for one in fewer.values():
        del one["run"]
    for shares in ({"unpadded": 0.3, "packed": 0.2}, {"packed": fewer}):
        file.write_text(json.dumps({**note, "shares": shares}))
        assert known_text(PACKED, tmp_path) == KnownText(None, 300)
        assert known_text(WORKLOAD, tmp_path) == KnownText(WHOLE, 300)


def test_pairs_of_sentences_are_another_text(tmp_path: Path) -> None:
    """Oracle: by hand: shares of single sequences say nothing of pairs; False is as if left out."""
    note_text(WORKLOAD, 300, np.full(10, 8), tmp_path)
    pairs = {**PACKED, "next_sentence": True}

    assert known_text(pairs, tmp_path) == KnownText(None)
    note_text(pairs, 300, None, tmp_path)
    assert known_text({**PACKED, "next_sentence": False}, tmp_path).filled is not None
