"""Implementations of operations: built-in ones by name, a user's own as ``module:function``."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from bertopt_bench import catalogue
from bertopt_bench.axes.kernels import COMPILED as COMPILED_REGIONS
from bertopt_bench.axes.kernels import Kernel
from bertopt_bench.catalogue.outside import import_target
from bertopt_bench.trial.micro import functions
from bertopt_bench.workload.loss import decoded_cross_entropy
from bertopt_bench.workload.ragged import varlen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Context = Callable[[], AbstractContextManager[Any]]

COMPILED, COMPOSED = "compiled", "composed"


@dataclass(frozen=True, slots=True)
class Implementation:
    """What is called, within which context, and what a trace of it must show or must not.

    Of an optimizer ``call`` makes it, and ``prepare`` changes how it steps, in place.
    """

    call: Callable[..., Any]
    context: Context = nullcontext
    options: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[Any], None] | None = None
    expects: tuple[str, ...] = ()
    forbids: tuple[str, ...] = ()


def find_function(operation: str, name: str, *, segments: bool = False) -> Implementation:
    """Give an implementation of an operation of tensors: the kernel axis' entry of that name.

    Over ``segments`` attention is the entry's own form for them, or torch's. ``composed`` and
    ``compiled`` (layer norm, GELU) are the plain operations, as they are and made one by
    torch.compile.

    Raises:
        UserError: a user's own cannot be imported.
    """
    if ":" in name:
        call = import_target(f"micro {operation}", name)[1]
        return Implementation(_fitted(operation, call, Kernel()))
    if name in {COMPOSED, COMPILED}:
        return _composed(functions.COMPOSED[operation], compiled=name == COMPILED)
    kernel = catalogue.resolve(f"kernel.{operation}", name)()
    usual = _USUAL.get(operation, functions.FUNCTIONS[operation].own)
    call = getattr(kernel.call, "segments", varlen) if segments else kernel.call or usual
    return Implementation(
        _fitted(operation, call, kernel),
        kernel.context or nullcontext,
        expects=kernel.expects,
        forbids=kernel.forbids,
    )


_USUAL: Mapping[str, Callable[..., torch.Tensor]] = {"mlm_loss": decoded_cross_entropy}
"""What the workload calls where an entry replaces nothing, as far as it is not torch's own."""


def _fitted(
    operation: str, call: Callable[..., torch.Tensor], kernel: Kernel
) -> Callable[..., torch.Tensor]:
    """Let a loss see the slots that the workload would show it."""
    if operation != "mlm_loss":
        return call
    all_slots = kernel.options.get("all_slots", False)
    return functions.of_all_slots(call) if all_slots else functions.of_masked_slots(call)


def _composed(call: Callable[..., torch.Tensor], *, compiled: bool) -> Implementation:
    if not compiled:
        return Implementation(call)
    made = torch.compile(call, dynamic=False, fullgraph=True)
    return Implementation(made, _keeping_buffers, expects=COMPILED_REGIONS)


def find_optimizer(name: str) -> Implementation:
    """Give what makes an optimizer that steps as AdamW does, of parameters and keywords.

    Raises:
        UserError: a user's own cannot be imported.
    """
    if ":" in name:
        return Implementation(import_target("micro optimizer_step", name)[1])
    kernel = catalogue.resolve("kernel.optimizer_step", name)()
    return Implementation(
        torch.optim.AdamW,
        kernel.context or nullcontext,
        options=kernel.options,
        prepare=kernel.call,
        expects=kernel.expects,
        forbids=kernel.forbids,
    )


@contextmanager
def _keeping_buffers() -> Iterator[None]:
    """Let a compiled graph be run backwards again and again: it must not reuse what it saved."""
    from torch._functorch import config

    with ExitStack() as stack:
        patch: Any = config.patch  # put into the module at run time
        stack.enter_context(patch(donated_buffer=False))
        yield
