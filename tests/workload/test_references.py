"""The float64 formulas that kernels are checked against agree with torch's own in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from bertopt_bench.workload import references


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("masked", [False, True])
def test_attention(masked: bool) -> None:
    """Oracle: torch's math attention in float64."""
    query, key, value = (drawn(2, 3, 5, 4, seed=seed) for seed in range(3))
    mask = (torch.arange(5) < torch.tensor([[5], [2]]))[:, None, None, :] if masked else None

    expected = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    torch.testing.assert_close(references.attention(query, key, value, mask), expected)


def test_layer_norm() -> None:
    """Oracle: torch's own in float64."""
    hidden, weight, bias = drawn(2, 3, 8), drawn(8, seed=1), drawn(8, seed=2)

    torch.testing.assert_close(
        references.layer_norm(hidden, weight, bias, 1e-12),
        functional.layer_norm(hidden, (8,), weight, bias, 1e-12),
    )


def test_gelu() -> None:
    """Oracle: torch's own in float64; 1 at 1 is the normal distribution's 0.8413..."""
    hidden = drawn(100) * 4

    torch.testing.assert_close(references.gelu(hidden), functional.gelu(hidden))
    share = 0.5 * math.erfc(-1 / math.sqrt(2))
    assert references.gelu(torch.ones((), dtype=torch.float64)).item() == pytest.approx(share)


def test_mlm_loss() -> None:
    """Oracle: torch's cross entropy in float64, with gradients; large logits do not overflow."""
    labels = torch.tensor([3, -100, 0, 6])
    results = []
    for own in (True, False):
        inputs = [drawn(4, 5) * 300, drawn(7, 5, seed=1), drawn(7, seed=2)]
        for value in inputs:
            value.requires_grad_()
        loss = (
            references.mlm_loss(*inputs, labels)
            if own
            else functional.cross_entropy(functional.linear(*inputs), labels, reduction="sum")
        )
        loss.backward()
        results.append([loss.detach(), *(value.grad for value in inputs)])

    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
