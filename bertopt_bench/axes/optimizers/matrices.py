"""Optimizers that treat the matrices of the encoder by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bertopt_bench.axes.decaying import decayed
from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from bertopt_bench.axes.optimizers import Groups


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
    own = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps}
    adamw = {"lr": lr if adamw_lr is None else adamw_lr, "betas": betas, "eps": eps}
    matrices, others = _split(decayed(groups, weight_decay))
    kind = Fp32Muon if ns_precision == "fp32" else Muon
    own_part = (kind, matrices, own | {"adjust_lr_fn": adjust_lr})
    return join(own_part, (AdamW, others, adamw | {"foreach": foreach}))


def _split(rows: Groups) -> tuple[Groups, Groups]:
    """Part the encoder's matrices from all other weights."""
    matrices = [row for row in rows if row["role"] == "matrix"]
    return matrices, [row for row in rows if row["role"] != "matrix"]
