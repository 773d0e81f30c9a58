"""What torch documents of varlen_attn, by plain softmax a segment, so that it runs on a CPU too."""

from __future__ import annotations

import torch


def by_segments(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, borders: torch.Tensor, longest: int
) -> torch.Tensor:
    """Mix values [T, H, D] within each segment, none of which may be longer than said."""
    mixed = []
    for start, end in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        assert end - start <= longest
        q, k, v = (x[start:end].transpose(0, 1) for x in (query, key, value))
        weights = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, dim=-1)
        mixed.append((weights @ v).transpose(0, 1))
    return torch.cat(mixed)
