"""Note what else the machine did while the steps were timed."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bertopt_bench.measure.cgroups import throttled, throttling_files
from bertopt_bench.measure.kernel_files import pressure, processor_seconds, text
from bertopt_bench.measure.power import frequency_files, mean_mhz

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROOT = Path("/")

Snapshot = dict[str, float | None]


class GpuMeter(Protocol):
    """What is asked of a GPU's meter (see `gpus.GpuState`)."""

    def start(self) -> None:
        """Begin the interval."""

    def stop(self) -> Mapping[str, Any]:
        """End it and give its state, with names that begin with `gpu_`."""


class Disturbance:
    """Compare the machine's and the process' counters before and after a timed loop.

    `stop` gives plain JSON, None where the system does not say:

    - `observed_seconds`: wall time between start and stop.
    - `load1`: runnable and blocked tasks, the mean of the last minute, at the stop.
    - `runnable_threads`: of the machine, at the stop, this one among them.
    - `steal_share`: CPU time that the hypervisor gave to others, of all CPU time of the machine.
    - `foreign_cpu_share`: CPU time that other processes used, of all CPU time of the machine.
    - `cpu_pressure_share`, `memory_pressure_share`, `io_pressure_share`: wall time in which some
      task waited for it.
    - `foreign_pressure_share`: the part of the CPU's pressure that others can have caused: a wait
      is theirs only while one of them runs.
    - `throttled_periods`, `throttled_seconds`: held back by the control group's quota; the seconds
      are of every core, added.
    - `cpu_mhz`: the mean clock of the process' cores, at the stop.
    - `voluntary_switches`, `involuntary_switches`, `major_faults`: of this process, all threads.
    - `swapped_pages`: in and out, of the machine.
    - `gc_collections`: of this interpreter.
    - what a GPU's meter adds, where one is given.
    """

    def __init__(self, root: Path = _ROOT, gpu: GpuMeter | None = None) -> None:
        self._root, self._gpu = root, gpu
        self._throttling = throttling_files(root)
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
        self._frequencies = frequency_files(root, cores)
        self._before: Snapshot | None = None

    def start(self) -> None:
        """Read every counter; some 0.3 ms."""
        if self._gpu is not None:
            self._gpu.start()
        self._before = self._snapshot()

    def stop(self) -> dict[str, Any]:
        """Read every counter again and give the differences."""
        if self._before is None:
            raise RuntimeError("stop() needs a start() before it")
        after = self._snapshot()
        change = {key: _minus(after[key], self._before[key]) for key in after}
        wall, cpu = change["wall_seconds"], change["cpu_seconds"]
        foreign = _minus(change["busy_seconds"], change["own_seconds"])
        if foreign is not None:
            # The machine counts in hundredths of a second, the process finer: never below none.
            foreign = max(0.0, foreign)
        return {
            "observed_seconds": wall,
            **_load(self._root),
            "steal_share": _share(change["steal_seconds"], cpu),
            "foreign_cpu_share": _share(foreign, cpu),
            "cpu_pressure_share": _share(change["cpu_pressure"], wall),
            "foreign_pressure_share": _share(_least(change["cpu_pressure"], foreign), wall),
            "memory_pressure_share": _share(change["memory_pressure"], wall),
            "io_pressure_share": _share(change["io_pressure"], wall),
            "cpu_mhz": mean_mhz(self._frequencies),
            **{key: change[key] for key in _COUNTED},
            **({} if self._gpu is None else self._gpu.stop()),
        }

    def _snapshot(self) -> Snapshot:
        periods, seconds = throttled(self._throttling)
        return {
            "wall_seconds": time.monotonic(),
            "gc_collections": sum(generation["collections"] for generation in gc.get_stats()),
            **{f"{key}_pressure": _waited(self._root, key) for key in ("cpu", "memory", "io")},
            "swapped_pages": _swapped_pages(self._root),
            "throttled_periods": periods,
            "throttled_seconds": seconds,
            **processor_seconds(self._root),
            **_process_counters(),
        }


_PROCESS_COUNTERS = ("own_seconds", "voluntary_switches", "involuntary_switches", "major_faults")
_COUNTED = (
    "throttled_periods",
    "throttled_seconds",
    *_PROCESS_COUNTERS[1:],
    "swapped_pages",
    "gc_collections",
)


def _process_counters() -> Snapshot:
    try:
        import resource
    except ImportError:  # Windows
        return dict.fromkeys(_PROCESS_COUNTERS)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "own_seconds": usage.ru_utime + usage.ru_stime,
        "voluntary_switches": usage.ru_nvcsw,
        "involuntary_switches": usage.ru_nivcsw,
        "major_faults": usage.ru_majflt,
    }


def _load(root: Path) -> Snapshot:
    words = text(root / "proc/loadavg").split()
    return {
        "load1": float(words[0]) if words else None,
        "runnable_threads": int(words[3].partition("/")[0]) if len(words) > 3 else None,
    }


def _waited(root: Path, resource: str) -> float | None:
    microseconds = pressure(root, resource, "total")
    return None if microseconds is None else microseconds / 1e6


def _swapped_pages(root: Path) -> float | None:
    counts = dict(words.split() for words in text(root / "proc/vmstat").splitlines())
    if "pswpin" not in counts or "pswpout" not in counts:
        return None
    return int(counts["pswpin"]) + int(counts["pswpout"])


def _minus(after: Any, before: Any) -> float | None:
    return None if after is None or before is None else after - before


def _least(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else min(first, second)


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole
