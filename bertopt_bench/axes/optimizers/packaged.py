"""Optimizers of a package beyond torch, which ``PACKAGES`` of this package names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.axes.decaying import decayed

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from bertopt_bench.axes.optimizers import Groups


def lion(
    groups: Groups,
    *,
    lr: float = 5e-4,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
    foreach: bool | None = None,
) -> Optimizer:
    """Step by the sign of an interpolated momentum: every weight moves by lr.

    Source: Chen et al., arXiv 2302.06675; pytorch_optimizer.Lion.
    Default: lr 5e-4, half of adamw's (the paper: 3 to 10 times smaller). Tried: 5.46 at 2.5e-4,
        4.96 at 5e-4, 4.92 at 1e-3.
    Search: lr log 3e-5..3e-3.
    Initial: exp_avg 0.
    """
    from pytorch_optimizer import Lion

    optimizer: Optimizer = Lion(decayed(groups, weight_decay), lr=lr, betas=betas, foreach=foreach)
    return optimizer


def lamb(
    groups: Groups,
    *,
    lr: float = 1e-2,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    pre_norm: bool = False,
    weight_decay: float = 0.0,
    foreach: bool | None = None,
) -> Optimizer:
    """Give each tensor an Adam step as long as lr times its own norm; vectors take Adam's.

    Version 3 of the paper: no bias correction. Norms and biases get no trust ratio, as in the
    authors' BERT; ``pre_norm`` first divides gradients by their global norm where it is above 1.

    Source: You et al., arXiv 1904.00962; pytorch_optimizer.Lamb.
    Default: lr 1e-2, twice that of the paper's largest batch. Tried: 4.95 at 5e-3, 4.92 at 1e-2;
        3e-2 stays at 5.30.
    Search: lr log 1e-3..3e-2.
    Initial: exp_avg 0, exp_avg_sq 0, weight_norm 0, adam_norm 0, trust_ratio 0.
    """
    from pytorch_optimizer import Lamb

    rows = [{**row, "adam": row["role"] == "vector"} for row in decayed(groups, weight_decay)]
    # else the library divides the finished step by 1 - beta1 ** t
    options: dict[str, Any] = {"adam_debias": True, "pre_norm": pre_norm, "foreach": foreach}
    optimizer: Optimizer = Lamb(rows, lr=lr, betas=betas, eps=eps, **options)
    return optimizer


def ademamix(
    groups: Groups,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
    slow_weight: float = 5.0,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    foreach: bool | None = None,
) -> Optimizer:
    """Add slow_weight times a far slower momentum to Adam's own.

    Without the paper's ramps of that weight and of the third beta, set by a run's length.

    Source: Pagliardini et al., arXiv 2409.03137; pytorch_optimizer.AdEMAMix.
    Default: lr as adamw; betas and weight (there alpha) of the paper.
    Search: lr log 1e-4..1e-2; slow_weight linear 2..8.
    Initial: exp_avg 0, exp_avg_sq 0, exp_avg_slow 0.
    """
    from pytorch_optimizer import AdEMAMix

    options: dict[str, Any] = {"alpha": slow_weight, "weight_decouple": True, "foreach": foreach}
    rows = decayed(groups, weight_decay)
    optimizer: Optimizer = AdEMAMix(rows, lr=lr, betas=betas, eps=eps, **options)
    return optimizer
