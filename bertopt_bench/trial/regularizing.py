"""Compose regularizers in order: merge their options, chain their hooks."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from bertopt_bench.trial.batches import Batch


@dataclass(slots=True)
class LossContext:
    """What a regularizer's ``loss`` hook may look at.

    ``forward`` runs the model once more on the batch, with new dropout, and gives the logits
    [M, V]; ``share`` is the micro-batch's part of the step: 1 / micro_batches.
    """

    model: torch.nn.Module
    batch: Batch
    groups: list[dict[str, Any]]
    forward: Callable[[], torch.Tensor]
    share: float


class Regularizers:
    """Several regularizers as one; hooks that none of them has cost nothing in the step.

    ``loss``, ``gradients`` and ``after_step`` are the bound hooks, in the matrix' order.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = parts
        self.loss = self._hooks("loss")
        self.gradients = self._hooks("gradients")
        self.after_step = self._hooks("after_step")

    def _hooks(self, name: str) -> list[Callable[..., Any]]:
        return [getattr(part, name) for part in self.parts if hasattr(part, name)]

    def _merged(self, name: str) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for options in (hook() for hook in self._hooks(name)):
            twice = merged.keys() & options.keys()
            if twice:
                raise UserError(
                    f"two regularizers set {', '.join(sorted(twice))}. Keep one of them."
                )
            merged |= options
        return merged

    def model_options(self) -> dict[str, Any]:
        """Merge what the model is built with (dropout shares)."""
        return self._merged("model_options")

    def criterion_options(self) -> dict[str, Any]:
        """Merge what the criterion is called with (label smoothing)."""
        return self._merged("criterion_options")

    def optimizer_options(self) -> dict[str, Any]:
        """Merge decay asked for: ``weight_decay`` (decoupled) and ``l2`` (coupled)."""
        return self._merged("optimizer_options")

    def state_tensors(self) -> list[torch.Tensor]:
        """Give the tensors that the parts hold between steps (averages)."""
        held: list[torch.Tensor] = []
        for part in self.parts:
            held += self.state_of(part)
        return held

    @staticmethod
    def state_of(part: Any) -> list[torch.Tensor]:
        """Give the tensors that a part holds; one that has made none yet, none."""
        return [t for value in getattr(part, "__dict__", {}).values() for t in _tensors(value)]

    @contextmanager
    def eval_weights(self) -> Iterator[None]:
        """Swap in the weights that are evaluated (EMA), and back."""
        with ExitStack() as stack:
            for hook in self._hooks("eval_weights"):
                stack.enter_context(hook())
            yield


def _tensors(value: Any) -> list[torch.Tensor]:
    """Find tensors in a value, also in lists and dictionaries."""
    if hasattr(value, "untyped_storage"):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in _tensors(part)]
    return []
