"""Activation checkpointing: what the backward pass computes again instead of having it kept.

Model FLOPs stay those of the plain step: what is computed twice is no progress.
"""

from __future__ import annotations

from bertopt_bench.axes.kernels import Kernel

RECOMPUTED = "recomputed_layer"
"""What a trace calls a layer that the backward pass runs again."""


def off() -> Kernel:
    """Keep every activation that the backward pass needs."""
    return Kernel()


def layers() -> Kernel:
    """Keep the inputs of each encoder layer, and run the layer again in the backward pass.

    Four thirds of the encoder's FLOPs, and a layer's activations at a time.

    Source: Chen et al., arXiv 1604.06174; torch.utils.checkpoint with use_reentrant=False.
    """
    return Kernel(options={"recompute": RECOMPUTED}, expects=(RECOMPUTED,))
