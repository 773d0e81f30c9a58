"""Optimizer step: how torch's optimizers walk over the weights."""

from __future__ import annotations

from bertopt_bench.axes.kernels import Kernel

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
