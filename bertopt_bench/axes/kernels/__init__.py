"""Kernels: operation by operation, which implementation runs. Each module is one operation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager


@dataclass(frozen=True, slots=True)
class Kernel:
    """How an operation is forced onto an implementation.

    Attributes:
        call: replaces the operation's call (attention: scaled_dot_product_attention's signature).
            Of an optimizer step: changes how a finished optimizer steps, in place.
        context: gives a context that holds for the whole trial.
        options: handed to the optimizer (optimizer_step), to torch.compile (compile), or to the
            model (mlm_loss, checkpointing).
        expects: parts of the names of profiler operations; one of them must be in a traced training
            step, else the kernel was not what ran: of an optimizer step within its own range, of
            all others outside of it. Empty where nothing is forced.
        expects_on_cuda: as ``expects``, one of these as well, where the device is a GPU.
        forbids: parts of the names of operations that must not be there.
        exact: computes what the operation says, to rounding, so that it can be checked.
        in_place: what was compiled or captured holds on to the optimizer's tensors, so that they
            are put back by the initial values that the optimizer declares, never made anew.
        compiles: torch.compile or Triton is at work, so that burn-in takes every core.
    """

    call: Callable[..., Any] | None = None
    context: Callable[[], AbstractContextManager[Any]] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    expects: tuple[str, ...] = ()
    expects_on_cuda: tuple[str, ...] = ()
    forbids: tuple[str, ...] = ()
    exact: bool = True
    in_place: bool = False
    compiles: bool = False


COMPILED = ("Torch-Compiled Region", "CompiledFxGraph")
"""What the profiler calls a graph of torch.compile that runs (torch 2.9 to 2.13)."""

LAUNCHED = ("cudaGraphLaunch", "cuGraphLaunch")
"""What the profiler calls the replay of a CUDA graph."""
