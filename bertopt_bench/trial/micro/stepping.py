"""The optimizer's step alone: AdamW's on one flat tensor, on BERT's tensors, on many small ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bertopt_bench.trial.micro import checking
from bertopt_bench.trial.micro.implementations import Implementation, find_optimizer
from bertopt_bench.trial.micro.opened import Opened
from bertopt_bench.workload.model import BertConfig, BertForMaskedLM
from bertopt_bench.workload.operation_work import bert_like

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SETTINGS: Mapping[str, Any] = {
    "lr": 1e-3,
    "betas": (0.9, 0.999),
    "eps": 1e-8,
    "weight_decay": 0.01,
}
SMALL_TENSOR = 1024
CHECKED_STEPS = 3
"""Steps of the check; the state after them is what every batch of calls begins from."""


def shapes_of(options: Mapping[str, Any]) -> list[torch.Size]:
    """Give the shapes of the parameters: those of BERT-base at a hidden size, or as many in all.

    ``bert`` is the real mix (768 is BERT-base itself; narrower, the vocabulary shrinks alike),
    ``flat`` one tensor, ``small`` tensors of 1,024 elements, the last one with what is left.
    """
    shapes = bert_shapes(options["hidden_size"])
    total = sum(shape.numel() for shape in shapes)
    if options["mix"] == "flat":
        return [torch.Size([total])]
    if options["mix"] == "small":
        whole, left = divmod(total, SMALL_TENSOR)
        sizes = [SMALL_TENSOR] * whole + ([left] if left else [])
        return [torch.Size([size]) for size in sizes]
    return shapes


def bert_shapes(hidden: int) -> list[torch.Size]:
    """Give the parameters' shapes of a BERT as deep as base, with so large a hidden size."""
    size, vocabulary = bert_like(hidden)
    with torch.device("meta"):
        model = BertForMaskedLM(BertConfig(vocabulary_size=vocabulary, size=size))
    return [parameter.shape for parameter in model.parameters()]


def open_steps(
    name: str,
    options: Mapping[str, Any],
    device: Any,
    generator: torch.Generator,
    slots: int,
) -> Opened:
    """Make an optimizer a slot, check their steps against float64, take snapshots.

    Raises:
        UserError: an optimizer that cannot be imported or made, or whose steps are not AdamW's.
    """
    dtype, found = getattr(torch, options["dtype"]), find_optimizer(name)
    shapes = shapes_of(options)
    drawn = {
        "weights": [torch.randn(shape, generator=generator) for shape in shapes],
        "gradients": [0.1 * torch.randn(shape, generator=generator) for shape in shapes],
    }
    weights, gradients = (
        [one.to(device.torch_device, dtype) for one in tensors] for tensors in drawn.values()
    )
    made = [_Slot(found, weights, gradients) for _ in range(slots)]
    steps = _Steps(found, made, _Check(weights, gradients, dtype, f"optimizer_step '{name}'"))
    return Opened(
        calls=[slot.call for slot in made],
        context=found.context,
        errors=steps.checked(),
        inputs={key: torch.cat([x.flatten() for x in one]) for key, one in drawn.items()},
        implementation=found,
        check_again=steps.check_again,
        restore=steps.restore,
        finite=lambda: all(slot.finite() for slot in made),
    )


@dataclass(frozen=True, slots=True)
class _Steps:
    """The slots of an optimizer, which are checked, kept, and put back."""

    found: Implementation
    made: Sequence[_Slot]
    check: _Check

    def checked(self) -> checking.Errors:
        """Step all slots, compare the first one with float64, remember all of them."""
        with self.found.context():
            for slot in self.made:
                slot.check_steps()
        errors = self.check(self.made[0], CHECKED_STEPS)
        for slot in self.made:
            slot.keep()
        return errors

    def restore(self) -> None:
        """Put every slot back."""
        for slot in self.made:
            slot.restore()

    def check_again(self) -> None:
        """Compare the first slot's next step, once put back.

        Raises:
            WrongResultError: it keeps what cannot be put back.
        """
        self.restore()
        with self.found.context():
            self.made[0].call()
        try:
            self.check(self.made[0], CHECKED_STEPS + 1)
        except checking.WrongResultError as error:
            raise checking.after_timing(error) from error


@dataclass(frozen=True, slots=True)
class _Check:
    """Compares the change that steps made, and that of torch's loop, with float64."""

    weights: Sequence[Tensor]
    gradients: Sequence[Tensor]
    dtype: torch.dtype
    who: str

    def __call__(self, slot: _Slot, steps: int) -> checking.Errors:
        """Compare a slot's parameters after so many steps in all."""
        loop = Implementation(torch.optim.AdamW, options={"foreach": False})
        own = _Slot(loop, self.weights, self.gradients)
        for _ in range(steps):
            own.call()
        start = _flat(self.weights)
        exact = _exact_steps(start, _flat(self.gradients), steps)
        found, usual, right = (
            {"change of the parameters": flat - start} for flat in (slot.flat(), own.flat(), exact)
        )
        return checking.compare(found, usual, right, self.dtype, self.who)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    """Give tensors as one of float64."""
    return torch.cat([one.detach().double().flatten() for one in tensors])


def _exact_steps(start: Tensor, gradient: Tensor, steps: int) -> Tensor:
    """Step as AdamW does, by its formulas, on one flat float64 tensor."""
    lr, eps, decay = SETTINGS["lr"], SETTINGS["eps"], SETTINGS["weight_decay"]
    first, second = SETTINGS["betas"]
    weight = start.clone()
    mean, square = torch.zeros_like(start), torch.zeros_like(start)
    for step in range(1, steps + 1):
        mean = first * mean + (1 - first) * gradient
        square = second * square + (1 - second) * gradient**2
        unbiased = (square / (1 - second**step)).sqrt()
        weight = weight - lr * decay * weight
        weight = weight - lr * mean / (1 - first**step) / (unbiased + eps)
    return weight


def _places(root: dict[Any, Any]) -> list[dict[Any, Any] | list[Any]]:
    """Give every dict and list that can be reached, however deep, each once."""
    found: dict[int, dict[Any, Any] | list[Any]] = {}
    waiting: list[Any] = [root]
    while waiting:
        place = waiting.pop()
        if id(place) in found or not isinstance(place, dict | list):
            continue
        found[id(place)] = place
        waiting += place.values() if isinstance(place, dict) else place
    return list(found.values())


def _changing(place: dict[Any, Any] | list[Any]) -> dict[Any, Any] | list[Any]:
    """Copy what steps may replace: a list, or the tensors and plain numbers of a dict."""
    if isinstance(place, list):
        return list(place)
    kinds = Tensor | int | float | complex
    return {key: value for key, value in place.items() if isinstance(value, kinds)}


class _Slot:
    """One optimizer on parameters of its own."""

    def __init__(
        self,
        found: Implementation,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor],
    ) -> None:
        self.parameters = [torch.nn.Parameter(one.clone()) for one in weights]
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        self.optimizer = found.call(self.parameters, **SETTINGS, **found.options)
        if found.prepare is not None:
            found.prepare(self.optimizer)
        self.call: Callable[[], Any] = self.optimizer.step
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.places: list[tuple[Any, Any]] = []

    def flat(self) -> Tensor:
        """Give all parameters as one float64 tensor."""
        return _flat(self.parameters)

    def check_steps(self) -> None:
        """Take the steps that are checked."""
        for _ in range(CHECKED_STEPS):
            self.call()

    def keep(self) -> None:
        """Remember parameters and state: tensors, and plain numbers such as counters of steps."""
        self.places = [(place, _changing(place)) for place in _places(vars(self.optimizer))]
        held = [one.values() if isinstance(one, dict) else one for _, one in self.places]
        tensors: dict[int, Tensor] = {id(one): one for one in self.parameters}
        tensors |= {id(one): one for some in held for one in some if isinstance(one, Tensor)}
        self.kept = [(one.detach(), one.detach().clone()) for one in tensors.values()]

    def restore(self) -> None:
        """Put everything back in place."""
        for one, as_kept in self.kept:
            one.copy_(as_kept)
        for place, as_kept in self.places:
            if isinstance(place, list):
                place[:] = as_kept
            else:
                place.update(as_kept)

    def finite(self) -> bool:
        """Say whether all parameters are finite."""
        return bool(torch.isfinite(self.flat()).all())
