"""Regularizers: ``(*, ...) -> object`` with any of the hooks that ``trial.regularizing`` looks for.

``model_options``, ``criterion_options`` and ``optimizer_options`` say what the model, the criterion
and the optimizer are made with; ``loss``, ``gradients`` and ``after_step`` run in each step, none
of them with a host sync; ``eval_weights`` swaps other weights in for an evaluation. State is made
at the first step: calling the entry again gives a fresh regularizer. Penalties and decay leave
vectors (norms, biases) alone.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    Groups = Sequence[dict[str, Any]]


@dataclass(slots=True)
class Regularizer:
    """What the model, the criterion and the optimizer are made with."""

    model: dict[str, float] = field(default_factory=dict)
    criterion: dict[str, float] = field(default_factory=dict)
    optimizer: dict[str, float] = field(default_factory=dict)

    def model_options(self) -> dict[str, float]:
        """Give the dropout shares."""
        return self.model

    def criterion_options(self) -> dict[str, float]:
        """Give the label smoothing."""
        return self.criterion

    def optimizer_options(self) -> dict[str, float]:
        """Give the decay, ``weight_decay`` or ``l2``."""
        return self.optimizer


def none() -> Regularizer:
    """Leave the training alone."""
    return Regularizer()


def l1(*, l1: float = 1e-5) -> L1Penalty:
    """Add l1 times the sum of absolute weights to the loss; no weight becomes exactly 0.

    Source: Tibshirani, 1996, as a subgradient penalty.
    Search: l1 log 1e-7..1e-3.
    """
    return L1Penalty(_at_least_0("l1", l1))


def proximal_l1(*, l1: float = 0.05) -> ProximalL1:
    """Shrink weights by lr * l1 after each step, small ones to exactly 0.

    The plain soft threshold at every optimizer: under Adam it is not the proximal operator in
    Adam's own metric.

    Source: Daubechies et al., 2004 (ISTA).
    Search: l1 log 1e-3..1e0.
    """
    return ProximalL1(_at_least_0("l1", l1))


def l2(*, l2: float = 1e-4) -> Regularizer:
    """Add l2 times the weight to its gradient: coupled, so that Adam rescales it.

    Source: Krogh and Hertz, 1991; the weight_decay argument of torch.optim.Adam and SGD.
    Search: l2 log 1e-6..1e-2.
    """
    return Regularizer(optimizer={"l2": _at_least_0("l2", l2)})


def weight_decay(*, weight_decay: float = 0.01) -> Regularizer:
    """Shrink weights by the share lr * weight_decay before each step: decoupled.

    Source: Loshchilov and Hutter, arXiv 1711.05101; torch.optim.AdamW. 0.01 is Devlin et al.'s.
    Search: weight_decay log 1e-3..1e0.
    """
    return Regularizer(optimizer={"weight_decay": _at_least_0("weight_decay", weight_decay)})


def dropout(*, dropout: float = 0.1, attention_dropout: float = 0.1) -> Regularizer:
    """Set random activations to 0 in training: of sublayers' outputs, and attention weights.

    Source: Srivastava et al., JMLR 2014; both shares are Devlin et al.'s, arXiv 1810.04805.
    Search: dropout linear 0..0.3; attention_dropout linear 0..0.3.
    """
    shares = {"dropout": dropout, "attention_dropout": attention_dropout}
    return Regularizer(model={name: _share(name, value) for name, value in shares.items()})


def label_smoothing(*, label_smoothing: float = 0.1) -> Regularizer:
    """Spread a share of the target over the whole vocabulary.

    Source: Szegedy et al., arXiv 1512.00567; 0.1 is Vaswani et al.'s, arXiv 1706.03762.
    Search: label_smoothing linear 0..0.2.
    """
    return Regularizer(criterion={"label_smoothing": _share("label_smoothing", label_smoothing)})


def grad_clip(*, max_norm: float = 1.0) -> GradientClip:
    """Scale gradients down to a global norm of at most max_norm.

    Source: Pascanu et al., arXiv 1211.5063; torch.nn.utils.clip_grad_norm_; 1.0 is BERT's.
    Search: max_norm log 0.1..10.
    """
    if not 0 < max_norm < math.inf:
        raise UserError(f"regularizer option 'max_norm' is {max_norm}; it must be above 0.")
    return GradientClip(max_norm)


def ema(*, decay: float = 0.99, ramp: bool = True) -> WeightAverage:
    """Evaluate an exponential moving average of the weights; train the weights themselves.

    With ramp the decay of update t (from 0) is at most (1 + t) / (10 + t), so that a short run
    forgets its start.

    Source: Polyak and Juditsky, 1992; torch.optim.swa_utils (without ramp), TensorFlow's
        ExponentialMovingAverage (the ramp).
    Search: decay linear 0.9..0.999.
    """
    return WeightAverage(_share("decay", decay), ramp)


@dataclass(slots=True)
class L1Penalty:
    """Adds the penalty to the loss."""

    strength: float

    def loss(self, loss: Tensor, context: Any) -> Tensor:
        """Add the micro-batch's share of the step's penalty."""
        import torch

        norms = [torch.linalg.vector_norm(weight, 1) for weight in _weights(context.groups)]
        penalised: Tensor = loss + (self.strength * context.share) * torch.stack(norms).sum()
        return penalised


@dataclass(slots=True)
class ProximalL1:
    """Applies the soft threshold in place."""

    strength: float

    def after_step(self, groups: Groups) -> None:
        """Move every weight lr * strength towards 0, and not past it."""
        import torch

        with torch.no_grad():
            for group in groups:
                threshold = group["lr"] * self.strength
                for weight in _weights([group]):  # softshrink would ask the host for a rate
                    weight.sub_(weight.clamp(-threshold, threshold))


@dataclass(slots=True)
class GradientClip:
    """Clips gradients in place."""

    max_norm: float

    def gradients(self, groups: Groups) -> None:
        """Clip over all groups at once; nothing is read back to the host."""
        import torch

        parameters = [parameter for group in groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self.max_norm)


class WeightAverage:
    """Keeps the average; it begins as a copy of the weights after the first step."""

    def __init__(self, decay: float, ramp: bool) -> None:  # noqa: FBT001 - an option handed on
        self.decay, self.ramp = decay, ramp
        self.updates = 0
        self.weights: list[Tensor] = []
        self.averages: list[Tensor] = []

    def after_step(self, groups: Groups) -> None:
        """Take the new weights into the average."""
        from torch.optim.swa_utils import get_ema_multi_avg_fn

        if not self.averages:
            self.weights = [weight for group in groups for weight in group["params"]]
            self.averages = [weight.detach().clone() for weight in self.weights]
        else:
            ramped = (1 + self.updates) / (10 + self.updates)
            decay = min(self.decay, ramped) if self.ramp else self.decay
            average: Any = get_ema_multi_avg_fn  # torch leaves it untyped
            average(decay)(self.averages, self.weights, None)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint needs of the average."""
        return {"updates": self.updates, "averages": self.averages}

    def load_state_dict(self, state: dict[str, Any], groups: Groups) -> None:
        """Go on with an average that was kept, of the same weights."""
        weights = [weight for group in groups for weight in group["params"]]
        self.updates = state["updates"]
        if state["averages"]:
            self.weights = weights
            pairs = zip(weights, state["averages"], strict=True)
            self.averages = [average.to(weight.device) for weight, average in pairs]

    @contextmanager
    def eval_weights(self) -> Iterator[None]:
        """Put the averages in place of the weights, and the weights back, bit for bit."""
        import torch

        kept = [weight.detach().clone() for weight in self.weights]
        with torch.no_grad():
            for weight, average in zip(self.weights, self.averages, strict=True):
                weight.copy_(average)
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, value in zip(self.weights, kept, strict=True):
                    weight.copy_(value)


def _weights(groups: Groups) -> list[Tensor]:
    """Give all weights but vectors."""
    return [weight for group in groups if group["role"] != "vector" for weight in group["params"]]


def _at_least_0(name: str, value: float) -> float:
    if 0 <= value < math.inf:
        return value
    raise UserError(f"regularizer option '{name}' is {value}; it must be 0 or more.")


def _share(name: str, value: float) -> float:
    if 0 <= value < 1:
        return value
    raise UserError(f"regularizer option '{name}' is {value}; it must be at least 0 and below 1.")
