"""Implementations of operations: built-in ones by name, a user's own as ``module:function``."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from bertopt_bench import catalogue
from bertopt_bench.catalogue.outside import import_target
from bertopt_bench.trial.micro import functions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Context = Callable[[], AbstractContextManager[Any]]

_PLAIN: Mapping[tuple[str, str], Callable[..., torch.Tensor]] = {
    ("layer_norm", "default"): functions.FUNCTIONS["layer_norm"].own,
    ("layer_norm", "composed"): functions.composed_layer_norm,
    ("gelu", "default"): functions.FUNCTIONS["gelu"].own,
    ("gelu", "composed"): functions.composed_gelu,
    ("mlm_loss", "dense"): functions.dense_mlm_loss,
    ("mlm_loss", "sparse"): functions.sparse_mlm_loss,
}
COMPILED = "compiled"


@dataclass(frozen=True, slots=True)
class Implementation:
    """What is called, within which context, and what a trace of it must show or must not."""

    call: Callable[..., Any]
    context: Context = nullcontext
    options: Mapping[str, Any] | None = None
    expects: tuple[str, ...] = ()
    forbids: tuple[str, ...] = ()


def find_function(operation: str, name: str) -> Implementation:
    """Give an implementation of an operation of tensors.

    Raises:
        UserError: a user's own cannot be imported.
    """
    if ":" in name:
        return Implementation(import_target(f"micro {operation}", name)[1])
    if operation == "attention":
        kernel = catalogue.resolve("kernel.attention", name)()
        call = kernel.call or functions.FUNCTIONS["attention"].own
        context = kernel.context or nullcontext
        return Implementation(call, context, expects=kernel.expects, forbids=kernel.forbids)
    if name == COMPILED:
        compiled = torch.compile(_PLAIN[operation, "composed"], dynamic=False, fullgraph=True)
        return Implementation(compiled, _keeping_buffers)
    return Implementation(_PLAIN[operation, name])


def find_optimizer(name: str) -> Implementation:
    """Give what makes an optimizer that steps as AdamW does, of parameters and keywords.

    Raises:
        UserError: a user's own cannot be imported.
    """
    if ":" in name:
        return Implementation(import_target("micro optimizer_step", name)[1])
    if name == COMPILED:
        return Implementation(torch.optim.AdamW, options={"foreach": True})
    kernel = catalogue.resolve("kernel.optimizer_step", name)()
    return Implementation(
        torch.optim.AdamW, options=kernel.options, expects=kernel.expects, forbids=kernel.forbids
    )


@contextmanager
def _keeping_buffers() -> Iterator[None]:
    """Let a compiled graph be run backwards again and again: it must not reuse what it saved."""
    from torch._functorch import config

    with ExitStack() as stack:
        patch: Any = config.patch  # put into the module at run time
        stack.enter_context(patch(donated_buffer=False))
        yield
