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
