"""Weights in groups with roles, trained on drawn gradients."""

from __future__ import annotations

from typing import Any

import torch

from bertopt_bench import catalogue

ENTRIES = catalogue.entries("optimizer")
SHAPES = {"matrix": [(8, 6), (6, 8)], "embedding": [(12, 6)], "head": [(6, 6)], "vector": [(6,)]}
LR = 0.01


def make_groups(seed: int = 0, dtype: torch.dtype = torch.float32) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "params": [
                torch.randn(shape, generator=generator).to(dtype).requires_grad_()
                for shape in shapes
            ],
            "names": [f"{role}.{index}" for index, _ in enumerate(shapes)],
            "role": role,
        }
        for role, shapes in SHAPES.items()
    ]


def parameters(groups: list[dict[str, Any]]) -> list[torch.Tensor]:
    return [parameter for group in groups for parameter in group["params"]]


def train(
    optimizer: torch.optim.Optimizer, weights: list[torch.Tensor], steps: int, seed: int = 1
) -> list[torch.Tensor]:
    """Step on drawn gradients; give copies of the weights."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator).to(weight.dtype)
        optimizer.step()
    return [weight.detach().clone() for weight in weights]


def run(name: str, steps: int = 8, **options: Any) -> list[torch.Tensor]:
    groups = make_groups()
    optimizer = catalogue.resolve("optimizer", name)(groups, **options)
    return train(optimizer, parameters(groups), steps)
