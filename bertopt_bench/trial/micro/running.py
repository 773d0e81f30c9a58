"""Operations of tensors: calls forwards, backwards or both, each on buffers of its own."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from bertopt_bench.axes.kernels._steps import beside
from bertopt_bench.matrix.micro import over_segments
from bertopt_bench.trial.micro import checking
from bertopt_bench.trial.micro.functions import FUNCTIONS, OVER_SEGMENTS, Function
from bertopt_bench.trial.micro.implementations import Implementation, find_function
from bertopt_bench.trial.micro.opened import Opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor


def open_runs(
    operation: str,
    name: str,
    options: Mapping[str, Any],
    device: Any,
    generator: torch.Generator,
    slots: int,
) -> Opened:
    """Draw the inputs, check output and gradients against float64, make a call a slot.

    Raises:
        UserError: an implementation that cannot be imported, or gives a wrong result.
    """
    segments = operation == "attention" and over_segments(name, options)
    spec = OVER_SEGMENTS if segments else FUNCTIONS[operation]
    found = find_function(operation, name, segments=segments)
    inputs = spec.draw(options, generator)
    who = f"{operation} '{name}'"
    run = _Run(who, spec, found, options, device, spec.arrange(inputs), generator)
    errors = run.checked()
    return Opened(run.calls(slots), run.context, errors, inputs, found, run.check_again)


class _Run:
    """An operation in a dtype and a direction; ``inputs`` are what no implementation ever gets."""

    def __init__(
        self,
        who: str,
        spec: Function,
        implementation: Implementation,
        options: Mapping[str, Any],
        device: Any,
        inputs: Mapping[str, Any],
        generator: torch.Generator,
    ) -> None:
        self.who, self.spec, self.implementation = who, spec, implementation
        self.called: list[Mapping[str, Any]] = []
        self.dtype: torch.dtype = getattr(torch, options["dtype"])
        self.direction, self.place = options["direction"], device.torch_device
        self.inputs = {name: self._cast(name, value) for name, value in inputs.items()}
        with torch.no_grad():
            out = spec.apply(spec.own, self.inputs)
        drawn = torch.randn(out.shape, generator=generator) if out.dim() else torch.ones(())
        like = self.inputs[spec.learned[0]]  # in the network a gradient lies as its input does
        laid = torch.empty_like(like if like.shape == out.shape else out, dtype=out.dtype)
        self.gradient = laid.copy_(drawn)

    @property
    def trains(self) -> bool:
        """Say whether gradients are asked for."""
        return bool(self.direction != "forward")

    @contextmanager
    def context(self) -> Iterator[None]:
        """Hold the kernel's context, and record no gradient where only forward is asked for."""
        with ExitStack() as stack:
            stack.enter_context(self.implementation.context())
            stack.enter_context(torch.set_grad_enabled(self.trains))
            yield

    def checked(self) -> checking.Errors:
        """Compare output and gradients with float64, and torch's own with it.

        The reference gets the inputs as the dtype has rounded them: only computing is at fault. An
        implementation works on copies, so that what it does to them is no part of the reference.
        """
        given, gradient = self._copied(), self.gradient.clone()
        with self.context():
            found = self._results(self.implementation.call, given, gradient)
        self._refuse_changed(given)
        if not torch.equal(gradient, self.gradient):
            raise checking.WrongResultError(f"{self.who} changes the gradient that comes in")
        with torch.set_grad_enabled(self.trains):
            own = self._results(self.spec.own, self.inputs, self.gradient)
            wide = {name: self._wide(value) for name, value in self.inputs.items()}
            exact = self._gathered(self.spec.exact(wide), wide, self.gradient)
        kinds = [str(one["output"].dtype).removeprefix("torch.") for one in (found, own)]
        if found["output"].dim() and kinds[0] != kinds[1]:  # a loss may be wider
            raise checking.WrongResultError(f"{self.who} gives {kinds[0]}, where torch {kinds[1]}")
        self.gradient = self.gradient.to(found["output"].dtype)
        return checking.compare(found, own, exact, self.dtype, self.who)

    def check_again(self) -> None:
        """Check what was timed: that calls left their inputs as they were, and are still right.

        Raises:
            WrongResultError: the implementation keeps something from call to call.
        """
        try:
            for inputs in self.called:
                self._refuse_changed(inputs)
            self.checked()
        except checking.WrongResultError as error:
            raise checking.after_timing(error) from error

    def _refuse_changed(self, inputs: Mapping[str, Any]) -> None:
        for name, value in self.inputs.items():
            if isinstance(value, torch.Tensor) and not torch.equal(value, inputs[name]):
                raise checking.WrongResultError(
                    f"{self.who} changes its input {name}: a second call would get another one. "
                    "Let it write into a tensor of its own."
                )

    def calls(self, slots: int) -> list[Callable[[], Any]]:
        """Make a call a slot, each on buffers of its own."""
        self.called = [self._copied() for _ in range(slots)]
        with self.context():
            return [self._call(inputs, self.gradient.clone()) for inputs in self.called]

    def _cast(self, name: str, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        dtype = self.dtype if value.is_floating_point() else value.dtype
        there = value.to(self.place, dtype)
        if there is value:  # what was drawn is hashed later, and stays as it is
            there = value.clone()
        return there.requires_grad_(name in self.spec.learned and self.trains)

    def _wide(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        return value.detach().double().requires_grad_(value.requires_grad)

    def _results(
        self, call: Callable[..., Tensor], inputs: Mapping[str, Any], gradient: Tensor
    ) -> dict[str, Tensor]:
        return self._gathered(self.spec.apply(call, inputs), inputs, gradient)

    def _gathered(self, out: Any, inputs: Mapping[str, Any], gradient: Tensor) -> dict[str, Tensor]:
        """Give the output, and the gradients where they are asked for, by name.

        What has none where one is due is left out, and refused as missing.
        """
        if not isinstance(out, torch.Tensor):
            raise checking.WrongResultError(
                f"{self.who} gives {type(out).__name__} where a tensor is due"
            )
        found = {"output": out.detach()}
        if not (self.trains and out.requires_grad) or out.shape != gradient.shape:
            return found
        learned = [inputs[name] for name in self.spec.learned]
        made = torch.autograd.grad(out, learned, gradient.to(out.dtype), allow_unused=True)
        gradients = zip(self.spec.learned, made, strict=True)
        return found | {f"gradient of {name}": one for name, one in gradients if one is not None}

    def _copied(self) -> dict[str, Any]:
        return {
            name: value.detach().clone().requires_grad_(value.requires_grad)
            if isinstance(value, torch.Tensor)
            else value
            for name, value in self.inputs.items()
        }

    def _call(self, inputs: Mapping[str, Any], gradient: Tensor) -> Callable[[], Any]:
        apply, call = self.spec.apply, self.implementation.call
        learned = [inputs[name] for name in self.spec.learned]
        if not self.trains:
            return lambda: apply(call, inputs)
        if self.direction == "both":
            return lambda: torch.autograd.grad(apply(call, inputs), learned, gradient)

        def forward() -> Tensor:
            out: Tensor = apply(call, inputs)
            return out

        out = beside(forward) if gradient.is_cuda else forward()
        return lambda: torch.autograd.grad(out, learned, gradient, retain_graph=True)
