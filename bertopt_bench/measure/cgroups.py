"""Read what this process' control groups allow it, and how often they held it back.

Source: cgroups(7): version 2 has an empty controller field, version 1 a folder a controller.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bertopt_bench.measure.kernel_files import line, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ROOT = Path("/")
_THROTTLED_UNITS = {"throttled_usec": 1e-6, "throttled_time": 1e-9}  # of version 2 and of 1
# The limit, what is held, and of that the pages which the kernel gives up first: version 2, then 1.
_MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def cpu_quota(root: Path = _ROOT) -> float | None:
    """Give the least quota of this process' control groups, in cores; None where there is none."""
    quotas = []
    for words in _lines(root, "cpu", "cpu.max"):
        quota, _, period = words.partition(" ")
        if quota.isdigit() and period.isdigit():
            quotas.append(int(quota) / int(period))
    for quota, period in zip(
        _lines(root, "cpu", "cpu.cfs_quota_us"),
        _lines(root, "cpu", "cpu.cfs_period_us"),
        strict=False,
    ):
        if quota.isdigit() and period.isdigit():  # -1 is no limit
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def cpuset(root: Path = _ROOT) -> str | None:
    """Give the cores that the control groups allow, as the kernel writes them."""
    names = ("cpuset.cpus.effective", "cpuset.effective_cpus")  # of version 2 and of 1
    return next((words for name in names for words in _lines(root, "cpuset", name)), None)


def memory_limit_bytes(root: Path = _ROOT) -> int | None:
    """Give the least memory limit of this process' control groups; None where there is none."""
    limits = [
        limit
        for name, _, _ in _MEMORY_FILES
        for file in _files(root, "memory", name)
        if (limit := _bytes(file)) is not None
    ]
    return min(limits, default=None)


def memory_room_bytes(root: Path = _ROOT) -> int | None:
    """Give what this process' control groups leave it of their memory; None where nothing limits.

    Pages of files that were not used for a while count as room: they make way for a process.
    Source: the kernel's cgroup-v2.rst, and cgroup-v1/memory.rst.
    """
    rooms = []
    for limit_name, held_name, idle_name in _MEMORY_FILES:
        for file in _files(root, "memory", limit_name):
            limit = _bytes(file)
            if limit is not None:
                held = _bytes(file.with_name(held_name)) or 0
                idle = int(_counts(file.with_name("memory.stat")).get(idle_name, 0))
                rooms.append(max(0, limit - max(0, held - idle)))
    return min(rooms, default=None)


def throttling_files(root: Path = _ROOT) -> tuple[Path, ...]:
    """Name the files that count how often a quota held this process back."""
    return tuple(file for file in _files(root, "cpu", "cpu.stat") if "nr_throttled" in text(file))


def throttled(files: Sequence[Path]) -> tuple[int | None, float | None]:
    """Give periods and seconds in which a quota held back, since the groups were made.

    The seconds are those of every core, added. None where no group counts.
    """
    if not files:
        return None, None
    periods, seconds = 0, 0.0
    for file in files:
        counts = _counts(file)
        periods += int(counts.get("nr_throttled", 0))
        seconds += sum(int(counts.get(key, 0)) * unit for key, unit in _THROTTLED_UNITS.items())
    return periods, seconds


def _bytes(file: Path) -> int | None:
    """Read a number of bytes; None where there is none, which version 1 writes as a huge one."""
    words = line(file) or ""
    return int(words) if words.isdigit() and int(words) < 2**60 else None


def _counts(file: Path) -> dict[str, str]:
    """Read a file of names with numbers."""
    return dict(words.split(None, 1) for words in text(file).splitlines() if " " in words)


def _lines(root: Path, controller: str, name: str) -> Iterator[str]:
    for file in _files(root, controller, name):
        words = line(file)
        if words is not None:
            yield words


def _files(root: Path, controller: str, name: str) -> Iterator[Path]:
    """Find a control group's file, the process' own group first, then each one above it."""
    mounts = root / "sys/fs/cgroup"
    for words in text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = words.split(":", 2)
        if not controllers:
            bases = [mounts, mounts / "unified"]
        elif controller in controllers.split(","):
            bases = [mounts / controller, mounts / controllers]
        else:
            continue
        for base in dict.fromkeys(bases):
            own = base / path.lstrip("/")
            for folder in (own, *own.parents):
                if folder.is_relative_to(base) and (folder / name).is_file():
                    yield folder / name
