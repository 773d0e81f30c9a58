"""Measure what the device can do at most: matrix products a second, bytes a second.

A ceiling is a limit, so it is the fastest sample; every sample is kept beside it. Meant for a
trial process, right between two trials, since a shared machine's limits drift.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from bertopt_bench.measure.clock import MeasuredDevice, step_clock
from bertopt_bench.measure.in_place import ADAMW_STATES, MIXES, mix_name, updates
from bertopt_bench.measure.machine import last_level_cache_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

MATMUL_SIZES = {"cpu": 2048, "cuda": 8192}
"""Edge of the square matrices: a GPU is still far from its full rate at 2048."""
MATMUL_SIZE = MATMUL_SIZES["cpu"]
PROBE_SIZE = 512
WARM_SECONDS = {"cuda": 0.3}
"""Untimed products before a data type's first sample: a GPU's clock rises with its load."""
BANDWIDTH_MIX = "4 reads and 3 writes of float32 a parameter, in place, as AdamW's step"
# A processor may read a line before it writes all of it: such traffic is not counted, so that a
# copy shows less than the mix, which writes only what it has read.
COPY_BYTES_PER_PARAMETER = 4 * (1 + 1)

OPERANDS = ("a b", "a b'", "a' b")
"""Ways to lay a product's operands; without 16-bit arithmetic torch has a fast loop for one."""

CLEARLY = 2.0
"""Times as fast as the first way another one must be: less is noise of a small product."""

_DEFAULTS = {
    "cpu": ("float32", "bfloat16"),
    "cuda": ("float32", "tf32", "bfloat16", "float16"),
}
_BANDWIDTH_SHARE = 0.25
_SAMPLES_AT_MOST = {"cuda": 1000}  # there the time decides: a product takes a millisecond or two
_USUAL_SAMPLES = 30
_ARRAYS = max(MIXES) + 2


class TensorDevice(MeasuredDevice, Protocol):
    """A device on which tensors can be made."""

    @property
    def torch_device(self) -> Any:
        """Name the place in torch's words: a `torch.device` or its string."""


def measure_ceilings(
    device: TensorDevice,
    seconds_budget: float = 1.0,
    *,
    dtypes: Sequence[str] | None = None,
    also: Sequence[str] = (),
    matmul_size: int | None = None,
    array_bytes: int | None = None,
) -> dict[str, Any]:
    """Measure every ceiling in about `seconds_budget` seconds, with three samples at the least.

    Args:
        device: with the threads that the process has set; a GPU warms up besides, untimed.
        seconds_budget: shared between the dtypes (three quarters) and the bandwidths.
        dtypes: names of torch dtypes, or "tf32"; by default those worth training in on the device.
        also: names beside these.
        matmul_size: edge of the square matrices; by default the device's in `MATMUL_SIZES`.
        array_bytes: size of each of the bandwidths' five arrays; by default well beyond the caches.

    Returns:
        `matmul_flops_per_second` by dtype of the `matmul_operands` that were clearly fastest,
        `bandwidth_bytes_per_second` of AdamW's mix, `update_bytes_per_second` of each optimizer's,
        `copy_bytes_per_second`, raw `samples` in seconds, reasons of `skipped` dtypes, and what was
        measured: size, untimed seconds, mix and bytes.
    """
    size = matmul_size or MATMUL_SIZES.get(device.type, MATMUL_SIZE)
    names = (*(dtypes or _DEFAULTS.get(device.type, ("float32",))), *also)
    share = seconds_budget * (1 - _BANDWIDTH_SHARE) / len(names)
    seen = {name: _matmul_seconds(device, name, size, share, seconds_budget) for name in names}
    timed = {name: outcome for name, outcome in seen.items() if not isinstance(outcome, str)}
    samples = {name: seconds for name, (_, seconds) in timed.items()}
    moved = _bandwidths(device, array_bytes, seconds_budget * _BANDWIDTH_SHARE)
    return {
        "matmul_flops_per_second": {n: 2 * size**3 / min(times) for n, times in samples.items()},
        **_rates(moved),
        "samples": {"matmul_seconds": samples, **_of(moved, "seconds")},
        "skipped": {name: why for name, why in seen.items() if isinstance(why, str)},
        "matmul_size": size,
        "matmul_operands": {name: operands for name, (operands, _) in timed.items()},
        "matmul_warm_seconds": WARM_SECONDS.get(device.type, 0.0),
        "bandwidth_mix": BANDWIDTH_MIX,
        **_of(moved, "bytes"),
    }


def _of(moved: Mapping[str, Any], unit: str) -> dict[str, Any]:
    """Give one quantity of the three kinds of movement."""
    return {f"{kind}_{unit}": moved[f"{kind}_{unit}"] for kind in ("bandwidth", "copy", "update")}


def _rates(moved: Mapping[str, Any]) -> dict[str, Any]:
    """Give bytes a second of the fastest sample of each way to move them."""
    return {
        "bandwidth_bytes_per_second": moved["bandwidth_bytes"] / min(moved["bandwidth_seconds"]),
        "update_bytes_per_second": {
            name: moved["update_bytes"][name] / min(seconds)
            for name, seconds in moved["update_seconds"].items()
        },
        "copy_bytes_per_second": moved["copy_bytes"] / min(moved["copy_seconds"]),
    }


def _matmul_seconds(
    device: TensorDevice, name: str, size: int, share: float, longest: float
) -> tuple[str, list[float]] | str:
    """Time square products of one dtype, or say why that is not worth the time."""
    operands = OPERANDS[0]
    with _float32_products("high" if name == "tf32" else "highest"):
        if name != "float32":  # the one that everything else is compared with
            small = min(PROBE_SIZE, size)
            probes = {way: _product(device, name, small, way) for way in OPERANDS}
            seconds = {way: min(_timed(device, probe, 3)) for way, probe in probes.items()}
            fastest = min(seconds, key=seconds.__getitem__)
            if seconds[operands] > CLEARLY * seconds[fastest]:
                operands = fastest
            estimate = seconds[operands] * (size / small) ** 3
            # The small product runs at a fraction of the full rate: allow for that.
            if estimate > 4 * longest:
                return f"one product of {size} cubed would take about {estimate:.1f} s here"
        product = _product(device, name, size, operands)
        burn_in = max(_timed(device, product, 1))
        if warm := WARM_SECONDS.get(device.type):
            repeats = _repeats(device, share, _warmed(device, product, warm))
        else:
            repeats = _repeats(device, share - burn_in, burn_in)
        return operands, _timed(device, product, repeats)


def _warmed(device: TensorDevice, product: Callable[[], Any], seconds: float) -> float:
    """Keep the device at work until its clock has risen; give the seconds of a product then."""
    each = min(_timed(device, product, 3))
    return min(_timed(device, product, max(1, math.ceil(seconds / each)))[-3:])


def _product(device: TensorDevice, name: str, size: int, operands: str) -> Callable[[], Any]:
    import torch

    dtype = getattr(torch, "float32" if name == "tf32" else name)
    # Random values: zeros draw less power and let a GPU run faster than any training would. A
    # repeated block does, and spares the time of drawing millions of numbers.
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.randn(size, 16, generator=generator)
        .to(device.torch_device, dtype)
        .repeat(1, -(-size // 16))[:, :size]
        .contiguous()
        for _ in range(2)
    )
    out = torch.empty_like(left)
    one, other = operands.split()
    left = left.t() if one == "a'" else left
    right = right.t() if other == "b'" else right
    return lambda: torch.mm(left, right, out=out)


def _bandwidths(device: TensorDevice, array_bytes: int | None, share: float) -> dict[str, Any]:
    """Give the bytes and the seconds of each mix and of each copy, on the same five arrays.

    Each gets time by what it moves, so that all get as many samples.
    """
    import torch

    block = torch.randn(2**14, generator=torch.Generator().manual_seed(0))
    copies = max(1, (array_bytes or _array_bytes(device)) // (4 * block.numel()))
    arrays = [block.to(device.torch_device).repeat(copies) for _ in range(_ARRAYS)]
    copied = COPY_BYTES_PER_PARAMETER * arrays[0].numel()
    ways = {states: updates(arrays, states) for states in MIXES}
    each = share / (copied + sum(moved for _, moved in ways.values()))
    seconds = {
        states: _moved_seconds(device, _in_turn(calls), each * moved)
        for states, (calls, moved) in ways.items()
    }
    return {
        "bandwidth_bytes": ways[ADAMW_STATES][1],
        "bandwidth_seconds": seconds[ADAMW_STATES],
        "update_bytes": {mix_name(states): moved for states, (_, moved) in ways.items()},
        "update_seconds": {mix_name(states): times for states, times in seconds.items()},
        "copy_bytes": copied,
        "copy_seconds": _moved_seconds(device, _copy(arrays[0], arrays[1]), each * copied),
    }


def _moved_seconds(device: TensorDevice, move: Callable[[], None], share: float) -> list[float]:
    burn_in = max(_timed(device, move, 2))
    return _timed(device, move, _repeats(device, share - 2 * burn_in, burn_in))


def _in_turn(calls: Sequence[Callable[[], None]]) -> Callable[[], None]:
    def move() -> None:
        for call in calls:
            call()

    return move


def _copy(source: Tensor, target: Tensor) -> Callable[[], None]:
    def move() -> None:
        target.copy_(source)

    return move


def _timed(device: TensorDevice, operation: Callable[[], Any], repeats: int) -> list[float]:
    clock = step_clock(device, repeats)
    device.synchronize()
    clock.start()
    for _ in range(repeats):
        operation()
        clock.mark()
    return clock.durations_seconds()


def _repeats(device: TensorDevice, seconds: float, each: float) -> int:
    most = _SAMPLES_AT_MOST.get(device.type, _USUAL_SAMPLES)
    return max(3, min(most, int(seconds / each)))


def _array_bytes(device: TensorDevice) -> int:
    """Take arrays of which any four together are at least four times the last cache."""
    if device.type == "cpu":
        return max(64 * 2**20, last_level_cache_bytes() or 0)
    return 256 * 2**20


@contextmanager
def _float32_products(precision: str) -> Iterator[None]:
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
