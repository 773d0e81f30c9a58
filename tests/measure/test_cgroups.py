"""Control groups of both versions, written as files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from written_roots import write

from bertopt_bench.measure.cgroups import (
    cpu_quota,
    cpuset,
    memory_limit_bytes,
    memory_room_bytes,
    throttled,
    throttling_files,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        (
            {
                "proc/self/cgroup": "0::/box/inner\n",
                "sys/fs/cgroup/box/inner/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/box/cpu.max": "150000 100000\n",
            },
            1.5,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/box\n1:memory:/\n",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_cpu_quota_is_the_least_of_the_groups(
    tmp_path: Path, files: dict[str, str], quota: float | None
) -> None:
    """Oracle: cgroups(7); version 2's `max` and version 1's -1 are no limit."""
    assert cpu_quota(write(tmp_path, files)) == quota


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpuset.cpus.effective": "0-3\n"}, "0-3"),
        (
            {
                "proc/self/cgroup": "3:cpuset:/a\n",
                "sys/fs/cgroup/cpuset/a/cpuset.effective_cpus": "1,5\n",
            },
            "1,5",
        ),
        # A group without the controller enabled has no file; the one above it decides.
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpuset.cpus.effective": "2\n"}, "2"),
    ],
)
def test_the_cpuset_is_that_of_the_nearest_group(
    tmp_path: Path, files: dict[str, str], cores: str | None
) -> None:
    """Oracle: cpuset(7); version 1 spells the file in another order."""
    assert cpuset(write(tmp_path, files)) == cores


def test_the_memory_limit_is_the_least_and_version_1_writes_none_as_a_huge_number(
    tmp_path: Path,
) -> None:
    """Oracle: by hand; 9223372036854771712 is what version 1 shows without a limit."""
    second = write(
        tmp_path / "2",
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/b/memory.max": "max\n",
            "sys/fs/cgroup/a/memory.max": "1073741824\n",
        },
    )
    first = write(
        tmp_path / "1",
        {
            "proc/self/cgroup": "4:memory:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )

    assert memory_limit_bytes(second) == 2**30
    assert memory_limit_bytes(first) is None


def test_throttling_adds_up_over_the_groups_in_the_units_of_each_version(tmp_path: Path) -> None:
    """Oracle: the kernel's cgroup-v2.rst (microseconds) and sched-bwc.rst (nanoseconds)."""
    second = write(
        tmp_path / "2",
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/cpu.stat": "usage_usec 9\n",
            "sys/fs/cgroup/a/cpu.stat": "usage_usec 9\nnr_throttled 2\nthrottled_usec 500000\n",
            "sys/fs/cgroup/a/b/cpu.stat": "nr_throttled 3\nthrottled_usec 250000\n",
        },
    )
    first = write(
        tmp_path / "1",
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/a\n",
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.stat": "nr_throttled 4\nthrottled_time 1500000000\n",
        },
    )

    assert len(throttling_files(second)) == 2
    assert throttled(throttling_files(second)) == (5, 0.75)
    assert throttled(throttling_files(first)) == (4, 1.5)
    assert throttled(throttling_files(tmp_path / "nothing")) == (None, None)


@pytest.mark.parametrize(
    ("files", "room"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}, None),
        (  # 1000 - (900 - 300) in the inner group
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/memory.max": "1000\n",
                "sys/fs/cgroup/a/b/memory.current": "900\n",
                "sys/fs/cgroup/a/b/memory.stat": "anon 500\nfile 400\ninactive_file 300\n",
                "sys/fs/cgroup/a/memory.max": "max\n",
            },
            400,
        ),
        (  # the outer group is shared, and nearly full
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/memory.max": "1000\n",
                "sys/fs/cgroup/a/b/memory.current": "100\n",
                "sys/fs/cgroup/a/memory.max": "2000\n",
                "sys/fs/cgroup/a/memory.current": "1950\n",
            },
            50,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n",
                "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "1000\n",
                "sys/fs/cgroup/memory/x/memory.usage_in_bytes": "700\n",
                "sys/fs/cgroup/memory/x/memory.stat": "inactive_file 5\ntotal_inactive_file 100\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            400,
        ),
        (  # a limit that was lowered below what is held
            {
                "proc/self/cgroup": "0::/a\n",
                "sys/fs/cgroup/a/memory.max": "1000\n",
                "sys/fs/cgroup/a/memory.current": "1200\n",
            },
            0,
        ),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "1000\n"}, 1000),
    ],
)
def test_the_room_is_what_the_tightest_group_leaves(
    tmp_path: Path, files: dict[str, str], room: int | None
) -> None:
    """Oracle: by hand, from the files' meaning in cgroup-v2.rst and cgroup-v1/memory.rst."""
    assert memory_room_bytes(write(tmp_path, files)) == room
