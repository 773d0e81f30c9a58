"""Functions put in the place of torch's within the network, and layers that are run again."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


class OwnLayerNorm(nn.LayerNorm):
    """A layer norm whose parameters are torch's and whose function is another."""

    def __init__(self, hidden: int, eps: float, compute: Callable[..., Tensor]) -> None:
        super().__init__(hidden, eps=eps)
        self.compute = compute

    def forward(self, hidden: Tensor) -> Tensor:
        """Norm hidden states [..., h].

        Raises:
            ValueError: the function gave another shape, which might broadcast unseen.
        """
        normed = self.compute(hidden, self.normalized_shape, self.weight, self.bias, self.eps)
        refuse_another_shape("layer norm", hidden, normed)
        return normed


def same_shape(name: str, compute: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Give the function, made to refuse a result of another shape."""

    def checked(hidden: Tensor) -> Tensor:
        result = compute(hidden)
        refuse_another_shape(name, hidden, result)
        return result

    return checked


def refuse_another_shape(name: str, given: Tensor, result: Tensor) -> None:
    """Refuse a result that has not the input's shape: it might broadcast unseen.

    Raises:
        ValueError: it has another.
    """
    if result.shape != given.shape:
        raise ValueError(
            f"the {name} gave shape {list(result.shape)} for an input of shape "
            f"{list(given.shape)}; it must keep the shape"
        )


def recompute(
    forward: Callable[..., Tensor],
    inputs: tuple[Any, ...],
    *,
    name: str,
    random: bool,
) -> Tensor:
    """Run a layer, keep its inputs only, and run it again in the backward pass.

    ``name`` is what a trace calls the second run. ``random`` keeps the random state as well, so
    that dropout drops the same again.
    """
    if not torch.is_grad_enabled():
        return forward(*inputs)
    named: dict[str, Any] = (
        {} if torch.compiler.is_compiling() else {"context_fn": partial(_name_the_second_run, name)}
    )
    output: Tensor = checkpoint(
        forward, *inputs, use_reentrant=False, preserve_rng_state=random, **named
    )
    return output


def _name_the_second_run(
    name: str,
) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return nullcontext(), torch.profiler.record_function(name)
