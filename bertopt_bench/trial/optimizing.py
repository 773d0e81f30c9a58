"""Build a cell's optimizer: roles to groups, decay to where it belongs, the schedule's multipliers.

Decay that the optimizer has an argument for goes there. Where it has none the harness applies it in
a step pre-hook, as torch does inside its own steps: decoupled ``p *= 1 - lr * weight_decay``
(torch.optim.AdamW), coupled ``grad += l2 * p`` (torch.optim.Adam). A step that an fp16 scaler skips
decays nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

DECAYS = ("weight_decay", "l2")


def build_optimizer(
    entry: Callable[..., torch.optim.Optimizer],
    accepts: frozenset[str],
    groups: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
    decay: Mapping[str, float],
) -> torch.optim.Optimizer:
    """Call the entry on fresh group dictionaries and hook in the decay it cannot do itself.

    Raises:
        UserError: decay is asked for by the optimizer's options and by a regularizer.
    """
    own = {key: value for key, value in decay.items() if key in accepts}
    for key in DECAYS:
        if options.get(key) and decay.get(key):
            raise UserError(
                f"{key} is set by the optimizer ({options[key]}) and by a regularizer "
                f"({decay[key]}). Keep one of them; decay is the regularizer axis'."
            )
    tuples = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
    optimizer = entry([dict(group) for group in groups], **{**tuples, **own})
    for group in optimizer.param_groups:
        group["initial_lr"] = float(group["lr"])
    foreign = {key: value for key, value in decay.items() if key not in accepts and value}
    if foreign:
        optimizer.register_step_pre_hook(_decay_hook(foreign))
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, multiplier: float) -> None:
    """Set every group's rate for the next step; one that a graph reads is filled in place."""
    for group in optimizer.param_groups:
        rate = group["initial_lr"] * multiplier
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


class InPlaceReset:
    """Puts an optimizer back to its start without touching where its tensors lie.

    ``initial`` gives the value that each tensor of a weight's state begins with, by its name. What
    groups hold is put back to what it was when this was made.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, initial: Mapping[str, float]) -> None:
        self.optimizer, self.initial = optimizer, initial
        self.groups = [_without_parameters(group) for group in optimizer.param_groups]

    def __call__(self) -> None:
        """Reset.

        Raises:
            UserError: the state has something that no initial value is declared for.
        """
        for state in self.optimizer.state.values():
            for name, value in state.items():
                if name not in self.initial or not isinstance(value, torch.Tensor):
                    declared = ", ".join(self.initial) or "nothing"
                    raise UserError(
                        f"the optimizer keeps '{name}' for each weight, and declares {declared}; "
                        "add it to 'Initial:' in the docstring, as a tensor's first value, or "
                        "take an optimizer_step that is neither compiled nor captured."
                    )
                value.fill_(self.initial[name])
        for group, kept in zip(self.optimizer.param_groups, self.groups, strict=True):
            for name in group.keys() - kept.keys() - {"params"}:
                del group[name]
            group.update(kept)


def _without_parameters(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def initial_values(note: str, options: Mapping[str, Any]) -> dict[str, float]:
    """Read a docstring's 'Initial:' line: ``step 0, sum initial_accumulator_value`` or ``nothing``.

    A word in place of a number is an option of the entry.

    Raises:
        UserError: it is written otherwise.
    """
    text = note.strip().rstrip(".")
    values: dict[str, float] = {}
    for part in [] if text == "nothing" else text.split(","):
        name, _, value = part.strip().partition(" ")
        try:
            values[name] = float(options.get(value, value))
        except ValueError:
            raise UserError(
                f"the optimizer's docstring says 'Initial: {note}'; it must be pairs of a name and "
                "a number or option, as 'step 0, exp_avg 0', or 'nothing'."
            ) from None
    return values


def _decay_hook(decay: Mapping[str, float]) -> Callable[..., None]:
    """Give a step pre-hook that decays everything but vectors."""

    @torch.no_grad()
    def hook(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        found_inf = getattr(optimizer, "found_inf", None)  # set by GradScaler for fused steps
        keep = 1.0 if found_inf is None else 1.0 - found_inf
        for group in optimizer.param_groups:
            if group["role"] == "vector":
                continue
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if decay.get("weight_decay"):
                    parameter.mul_(1 - group["lr"] * decay["weight_decay"] * keep)
                if decay.get("l2"):
                    parameter.grad.add_(parameter, alpha=decay["l2"])

    return hook


def multipliers(schedule: Callable[[int], float], steps: int) -> list[float]:
    """Evaluate a schedule at every step beforehand, so that the loop only looks up.

    Raises:
        UserError: a multiplier is negative or not finite.
    """
    values = [float(schedule(step)) for step in range(steps)]
    for step, value in enumerate(values):
        if not math.isfinite(value) or value < 0:
            raise UserError(f"the schedule gives {value} at step {step}; it must be 0 or more.")
    return values
