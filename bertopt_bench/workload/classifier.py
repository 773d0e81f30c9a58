"""A classifier of sequences on BERT's encoder, and its criteria, in plain torch.

Modules carry the names of Hugging Face's ``BertForSequenceClassification``. Shapes: B sequences, S
slots a sequence, h hidden size, C classes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bertopt_bench.workload.labelled import NO_LABEL
from bertopt_bench.workload.model import Bert, Layer, RecomputedLayer
from bertopt_bench.workload.replaced import same_shape

if TYPE_CHECKING:
    from bertopt_bench.workload.model import Activation, Attention, BertConfig, Norm


class BertForClassification(nn.Module):
    """The encoder, its pooling, dropout, and a linear head.

    ``pooling`` is ``cls`` (BERT's own: [CLS] through a dense layer and tanh) or ``mean`` (of the
    hidden states that are no padding, as sentence encoders are trained: Reimers and Gurevych,
    arXiv 1908.10084). ``attention``, ``layer_norm``, ``gelu`` and ``recompute`` are those of
    ``model.BertForMaskedLM``.
    """

    def __init__(
        self,
        config: BertConfig,
        classes: int,
        *,
        pooling: str = "mean",
        attention: Attention | None = None,
        layer_norm: Norm | None = None,
        gelu: Activation | None = None,
        recompute: str = "",
    ) -> None:
        super().__init__()
        self.config, self.pooling = config, pooling
        attend = attention or functional.scaled_dot_product_attention
        activate = functional.gelu if gelu is None else same_shape("GELU", gelu)
        kind = partial(RecomputedLayer, recompute) if recompute else Layer
        self.bert = Bert(config, attend, layer_norm, activate, kind)
        self.classifier = nn.Linear(config.size.hidden, classes)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None, _slots: None = None
    ) -> Tensor:
        """Give the logits [B, C].

        Args:
            input_ids: [B, S], int32 or int64.
            attention_mask: bool [B, 1, 1, S], True where a slot is no padding; None: none is.
        """
        hidden = self.bert(input_ids, attention_mask, None)
        pooled = self._pooled(hidden, attention_mask)
        if self.config.dropout and self.training:
            pooled = functional.dropout(pooled, self.config.dropout)
        logits: Tensor = self.classifier(pooled)
        return logits

    def _pooled(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Make one vector a sequence of [B, S, h]: [B, h]."""
        if self.pooling == "cls":
            return torch.tanh(self.bert.pooler["dense"](hidden[:, 0]))
        if mask is None:
            return hidden.mean(dim=1)
        real = mask[:, 0, 0, :, None].to(hidden.dtype)
        return (hidden * real).sum(dim=1) / real.sum(dim=1)


def summed_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    criterion: str = "cross_entropy",
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Sum the loss of the rows whose label is not -100, each weighted by its class.

    Both criteria are one number: ``cross_entropy`` takes logits, ``negative_log_likelihood`` their
    logarithms of the softmax.

    Args:
        logits: [B, C]; 16-bit ones are summed in fp32.
        labels: [B] int64.
        criterion: which of torch's two functions computes it.
        weight: [C], or None for equal classes.
        label_smoothing: share of the target spread evenly (Szegedy et al., arXiv 1512.00567).
    """
    if logits.dtype != torch.float64:
        logits = logits.float()
    options: dict[str, Any] = {"weight": weight, "ignore_index": NO_LABEL, "reduction": "sum"}
    if criterion == "cross_entropy":
        return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing, **options)
    logarithms = functional.log_softmax(logits, dim=-1)
    told = functional.nll_loss(logarithms, labels, **options)
    if not label_smoothing:
        return told
    weighted = logarithms if weight is None else logarithms * weight
    spread = -(weighted.sum(dim=-1) * (labels != NO_LABEL)).sum() / logits.shape[-1]
    return (1 - label_smoothing) * told + label_smoothing * spread


def weight_sums(labels: Tensor, weight: Tensor | None) -> list[float]:
    """Give what each batch's summed loss is divided by: its labels' weights, or their number.

    Args:
        labels: [N, B]; -100 counts for nothing.
        weight: [C] or None.
    """
    real = labels != NO_LABEL
    each = real.double() if weight is None else weight.double()[labels.clamp(min=0)] * real
    sums: list[float] = each.sum(dim=1).tolist()
    return sums
