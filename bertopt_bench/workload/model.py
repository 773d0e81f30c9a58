"""BERT for masked-language modelling in plain torch, its head computed on masked positions only.

Source: Devlin et al., arXiv 1810.04805; sinusoidal positions: Vaswani et al., arXiv 1706.03762,
section 3.5. Modules carry the names of Hugging Face's ``BertForMaskedLM``, so that a ``state_dict``
is a checkpoint of that format.

Shapes: B sequences, S slots a sequence, h hidden size, M masked slots in the batch, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bertopt_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

    from bertopt_bench.workload.formulas import ModelSize

    Attention = Callable[..., Tensor]  # of scaled_dot_product_attention's signature

POSITION_EMBEDDINGS = ("learned", "sinusoidal")
INITIAL_STD = 0.02  # of every matrix and embedding, as in BERT


@dataclass(frozen=True, slots=True)
class BertConfig:
    """What defines the network; ``dropout`` is that of hidden states."""

    vocabulary_size: int
    size: ModelSize
    position_embedding: str = "learned"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    layer_norm_eps: float = 1e-12
    pooler: bool = False

    def __post_init__(self) -> None:
        if self.position_embedding not in POSITION_EMBEDDINGS:
            raise UserError(
                f"no position embedding '{self.position_embedding}'. Allowed: "
                f"{', '.join(POSITION_EMBEDDINGS)}."
                f"{nearest(self.position_embedding, POSITION_EMBEDDINGS)}"
            )


class BertForMaskedLM(nn.Module):
    """The encoder and its MLM head, the decoder tied to the word embeddings.

    ``attention`` replaces ``scaled_dot_product_attention`` and has its signature.
    """

    def __init__(self, config: BertConfig, *, attention: Attention | None = None) -> None:
        super().__init__()
        self.config = config
        self.bert = Bert(config, attention or functional.scaled_dot_product_attention)
        self.cls = nn.ModuleDict({"predictions": Predictions(config)})

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        masked_index: Tensor,
        segment_ids: Tensor | None = None,
    ) -> Tensor:
        """Give the logits [M, V] of the masked slots.

        Args:
            input_ids: [B, S], int32 or int64.
            attention_mask: bool [B, 1, 1, S], True where a slot is no padding; None: none is.
            masked_index: [M] int64, each a flat index into B*S.
            segment_ids: [B, S], int32 or int64; None: all are of segment 0.
        """
        words = self.bert.embeddings.word_embeddings.weight
        rows, words = TiedRows.apply(words, input_ids)
        hidden = self.bert(rows, attention_mask, segment_ids)
        masked = hidden.view(-1, hidden.shape[-1]).index_select(0, masked_index)
        logits: Tensor = self.cls["predictions"](masked, words)
        return logits


class Bert(nn.Module):
    """Embeddings, encoder and, if asked for, a pooler (which the MLM loss leaves unused)."""

    def __init__(self, config: BertConfig, attention: Attention) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        layers = [Layer(config, attention) for _ in range(config.size.layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})
        if config.pooler:
            dense = nn.Linear(config.size.hidden, config.size.hidden)
            self.pooler = nn.ModuleDict({"dense": dense})

    def forward(self, rows: Tensor, mask: Tensor | None, segment_ids: Tensor | None) -> Tensor:
        """Encode word embeddings [B, S, h] to hidden states [B, S, h]."""
        hidden: Tensor = self.embeddings(rows, segment_ids)
        for layer in self.encoder["layer"]:
            hidden = layer(hidden, mask)
        return hidden
