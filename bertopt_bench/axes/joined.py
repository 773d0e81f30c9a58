"""Several optimizers as one. Imports torch: only an entry that is being called imports this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Joined(torch.optim.Optimizer):
    """Optimizers over disjoint weights, stepped one after the other.

    Groups and state are the parts' own objects, so that a schedule, a scaler and a checkpoint
    that know only this optimizer reach all of them.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = tuple(parts)
        for part in self.parts:
            part.state = self.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every part; give what the closure gave."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load, then hand the parts their share of the new groups and the new state."""
        super().load_state_dict(state_dict)
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state


def join(
    *parts: tuple[type[torch.optim.Optimizer], Sequence[dict[str, Any]], dict[str, Any]],
) -> Joined:
    """Join optimizers made of a class, groups and options; one without groups is left out."""
    return Joined([make(list(groups), **options) for make, groups, options in parts if groups])
