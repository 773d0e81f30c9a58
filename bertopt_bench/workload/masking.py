"""Cut tokens into sequences, draw their order, and mask them; NumPy only.

Letters: B sequences a batch, S slots a sequence, K slots for masked tokens a sequence.
Order and masks have a generator each, so that a change in one leaves the other as it is, and both
are drawn step by step: the first n batches are the same however many follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bertopt_bench.workload.formulas import masked_slots
from bertopt_bench.workload.tokens import CLS, MASK, PAD, SEP, SPECIAL_TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from bertopt_bench.workload.tokens import TokenText

IGNORED = -100  # the label of a slot that holds no masked token
_AS_MASK, _AS_RANDOM = 0.8, 0.1  # shares of masked tokens shown as [MASK] and as a random piece
ORDER, MASKS = 0, 1  # which generator of a seed


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of all batches of a folder."""

    steps: int
    batch_size: int
    seq_len: int
    mask_rate: float
    vocabulary_size: int

    @property
    def slots(self) -> int:
        """K: slots for masked tokens in a sequence."""
        return masked_slots(self.seq_len, self.mask_rate)


@dataclass(frozen=True, slots=True)
class Sequences:
    """Pieces of a token text: piece i is ``ids[first[i]:first[i] + length[i]]``."""

    ids: NDArray[np.int32]
    first: NDArray[np.int64]
    length: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.first)


def cut(text: TokenText, seq_len: int) -> Sequences:
    """Cut each document into pieces of S - 2 tokens, leaving two slots for [CLS] and [SEP].

    A document's last piece is as long as what is left; no piece has tokens of two documents.
    """
    room = seq_len - 2
    ends, starts = text.starts[1:], text.starts[:-1]
    pieces = -(-(ends - starts) // room)
    document = np.repeat(np.arange(len(starts)), pieces)
    rank = np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    first = starts[document] + rank * room
    return Sequences(text.ids, first, np.minimum(room, ends[document] - first))


def write_batches(
    folder: Path,
    sequences: Sequences,
    shape: Shape,
    seed: int | None,
    advance: Callable[[int], None],
) -> None:
    """Write all batches of a seed (None: the held-out ones, which no seed changes)."""
    order, masks = _generator(seed, ORDER), _generator(seed, MASKS)
    arrays = open_arrays(folder, shape)
    chosen = draw_order(order, len(sequences), shape.batch_size)
    for step in range(shape.steps):
        ids, lengths = lay_out(sequences, next(chosen), shape.seq_len)
        positions, labels = mask(masks, ids, lengths, shape)
        for name, value in zip(arrays, (ids, lengths, positions, labels), strict=True):
            arrays[name][step] = value
        advance(1)
    for array in arrays.values():
        array.flush()


def open_arrays(folder: Path, shape: Shape) -> dict[str, np.memmap[Any, Any]]:
    """Make the files of a seed's batches, empty: every array is [steps, batch, ...]."""
    return {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy",
            mode="w+",
            dtype=dtype,
            shape=(shape.steps, shape.batch_size, *last),
        )
        for name, dtype, last in (
            ("input_ids", np.int32, (shape.seq_len,)),
            ("lengths", np.int32, ()),
            ("masked_position", np.int32, (shape.slots,)),
            ("masked_label", np.int64, (shape.slots,)),
        )
    }


def draw_order(
    generator: np.random.Generator, count: int, size: int
) -> Iterator[NDArray[np.int64]]:
    """Draw batches of ``size`` without end: every sequence once, in a new order each time round."""
    waiting = np.empty(0, dtype=np.int64)
    while True:
        while len(waiting) < size:
            waiting = np.concatenate([waiting, generator.permutation(count)])
        yield waiting[:size]
        waiting = waiting[size:]


def lay_out(
    sequences: Sequences, chosen: NDArray[np.int64], seq_len: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Write pieces between [CLS] and [SEP], padded to [B, S]; give them and their lengths [B]."""
    length = sequences.length[chosen]
    column = np.arange(seq_len - 2)
    inside = column < length[:, None]
    source = np.where(inside, sequences.first[chosen][:, None] + column, 0)
    ids = np.full((len(chosen), seq_len), PAD, dtype=np.int32)
    ids[:, 0] = CLS
    ids[:, 1:-1] = np.where(inside, sequences.ids[source], PAD)
    ids[np.arange(len(chosen)), length + 1] = SEP
    return ids, (length + 2).astype(np.int32)


def mask(
    generator: np.random.Generator,
    ids: NDArray[np.int32],
    lengths: NDArray[np.int32],
    shape: Shape,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Mask ``ids`` [B, S] in place; give the masked tokens' positions and labels, both [B, K].

    Of m tokens between [CLS] and [SEP], exactly ``round(mask_rate * m)`` are masked, at least one:
    80 % are shown as [MASK], 10 % as a random piece and 10 % as they are, each drawn on its own.
    """
    rows, slots = len(ids), shape.slots
    keys = generator.random(ids.shape)
    draw = generator.random((rows, slots))
    random_piece = generator.integers(
        len(SPECIAL_TOKENS), shape.vocabulary_size, (rows, slots), dtype=np.int32
    )
    column = np.arange(ids.shape[1])
    maskable = (column > 0) & (column < lengths[:, None] - 1)
    count = np.maximum(1, np.rint(shape.mask_rate * (lengths - 2))).astype(np.int64)
    used = np.arange(slots) < count[:, None]
    smallest = np.argsort(np.where(maskable, keys, 2.0), axis=1, kind="stable")[:, :slots]
    positions = np.where(used, np.sort(np.where(used, smallest, ids.shape[1]), axis=1), 0)
    truth = np.take_along_axis(ids, positions, axis=1)
    shown = np.where(draw < _AS_MASK, MASK, random_piece)
    shown = np.where(draw < _AS_MASK + _AS_RANDOM, shown, truth)
    row = np.broadcast_to(np.arange(rows)[:, None], positions.shape)
    ids[row[used], positions[used]] = shown[used]
    return positions.astype(np.int32), np.where(used, truth, IGNORED).astype(np.int64)


def _generator(seed: int | None, stream: int) -> Any:
    entropy = (0,) if seed is None else (1, seed)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((*entropy, stream))))
