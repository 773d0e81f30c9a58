"""What a plan takes from an earlier preparation: shares of slots left out, and the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bertopt_bench.workload.known_text import KnownText, known_text, note_text

if TYPE_CHECKING:
    from pathlib import Path

WORKLOAD: dict[str, Any] = {
    "corpus": "news", "vocabulary_size": 512, "seq_len": 16, "lower_case": True,
    "held_out_fraction": 0.1, "batch_size": 4, "micro_batches": 1, "steps": 9,
}  # fmt: skip
UNPADDED, PACKED = ({**WORKLOAD, "layout": layout} for layout in ("unpadded", "packed"))


@pytest.mark.parametrize(("length", "packed"), [(12, 0.0), (8, 0.5), (4, 0.75)])
def test_the_share_is_that_of_slots_left_out(tmp_path: Path, length: int, packed: float) -> None:
    """Oracle: by hand: of four sequences that long in rows of 16, so many lie in one row."""
    assert known_text(UNPADDED, tmp_path).padding is None
    note_text(WORKLOAD, 300, np.full(10, length), tmp_path)

    assert known_text(UNPADDED, tmp_path).padding == pytest.approx(1 - length / 16)
    assert known_text(PACKED, tmp_path).padding == pytest.approx(packed)
    assert known_text(WORKLOAD, tmp_path).padding == 0.0
    assert known_text({**UNPADDED, "steps": 3}, tmp_path).padding
    assert known_text({**UNPADDED, "seq_len": 32}, tmp_path).padding is None


def test_the_share_is_that_of_the_fullest_batch(tmp_path: Path) -> None:
    """Oracle: by hand: of lengths 4 and 16, a batch of four long ones leaves nothing out."""
    note_text(WORKLOAD, 300, np.array([4, 16]), tmp_path)

    assert known_text(UNPADDED, tmp_path).padding == 0.0


def test_a_damaged_file_is_not_known(tmp_path: Path) -> None:
    """Oracle: the module's own word: what is not known is None."""
    note_text(WORKLOAD, 300, np.full(10, 8), tmp_path)
    (file,) = tmp_path.glob("known_texts/*")
    for text in ("{", "[]"):
        file.write_text(text)
        assert known_text(PACKED, tmp_path).padding is None


def test_the_vocabulary_is_the_texts_and_pairs_have_no_shares(tmp_path: Path) -> None:
    """Oracle: what was noted; pairs are drawn anew for each batch, so that their share is open."""
    note_text(WORKLOAD, 300, None, tmp_path)

    assert known_text(WORKLOAD, tmp_path) == KnownText(0.0, 300)
    assert known_text(PACKED, tmp_path) == KnownText(None, 300)
    assert known_text({**WORKLOAD, "corpus": "python_docs"}, tmp_path) == KnownText(0.0, None)
