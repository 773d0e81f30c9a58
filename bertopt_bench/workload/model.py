"""BERT for masked-language modelling in plain torch, its head computed on masked positions only.

Source: Devlin et al., arXiv 1810.04805; sinusoidal positions: Vaswani et al., arXiv 1706.03762,
section 3.5. Modules carry the names of Hugging Face's ``BertForMaskedLM``, so that a ``state_dict``
is a checkpoint of that format.

Shapes: B sequences, S slots a sequence, T flat slots of sequences without padding between, h hidden
size, M masked slots in the batch, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.workload.ragged import Ragged, attend_within
from bertopt_bench.workload.replaced import OwnLayerNorm, recompute, same_shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from bertopt_bench.workload.formulas import ModelSize

    Attention = Callable[..., Tensor]  # of scaled_dot_product_attention's signature
    Norm = Callable[..., Tensor]  # of torch.nn.functional.layer_norm's signature
    Activation = Callable[[Tensor], Tensor]
    Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # hidden, words, bias, labels: a sum

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

    ``attention`` replaces ``scaled_dot_product_attention``, ``layer_norm`` and ``gelu`` what is
    called so, everywhere; each has the signature of what it replaces. ``mlm_loss`` computes decoder
    and cross entropy of what the head's transform gives, where labels are given. None of them
    changes a parameter. ``recompute`` keeps the inputs of encoder layers only,
    and is what a trace calls a layer that is run again.
    """

    def __init__(
        self,
        config: BertConfig,
        *,
        attention: Attention | None = None,
        layer_norm: Norm | None = None,
        gelu: Activation | None = None,
        mlm_loss: Loss | None = None,
        recompute: str = "",
    ) -> None:
        super().__init__()
        self.config = config
        attend = attention or functional.scaled_dot_product_attention
        activate = functional.gelu if gelu is None else same_shape("GELU", gelu)
        kind = partial(RecomputedLayer, recompute) if recompute else Layer
        self.bert = Bert(config, attend, layer_norm, activate, kind)
        self.cls = nn.ModuleDict({"predictions": Predictions(config, layer_norm, activate)})
        self.mlm_loss = mlm_loss

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | Ragged | None,
        masked_index: Tensor | None,
        segment_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Give the logits [M, V] of the masked slots; with labels [M] the summed loss instead.

        Args:
            input_ids: [B, S], int32 or int64; [T] where the mask is ``Ragged``.
            attention_mask: bool [B, 1, 1, S], True where a slot is no padding; None: none is;
                ``Ragged``: T flat slots, and what lies in them.
            masked_index: [M] int64, each a flat index into B*S or T; None: all slots.
            segment_ids: [B, S] or [T], int32 or int64; None: all are of segment 0.
            labels: [M] int64, -100 where a slot does not count; only where ``mlm_loss`` is given.
        """
        hidden = self.bert(input_ids, attention_mask, segment_ids)
        masked = hidden.view(-1, hidden.shape[-1])
        if masked_index is not None:
            masked = masked.index_select(0, masked_index)
        words = self.bert.embeddings.word_embeddings.weight
        head = self.cls["predictions"]
        assert isinstance(head, Predictions)
        if labels is None or self.mlm_loss is None:
            logits: Tensor = head(masked, words)
            return logits
        return self.mlm_loss(head.transformed(masked), words, head.bias, labels)


class Bert(nn.Module):
    """Embeddings, encoder and, if asked for, a pooler (which the MLM loss leaves unused)."""

    def __init__(
        self,
        config: BertConfig,
        attention: Attention,
        norm: Norm | None,
        gelu: Activation,
        kind: Callable[..., Layer],
    ) -> None:
        super().__init__()
        self.embeddings = Embeddings(config, norm)
        layers = [kind(config, attention, norm, gelu) for _ in range(config.size.layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})
        if config.pooler:
            dense = nn.Linear(config.size.hidden, config.size.hidden)
            self.pooler = nn.ModuleDict({"dense": dense})

    def forward(
        self, input_ids: Tensor, mask: Tensor | Ragged | None, segments: Tensor | None
    ) -> Tensor:
        """Encode tokens [B, S] to hidden states [B, S, h], or [T] to [T, h]."""
        ragged = mask if isinstance(mask, Ragged) else None
        hidden: Tensor = self.embeddings(input_ids, segments, ragged)
        layers = self.encoder["layer"]
        assert isinstance(layers, nn.ModuleList)
        for layer in layers:
            hidden = layer(hidden, mask)
        return hidden


class Embeddings(nn.Module):
    """Sum of word, position and segment embeddings, normed."""

    def __init__(self, config: BertConfig, norm: Norm | None) -> None:
        super().__init__()
        size = config.size
        self.word_embeddings = nn.Embedding(config.vocabulary_size, size.hidden)
        if config.position_embedding == "learned":
            self.position_embeddings = nn.Embedding(size.positions, size.hidden)
        else:
            table = sinusoids(size.positions, size.hidden)
            self.register_buffer("sinusoids", table, persistent=False)
        self.token_type_embeddings = nn.Embedding(size.segments, size.hidden)
        self.LayerNorm = _layer_norm(config, norm)
        self.dropout = config.dropout

    def forward(
        self, input_ids: Tensor, segments: Tensor | None, ragged: Ragged | None = None
    ) -> Tensor:
        """Embed tokens [B, S] as [B, S, h], or [T] as [T, h]."""
        positions = self._positions()
        seq_len = input_ids.shape[1] if ragged is None else ragged.longest
        if seq_len > positions.shape[0]:
            raise ValueError(f"{seq_len} slots a sequence, but {positions.shape[0]} positions")
        constant = positions[:seq_len]
        segment_table = self.token_type_embeddings.weight
        if segments is None:
            constant = constant + segment_table[0]
        if ragged is not None:
            constant = functional.embedding(ragged.position_ids, constant)
        if segments is not None:
            constant = constant + functional.embedding(segments, segment_table)
        hidden = self.LayerNorm(self.word_embeddings(input_ids) + constant)
        return _dropout(hidden, self.dropout, training=self.training)

    def _positions(self) -> Tensor:
        learned = getattr(self, "position_embeddings", None)
        table: Tensor = self.get_buffer("sinusoids") if learned is None else learned.weight
        return table


class Layer(nn.Module):
    """A post-norm encoder layer."""

    def __init__(
        self, config: BertConfig, attention: Attention, norm: Norm | None, gelu: Activation
    ) -> None:
        super().__init__()
        hidden, inner = config.size.hidden, config.size.intermediate
        self.attention = nn.ModuleDict(
            {"self": SelfAttention(config, attention), "output": AddNorm(config, hidden, norm)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(hidden, inner)})
        self.output = AddNorm(config, inner, norm)
        self.gelu = gelu

    def forward(self, hidden: Tensor, mask: Tensor | Ragged | None) -> Tensor:
        """Transform hidden states [B, S, h], or [T, h]."""
        hidden = self.attention["output"](self.attention["self"](hidden, mask), hidden)
        inner = self.gelu(self.intermediate["dense"](hidden))
        output: Tensor = self.output(inner, hidden)
        return output


class RecomputedLayer(Layer):
    """A layer of which only the inputs are kept: its backward pass runs it again."""

    def __init__(self, name: str, config: BertConfig, *parts: Any) -> None:
        super().__init__(config, *parts)
        self.name = name
        self.random = bool(config.dropout or config.attention_dropout)

    def forward(self, *inputs: Any) -> Tensor:
        """Transform hidden states as a layer does."""
        return recompute(super().forward, inputs, name=self.name, random=self.random)


class SelfAttention(nn.Module):
    """Multi-head self-attention, without the output projection."""

    def __init__(self, config: BertConfig, attention: Attention) -> None:
        super().__init__()
        hidden = config.size.hidden
        self.heads, self.head_size = config.size.heads, config.size.head_size
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.attend, self.dropout = attention, config.attention_dropout

    def forward(self, hidden: Tensor, mask: Tensor | Ragged | None) -> Tensor:
        """Mix hidden states [B, S, h] over S, or [T, h] within each sequence."""
        dropout = self.dropout if self.training else 0.0
        if isinstance(mask, Ragged):
            query, key, value = (
                project(hidden).view(-1, self.heads, self.head_size)
                for project in (self.query, self.key, self.value)
            )
            return attend_within(mask, self.attend, query, key, value, dropout)
        shape = (*hidden.shape[:2], self.heads, self.head_size)
        query, key, value = (
            project(hidden).view(shape).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        mixed = self.attend(query, key, value, attn_mask=mask, dropout_p=dropout)
        return mixed.transpose(1, 2).flatten(2)


class AddNorm(nn.Module):
    """A projection to h, added to the residual and normed."""

    def __init__(self, config: BertConfig, inputs: int, norm: Norm | None) -> None:
        super().__init__()
        hidden = config.size.hidden
        self.dense = nn.Linear(inputs, hidden)
        self.LayerNorm = _layer_norm(config, norm)
        self.dropout = config.dropout

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        """Give the normed sum [B, S, h]."""
        projected = _dropout(self.dense(inner), self.dropout, training=self.training)
        normed: Tensor = self.LayerNorm(projected + residual)
        return normed


class Predictions(nn.Module):
    """The MLM head: a transform, then the tied decoder with a bias of its own."""

    def __init__(self, config: BertConfig, norm: Norm | None, gelu: Activation) -> None:
        super().__init__()
        hidden = config.size.hidden
        self.gelu = gelu
        self.transform = nn.ModuleDict(
            {"dense": nn.Linear(hidden, hidden), "LayerNorm": _layer_norm(config, norm)}
        )
        self.bias = nn.Parameter(torch.zeros(config.vocabulary_size))

    def forward(self, masked: Tensor, words: Tensor) -> Tensor:
        """Give logits [M, V] of hidden states [M, h] and the word embeddings [V, h]."""
        return functional.linear(self.transformed(masked), words, self.bias)

    def transformed(self, masked: Tensor) -> Tensor:
        """Give what the decoder is multiplied with, [M, h]."""
        hidden: Tensor = self.transform["LayerNorm"](self.gelu(self.transform["dense"](masked)))
        return hidden


def sinusoids(positions: int, hidden: int) -> Tensor:
    """Give the fixed position table [P, h]: sines in even columns, cosines in odd ones."""
    even = torch.arange(0, hidden, 2, dtype=torch.float64)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * torch.exp(
        even * (-math.log(10_000.0) / hidden)
    )
    table = torch.empty(positions, hidden, dtype=torch.float64)
    table[:, 0::2] = angles.sin()
    table[:, 1::2] = angles.cos()[:, : hidden // 2]
    return table.float()


@torch.no_grad()
def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Draw matrices and embeddings from N(0, 0.02), in their order; norms to 1, biases to 0."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, INITIAL_STD, generator=generator)
        else:
            parameter.fill_(1.0 if name.endswith("LayerNorm.weight") else 0.0)


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Group the parameters by role: ``matrix``, ``embedding``, ``head``, ``vector``.

    Each group is ``{"params", "names", "role"}``; a tied weight comes once, as an embedding.
    """
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        role = _role(name, parameter)
        group = groups.setdefault(role, {"params": [], "names": [], "role": role})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def _role(name: str, parameter: Tensor) -> str:
    if parameter.ndim < 2:
        return "vector"
    if ".embeddings." in name:
        return "embedding"
    return "matrix" if ".encoder." in name else "head"


def _layer_norm(config: BertConfig, norm: Norm | None) -> nn.LayerNorm:
    if norm is None:
        return nn.LayerNorm(config.size.hidden, eps=config.layer_norm_eps)
    return OwnLayerNorm(config.size.hidden, config.layer_norm_eps, norm)


def _dropout(hidden: Tensor, rate: float, *, training: bool) -> Tensor:
    """Drop out, and issue nothing at all where the rate is 0."""
    return functional.dropout(hidden, rate) if rate and training else hidden
