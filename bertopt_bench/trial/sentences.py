"""Next-sentence prediction in a trial: its loss beside the masked words', its held-out figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


def summed_loss(relation: Tensor, labels: Tensor) -> Tensor:
    """Sum the cross entropy of pairs: logits [b, 2], in fp32 at least, and labels [b]."""
    wide = relation if relation.dtype == torch.float64 else relation.float()
    return functional.cross_entropy(wide, labels, reduction="sum")


@dataclass(slots=True)
class Tally:
    """Adds up the pairs of an evaluation, on the device; no pairs give None."""

    loss: Tensor | None = None
    correct: Tensor | None = None
    pairs: int = 0

    def add(self, relation: Tensor, labels: Tensor) -> None:
        """Count one micro-batch."""
        loss = summed_loss(relation, labels).double()
        correct = (relation.argmax(dim=-1) == labels).sum()
        self.loss = loss if self.loss is None else self.loss + loss
        self.correct = correct if self.correct is None else self.correct + correct
        self.pairs += len(labels)

    def mean_loss(self) -> float | None:
        """Give the loss a pair."""
        return None if self.loss is None else self.loss.item() / self.pairs

    def accuracy(self) -> float | None:
        """Give the share of pairs that were told right."""
        return None if self.correct is None else self.correct.item() / self.pairs
