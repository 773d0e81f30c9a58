"""Placing sequences: rows by best fit, nothing lost, nothing over anything else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertopt_bench.workload import packing

SLOTS = 8
LENGTHS = st.lists(st.integers(1, SLOTS), min_size=1, max_size=40)


def array(lengths: list[int]) -> np.ndarray:
    return np.asarray(lengths, dtype=np.int64)


def test_best_fit_by_hand() -> None:
    """Oracle: by hand: 6, 5, 4 open rows, leaving 2, 3, 4 slots; 3 fits the second, 2 the first."""
    placed = packing.pack(array([5, 4, 3, 6, 2]), SLOTS)

    assert placed.starts.tolist() == [8, 16, 13, 0, 6]
    assert placed.slots == 24
    assert packing.runs(placed, array([5, 4, 3, 6, 2])) == (
        (1, 6), (1, 2), (1, 5), (1, 3), (1, 4), (0, 4)
    )  # fmt: skip


def test_full_rows_are_one_run_of_neighbours() -> None:
    """Oracle: by hand; three whole rows lie side by side, and two fours fill a fourth."""
    placed = packing.pack(array([8, 4, 8, 4, 8]), SLOTS)

    assert packing.runs(placed, array([8, 4, 8, 4, 8])) == ((3, 8), (2, 4))


def test_unpadded_sequences_lie_longest_first() -> None:
    """Oracle: by hand; equal lengths are neighbours, in the batch's order."""
    placed = packing.unpad(array([3, 5, 3, 8]), SLOTS)

    assert placed.starts.tolist() == [13, 8, 16, 0]
    assert placed.slots == 19
    assert packing.runs(placed, array([3, 5, 3, 8])) == ((1, 8), (1, 5), (2, 3))


@given(LENGTHS, st.sampled_from(["unpadded", "packed"]))
def test_every_slot_has_one_owner_and_every_sequence_is_whole(
    lengths: list[int], layout: str
) -> None:
    """Oracle: the definition: a sequence's slots follow each other, and a packed one's one row."""
    placed = packing.PLACES[layout](array(lengths), SLOTS)
    owners = packing.owners(placed, array(lengths)).tolist()

    assert len(owners) == placed.slots
    for number, (start, length) in enumerate(zip(placed.starts.tolist(), lengths, strict=True)):
        assert owners[start : start + length] == [number] * length
        if layout == "packed":
            assert start // SLOTS == (start + length - 1) // SLOTS
    assert sum(owner >= 0 for owner in owners) == sum(lengths)
    assert layout == "packed" or placed.slots == sum(lengths)


@given(LENGTHS)
def test_packing_never_takes_more_than_needed_by_far(lengths: list[int]) -> None:
    """Oracle: best fit decreasing takes at most 11/9 of the least number of rows, and 4 more.

    The least number is at least the tokens by the slots of a row. (Johnson et al., 1974.)
    """
    rows = packing.pack(array(lengths), SLOTS).slots // SLOTS
    big = sum(length > SLOTS // 2 for length in lengths)

    assert max(big, -(-sum(lengths) // SLOTS)) <= rows <= len(lengths)
    assert rows <= 2 * -(-sum(lengths) // SLOTS)


@given(LENGTHS, st.integers(0, 30))
def test_borders_are_those_of_all_segments(lengths: list[int], more: int) -> None:
    """Oracle: sequences' own starts and ends are borders; no segment is longer than a row."""
    placed = packing.unpad(array(lengths), SLOTS)
    wider = packing.Placement(placed.starts, placed.slots + more)
    borders = packing.borders(packing.runs(wider, array(lengths)), SLOTS)
    sizes = np.diff(borders)

    assert borders[0] == 0
    assert borders[-1] == wider.slots
    assert set(placed.starts.tolist()) <= set(borders)
    assert sizes.min() > 0
    assert sizes.max() <= SLOTS
    assert len(borders) == len(lengths) + 1 + -(-more // SLOTS)


def test_what_fits_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="9 tokens fits no row of 8"):
        packing.pack(array([3, 9]), SLOTS)


def test_attended_pairs_by_hand() -> None:
    """Oracle: 9 + 16, and a number that 32 bits do not hold."""
    assert packing.attended_pairs([3, 4]) == 25
    assert packing.attended_pairs(np.full(4, 65_536, dtype=np.int32)) == 4 * 65_536**2
