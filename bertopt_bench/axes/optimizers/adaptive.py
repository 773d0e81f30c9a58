"""Optimizers that scale each weight by the gradients it has seen, as torch has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.axes.decaying import decayed, one_decay

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from bertopt_bench.axes.optimizers import Groups


def adam(
    groups: Groups,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    l2: float = 0.0,
    foreach: bool | None = None,
    fused: bool | None = None,
    capturable: bool = False,
) -> Optimizer:
    """Scale each weight's step by its gradient's second moment; decay is coupled.

    Source: Kingma and Ba, arXiv 1412.6980; torch.optim.Adam.
    Default: as adamw.
    Search: lr log 1e-4..1e-2.
    Initial: step 0, exp_avg 0, exp_avg_sq 0.
    """
    from torch.optim import Adam

    options: dict[str, Any] = {"foreach": foreach, "fused": fused, "capturable": capturable}
    return Adam(decayed(groups, l2), lr=lr, betas=betas, eps=eps, **options)


def adamw(
    groups: Groups,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    foreach: bool | None = None,
    fused: bool | None = None,
    capturable: bool = False,
) -> Optimizer:
    """Scale as Adam does, with decoupled decay: the baseline.

    Source: Loshchilov and Hutter, arXiv 1711.05101; torch.optim.AdamW.
    Default: lr 1e-3, as BERT in a day's budget (Geiping and Goldstein, arXiv 2212.14034); betas and
        eps of BERT (Devlin et al., arXiv 1810.04805). Tried: 4.93 at 5e-4, 4.82 at 1e-3, 4.74 to
        4.83 at 2e-3; 4e-3 stays at 5.28.
    Search: lr log 1e-4..1e-2.
    Initial: step 0, exp_avg 0, exp_avg_sq 0.
    """
    from torch.optim import AdamW

    options: dict[str, Any] = {"foreach": foreach, "fused": fused, "capturable": capturable}
    return AdamW(decayed(groups, weight_decay), lr=lr, betas=betas, eps=eps, **options)


def adagrad(
    groups: Groups,
    *,
    lr: float = 5e-3,
    eps: float = 1e-10,
    initial_accumulator_value: float = 0.0,
    l2: float = 0.0,
    foreach: bool | None = None,
    fused: bool | None = None,
) -> Optimizer:
    """Divide each weight's step by the root of its summed squared gradients.

    Source: Duchi et al., JMLR 2011; torch.optim.Adagrad.
    Default: lr 5e-3, half of torch's 1e-2. Tried: 4.96 at 2.5e-3, 4.85 at 5e-3; 1e-2 and above
        stay at 5.28.
    Search: lr log 5e-4..2e-2.
    Initial: step 0, sum initial_accumulator_value.
    """
    from torch.optim import Adagrad

    options: dict[str, Any] = {"initial_accumulator_value": initial_accumulator_value}
    return Adagrad(decayed(groups, l2), lr=lr, eps=eps, foreach=foreach, fused=fused, **options)


def rmsprop(
    groups: Groups,
    *,
    lr: float = 5e-4,
    alpha: float = 0.99,
    eps: float = 1e-6,
    momentum: float = 0.0,
    centered: bool = False,
    l2: float = 0.0,
    foreach: bool | None = None,
    capturable: bool = False,
) -> Optimizer:
    """Divide the gradient by a running root mean square of itself, without bias correction.

    Source: Tieleman and Hinton, 2012; torch.optim.RMSprop.
    Default: lr 5e-4, half of adamw's: the first step is ten times lr. Tried: 4.89 at 3e-4, 4.88 at
        1e-3; 2e-3 stays at 5.27.
    Search: lr log 5e-5..5e-3.
    Initial: step 0, square_avg 0, momentum_buffer 0, grad_avg 0.
    """
    from torch.optim import RMSprop

    options: dict[str, Any] = {"momentum": momentum, "centered": centered, "foreach": foreach}
    options["capturable"] = capturable
    return RMSprop(decayed(groups, l2), lr=lr, alpha=alpha, eps=eps, **options)


def nadam(
    groups: Groups,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    momentum_decay: float = 4e-3,
    weight_decay: float = 0.0,
    l2: float = 0.0,
    foreach: bool | None = None,
    capturable: bool = False,
) -> Optimizer:
    """Give Adam Nesterov's look ahead.

    Source: Dozat, 2016; torch.optim.NAdam (with weight_decay: the NAdamW of AlgoPerf).
    Default: as adamw. Tried: 4.80 at 1e-3, 4.79 at 2e-3; 4e-3 stays at 5.28.
    Search: lr log 1e-4..1e-2.
    Initial: step 0, mu_product 1, exp_avg 0, exp_avg_sq 0.
    """
    from torch.optim import NAdam

    rows = decayed(groups, one_decay("nadam", weight_decay, l2))
    options: dict[str, Any] = {"foreach": foreach, "capturable": capturable}
    options |= {"decoupled_weight_decay": weight_decay > 0, "momentum_decay": momentum_decay}
    return NAdam(rows, lr=lr, betas=betas, eps=eps, **options)


def radam(
    groups: Groups,
    *,
    lr: float = 8e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    l2: float = 0.0,
    foreach: bool | None = None,
    capturable: bool = False,
) -> Optimizer:
    """Rectify Adam's early steps, where the second moment is known from few gradients.

    Source: Liu et al., arXiv 1908.03265; torch.optim.RAdam.
    Default: lr 8e-3: rectified steps are smaller than Adam's for the first thousand. Tried: 5.13 at
        2e-3, 4.86 at 4e-3, 4.80 at 8e-3, 4.70 at 1.6e-2.
    Search: lr log 1e-3..5e-2.
    Initial: step 0, exp_avg 0, exp_avg_sq 0.
    """
    from torch.optim import RAdam

    rows = decayed(groups, one_decay("radam", weight_decay, l2))
    options: dict[str, Any] = {"foreach": foreach, "capturable": capturable}
    options["decoupled_weight_decay"] = weight_decay > 0
    return RAdam(rows, lr=lr, betas=betas, eps=eps, **options)


def adafactor(
    groups: Groups,
    *,
    lr: float = 0.1,
    beta2_decay: float = -0.8,
    smallest_scale: float = 1e-3,
    clip: float = 1.0,
    weight_decay: float = 0.0,
    foreach: bool | None = None,
) -> Optimizer:
    """Keep second moments as row and column factors; lr is relative to each weight's own size.

    The step has size ``min(lr, 1 / sqrt(t)) * max(smallest_scale, rms(weight))``. torch's class
    reads norms back to the host in each step.

    Source: Shazeer and Stern, arXiv 1804.04235; torch.optim.Adafactor (no first moment).
    Default: lr 0.1: times the 0.02 that BERT's weights start with, twice adamw's step. Tried: 4.67
        at 0.05, 4.63 at 0.1, 4.78 at 0.2.
    Search: lr log 1e-2..1e0.
    """
    from torch.optim import Adafactor

    rows, scales = decayed(groups, weight_decay), (None, smallest_scale)
    return Adafactor(rows, lr=lr, beta2_decay=beta2_decay, eps=scales, d=clip, foreach=foreach)
