"""Open a case: an operation with its buffers, ready to be called over and over.

A slot is one set of buffers. Hot calls use one slot again and again; cold ones go round so many that
none is still in the last cache when its turn comes again.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from bertopt_bench.measure.machine import last_level_cache_bytes
from bertopt_bench.trial.assemble import derive_seed
from bertopt_bench.trial.micro import checking, stepping
from bertopt_bench.trial.micro.functions import FUNCTIONS, Function
from bertopt_bench.trial.micro.implementations import Implementation, find_function
from bertopt_bench.workload.operation_work import Work, buffer_bytes, operation_work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

ASSUMED_CACHE_BYTES = 64 * 2**20  # where the machine does not say
COLD_FACTOR = 4  # slots hold more than so many caches together
FLUSH_FACTOR = 2  # so many caches are written where there would be too many slots
MOST_SLOTS = 4096


@dataclass(slots=True)
class Case:
    """What is called and how it is put back.

    Attributes:
        calls: one a slot.
        restore: puts state that calls change back; None where none does.
        context: holds while calls run.
        errors: how exact the result was, checked before anything is timed.
        work: what a call must do.
        inputs_sha256: names the inputs, before they were cast.
        cache: how caches were kept hot or cold, in words and bytes.
        flush: overwrites the caches before each call; None where slots do it, or nothing.
        implementation: with what a trace must show.
        finite: says whether the state has stayed finite.
    """

    operation: str
    name: str
    options: Mapping[str, Any]
    calls: Sequence[Callable[[], Any]]
    restore: Callable[[], None] | None
    context: Callable[[], AbstractContextManager[Any]]
    errors: checking.Errors
    work: Work
    inputs_sha256: str
    cache: Mapping[str, Any]
    implementation: Implementation
    flush: Callable[[], Any] | None = None
    finite: Callable[[], bool] = field(default=lambda: True)
    parameters: int = 0


@dataclass(frozen=True, slots=True)
class Caching:
    """How many slots a case has, and whether the caches are flushed instead."""

    slots: int
    flush_bytes: int
    words: Mapping[str, Any]


def open_case(
    operation: str,
    implementation: str,
    options: Mapping[str, Any],
    device: Any,
    *,
    seed: int = 1,
    cache_bytes: int | None = None,
) -> Case:
    """Draw inputs, check the result against float64, and make the buffers.

    Args:
        operation: one of ``matrix.micro.OPERATIONS``.
        implementation: a name, or ``module:function``.
        options: all of the operation's options (``matrix.micro.read_options``).
        device: where it runs.
        seed: of the inputs.
        cache_bytes: the last cache's size; by default the machine's own.

    Raises:
        UserError: an implementation that cannot be imported, or gives a wrong result.
    """
    cache_bytes = cache_bytes or device_cache_bytes(device)
    generator = torch.Generator().manual_seed(derive_seed(seed, f"micro/{operation}"))
    if operation == "optimizer_step":
        shapes = stepping.shapes_of(options)
        parameters = sum(map(stepping.numel, shapes))
        caching = plan_caching(
            options["cache"], buffer_bytes(operation, options, parameters), cache_bytes
        )
        made = stepping.open_steps(implementation, options, device, shapes, generator, caching.slots)
        calls, restore, context = made.calls, made.restore, made.context
        errors, inputs, found, finite = made.errors, made.inputs, made.implementation, made.finite
    else:
        parameters, restore, finite = 0, None, lambda: True
        caching = plan_caching(options["cache"], buffer_bytes(operation, options), cache_bytes)
        spec, found = FUNCTIONS[operation], find_function(operation, implementation)
        inputs = spec.draw(options, generator)
        run = _Runs(spec, found, options, device, inputs, generator)
        errors = run.checked(f"{operation} '{implementation}'")
        context = run.context
        calls = run.calls(caching.slots)
    return Case(
        operation=operation,
        name=implementation,
        options=options,
        calls=calls,
        restore=restore,
        context=context,
        errors=errors,
        work=operation_work(operation, options, parameters),
        inputs_sha256=hash_inputs(inputs),
        cache={**caching.words, "cache_bytes": cache_bytes},
        implementation=found,
        flush=_flusher(caching.flush_bytes, device),
        finite=finite,
        parameters=parameters,
    )


def device_cache_bytes(device: Any) -> int:
    """Give the size of the last cache: the processor's, or the GPU's L2."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device.torch_device)
        return int(getattr(properties, "L2_cache_size", 0)) or ASSUMED_CACHE_BYTES
    return last_level_cache_bytes() or ASSUMED_CACHE_BYTES


def plan_caching(cache: str, slot_bytes: int, cache_bytes: int) -> Caching:
    """Choose one slot for hot calls; for cold ones so many that they exceed four caches.

    >>> plan_caching("cold", 100, 1000).slots
    41
    """
    if cache == "hot":
        return Caching(1, 0, {"cache": "hot", "slots": 1, "cache_words": "the same buffers again"})
    slots = COLD_FACTOR * cache_bytes // slot_bytes + 1
    if slots > MOST_SLOTS:
        flushed = FLUSH_FACTOR * cache_bytes
        words = f"{flushed} bytes written before each call, each timed alone"
        return Caching(1, flushed, {"cache": "cold", "slots": 1, "cache_words": words})
    words = f"{slots} sets of buffers in turn, {slots * slot_bytes} bytes together"
    return Caching(slots, 0, {"cache": "cold", "slots": slots, "cache_words": words})


def hash_inputs(inputs: Mapping[str, Any]) -> str:
    """Hash the inputs as they were drawn, in the order of their names."""
    digest = hashlib.sha256()
    for name, value in sorted(inputs.items()):
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            digest.update(value.contiguous().numpy().data)
    return digest.hexdigest()


def _flusher(size: int, device: Any) -> Callable[[], Any] | None:
    if not size:
        return None
    buffer = torch.zeros(size // 4, dtype=torch.float32, device=device.torch_device)
    return lambda: buffer.add_(1.0)


class _Runs:
    """An operation of tensors in a dtype and a direction."""

    def __init__(
        self,
        spec: Function,
        implementation: Implementation,
        options: Mapping[str, Any],
        device: Any,
        inputs: Mapping[str, Any],
        generator: torch.Generator,
    ) -> None:
        self.spec, self.implementation, self.direction = spec, implementation, options["direction"]
        self.dtype = getattr(torch, options["dtype"])
        self.device = device
        self.inputs = {name: self._cast(name, value) for name, value in inputs.items()}
        out = spec.apply(spec.own, self.inputs)
        drawn = torch.randn(out.shape, generator=generator) if out.dim() else torch.ones(())
        self.gradient = drawn.to(device.torch_device, out.dtype)

    def _cast(self, name: str, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        dtype = self.dtype if value.is_floating_point() else value.dtype
        there = value.to(self.device.torch_device, dtype)
        return there.requires_grad_(name in self.spec.learned and self.direction != "forward")

    @contextmanager
    def context(self) -> Iterator[None]:
        """Hold the kernel's context, and record no gradient where only forward is asked for."""
        with ExitStack() as stack:
            stack.enter_context(self.implementation.context())
            stack.enter_context(torch.set_grad_enabled(self.direction != "forward"))
            yield

    def checked(self, who: str) -> checking.Errors:
        """Compare output and gradients with float64."""
        with self.context():
            found = self._results(self.implementation.call, self.inputs, self.gradient)
        with torch.set_grad_enabled(self.direction != "forward"):
            own = self._results(self.spec.own, self.inputs, self.gradient)
            wide = {name: self._wide(name, value) for name, value in self.inputs.items()}
            exact = self._gathered(self.spec.exact(wide), wide, self.gradient.double())
        self.gradient = self.gradient.to(found["output"].dtype)
        return checking.compare(found, own, exact, self.dtype, who)

    def _wide(self, name: str, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        return value.detach().double().requires_grad_(value.requires_grad)

    def _results(
        self, call: Callable[..., Tensor], inputs: Mapping[str, Any], gradient: Tensor
    ) -> dict[str, Tensor]:
        return self._gathered(self.spec.apply(call, inputs), inputs, gradient)

    def _gathered(
        self, out: Tensor, inputs: Mapping[str, Any], gradient: Tensor
    ) -> dict[str, Tensor]:
        """Give the output, and the gradients where they are asked for, by name."""
        if self.direction == "forward":
            return {"output": out.detach()}
        learned = [inputs[name] for name in self.spec.learned]
        found = torch.autograd.grad(out, learned, gradient.reshape(out.shape).to(out.dtype))
        gradients = {
            f"gradient of {name}": one for name, one in zip(self.spec.learned, found, strict=True)
        }
        return {"output": out.detach(), **gradients}

    def calls(self, slots: int) -> list[Callable[[], Any]]:
        """Make a call a slot, each on buffers of its own."""
        made = [self._call(self.inputs, self.gradient)]
        made += [self._call(self._copied(), self.gradient.clone()) for _ in range(slots - 1)]
        return made

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
        if self.direction == "forward":
            return lambda: apply(call, inputs)
        if self.direction == "both":
            return lambda: torch.autograd.grad(apply(call, inputs), learned, gradient)
        with self.context():
            out = apply(call, inputs)
        return lambda: torch.autograd.grad(out, learned, gradient, retain_graph=True)
