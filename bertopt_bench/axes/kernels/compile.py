"""Compile: whether torch.compile makes kernels of the model's forward and backward pass."""

from __future__ import annotations

from bertopt_bench.axes.kernels import Kernel


def off() -> Kernel:
    """Run the model eagerly."""
    return Kernel()


def default() -> Kernel:
    """Compile with the default mode.

    Source: Ansel et al., ASPLOS 2024; torch.compile.
    """
    return Kernel(options={"mode": "default"})


def max_autotune() -> Kernel:
    """Compile and time several kernels for each matrix product; CUDA graphs on a GPU.

    Source: torch.compile, mode max-autotune.
    """
    return Kernel(options={"mode": "max-autotune"})
