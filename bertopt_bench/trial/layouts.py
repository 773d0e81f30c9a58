"""Serve prepared batches without their padding: the same sequences, masks and labels.

Everything is laid out once, when a folder is opened; a step only looks it up. Where a step must
keep its shape (compilation), slots, segments and masked slots are padded to what the largest
micro-batch of the folder needs: one capacity for the whole run, and one for the held-out text.

Shapes: b sequences a micro-batch, S slots a row, T slots, M masked slots.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bertopt_bench.matrix.content import keeps_shapes, layout_of, way_of_attention
from bertopt_bench.trial.batches import Batch, Batches, load_arrays, place
from bertopt_bench.workload import packing
from bertopt_bench.workload.filling import filled, most
from bertopt_bench.workload.masking import IGNORED
from bertopt_bench.workload.pairing import LABELS, segments
from bertopt_bench.workload.ragged import Ragged
from bertopt_bench.workload.tokens import PAD

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from bertopt_bench.workload.filling import Filled

SLOT_MULTIPLE = 64  # of fixed token counts: matrix products like whole tiles


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How sequences lie (``layout``), how attention keeps them apart, whether shapes are fixed.

    ``attention`` is ``runs``, ``rows`` or ``borders``: the ways of ``workload.ragged.Ragged``.
    """

    layout: str
    attention: str
    fixed: bool


def arrange(cell: Mapping[str, Any]) -> Arrangement:
    """Choose for a cell."""
    return Arrangement(layout_of(cell), way_of_attention(cell), keeps_shapes(cell))


def open_batches(
    prepared: Mapping[str, Any], device: torch.device, micro_batches: int, arrangement: Arrangement
) -> Batches | RaggedBatches:
    """Open a folder named by the prepared text (``{"folder": ..., "sha256": ...}``)."""
    folder = Path(prepared["folder"])
    if arrangement.layout == "padded":
        return Batches(folder, device, micro_batches)
    return RaggedBatches(folder, device, micro_batches, arrangement)


@dataclass(frozen=True, slots=True)
class _Part:
    """A micro-batch as it was written, and where its sequences go."""

    ids: NDArray[np.int32]
    lengths: NDArray[np.int64]
    positions: NDArray[np.int32]
    labels: NDArray[np.int64]
    placement: packing.Placement
    next_sentence: NDArray[np.int64] | None = None

    @property
    def masked(self) -> int:
        """M without padding: the labels that are none."""
        return int((self.labels >= 0).sum())


@dataclass(frozen=True, slots=True)
class _Capacity:
    """How much room each micro-batch gets; None: as much as it needs."""

    slots: int
    masked: int
    borders: int


class RaggedBatches:
    """The batches of one seed (or the held-out ones), in order, as ``Batches`` are.

    Attributes:
        count: number of batches in the folder.
        real_tokens: tokens that are no padding, one integer a batch.
        masked_tokens: masked tokens, one integer a batch.
        slot_tokens: slots that go through the network, one integer a batch.
        head_slots: slots that go through its head, one integer a batch.
        attended_pairs: sums of squared lengths, one integer a batch.
    """

    def __init__(
        self, folder: Path, device: torch.device, micro_batches: int, arrangement: Arrangement
    ) -> None:
        arrays = load_arrays(folder)
        self.count, batch_size, self.seq_len = arrays["input_ids"].shape
        self.micro_batches = micro_batches
        self.micro_size = batch_size // micro_batches
        self.arrangement, self.device = arrangement, device
        parts = list(self._parts(arrays))
        capacity = self._capacity(parts) if arrangement.fixed else None
        if capacity is not None:
            parts = [_widened(part, capacity.slots) for part in parts]
        self.real_tokens = self._summed([int(part.lengths.sum()) for part in parts])
        self.masked_tokens = self._summed([part.masked for part in parts])
        self.attended_pairs = self._summed([packing.attended_pairs(p.lengths) for p in parts])
        self._filled = [filled(p.lengths, p.placement, self.seq_len) for p in parts]
        self._batches = [self._batch(part, capacity) for part in parts]
        self._owners = [self._owned(part) for part in parts] if self._blocks else []
        self.slot_tokens = self._summed([len(batch.input_ids) for batch in self._batches])
        self.head_slots = self._summed([len(batch.labels) for batch in self._batches])

    def at(self, index: int, micro: int = 0) -> Batch:
        """Give micro-batch ``micro`` of batch ``index``; no host sync on CUDA."""
        number = index * self.micro_batches + micro
        batch = self._batches[number]
        if not self._blocks:
            return batch
        owners = self._owners[number]  # masks of all batches would be too large to keep
        mask = owners[:, None, :, None] == owners[:, None, None, :]
        assert isinstance(batch.attention_mask, Ragged)
        return replace(batch, attention_mask=batch.attention_mask._replace(mask=mask))

    def filled(self, index: int) -> Filled:
        """Give the most that batch ``index`` computes of a padded micro-batch."""
        first = index * self.micro_batches
        return most(self._filled[first : first + self.micro_batches])

    @property
    def _blocks(self) -> bool:
        """Say whether rows hold several sequences, which a block-diagonal mask keeps apart."""
        return (self.arrangement.layout, self.arrangement.attention) == ("packed", "rows")

    def _owned(self, part: _Part) -> torch.Tensor:
        """Number the sequence of each slot, [R, S] int32; padding is a sequence of its own."""
        owners = packing.owners(part.placement, part.lengths)
        return self._placed(owners.reshape(-1, self.seq_len))

    def _parts(self, arrays: Mapping[str, NDArray[Any]]) -> Iterator[_Part]:
        put = packing.PLACES[self.arrangement.layout]
        for index in range(self.count):
            for micro in range(self.micro_batches):
                rows = slice(micro * self.micro_size, (micro + 1) * self.micro_size)
                ids, written, positions, labels = (
                    arrays[name][index, rows]
                    for name in ("input_ids", "lengths", "masked_position", "masked_label")
                )
                lengths = written.astype(np.int64)
                told = arrays[LABELS][index, rows] if LABELS in arrays else None
                yield _Part(ids, lengths, positions, labels, put(lengths, self.seq_len), told)

    def _capacity(self, parts: Sequence[_Part]) -> _Capacity:
        """Give the room that the largest micro-batch needs."""
        multiple = self.seq_len if self.arrangement.layout == "packed" else SLOT_MULTIPLE
        slots = packing.rounded_up(max(part.placement.slots for part in parts), multiple)
        return _Capacity(
            slots=slots,
            masked=max(part.masked for part in parts),
            borders=max(len(self._borders(_widened(part, slots))) for part in parts),
        )

    def _borders(self, part: _Part) -> list[int]:
        return packing.borders(packing.runs(part.placement, part.lengths), self.seq_len)

    def _batch(self, part: _Part, capacity: _Capacity | None) -> Batch:
        """Lay out one micro-batch; slots of padding hold [PAD] and position 0."""
        slots, starts = part.placement.slots, part.placement.starts
        column = np.arange(self.seq_len)
        inside = column < part.lengths[:, None]
        target = (starts[:, None] + column)[inside]
        ids = np.full(slots, PAD, dtype=np.int32)
        positions = np.zeros(slots, dtype=np.int32)
        ids[target] = part.ids[inside]
        positions[target] = np.broadcast_to(column, inside.shape)[inside]
        used = part.labels >= 0
        index = (starts[:, None] + part.positions)[used].astype(np.int32)
        labels = part.labels[used]
        if capacity is not None:
            room = (0, capacity.masked - len(labels))
            index = np.pad(index, room)
            labels = np.pad(labels, room, constant_values=IGNORED)
        return Batch(
            self._placed(ids),
            Ragged(self._placed(positions), self.seq_len, **self._apart(part, capacity)),
            self._placed(index),
            self._placed(labels),
            **self._pairs(part, target, inside),
        )

    def _pairs(
        self, part: _Part, target: NDArray[np.int64], inside: NDArray[np.bool_]
    ) -> dict[str, torch.Tensor]:
        """Give what pairs of sentences have besides; padding is of segment 0."""
        if part.next_sentence is None:
            return {}
        flat = np.zeros(part.placement.slots, dtype=np.int32)
        flat[target] = np.broadcast_to(segments(self.seq_len), inside.shape)[inside]
        return {
            "segment_ids": self._placed(flat),
            "first_index": self._placed(part.placement.starts.astype(np.int32)),
            "next_sentence": self._placed(part.next_sentence),
        }

    def _apart(self, part: _Part, capacity: _Capacity | None) -> dict[str, Any]:
        """Give what the arrangement's attention needs to keep the sequences apart."""
        if self.arrangement.attention == "runs":
            return {"runs": packing.runs(part.placement, part.lengths)}
        if self.arrangement.attention == "borders":
            borders = self._borders(part)
            room = 0 if capacity is None else capacity.borders - len(borders)
            filled = np.pad(np.asarray(borders, dtype=np.int32), (0, room), mode="edge")
            return {"borders": self._placed(filled)}
        if self._blocks:
            return {}  # the mask is made when the batch is asked for
        column = np.arange(self.seq_len)
        inside = column < part.lengths[:, None]
        first = part.placement.starts[:, None]
        back = np.zeros(part.placement.slots, dtype=np.int32)
        flat = np.arange(inside.size, dtype=np.int32).reshape(inside.shape)
        back[(first + column)[inside]] = flat[inside]
        into = np.where(inside, first + column, 0).astype(np.int32)
        return {
            "mask": self._placed(inside[:, None, None, :]),
            "into": self._placed(into.ravel()),
            "back": self._placed(back),
        }

    def _placed(self, array: NDArray[Any]) -> torch.Tensor:
        return place(np.ascontiguousarray(array), self.device)

    def _summed(self, values: list[int]) -> list[int]:
        """Sum micro-batches to batches."""
        rows = np.asarray(values, dtype=np.int64).reshape(self.count, self.micro_batches)
        sums: list[int] = rows.sum(axis=1).tolist()
        return sums


def _widened(part: _Part, slots: int) -> _Part:
    return replace(part, placement=replace(part.placement, slots=slots))
