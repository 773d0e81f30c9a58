"""Make batches of sentence pairs for next-sentence prediction; NumPy only.

A pair is [CLS] A [SEP] B [SEP]. B follows A in its document, or, in half of the pairs, comes from
another document. Both are pieces of at most h = (S - 3) // 2 tokens. Only pieces that have a next
one in their document are taken for A, so that all are h tokens long, and only those that have one
before them for B, whether they follow or not: neither length nor place gives the answer away.

Order, masks and pairs have a generator each, drawn step by step as in ``masking``.

Source: Devlin et al., arXiv 1810.04805, section 3.1, task 2 and appendix A.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bertopt_bench.errors import UserError
from bertopt_bench.workload import masking
from bertopt_bench.workload.tokens import CLS, PAD, SEP

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from bertopt_bench.workload.tokens import TokenText

IS_NEXT, IS_RANDOM = 0, 1  # labels as those of transformers' BertForPreTraining
PAIRS = 2  # which generator of a seed, beside masking's ORDER and MASKS
SHORTEST = 8  # slots of a sequence
LABELS = "next_sentence_label"


@dataclass(frozen=True, slots=True)
class Pieces:
    """Pieces of a token text: ``first`` and ``second`` may be A and B of a pair.

    ``second[i]`` follows ``first[i]``; ``starts`` [D + 1] says where each document's begin.
    """

    text: masking.Sequences
    first: NDArray[np.int64]
    starts: NDArray[np.int64]

    @property
    def second(self) -> NDArray[np.int64]:
        return self.first + 1

    def __len__(self) -> int:
        return len(self.first)


def half_of(seq_len: int) -> int:
    """Give h, the tokens of A and the most of B.

    >>> half_of(64)
    30
    """
    return (seq_len - 3) // 2


def cut(text: TokenText, seq_len: int) -> Pieces:
    """Cut each document into pieces of h tokens.

    Raises:
        UserError: sequences too short for a pair, or fewer than two documents have one.
    """
    if seq_len < SHORTEST:
        raise UserError(f"next_sentence needs seq_len {SHORTEST} or more; it is {seq_len}.")
    half = half_of(seq_len)
    pieces = -(-np.diff(text.starts) // half)
    ends = np.cumsum(pieces)
    every = np.arange(ends[-1] if len(ends) else 0)
    first = np.setdiff1d(every, ends - 1)
    pairs = np.maximum(pieces - 1, 0)
    if np.count_nonzero(pairs) < 2:
        raise UserError(
            "next_sentence needs two documents of more than "
            f"{half} tokens on each side of the split. Take a larger corpus, or lower seq_len."
        )
    starts = np.concatenate([[0], np.cumsum(pairs)])
    return Pieces(masking.cut(text, half + 2), first, starts)


def write_batches(
    folder: Path,
    pieces: Pieces,
    shape: masking.Shape,
    seed: int | None,
    advance: Callable[[int], None],
) -> None:
    """Write all batches of a seed (None: the held-out ones, which no seed changes)."""
    order, masks, draws = (_generator(seed, s) for s in (masking.ORDER, masking.MASKS, PAIRS))
    steps, size = shape.steps, shape.batch_size
    arrays = masking.open_arrays(folder, shape)
    arrays[LABELS] = np.lib.format.open_memmap(
        folder / f"{LABELS}.npy", mode="w+", dtype=np.int64, shape=(steps, size)
    )
    chosen = masking.draw_order(order, len(pieces), size)
    for step in range(steps):
        pair = next(chosen)
        second, labels = draw_seconds(draws, pieces, pair)
        values = masked_pairs(masks, pieces, pieces.first[pair], second, shape)
        for name, value in zip(arrays, (*values, labels), strict=True):
            arrays[name][step] = value
        advance(1)
    for array in arrays.values():
        array.flush()


def draw_seconds(
    generator: np.random.Generator, pieces: Pieces, pair: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw B of each pair, [B], and the labels [B]; a random B is never of the same document."""
    labels = (generator.random(len(pair)) < 0.5).astype(np.int64)
    document = np.searchsorted(pieces.starts, pair, side="right") - 1
    begin, end = pieces.starts[document], pieces.starts[document + 1]
    other = generator.integers(0, len(pieces) - (end - begin))
    other = np.where(other >= begin, other + end - begin, other)
    return pieces.second[np.where(labels == IS_RANDOM, other, pair)], labels


def masked_pairs(
    generator: np.random.Generator,
    pieces: Pieces,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    shape: masking.Shape,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Lay out pairs and mask them; give ids [B, S], lengths [B], positions and labels [B, K].

    The [SEP] between A and B comes in after masking, so that it is never masked.
    """
    half = half_of(shape.seq_len)
    joined, lengths = _joined(pieces.text, first, second, shape.seq_len)
    positions, labels = masking.mask(generator, joined, lengths, shape)
    ids = np.insert(joined, half + 1, SEP, axis=1)
    return ids, lengths + np.int32(1), positions + (positions > half).astype(np.int32), labels


def segments(seq_len: int) -> NDArray[np.int32]:
    """Give the segment of each slot, [S]: 1 from B on; alike in every pair, since all A are."""
    return (np.arange(seq_len) >= half_of(seq_len) + 2).astype(np.int32)


def _joined(
    text: masking.Sequences, first: NDArray[np.int64], second: NDArray[np.int64], seq_len: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Write [CLS] A B [SEP], padded to [B, S - 1]; give them and their lengths."""
    half, rows = half_of(seq_len), len(first)
    column, length = np.arange(half), text.length[second]
    inside = column < length[:, None]
    source = np.where(inside, text.first[second][:, None] + column, 0)
    ids = np.full((rows, seq_len - 1), PAD, dtype=np.int32)
    ids[:, 0] = CLS
    ids[:, 1 : half + 1] = text.ids[text.first[first][:, None] + column]
    ids[:, half + 1 : 2 * half + 1] = np.where(inside, text.ids[source], PAD)
    ids[np.arange(rows), half + 1 + length] = SEP
    return ids, (length + half + 2).astype(np.int32)


def _generator(seed: int | None, stream: int) -> np.random.Generator:
    entropy = (0,) if seed is None else (1, seed)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((*entropy, stream))))
