"""What each operation computes, by its textbook formula in float64: the oracle of kernels.

None of it calls the functions of torch that a kernel replaces.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from bertopt_bench.workload.masking import IGNORED

if TYPE_CHECKING:
    from torch import Tensor


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attend [B, a, S, d]; a mask bool [B, 1, 1, S] says which keys count.

    Source: Vaswani et al., arXiv 1706.03762, equation 1.
    """
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    powers = (scores - scores.detach().amax(-1, keepdim=True)).exp()
    weights = powers / powers.sum(-1, keepdim=True)
    return torch.einsum("bhqk,bhkd->bhqd", weights, value)


def layer_norm(hidden: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Norm over the last dimension.

    Source: Ba et al., arXiv 1607.06450, equation 4.
    """
    centred = hidden - hidden.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + eps).sqrt() * weight + bias


def gelu(hidden: Tensor) -> Tensor:
    """Weigh each number by the normal distribution's share below it.

    Source: Hendrycks and Gimpel, arXiv 1606.08415, section 2.
    """
    return hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))


def mlm_loss(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """Sum -log p(label) over the labels that are not -100; hidden [M, h], weight [V, h].

    Source: Devlin et al., arXiv 1810.04805.
    """
    logits = hidden @ weight.T + bias
    greatest = logits.detach().amax(-1, keepdim=True)
    logarithms = (logits - greatest).exp().sum(-1).log() + greatest[:, 0]
    counts = labels != IGNORED
    rows = torch.arange(len(labels), device=labels.device)
    chosen = logits[rows, labels.clamp(min=0)]
    return ((logarithms - chosen) * counts).sum()
