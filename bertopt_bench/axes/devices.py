"""Devices: ``(*, ...) -> Device``, where a trial computes, and how it is timed and put back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    import torch


class Device(Protocol):
    """What a trial and its clock ask of a device."""

    type: str
    """torch's device type."""

    clock_kind: str
    """perf_counter where a step returns when it is done, cuda_events where it is queued."""

    @property
    def torch_device(self) -> torch.device:
        """Give torch's object."""

    def synchronize(self) -> None:
        """Wait until all work handed to the device is done."""

    def seed(self, seed: int) -> None:
        """Seed every generator that training on this device draws from."""

    def random_state(self) -> Any:
        """Give the state of those generators."""

    def set_random_state(self, state: Any) -> None:
        """Put those generators back."""

    def reset_peak_memory(self) -> None:
        """Start a new peak."""

    def peak_memory_bytes(self) -> int | None:
        """Give the allocator's peak since then, None where it keeps none."""


def cpu(*, threads: int = 0) -> Cpu:
    """Compute on the processor; threads 0 leaves their number to torch.

    Source: torch.device("cpu").
    """
    if threads < 0:
        raise UserError(f"device 'cpu': threads is {threads}; it must be 0 (all) or more.")
    if threads:
        import torch

        torch.set_num_threads(threads)
    return Cpu()


def cuda(*, index: int = 0) -> Cuda:
    """Compute on an NVIDIA GPU (or AMD's, which torch names alike).

    Source: torch.device("cuda").
    """
    if index < 0:
        raise UserError(f"device 'cuda': index is {index}; it must be 0 or more.")
    return Cuda(index)


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor: a step is done when its call returns."""

    type: str = "cpu"
    clock_kind: str = "perf_counter"

    @property
    def torch_device(self) -> torch.device:
        """Give torch's object."""
        import torch

        return torch.device("cpu")

    def synchronize(self) -> None:
        """Return: nothing is pending."""

    def seed(self, seed: int) -> None:
        """Seed torch's generators, and those of Python and NumPy that a user's entry may draw from.

        NumPy's takes 32 bits.
        """
        import random

        import numpy as np
        import torch

        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - the global generator is what may be drawn from

    def random_state(self) -> Any:
        """Give the state of the three generators."""
        import random

        import numpy as np
        import torch

        return torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002 - as above

    def set_random_state(self, state: Any) -> None:
        """Put the three generators back."""
        import random

        import numpy as np
        import torch

        torch.set_rng_state(state[0])
        random.setstate(state[1])
        np.random.set_state(state[2])  # noqa: NPY002 - as above

    def reset_peak_memory(self) -> None:
        """Do nothing: torch's CPU allocator keeps no peak."""

    def peak_memory_bytes(self) -> int | None:
        """Give None: torch's CPU allocator keeps no peak."""
        return None


@dataclass(frozen=True, slots=True)
class Cuda:
    """A GPU: steps are queued, and timed by events in its stream."""

    index: int = 0
    type: str = "cuda"
    clock_kind: str = "cuda_events"

    @property
    def torch_device(self) -> torch.device:
        """Give torch's object."""
        import torch

        return torch.device("cuda", self.index)

    def synchronize(self) -> None:
        """Wait for the GPU."""
        import torch

        torch.cuda.synchronize(self.index)

    def seed(self, seed: int) -> None:
        """Seed the host's generators and the GPU's; make this GPU the process' current one.

        Events and tensors that name no device belong to the current GPU, which else is the first.
        """
        import torch

        torch.cuda.set_device(self.index)
        Cpu().seed(seed)
        torch.cuda.manual_seed(seed)

    def random_state(self) -> Any:
        """Give the state of the host's generators and the GPU's."""
        import torch

        return Cpu().random_state(), torch.cuda.get_rng_state(self.index)

    def set_random_state(self, state: Any) -> None:
        """Put the host's generators and the GPU's back."""
        import torch

        Cpu().set_random_state(state[0])
        torch.cuda.set_rng_state(state[1], self.index)

    def reset_peak_memory(self) -> None:
        """Start a new peak of allocated bytes."""
        import torch

        torch.cuda.reset_peak_memory_stats(self.index)

    def peak_memory_bytes(self) -> int | None:
        """Give the peak of allocated bytes."""
        import torch

        return int(torch.cuda.max_memory_allocated(self.index))
