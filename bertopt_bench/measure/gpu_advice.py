"""Say what to change on NVIDIA GPUs for better numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench.measure.advice import Advice
from bertopt_bench.measure.suitability import BRAKES, FOREIGN_GPU_SHARE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHARED_COMPUTE_MODE = 0  # NVML_COMPUTEMODE_DEFAULT: several processes at once
_HELD_SHARE = 0.75  # of the highest clock: most boards hold it under full load


def gpu_advice(
    gpus: Sequence[Mapping[str, Any]], blocks: Sequence[Mapping[str, Any]] = ()
) -> list[Advice]:
    """Give what every rule has to say of every GPU.

    Args:
        gpus: what `describe_gpus` gave before anything of ours used them.
        blocks: mappings with a `disturbance` that holds the GPU's state, where any was noted.
    """
    said = []
    for index, gpu in enumerate(gpus):
        rules = (*_OF_NOW, *_OF_THE_BOARD) if "now" in gpu else (_bindings, *_OF_THE_BOARD)
        said += [advice for rule in rules if (advice := rule(index, gpu)) is not None]
    heat = _brakes(blocks)
    return [*said, *([heat] if heat else [])]


def _bindings(index: int, gpu: Mapping[str, Any]) -> Advice | None:
    return Advice(
        f"GPU {index}",
        f"{gpu.get('name')}: its clock and heat of the moment and other processes are not visible",
        "without them a throttled or shared GPU goes unnoticed",
        "pip install nvidia-ml-py (the extra `gpu` of this package)",
    )


def _persistence(index: int, gpu: Mapping[str, Any]) -> Advice | None:
    if gpu.get("persistence") != 0:
        return None
    return Advice(
        f"GPU {index}: persistence",
        "persistence mode is off",
        "the driver unloads between processes, and each new one starts from idle clocks",
        f"sudo nvidia-smi -i {index} -pm 1",
    )


def _clocks(index: int, gpu: Mapping[str, Any]) -> Advice | None:
    most = gpu.get("sm_clock_limit_mhz")
    application, usual = gpu.get("sm_clock_application_mhz"), gpu.get("sm_clock_default_mhz")
    locked = application is not None and usual is not None and application != usual
    if most is None or locked or "application_clocks" in (gpu["now"].get("throttle_reasons") or ()):
        return None
    clock = min(usual or most, int(most * _HELD_SHARE))
    return Advice(
        f"GPU {index}: clocks",
        f"no lock of the clocks is visible (NVML does not tell of one made by -lgc); they may rise "
        f"to {most} MHz",
        "the clock follows heat and power, so a step's time depends on what ran before it",
        f"sudo nvidia-smi -i {index} -lgc {clock} (any clock that it holds under load; "
        f"sudo nvidia-smi -i {index} -rgc afterwards)",
    )


def _others(index: int, gpu: Mapping[str, Any]) -> Advice | None:
    now = gpu["now"]
    count, share = now.get("processes") or 0, now.get("utilisation_share") or 0.0
    if not count and share <= FOREIGN_GPU_SHARE:
        return None
    return Advice(
        f"GPU {index}: other processes",
        f"{count} processes are on it before ours, and it was busy for {share:.0%} of the time",
        "their kernels run between ours, and their memory is not ours to use",
        f"nvidia-smi -i {index} names them (in a container it may not); end them or take another "
        "GPU with CUDA_VISIBLE_DEVICES",
    )


def _power(index: int, gpu: Mapping[str, Any]) -> Advice | None:
    limit, usual = gpu.get("power_limit_watts"), gpu.get("power_limit_default_watts")
    if limit is None or usual is None or limit >= usual:
        return None
    return Advice(
        f"GPU {index}: power limit",
        f"the power limit is {limit:.0f} W, below the board's {usual:.0f} W",
        "heavy steps run into it and slow down; times do not compare with those of other boards",
        f"sudo nvidia-smi -i {index} -pl {usual:.0f}",
    )


def _mode(index: int, gpu: Mapping[str, Any]) -> Advice | None:
    mode = gpu.get("compute_mode")
    if mode is None or mode == SHARED_COMPUTE_MODE:
        return None
    return Advice(
        f"GPU {index}: compute mode",
        "its compute mode does not let several processes use it at once",
        "the arms of a duel are processes that live side by side; one at a time pairs less closely",
        f"sudo nvidia-smi -i {index} -c DEFAULT",
    )


def _hot(index: int, gpu: Mapping[str, Any]) -> Advice | None:
    seen = BRAKES & set(gpu["now"].get("throttle_reasons") or ())
    if not seen:
        return None
    heat = gpu["now"].get("temperature_celsius")
    return Advice(
        f"GPU {index}: throttled",
        f"it is held back now: {', '.join(sorted(seen))}"
        + (f", at {heat} degrees Celsius" if heat is not None else ""),
        "its speed is set by heat or power supply, whatever the code does",
        "see to cooling and power supply, or lock lower clocks, before measuring anything",
    )


def _mig(index: int, gpu: Mapping[str, Any]) -> Advice | None:
    if not gpu.get("mig"):
        return None
    return Advice(
        f"GPU {index}: MIG",
        "MIG is on: the board may be shared with others in slices",
        "slices share the power budget and, with it, the clock",
        "take a whole board for numbers that are published",
        kind="note",
    )


_OF_NOW = (_others, _hot, _clocks)  # only NVML tells
_OF_THE_BOARD = (_power, _persistence, _mode, _mig)


def _brakes(blocks: Sequence[Mapping[str, Any]]) -> Advice | None:
    noted = [block.get("disturbance") or {} for block in blocks]
    hit = [one for one in noted if BRAKES & set(one.get("gpu_throttle_reasons") or ())]
    if not hit:
        return None
    return Advice(
        "GPU: throttled while timing",
        f"heat or a power brake held back {len(hit)} of {len(noted)} blocks",
        "a throttled block measures the cooling",
        "see to cooling, or lock clocks that it holds: sudo nvidia-smi -lgc",
    )
