"""Optimizer step: how optimizers walk over the weights."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bertopt_bench.axes.kernels import COMPILED, LAUNCHED, Kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

_GRAPHS_A_STEP = 64  # torch's 8 are two for each of four groups: one too few for a third reason
# Every foreach step adds by lists; grad_clip, ema and an fp16 scaler, which walk over lists beside
# it, use other operations. (A fused step counts its steps so.)
_FOREACH = "aten::_foreach_add"
_FUSED = ("_fused_adam", "_fused_sgd", "_fused_adagrad")


def default() -> Kernel:
    """Let the optimizer choose: in torch foreach on CUDA, a loop on CPU, fused nowhere.

    Source: torch.optim.
    """
    return Kernel()


def loop() -> Kernel:
    """Update one weight tensor after the other.

    Source: torch.optim, foreach=False and fused=False.
    """
    return Kernel(options={"foreach": False, "fused": False}, forbids=(_FOREACH, *_FUSED))


def foreach() -> Kernel:
    """Update lists of tensors operation by operation.

    Source: torch.optim, foreach=True.
    """
    return Kernel(options={"foreach": True}, expects=(_FOREACH,))


def fused() -> Kernel:
    """Update in one kernel: each weight is read and written once.

    Source: torch.optim, fused=True.
    """
    return Kernel(options={"fused": True}, expects=_FUSED)


def compiled() -> Kernel:
    """Make one kernel of each weight's update by torch.compile: for optimizers with no fused step.

    The optimizer must declare the values that its state begins with ('Initial:' in its docstring).

    Source: Ansel et al., ASPLOS 2024; torch.compile of the optimizer's step, or of the foreach
        step where pytorch-optimizer does that itself.
    """
    return Kernel(
        call=_compile,
        context=_many_groups,
        expects=COMPILED,
        forbids=(_FOREACH, *_FUSED),
        in_place=True,
        compiles=True,
    )


def capturable() -> Kernel:
    """Capture the step in a CUDA graph once and replay it: CUDA only.

    The optimizer must declare the values that its state begins with ('Initial:' in its docstring).

    Source: torch.optim, capturable=True; torch.cuda.CUDAGraph.
    """
    return Kernel(
        call=_capture,
        options={"capturable": True},
        expects=LAUNCHED,
        in_place=True,
    )


@contextmanager
def _many_groups() -> Iterator[None]:
    """Let a step be compiled for each group of weights, and again once its state is there."""
    import torch

    compiling: Any = torch.compiler.config  # patch is put into it at run time
    with compiling.patch(recompile_limit=_GRAPHS_A_STEP):
        yield


def _compile(optimizer: Any) -> None:
    from bertopt_bench.axes.kernels._steps import compile_step

    compile_step(optimizer)


def _capture(optimizer: Any) -> None:
    from bertopt_bench.axes.kernels._steps import capture_step

    capture_step(optimizer)
