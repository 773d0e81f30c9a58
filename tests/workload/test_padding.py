"""The shares of slots left out that a plan takes from an earlier preparation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bertopt_bench.workload.padding import known_padding, note_padding

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
    assert known_padding(UNPADDED, tmp_path) is None
    note_padding(WORKLOAD, np.full(10, length), tmp_path)

    assert known_padding(UNPADDED, tmp_path) == pytest.approx(1 - length / 16)
    assert known_padding(PACKED, tmp_path) == pytest.approx(packed)
    assert known_padding(WORKLOAD, tmp_path) == 0.0
    assert known_padding({**UNPADDED, "steps": 3}, tmp_path)
    assert known_padding({**UNPADDED, "seq_len": 32}, tmp_path) is None


def test_a_damaged_file_is_not_known(tmp_path: Path) -> None:
    """Oracle: the module's own word: what is not known is None."""
    note_padding(WORKLOAD, np.full(10, 8), tmp_path)
    (file,) = tmp_path.glob("padding/*")
    for text in ("{", "[]"):
        file.write_text(text)
        assert known_padding(PACKED, tmp_path) is None
