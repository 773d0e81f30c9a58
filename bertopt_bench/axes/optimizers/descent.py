"""Optimizers that step along the gradient, with or without momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.axes.decaying import decayed

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from bertopt_bench.axes.optimizers import Groups


def sgd(
    groups: Groups,
    *,
    lr: float = 0.3,
    l2: float = 0.0,
    foreach: bool | None = None,
    fused: bool | None = None,
) -> Optimizer:
    """Step along the gradient, without momentum.

    Source: Robbins and Monro, 1951; torch.optim.SGD.
    Default: lr 0.3, some hundred times Adam's. Tried: 0.1 and 0.3 stay at 5.30, 1 diverges.
    Search: lr log 1e-2..3e0.
    Initial: nothing.
    """
    from torch.optim import SGD

    return SGD(decayed(groups, l2), lr=lr, foreach=foreach, fused=fused)


def momentum(
    groups: Groups,
    *,
    lr: float = 0.05,
    momentum: float = 0.9,
    l2: float = 0.0,
    foreach: bool | None = None,
    fused: bool | None = None,
) -> Optimizer:
    """Step along a decaying sum of gradients (heavy ball).

    Source: Polyak, 1964; torch.optim.SGD.
    Default: lr 0.05, near sgd's times 1 - momentum. Tried: 5.25 at 0.01, 4.92 at 0.05, 4.90 at
        0.1; 0.3 diverges.
    Search: lr log 5e-3..2e-1; momentum linear 0.8..0.99.
    Initial: momentum_buffer 0.
    """
    from torch.optim import SGD

    return SGD(decayed(groups, l2), lr=lr, momentum=momentum, foreach=foreach, fused=fused)


def nesterov(
    groups: Groups,
    *,
    lr: float = 0.05,
    momentum: float = 0.9,
    l2: float = 0.0,
    foreach: bool | None = None,
    fused: bool | None = None,
) -> Optimizer:
    """Step along momentum that looks one step ahead.

    Source: Nesterov, 1983, as in Sutskever et al., ICML 2013; torch.optim.SGD.
    Default: as momentum. Tried: 4.78 at 0.03, 4.83 at 0.05, 4.84 at 0.1; 0.3 diverges.
    Search: lr log 5e-3..2e-1; momentum linear 0.8..0.99.
    Initial: momentum_buffer 0.
    """
    from torch.optim import SGD

    options: dict[str, Any] = {"foreach": foreach, "fused": fused}
    return SGD(decayed(groups, l2), lr=lr, momentum=momentum, nesterov=True, **options)
