"""Note what else the machine did while the steps were timed."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import Any

_ROOT = Path("/")
_STEAL = 7  # the eighth number of /proc/stat's cpu line, proc_stat(5)
_IDLE, _IO_WAIT = 3, 4
_COUNTED = 8  # guest times after these are contained in user and nice

Snapshot = dict[str, float | None]


class Disturbance:
    """Compare the machine's and the process' counters before and after a timed loop.

    `stop` gives plain numbers, None where the system does not say:

    - `observed_seconds`: wall time between start and stop.
    - `load1`: runnable and blocked tasks, the mean of the last minute, at the stop.
    - `steal_share`: CPU time that the hypervisor gave to others, of all CPU time of the machine.
    - `foreign_cpu_share`: CPU time that other processes used, of all CPU time of the machine.
    - `cpu_pressure_share`: wall time in which some task waited for a CPU.
    - `involuntary_switches`, `major_faults`: of this process, all threads.
    - `swapped_pages`: in and out, of the machine.
    - `gc_collections`: of this interpreter.
    """

    def __init__(self, root: Path = _ROOT) -> None:
        self._root = root
        self._before: Snapshot | None = None

    def start(self) -> None:
        """Read every counter; some 0.1 ms."""
        self._before = _snapshot(self._root)

    def stop(self) -> dict[str, float | None]:
        """Read every counter again and give the differences."""
        if self._before is None:
            raise RuntimeError("stop() needs a start() before it")
        after = _snapshot(self._root)
        change = {key: _minus(after[key], self._before[key]) for key in after}
        foreign = _minus(change["busy_seconds"], change["own_seconds"])
        return {
            "observed_seconds": change["wall_seconds"],
            "load1": after["load1"],
            "steal_share": _share(change["steal_seconds"], change["cpu_seconds"]),
            # The machine counts in hundredths of a second, the process finer: never below none.
            "foreign_cpu_share": _share(
                None if foreign is None else max(0.0, foreign), change["cpu_seconds"]
            ),
            "cpu_pressure_share": _share(change["pressure_seconds"], change["wall_seconds"]),
            "involuntary_switches": change["involuntary_switches"],
            "major_faults": change["major_faults"],
            "swapped_pages": change["swapped_pages"],
            "gc_collections": change["gc_collections"],
        }


def _snapshot(root: Path) -> Snapshot:
    return {
        "wall_seconds": time.monotonic(),
        "gc_collections": sum(generation["collections"] for generation in gc.get_stats()),
        "load1": _load1(root),
        "pressure_seconds": _pressure_seconds(root),
        "swapped_pages": _swapped_pages(root),
        **_machine_seconds(root),
        **_process_counters(),
    }


def _machine_seconds(root: Path) -> Snapshot:
    words = _read(root / "proc/stat").partition("\n")[0].split()
    if len(words) <= _COUNTED or words[0] != "cpu":
        return dict.fromkeys(("cpu_seconds", "busy_seconds", "steal_seconds"))
    ticks = [int(word) for word in words[1 : 1 + _COUNTED]]
    tick = 1 / os.sysconf("SC_CLK_TCK")
    idle = ticks[_IDLE] + ticks[_IO_WAIT]
    return {
        "cpu_seconds": sum(ticks) * tick,
        "busy_seconds": (sum(ticks) - idle - ticks[_STEAL]) * tick,
        "steal_seconds": ticks[_STEAL] * tick,
    }


def _process_counters() -> Snapshot:
    try:
        import resource
    except ImportError:  # Windows
        return dict.fromkeys(("own_seconds", "involuntary_switches", "major_faults"))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "own_seconds": usage.ru_utime + usage.ru_stime,
        "involuntary_switches": usage.ru_nivcsw,
        "major_faults": usage.ru_majflt,
    }


def _load1(root: Path) -> float | None:
    words = _read(root / "proc/loadavg").split()
    return float(words[0]) if words else None


def _pressure_seconds(root: Path) -> float | None:
    """Add up the time in which some task waited for a CPU, since boot (the kernel's psi.rst)."""
    for line in _read(root / "proc/pressure/cpu").splitlines():
        kind, *fields = line.split()
        if kind == "some":
            return next((int(f[6:]) / 1e6 for f in fields if f.startswith("total=")), None)
    return None


def _swapped_pages(root: Path) -> float | None:
    counts = dict(line.split() for line in _read(root / "proc/vmstat").splitlines())
    if "pswpin" not in counts or "pswpout" not in counts:
        return None
    return int(counts["pswpin"]) + int(counts["pswpout"])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _minus(after: Any, before: Any) -> float | None:
    return None if after is None or before is None else after - before


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole
