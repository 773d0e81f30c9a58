"""Look into a network while it trains: norms by module, at a few steps of a second training.

The trial is put back to its start and trained again, untimed, after the timed training has ended
and its figures were taken: the timed one knows nothing of it, and what the second one adds to a
step (copies of weights, a forward pass more) changes no number of it. Its losses are compared with
the timed ones, and the record says whether they agree.

A module is what ``module_of`` names: the embeddings, a layer's attention, intermediate and output,
the head, the pooler. Norms are Euclidean, over all parameters of the module. The activation norm
is the root mean square, over tokens, of the norm of what goes into the module's layer norm: behind
it all tokens have nearly the same. A module without one (a layer's intermediate, the pooler) gives
what its product gives.
"""

from __future__ import annotations

import math
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import torch

from bertopt_bench.trial.passes import step_in_phases

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bertopt_bench.trial.live import Trial

BEFORE_THE_END = 6  # steps up to a divergence that are all looked at
MOST_OF_THE_TIME = 0.9  # of timing.timeout_seconds: the look ends before the trial is killed
DIGITS = 6  # of a stored norm

_LAYER = re.compile(r"\.layer\.(\d+)\.(attention|intermediate|output)\.")
_OTHERS = {
    ".embeddings.": "embeddings",
    "predictions.": "head",
    "classifier.": "head",
    "seq_relationship.": "next sentence",
    "": "pooler",
}


def module_of(name: str) -> str:
    """Name the module of a parameter or submodule; layers count from 0.

    >>> module_of("bert.encoder.layer.3.attention.self.query.weight")
    'layer 3 attention'
    """
    found = _LAYER.search(name)
    if found:
        return f"layer {found[1]} {found[2]}"
    return next(module for part, module in _OTHERS.items() if part in name)


def steps_to_look_at(steps: int, count: int, diverged: int | None) -> list[int]:
    """Choose steps, counted from 1: first, last and some between; all of the last before a fall.

    >>> steps_to_look_at(100, 3, None)
    [1, 50, 100]
    """
    last = steps if diverged is None else diverged
    spread = [1 + round(i * (last - 1) / max(1, count - 1)) for i in range(count)]
    near = range(max(1, last - BEFORE_THE_END + 1), last + 1) if diverged is not None else ()
    return sorted({*spread, *near})


@dataclass(slots=True)
class Look:
    """What was seen, a row a step with a value a module."""

    modules: list[str]
    steps: list[int] = field(default_factory=list)
    gradient_norm: list[list[float]] = field(default_factory=list)
    weight_norm: list[list[float]] = field(default_factory=list)
    update_ratio: list[list[float]] = field(default_factory=list)
    activation_norm: list[list[float]] = field(default_factory=list)

    def fields(self) -> dict[str, Any]:
        """Give itself as a record's field."""
        return {name: getattr(self, name) for name in Look.__slots__}


def look_inside(
    trial: Trial, losses: Sequence[float], count: int, *, diverged: int | None, deadline_ns: int
) -> dict[str, Any]:
    """Train again from the start and look; give the record's field ``inside``.

    Args:
        trial: one that has trained; it is restored first, and closed by nobody here.
        losses: those of the timed training.
        count: at how many steps to look, spread over the training.
        diverged: the step, counted from 1, at which the timed training ended, if it did not end ok.
        deadline_ns: on the monotonic clock; what was seen until then is kept.
    """
    if not losses:
        return {"reason": "nothing was trained"}
    trial.restore()
    due = steps_to_look_at(len(losses), count, min(diverged or 0, len(losses)) or None)
    look = Look(list(by_module(trial.model)))
    why = ""
    for step in range(1, due[-1] + 1):
        if monotonic_ns() > deadline_ns:
            why = f"ended before step {step}: timing.timeout_seconds was nearly spent"
            break
        if step in due:
            _note(look, step, observe_step(trial, step - 1))
        else:
            trial.step(step - 1)
    again = trial.drain()
    return {**look.fields(), "same_losses": same(again, losses[: len(again)]), "reason": why}


def deadline(request: Mapping[str, Any]) -> int:
    """Give the moment at which a look must end so that the trial is not killed for its time."""
    allowed = MOST_OF_THE_TIME * request["timing"]["timeout_seconds"]
    return int(request["dispatched_ns"] + allowed * 1e9)


def by_module(model: torch.nn.Module) -> dict[str, list[torch.nn.Parameter]]:
    """Give the trainable parameters of each module, in the order of the network."""
    found: dict[str, list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        found.setdefault(module_of(name), []).append(parameter)
    return found


def observe_step(trial: Trial, index: int) -> dict[str, dict[str, float]]:
    """Take a step in its parts and measure it; give each figure by module.

    The gradient is that of loss and penalties, unscaled, before a regularizer clips it.
    """
    parameters = by_module(trial.model)
    activations = _activations(trial, index)
    before = {name: [p.detach().clone() for p in group] for name, group in parameters.items()}
    gradients: dict[str, float] = {}

    def end(phase: str) -> None:
        if phase == "backward":  # of each micro-batch: the last one has the whole gradient
            scale = 1.0 if trial.scaler is None else trial.scaler.get_scale()
            gradients.update(
                (name, norm([p.grad for p in group if p.grad is not None]) / scale)
                for name, group in parameters.items()
            )

    step_in_phases(trial, index, end)
    weights = {name: norm(group) for name, group in before.items()}
    updates = {
        name: norm([p.detach() - old for p, old in zip(group, before[name], strict=True)])
        for name, group in parameters.items()
    }
    ratios = {name: _ratio(updates[name], weights[name]) for name in parameters}
    return {
        "gradient_norm": gradients,
        "weight_norm": weights,
        "update_ratio": ratios,
        "activation_norm": activations,
    }


@torch.no_grad()
def norm(tensors: Sequence[torch.Tensor]) -> float:
    """Give the Euclidean norm of all elements of some tensors together."""
    squares = [torch.linalg.vector_norm(t, dtype=torch.float64).square() for t in tensors]
    return float(torch.stack(squares).sum().sqrt()) if squares else math.nan


def same(one: Sequence[float], other: Sequence[float]) -> bool:
    """Say whether two lists of losses are equal, NaN with NaN."""
    pairs = zip(one, other, strict=True)
    return all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in pairs)


def _note(look: Look, step: int, seen: Mapping[str, Mapping[str, float]]) -> None:
    look.steps.append(step)
    for name, values in seen.items():
        row = [float(f"{values.get(m, math.nan):.{DIGITS}g}") for m in look.modules]
        getattr(look, name).append(row)


def _ratio(update: float, weight: float) -> float:
    return update / weight if weight else math.nan


def _activations(trial: Trial, index: int) -> dict[str, float]:
    """Run the first micro-batch forward once more, uncompiled, with the dropout of the step."""
    batch = trial.fetch(index, 0)
    state = trial.device.random_state()
    with torch.no_grad(), hooked(trial.model) as seen:
        trial.run(trial.model, batch, batch.masked_index)
    trial.device.set_random_state(state)
    return {name: float(value) for name, value in seen.items()}


@contextmanager
def hooked(model: torch.nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Collect the activation norm of each module while the network runs."""
    seen: dict[str, torch.Tensor] = {}
    normed = {
        module_of(name)
        for name, part in model.named_modules()
        if isinstance(part, torch.nn.LayerNorm)
    }
    handles = []
    for name, part in model.named_modules():
        module = module_of(f"{name}.")
        if isinstance(part, torch.nn.LayerNorm):

            def before(_: Any, given: Any, module: str = module) -> None:
                seen[module] = token_norm(given[0])

            handles.append(part.register_forward_pre_hook(before))
        elif isinstance(part, torch.nn.Linear) and module not in normed:

            def behind(_: Any, __: Any, given: torch.Tensor, module: str = module) -> None:
                seen[module] = token_norm(given)

            handles.append(part.register_forward_hook(behind))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def token_norm(hidden: torch.Tensor) -> torch.Tensor:
    """Give the root mean square, over tokens, of the norms of their vectors [..., h]."""
    tokens = hidden.numel() // hidden.shape[-1]
    size: torch.Tensor = torch.linalg.vector_norm(hidden, dtype=torch.float64)
    return size / math.sqrt(tokens)
