"""Prepared files become tensors: flat indices, masks and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bertopt_bench.trial.batches import Batches

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, **arrays: Any) -> Path:
    for name, values in arrays.items():
        dtype = np.int64 if name == "masked_label" else np.int32
        np.save(folder / f"{name}.npy", np.asarray(values, dtype=dtype))
    return folder


def two_sequences(folder: Path, lengths: list[int]) -> Path:
    return write(
        folder,
        input_ids=[[[2, 7, 8, 3], [2, 9, 3, 0]]],
        lengths=[lengths],
        masked_position=[[[1, 2], [1, 0]]],
        masked_label=[[[7, 8], [9, -100]]],
    )


CPU = torch.device("cpu")


def test_masked_slots_index_the_flat_batch(tmp_path: Path) -> None:
    """Oracle: row * length + position, by hand, for the whole batch and for its halves."""
    folder = two_sequences(tmp_path, [4, 3])

    assert Batches(folder, CPU).at(0).masked_index.tolist() == [1, 2, 5, 4]
    halves = Batches(folder, CPU, micro_batches=2)
    assert halves.at(0, 1).masked_index.tolist() == [1, 0]
    assert halves.at(0, 1).labels.tolist() == [9, -100]
    assert halves.at(0, 1).input_ids.tolist() == [[2, 9, 3, 0]]


def test_padding_is_masked_and_counted(tmp_path: Path) -> None:
    """Oracle: lengths 4 and 3 of 4 slots; three of four masked slots are used; 2 x 16 pairs."""
    batches = Batches(two_sequences(tmp_path, [4, 3]), CPU)
    mask = batches.at(0).attention_mask

    assert mask is not None
    assert mask.shape == (2, 1, 1, 4)
    assert mask[1, 0, 0].tolist() == [True, True, True, False]
    assert (batches.real_tokens, batches.masked_tokens, batches.head_slots) == ([7], [3], [4])
    assert (batches.slot_tokens, batches.attended_pairs) == ([8], [32])


def test_without_padding_there_is_no_mask(tmp_path: Path) -> None:
    """Oracle: None, which lets attention kernels without masks run."""
    assert Batches(two_sequences(tmp_path, [4, 4]), CPU).at(0).attention_mask is None


def test_a_batch_on_the_cpu_is_a_view_of_the_file(tmp_path: Path) -> None:
    """Oracle: equal addresses of two looks at one batch."""
    batches = Batches(two_sequences(tmp_path, [4, 3]), CPU)

    assert batches.at(0).input_ids.data_ptr() == batches.at(0).input_ids.data_ptr()
