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
    run = _Run(spec, found, options, device, spec.arrange(inputs), generator)
    errors = run.checked(f"{operation} '{name}'")
    return Opened(run.calls(slots), run.context, errors, inputs, found)


class _Run:
    """An operation in a dtype and a direction."""

    def __init__(
        self,
        spec: Function,
        implementation: Implementation,
        options: Mapping[str, Any],
        device: Any,
        inputs: Mapping[str, Any],
        generator: torch.Generator,
    ) -> None:
        self.spec, self.implementation = spec, implementation
        self.dtype: torch.dtype = getattr(torch, options["dtype"])
        self.direction, self.place = options["direction"], device.torch_device
        self.inputs = {name: self._cast(name, value) for name, value in inputs.items()}
        with torch.no_grad():
            out = spec.apply(spec.own, self.inputs)
        drawn = torch.randn(out.shape, generator=generator) if out.dim() else torch.ones(())
        self.gradient = drawn.to(self.place, out.dtype)

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

    def checked(self, who: str) -> checking.Errors:
        """Compare output and gradients with float64, and torch's own with it.

        The reference gets the inputs as the dtype has rounded them: only computing is at fault.
        """
        with self.context():
            found = self._results(self.implementation.call, self.inputs)
        with torch.set_grad_enabled(self.trains):
            own = self._results(self.spec.own, self.inputs)
            wide = {name: self._wide(value) for name, value in self.inputs.items()}
            exact = self._gathered(self.spec.exact(wide), wide)
        self.gradient = self.gradient.to(found["output"].dtype)
        return checking.compare(found, own, exact, self.dtype, who)

    def calls(self, slots: int) -> list[Callable[[], Any]]:
        """Make a call a slot, each on buffers of its own."""
        with self.context():
            made = [self._call(self.inputs, self.gradient)]
            made += [self._call(self._copied(), self.gradient.clone()) for _ in range(slots - 1)]
        return made

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

    def _results(self, call: Callable[..., Tensor], inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        return self._gathered(self.spec.apply(call, inputs), inputs)

    def _gathered(self, out: Tensor, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Give the output, and the gradients where they are asked for, by name."""
        if not self.trains:
            return {"output": out.detach()}
        learned = [inputs[name] for name in self.spec.learned]
        gradient = self.gradient.to(out.dtype)
        if out.shape != gradient.shape:
            return {"output": out.detach()}  # compared next, and refused
        found = torch.autograd.grad(out, learned, gradient)
        gradients = {
            f"gradient of {name}": one for name, one in zip(self.spec.learned, found, strict=True)
        }
        return {"output": out.detach(), **gradients}

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
