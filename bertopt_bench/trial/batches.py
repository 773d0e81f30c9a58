"""Serve prepared batches as tensors: views of memory-mapped files on CPU, resident tensors on CUDA.

Shapes: S sequence length, B sequences a step, b sequences a micro-batch, K masked slots a sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bertopt_bench.workload.filling import WHOLE, Filled
from bertopt_bench.workload.pairing import LABELS, segments

if TYPE_CHECKING:
    from pathlib import Path

    from bertopt_bench.workload.ragged import Ragged


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch.

    ``input_ids`` is [b, S] int32, ``attention_mask`` [b, 1, 1, S] bool or None where nothing is
    padded, ``masked_index`` [b*K] int32 (flat into b*S), ``labels`` [b*K] int64 (-100 = padding).
    Of another layout than ``padded``: [T], ``Ragged``, [M] (flat into T) and [M].
    Pairs of sentences have ``segment_ids`` like ``input_ids``, ``first_index`` [b] int32 (where
    each [CLS] lies, flat) and ``next_sentence`` [b] int64 (0: B follows A, 1: a random one).
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | Ragged | None
    masked_index: torch.Tensor
    labels: torch.Tensor
    segment_ids: torch.Tensor | None = None
    first_index: torch.Tensor | None = None
    next_sentence: torch.Tensor | None = None


def load_arrays(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Map what a folder of batches holds, by name."""
    names = ("input_ids", "lengths", "masked_position", "masked_label")
    there = [*names, *[LABELS] * (folder / f"{LABELS}.npy").exists()]
    return {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in there}


def place(array: np.ndarray[Any, Any], device: torch.device) -> torch.Tensor:
    """Make a tensor: a view on CPU."""
    return torch.from_numpy(array).to(device)


class Batches:
    """The batches of one seed (or the held-out ones), in order.

    Attributes:
        count: number of batches in the folder.
        real_tokens: tokens that are no padding, one integer a batch.
        masked_tokens: masked tokens, one integer a batch.
        slot_tokens: slots that go through the network, padding included, B*S a batch.
        head_slots: slots that go through its head, padding included, B*K a batch.
        attended_pairs: pairs of slots that attention computes, B*S*S a batch.
    """

    def __init__(self, folder: Path, device: torch.device, micro_batches: int = 1) -> None:
        arrays = load_arrays(folder)
        self.count, batch_size, seq_len = arrays["input_ids"].shape
        self.micro_batches = micro_batches
        self.micro_size = batch_size // micro_batches
        self.slot_tokens = [batch_size * seq_len] * self.count
        self.head_slots = [batch_size * arrays["masked_position"].shape[2]] * self.count
        self.attended_pairs = [batch_size * seq_len * seq_len] * self.count
        self.real_tokens: list[int] = arrays["lengths"].sum(axis=1).tolist()
        self.masked_tokens: list[int] = (arrays["masked_label"] >= 0).sum(axis=(1, 2)).tolist()
        padded = bool((arrays["lengths"] < seq_len).any())
        self._input_ids = place(arrays["input_ids"], device)
        self._lengths = place(arrays["lengths"], device) if padded else None
        self._positions = torch.arange(seq_len, dtype=torch.int32, device=device)
        starts = torch.arange(self.micro_size, dtype=torch.int32, device=device) * seq_len
        self._row_starts = starts[:, None]
        self._next = place(arrays[LABELS], device) if LABELS in arrays else None
        of_slots = place(segments(seq_len), device).expand(self.micro_size, -1)
        self._pairs = {} if self._next is None else {"segment_ids": of_slots, "first_index": starts}
        self._masked_position = place(arrays["masked_position"], device)
        self._labels = place(arrays["masked_label"], device)

    def filled(self, _: int) -> Filled:
        """Give what a batch computes of a padded micro-batch: all of it."""
        return WHOLE

    def at(self, index: int, micro: int = 0) -> Batch:
        """Give micro-batch ``micro`` of batch ``index``; no copy on CPU, no host sync on CUDA."""
        size = self.micro_size
        rows = slice(micro * size, (micro + 1) * size)
        mask = None
        if self._lengths is not None:
            lengths = self._lengths[index, rows]
            mask = (self._positions < lengths[:, None])[:, None, None, :]
        return Batch(
            self._input_ids[index, rows],
            mask,
            (self._masked_position[index, rows] + self._row_starts).flatten(),
            self._labels[index, rows].flatten(),
            next_sentence=None if self._next is None else self._next[index, rows],
            **self._pairs,
        )
