"""Attribute one output of a network to the tokens that it read.

The network is seen as a function of token embeddings, so that nothing here knows which one it is.

Source: Sundararajan, Taly and Yan, Axiomatic Attribution for Deep Networks, arXiv 1703.01365
(integrated gradients, through the package captum); Shrikumar et al., arXiv 1605.01713 (gradient
times input).

Shapes: B texts, S tokens, h hidden size, C outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from bertopt_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Network = Callable[[Tensor], Tensor]  # embeddings [B, S, h] -> logits [B, C]

INTEGRATED, PRODUCT = "integrated_gradients", "gradient_x_input"
METHODS = (INTEGRATED, PRODUCT)
POINTS = 50  # of Gauss-Legendre quadrature on the way from the baseline


@dataclass(frozen=True, slots=True)
class Attribution:
    """What each token did to an output, by one method.

    ``scores`` is [B, S]; ``change`` [B] is the output less that of the baseline, which the scores
    of integrated gradients sum up to (axiom of completeness); ``residual`` [B] is how far they miss
    it.
    """

    method: str
    scores: Tensor
    change: Tensor

    @property
    def residual(self) -> Tensor:
        """Give the scores' sum less what it must be."""
        return self.scores.sum(dim=1) - self.change


def default_method() -> str:
    """Choose integrated gradients where captum is installed, gradient times input elsewhere."""
    return INTEGRATED if find_spec("captum") is not None else PRODUCT


def attribute(
    network: Network,
    embeddings: Tensor,
    target: Tensor,
    *,
    baseline: Tensor | None = None,
    method: str | None = None,
    points: int = POINTS,
) -> Attribution:
    """Score every token of each text for the output that ``target`` names.

    Args:
        network: in evaluation mode, without a step from one text of the batch to another.
        embeddings: [B, S, h].
        target: [B] int64, which of the C outputs.
        baseline: [B, S, h], a text that says nothing (of [PAD] or [MASK], say); zeros by default.
        method: one of ``METHODS``; None: see ``default_method``.
        points: how finely the way from baseline to text is integrated.

    Raises:
        UserError: no such method, or captum is asked for and missing.
    """
    chosen = default_method() if method is None else method
    if chosen not in METHODS:
        raise UserError(
            f"no attribution '{chosen}'. Allowed: {', '.join(METHODS)}.{nearest(chosen, METHODS)}"
        )
    zero = torch.zeros_like(embeddings) if baseline is None else baseline
    score = _integrated if chosen == INTEGRATED else _product
    scores = score(network, embeddings.detach(), target, zero.detach(), points)
    with torch.no_grad():
        change = _chosen(network, embeddings, target) - _chosen(network, zero, target)
    return Attribution(chosen, scores.detach(), change)


def _chosen(network: Network, embeddings: Tensor, target: Tensor) -> Tensor:
    return network(embeddings).gather(1, target[:, None]).squeeze(1)


def _integrated(
    network: Network, embeddings: Tensor, target: Tensor, baseline: Tensor, points: int
) -> Tensor:
    if find_spec("captum") is None:
        raise UserError(
            "integrated_gradients needs the package captum: pip install -c constraints.txt "
            "'.[attribution]'; or take gradient_x_input."
        )
    from captum.attr import IntegratedGradients

    found: Tensor = IntegratedGradients(network).attribute(
        embeddings,
        baselines=baseline,
        target=target,
        n_steps=points,
        method="gausslegendre",
        internal_batch_size=max(1, len(embeddings)),  # memory of one batch, not of all points
    )
    return found.sum(dim=-1)


def _product(
    network: Network, embeddings: Tensor, target: Tensor, baseline: Tensor, _points: int
) -> Tensor:
    """Multiply the gradient at the text by its distance from the baseline."""
    leaf = embeddings.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(_chosen(network, leaf, target).sum(), leaf)
    return (gradient * (embeddings - baseline)).sum(dim=-1)
