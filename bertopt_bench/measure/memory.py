"""Read how much memory a process holds, and what an allocator held at most."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bertopt_bench.measure.cgroups import memory_room_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

_ROOT = Path("/")
_PROCESS = _ROOT / "proc/self"


def reset_resident_peak(process: Path = _PROCESS) -> bool:
    """Set this process' resident peak back to what it holds now; say whether that worked.

    Source: proc_pid_clear_refs(5), value 5. Where it is absent or refused (macOS, some sandboxes),
    `resident_peak_bytes` counts from the start of the process, and the caller must say so.
    """
    try:
        # Unbuffered: the kernel's refusal must be seen here, not when a buffer is flushed.
        with (process / "clear_refs").open("wb", buffering=0) as file:
            file.write(b"5")
    except OSError:
        return False
    return True


def resident_peak_bytes(process: Path = _PROCESS) -> int | None:
    """Give the most memory this process held at once; None where the system does not say."""
    try:
        return _status_bytes(process, "VmHWM:")
    except OSError:
        return _resident_peak_elsewhere()


def resident_bytes(process: Path = _PROCESS) -> int | None:
    """Give the memory that this process holds now; None where the system does not say."""
    try:
        return _status_bytes(process, "VmRSS:")
    except OSError:
        import psutil

        return int(psutil.Process().memory_info().rss)


def graph_pool_bytes(device_type: str) -> int:
    """Give the bytes of the memory pools that CUDA graphs keep for themselves; 0 without a GPU.

    A replay allocates nothing, so that neither the allocator's counters nor the profiler see what
    it works in. Whole segments are counted, with what lies free in them.
    """
    if device_type != "cuda":
        return 0
    import torch

    segments = torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
    return sum(one["total_size"] for one in segments if tuple(one["segment_pool_id"]) != (0, 0))


def _status_bytes(process: Path, key: str) -> int | None:
    """Read a size from a process' status file, which gives kibibytes."""
    for line in (process / "status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return None


def _resident_peak_elsewhere() -> int | None:
    import psutil

    windows_peak = getattr(psutil.Process().memory_info(), "peak_wset", None)
    if windows_peak is not None:
        return int(windows_peak)
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # getrusage(2): bytes on macOS, kibibytes elsewhere.
    return peak if sys.platform == "darwin" else peak * 1024


def available_bytes(device: str, root: Path = _ROOT) -> int | None:
    """Give the bytes that new processes may take on a device; None where that is not known.

    On a processor what the machine has left, or what the control groups leave where that is less.
    Of a GPU this is its whole memory: it is asked through NVML, never through CUDA.
    """
    if device == "cpu":
        import psutil

        free, room = int(psutil.virtual_memory().available), memory_room_bytes(root)
        return free if room is None else min(free, room)
    from bertopt_bench.measure.gpus import describe_gpus

    sizes = [gpu.get("memory_bytes") for gpu in describe_gpus()]
    return sizes[0] if sizes else None


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Add up the bytes behind the tensors, each storage once however many tensors view it."""
    sizes: dict[tuple[str, int], int] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        # Two live storages share an address only when both are empty.
        sizes[str(tensor.device), storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def allocation_peak(changes: Iterable[int], baseline_bytes: int = 0) -> int:
    """Give the most bytes held at once.

    Args:
        changes: bytes allocated (positive) and freed (negative), in the order of time.
        baseline_bytes: bytes held before the first change.
    """
    held = peak = baseline_bytes
    for change in changes:
        held += change
        peak = max(peak, held)
    return peak
