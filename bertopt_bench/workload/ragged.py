"""Attention over sequences of unequal lengths that lie in one flat line of slots.

Shapes: T slots, H heads, D head size, b sequences, S slots of a row, R rows, N segments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    Attention = Callable[..., Tensor]  # of scaled_dot_product_attention's signature


class Ragged(NamedTuple):
    """What lies in the slots, and the one way in which attention keeps sequences apart.

    - ``runs``: a call of attention for each run ``(count, length)`` of neighbours, none for
      padding (count 0). Any attention serves, and no work is done for padding.
    - ``borders`` [N + 1] int32: flash attention's form for segments of any length, one call.
    - ``mask``: one call on rows, which keeps its shape over a run. Packed slots are rows already
      (mask [R, 1, S, S], block-diagonal); for unpadded ones, ``into`` [b * S] gathers slots into
      padded rows (mask [b, 1, 1, S]) and ``back`` [T] gathers the rows' slots again.

    Always: ``position_ids`` [T] int32, which restart with every sequence, and ``longest``, S.
    """

    position_ids: Tensor
    longest: int
    runs: tuple[tuple[int, int], ...] = ()
    borders: Tensor | None = None
    mask: Tensor | None = None
    into: Tensor | None = None
    back: Tensor | None = None


def attend_within(
    ragged: Ragged, attend: Attention, query: Tensor, key: Tensor, value: Tensor, dropout: float
) -> Tensor:
    """Mix values [T, H, D] within each sequence; give [T, H * D]. What padding gets is finite.

    Over borders an attention that has a method ``segments`` serves itself: it is called as
    ``segments(query, key, value, borders, longest)``; for all others torch's flash attention does.
    """
    if ragged.borders is not None:
        segments = getattr(attend, "segments", varlen)
        return segments(query, key, value, ragged.borders, ragged.longest).flatten(1)
    if ragged.mask is not None:
        return _by_rows(ragged, ragged.mask, attend, (query, key, value), dropout)
    return _by_runs(ragged.runs, attend, (query, key, value), dropout)


def varlen(query: Tensor, key: Tensor, value: Tensor, borders: Tensor, longest: int) -> Tensor:
    """Mix values [T, H, D] within segments by torch's flash attention: CUDA, 16 bits.

    Source: torch.nn.attention.varlen.varlen_attn.
    """
    from torch.nn.attention.varlen import varlen_attn

    mixed = varlen_attn(query, key, value, borders, borders, longest, longest)
    assert isinstance(mixed, Tensor)  # a tuple only where more was asked for
    return mixed


def _by_rows(
    ragged: Ragged,
    mask: Tensor,
    attend: Attention,
    flat: tuple[Tensor, Tensor, Tensor],
    dropout: float,
) -> Tensor:
    rows, slots = mask.shape[0], mask.shape[-1]
    if ragged.into is not None:
        gathered = [x.flatten(1).index_select(0, ragged.into).view(-1, *x.shape[1:]) for x in flat]
    else:
        gathered = list(flat)
    shaped = [x.view(rows, slots, *x.shape[1:]).transpose(1, 2) for x in gathered]
    mixed = attend(*shaped, attn_mask=mask, dropout_p=dropout).transpose(1, 2)
    mixed = mixed.reshape(rows * slots, -1)
    return mixed if ragged.back is None else mixed.index_select(0, ragged.back)


def _by_runs(
    runs: tuple[tuple[int, int], ...],
    attend: Attention,
    flat: tuple[Tensor, Tensor, Tensor],
    dropout: float,
) -> Tensor:
    sizes = [max(count, 1) * length for count, length in runs]
    parts = zip(runs, *(torch.split(x, sizes) for x in flat), strict=True)
    mixed = []
    for (count, length), query, key, value in parts:
        if count == 0:
            mixed.append(query.new_zeros(length, query.shape[1] * query.shape[2]))
            continue
        shape = (count, length, *query.shape[1:])
        shaped = [x.view(shape).transpose(1, 2) for x in (query, key, value)]
        one = attend(*shaped, attn_mask=None, dropout_p=dropout)
        mixed.append(one.transpose(1, 2).reshape(count * length, -1))
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)
