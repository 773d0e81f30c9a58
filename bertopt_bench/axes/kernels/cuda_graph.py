"""CUDA graph: whether the whole training step is captured once and then replayed."""

from __future__ import annotations

from bertopt_bench.axes.kernels import LAUNCHED, Kernel


def off() -> Kernel:
    """Launch each kernel of a step from the host."""
    return Kernel()


def step() -> Kernel:
    """Capture forward, backward and update in one CUDA graph, and replay it: CUDA only.

    Batches are copied to where the graph reads; gradients stay where they are.

    Source: torch.cuda.CUDAGraph; Nguyen et al., 2021, on pytorch.org/blog.
    """
    return Kernel(options={"capturable": True}, expects=LAUNCHED, in_place=True)
