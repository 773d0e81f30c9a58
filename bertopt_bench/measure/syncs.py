"""Count the times that a step makes the host wait for the device."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from bertopt_bench.measure.clock import MeasuredDevice

_WORDS = "synchronizing CUDA operation"  # torch's own warning in its sync debug mode


def count_host_syncs(step: Callable[[], None], device: MeasuredDevice) -> int:
    """Run ``step`` once and count its host syncs; a CPU has nothing to wait for.

    Source: torch.cuda.set_sync_debug_mode, which sees torch's own waits and no others.
    """
    if device.type != "cuda":
        step()
        return 0
    import torch

    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum(_WORDS in str(warning.message) for warning in seen)
