"""Optimizers: ``(groups, *, lr, ...) -> torch.optim.Optimizer``.

``groups`` are torch's parameter groups with a ``role`` each: matrix (encoder weights), embedding,
head or vector (norms and biases). Decay is the regularizer axis', so every entry's own is 0;
``weight_decay`` is decoupled, ``l2`` is coupled (added to the gradient), and an entry has those
that its class does itself. Vectors are never decayed. ``foreach`` and ``fused`` belong to the
``kernel.optimizer_step`` axis; None leaves the choice to torch. ``Initial:`` gives the values that
a weight's state begins with, to which a compiled or captured step is put back in place.

Default rates start from the source that is named. *Tried* are those of a coarse look, no tuning:
held-out loss of ``tiny`` on python_docs, batch 16, 150 to 200 steps, linear decay, one seed, where
a loss of 5.3 means that only the words' frequencies were learned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from bertopt_bench.axes.decaying import decayed, one_decay
from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.optim import Optimizer

    Groups = Sequence[dict[str, Any]]

PACKAGES = dict.fromkeys(("lion", "lamb", "ademamix"), "pytorch_optimizer")
"""Entries that need a package beyond torch; it comes with the extra ``optimizers``."""

LOOP_ONLY = frozenset({"muon"})
"""Entries that take ``foreach`` only to be told False: a part of their step can be but a loop."""


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


def muon(
    groups: Groups,
    *,
    lr: float = 4e-3,
    momentum: float = 0.95,
    nesterov: bool = True,
    ns_steps: int = 5,
    ns_precision: Literal["bf16", "fp32"] = "bf16",
    adjust_lr: Literal["original", "match_rms_adamw"] = "match_rms_adamw",
    adamw_lr: float | None = None,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    foreach: bool | None = None,
) -> Optimizer:
    """Orthogonalise the encoder matrices' momentum; AdamW takes all other weights.

    ``adamw_lr`` is lr where it is not given, which ``match_rms_adamw`` makes fitting. The
    orthogonalisation runs in ``ns_precision`` at every precision of the axis (fp32 for processors
    without 16-bit arithmetic), and matrix by matrix: ``foreach`` may not be True.

    Source: Jordan et al., 2024, kellerjordan.github.io/posts/muon; Liu et al., arXiv 2502.16982;
        torch.optim.Muon and torch.optim.AdamW.
    Default: lr 4e-3 for both parts, which 2502.16982 scales Muon for. Tried: 5.20 at 1e-3, 4.83 at
        2e-3, 4.69 at 4e-3.
    Search: lr log 5e-4..2e-2; momentum linear 0.9..0.98.
    Initial: step 0, exp_avg 0, exp_avg_sq 0, momentum_buffer 0.
    """
    from torch.optim import AdamW, Muon

    from bertopt_bench.axes.joined import join
    from bertopt_bench.axes.orthogonal import Fp32Muon

    if foreach:
        raise UserError("optimizer 'muon' has no foreach step: take another optimizer_step.")
    rows = decayed(groups, weight_decay)
    matrices = [row for row in rows if row["role"] == "matrix"]
    others = [row for row in rows if row["role"] != "matrix"]
    own = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps}
    rate = lr if adamw_lr is None else adamw_lr
    adamw = {"lr": rate, "betas": betas, "eps": eps, "foreach": foreach}
    kind = Fp32Muon if ns_precision == "fp32" else Muon
    return join((kind, matrices, own | {"adjust_lr_fn": adjust_lr}), (AdamW, others, adamw))
