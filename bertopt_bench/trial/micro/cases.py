"""Open a case: an operation with its buffers, ready to be called over and over.

A slot is one set of buffers. Hot calls use one slot again and again; cold ones go round so many
that none is still in the last cache when its turn comes again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from bertopt_bench.measure.machine import last_level_cache_bytes
from bertopt_bench.trial.assemble import derive_seed
from bertopt_bench.trial.micro.running import open_runs
from bertopt_bench.trial.micro.stepping import open_steps, shapes_of
from bertopt_bench.workload.operation_work import Work, buffer_bytes, operation_work

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from bertopt_bench.trial.micro.checking import Errors
    from bertopt_bench.trial.micro.implementations import Implementation
    from bertopt_bench.trial.micro.opened import Opened

ASSUMED_CACHE_BYTES = 64 * 2**20  # where the machine does not say
COLD_FACTOR = 4  # slots hold more than so many caches together
FLUSH_FACTOR = 2  # so many caches are written where there would be too many slots
MOST_SLOTS = 4096


@dataclass(frozen=True, slots=True)
class Case:
    """What is called, what it must do, and how caches are kept hot or cold.

    ``flush`` overwrites the caches before each call (None: slots do it, or nothing);
    ``parameters`` are an optimizer's.
    """

    operation: str
    name: str
    options: Mapping[str, Any]
    opened: Opened
    work: Work
    inputs_sha256: str
    cache: Mapping[str, Any]
    flush: Callable[[], Any] | None = None
    parameters: int = 0

    @property
    def calls(self) -> Sequence[Callable[[], Any]]:
        """Give a call a slot."""
        return self.opened.calls

    @property
    def restore(self) -> Callable[[], None] | None:
        """Give what puts state back that calls change."""
        return self.opened.restore

    @property
    def errors(self) -> Errors:
        """Say how exact the result was."""
        return self.opened.errors

    @property
    def implementation(self) -> Implementation:
        """Give the implementation, with what a trace of it must show."""
        return self.opened.implementation

    def context(self) -> AbstractContextManager[Any]:
        """Hold what must hold while calls run."""
        return self.opened.context()

    def check_again(self) -> None:
        """Check once more, after the calls were timed.

        Raises:
            WrongResultError: what was right at first no longer is.
        """
        self.opened.check_again()

    def finite(self) -> bool:
        """Say whether the state has stayed finite."""
        return self.opened.finite()


@dataclass(frozen=True, slots=True)
class Caching:
    """How many slots a case has, and how many bytes are overwritten instead."""

    slots: int
    flush_bytes: int
    words: str


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
    parameters = _parameters(operation, options)
    slot_bytes = buffer_bytes(operation, options, parameters)
    caching = plan_caching(options["cache"], slot_bytes, cache_bytes)
    opened = _open(operation, implementation, options, device, seed, caching.slots)
    return Case(
        operation=operation,
        name=implementation,
        options=options,
        opened=opened,
        work=operation_work(operation, options, parameters),
        inputs_sha256=hash_inputs(opened.inputs),
        cache=_cache_facts(caching, slot_bytes, cache_bytes),
        flush=_flusher(caching.flush_bytes, device),
        parameters=parameters,
    )


def _parameters(operation: str, options: Mapping[str, Any]) -> int:
    """Count an optimizer's parameters; other operations have none."""
    steps = operation == "optimizer_step"
    return sum(shape.numel() for shape in shapes_of(options)) if steps else 0


def _open(
    operation: str, name: str, options: Mapping[str, Any], device: Any, seed: int, slots: int
) -> Opened:
    generator = torch.Generator().manual_seed(derive_seed(seed, f"micro/{operation}"))
    if operation == "optimizer_step":
        return open_steps(name, options, device, generator, slots)
    return open_runs(operation, name, options, device, generator, slots)


def _cache_facts(caching: Caching, slot_bytes: int, cache_bytes: int) -> dict[str, Any]:
    return {
        "cache_bytes": cache_bytes,
        "slots": caching.slots,
        "slot_bytes": slot_bytes,
        "kept": caching.words,
    }


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
        return Caching(1, 0, "the same buffers again and again")
    slots = COLD_FACTOR * cache_bytes // slot_bytes + 1
    if slots > MOST_SLOTS:
        flushed = FLUSH_FACTOR * cache_bytes
        return Caching(1, flushed, f"{flushed:,} bytes overwritten before each call")
    return Caching(slots, 0, f"{slots:,} sets of buffers in turn, {slots * slot_bytes:,} bytes")


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
