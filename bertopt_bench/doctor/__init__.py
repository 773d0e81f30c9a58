"""What ``doctor`` does: look at the machine, measure its limits and its noise, and advise.

``examine`` gathers, ``text`` and ``Diagnosis.as_dict`` show. What must run elsewhere (the limits
and the noise, in trial processes) comes in as functions. Never imports torch.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.doctor.budget import Budget
from bertopt_bench.doctor.text import write
from bertopt_bench.errors import UserError
from bertopt_bench.measure.advice import Advice, Facts, machine_advice
from bertopt_bench.measure.disturbance import Disturbance
from bertopt_bench.measure.gpu_advice import gpu_advice
from bertopt_bench.measure.machine import describe_machine, versions
from bertopt_bench.measure.provenance import package_code
from bertopt_bench.measure.suitability import invalid_reasons, noise_reasons

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

IDLE_SECONDS = 1.0
_ROOT = Path("/")

NEVER_LOOKED_AT = (
    "what other guests of the same host do, beyond the CPU time that they take",
    "firmware settings, cooling, and the clock between two readings",
    "interrupts and isolated cores (`python -m pyperf system show` looks at these)",
    "the disk: training reads memory-mapped text that stays in memory",
    "the network, and GPUs that are not NVIDIA's",
    "whether the noise is the same at another hour: `bertopt-bench calibrate` repeats duels",
)


@dataclass(frozen=True, slots=True)
class Measures:
    """What must run in trial processes, as functions; a `UserError` of one is told, not raised.

    Those that are given the budget keep to it and note in it what they cut.
    """

    noise: Callable[[Budget], Mapping[str, Any] | None]
    """Runs a short A/A duel: ``finding`` (the control's), its ``blocks``, and ``what`` it was."""
    ceilings: Callable[[Budget], Mapping[str, Mapping[str, Any]]]
    """Gives `measure_ceilings`' values by device."""
    torch: Callable[[], Mapping[str, Any]]
    """Gives `torch_build.describe_torch`."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was seen, measured and advised.

    ``ceilings`` are by device, ``measure_ceilings``' values or a ``reason``. ``noise`` has
    ``finding`` (the A/A arm's), ``what`` was run and ``reasons`` against trusting this hour, or
    only a ``reason``. ``idle`` is what `Disturbance.stop` gave after an idle moment. ``cut`` says
    what was left out or made shorter to stay within the budget.
    """

    machine: Mapping[str, Any]
    versions: Mapping[str, Any]
    code: Mapping[str, Any]
    torch: Mapping[str, Any]
    idle: Mapping[str, Any]
    ceilings: Mapping[str, Mapping[str, Any]]
    noise: Mapping[str, Any]
    advice: tuple[Advice, ...]
    changed: tuple[str, ...]
    cut: tuple[str, ...]
    not_looked_at: tuple[str, ...]
    elapsed_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Give all of it as plain JSON."""
        return asdict(self)


def show(diagnosis: Diagnosis, *, as_json: bool = False) -> None:
    """Print a diagnosis, for a person or as JSON."""
    told = json.dumps(diagnosis.as_dict(), indent=2) if as_json else write(diagnosis)
    sys.stdout.write(told + "\n")


def examine(
    measures: Measures,
    *,
    root: Path = _ROOT,
    sleep: Callable[[float], None] = time.sleep,
    say: Callable[[str], None] = lambda _line: None,
    budget: Budget | None = None,
) -> Diagnosis:
    """Look at the machine at rest, then measure within a budget, then advise.

    ``root`` stands for "/", ``sleep`` lets the idle moment pass, ``say`` tells what is going on.
    """
    budget = budget or Budget()
    machine = describe_machine(root)
    say("watching the machine at rest")
    idle = _watch(root, sleep)
    say("measuring the ceilings")
    torch, ceilings = _tried(measures.torch), _tried(partial(measures.ceilings, budget))
    say("measuring the noise: identical code against itself")
    noise = _tried(partial(measures.noise, budget))
    blocks = noise.get("blocks") or ()
    advice = (*gpu_advice(machine["gpus"], blocks), *machine_advice(Facts(machine, idle, blocks)))
    return Diagnosis(
        machine=machine,
        versions=versions(),
        code=package_code(),
        torch=torch,
        idle=idle,
        ceilings=ceilings if "reason" not in ceilings else {"cpu": ceilings},
        noise=_without_blocks(noise),
        advice=advice,
        changed=tuple(invalid_reasons(machine, describe_machine(root))),
        cut=tuple(budget.cuts),
        not_looked_at=(*unseen(machine, noise), *NEVER_LOOKED_AT),
        elapsed_seconds=budget.spent,
    )


def unseen(machine: Mapping[str, Any], noise: Mapping[str, Any]) -> tuple[str, ...]:
    """Name what would matter and could not be seen on this machine."""
    names = {
        "governor": "the frequency governor: this system does not show it",
        "turbo": "turbo: this system does not show it",
        "cpu_mhz_now": "the processor's clock: this system does not show it",
        "steal_share_since_boot": "steal time: this system does not count it",
        "simultaneous_threads": "simultaneous multithreading: this system does not show it",
        "addresses_randomised": "address-space randomisation: this system does not show it",
        "on_battery": "power supply: this system shows none",
    }
    missing = [words for key, words in names.items() if machine.get(key) is None]
    if (machine.get("pressure") or {}).get("cpu") is None:
        missing.append("pressure stall information: this kernel does not count it")
    if any("now" not in gpu for gpu in machine.get("gpus") or ()):
        missing.append("the GPU's clocks, heat and other processes: nvidia-ml-py is not installed")
    if not noise.get("finding"):
        missing.append("the noise floor: nothing was timed against itself")
    return tuple(missing)


def _watch(root: Path, sleep: Callable[[float], None]) -> dict[str, Any]:
    """Note what the machine does while we do nothing."""
    meter = Disturbance(root)
    meter.start()
    sleep(IDLE_SECONDS)
    return meter.stop()


def _without_blocks(noise: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of many blocks what they say against trusting this hour."""
    kept = {key: value for key, value in noise.items() if key != "blocks"}
    return {**kept, "reasons": noise_reasons(noise.get("blocks") or ())}


def _tried(measure: Callable[[], Mapping[str, Any] | None]) -> dict[str, Any]:
    """Run a measurement; where it cannot, the rest of the diagnosis still stands."""
    try:
        return dict(measure() or {"reason": "it gave nothing"})
    except UserError as error:
        return {"reason": str(error)}
