"""Facts read from a machine that the test writes as files."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from getpass import getuser
from typing import TYPE_CHECKING, Any

import pytest
from written_roots import write

from bertopt_bench.measure.machine import (
    allowed_cores,
    cache_bytes,
    describe_machine,
    fingerprint,
    last_level_cache_bytes,
    thread_variables,
    versions,
)

if TYPE_CHECKING:
    from pathlib import Path


def core(index: int, place: int) -> dict[str, str]:
    folder = f"sys/devices/system/cpu/cpu{index}/topology"
    return {f"{folder}/physical_package_id": "0\n", f"{folder}/core_id": f"{place}\n"}


def cache(index: int, level: str, kind: str, size: str) -> dict[str, str]:
    folder = f"sys/devices/system/cpu/cpu0/cache/index{index}"
    return {f"{folder}/level": level, f"{folder}/type": kind, f"{folder}/size": size}


def test_a_written_machine_is_read_as_written(tmp_path: Path) -> None:
    """Oracle: the files' own words; two hardware threads share core 0."""
    root = write(
        tmp_path,
        {
            "proc/cpuinfo": "model name\t: Example 9\nflags\t: avx2 hypervisor\n\nmodel name: X\n",
            "proc/meminfo": "MemTotal:  2048 kB\nMemAvailable: 9 kB\nSwapTotal: 1 kB\n",
            "proc/loadavg": "0.50 0.25 0.10 3/89 8903\n",
            "proc/stat": "cpu  50 0 20 20 5 0 0 5 0 0\n",
            "proc/pressure/cpu": "some avg10=12.00 avg60=0.00 avg300=0.00 total=1\n",
            "proc/sys/kernel/random/boot_id": "11111111-2222\n",
            "proc/sys/kernel/randomize_va_space": "2\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
            "sys/devices/system/cpu/intel_pstate/no_turbo": "1\n",
            "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
            **core(0, 0),
            **core(1, 0),
            **core(2, 1),
        },
    )

    machine = describe_machine(root)

    assert machine["cpu_model"] == "Example 9"
    assert (machine["physical_cores"], machine["sockets"]) == (2, 1)
    assert (machine["memory_bytes"], machine["swap_bytes"]) == (2048 * 1024, 1024)
    assert machine["memory_available_bytes"] == 9 * 1024
    assert machine["load"] == [0.5, 0.25, 0.1]
    assert machine["runnable_threads"] == 3
    assert machine["pressure"] == {"cpu": 0.12, "memory": None, "io": None}
    assert machine["steal_share_since_boot"] == 0.05
    assert (machine["governor"], machine["turbo"]) == ("performance", False)
    assert machine["transparent_huge_pages"] == "madvise"
    assert machine["virtualisation"]["hypervisor"] is True
    assert machine["address_randomisation"] == "2"
    assert machine["addresses_randomised"] is True
    assert "1111" not in machine["boot_id_hash"]


def test_a_machine_without_proc_and_sys_is_described_with_none(tmp_path: Path) -> None:
    """Nothing is invented, and memory still comes from psutil."""
    machine = describe_machine(tmp_path)

    assert machine["memory_bytes"] > 2**20
    assert machine["cache_bytes"] == {}
    assert machine["gpus"] == []
    for key in ("governor", "turbo", "cpu_quota", "boot_id_hash", "load", "physical_cores"):
        assert machine[key] is None
    for key in ("runnable_threads", "steal_share_since_boot", "addresses_randomised", "cpuset"):
        assert machine[key] is None
    assert machine["pressure"] == {"cpu": None, "memory": None, "io": None}


@pytest.mark.parametrize(
    ("setting", "own", "randomised"),
    [
        ("2", "00000000", True),
        ("1", "00000000", True),
        ("0", "00000000", False),
        ("2", "00040000", False),
        ("2", None, True),
    ],
)
def test_addresses_are_randomised_unless_the_kernel_or_the_process_says_no(
    tmp_path: Path, setting: str, own: str | None, randomised: bool
) -> None:
    """Oracle: proc_sys_kernel(5), and personality(2): ADDR_NO_RANDOMIZE is 0x0040000."""
    files = {"proc/sys/kernel/randomize_va_space": setting + "\n"}
    if own is not None:
        files["proc/self/personality"] = own + "\n"

    assert describe_machine(write(tmp_path, files))["addresses_randomised"] is randomised


def test_no_name_and_no_path_of_this_machine_leaves_it() -> None:
    """The record may be published: no host name, home folder or user name, and it is JSON."""
    text = json.dumps([describe_machine(), versions()])

    assert socket.gethostname() not in text
    assert os.path.expanduser("~/") not in text
    if len(getuser()) > 4:  # "root" is part of too many words
        assert getuser() not in text


def test_caches_are_named_and_the_last_is_the_highest(tmp_path: Path) -> None:
    """Oracle: sizes by hand; the kernel writes K and M for KiB and MiB."""
    root = write(
        tmp_path,
        {
            **cache(0, "1", "Data", "32K"),
            **cache(1, "1", "Instruction", "64K"),
            **cache(2, "2", "Unified", "1M"),
        },
    )

    assert cache_bytes(root) == {"L1d": 32 * 2**10, "L1i": 64 * 2**10, "L2": 2**20}
    assert last_level_cache_bytes(root) == 2**20
    assert last_level_cache_bytes(tmp_path / "nothing") is None


def test_a_quota_below_the_affinity_limits_the_threads(tmp_path: Path) -> None:
    """Half a core still runs one thread; no quota leaves the affinity mask."""
    root = write(
        tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}
    )

    assert allowed_cores(root) == 1
    if hasattr(os, "sched_getaffinity"):
        assert allowed_cores(tmp_path / "nothing") == len(os.sched_getaffinity(0))


def test_variables_keep_values_and_lose_folders() -> None:
    environment = {
        "OMP_NUM_THREADS": "2",
        "LD_PRELOAD": "/home/ann/lib/libjemalloc.so:/opt/x/libiomp5.so",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "MALLOC_MMAP_MAX_": "0",
        "THP_MEM_ALLOC_ENABLE": "1",
        "HOME": "/home/ann",
        "AWS_SECRET_ACCESS_KEY": "x",
    }

    assert thread_variables(environment) == {
        "LD_PRELOAD": "libjemalloc.so:libiomp5.so",
        "MALLOC_MMAP_MAX_": "0",
        "OMP_NUM_THREADS": "2",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "THP_MEM_ALLOC_ENABLE": "1",
    }


MACHINE: dict[str, Any] = {
    "cpu_model": "Example 9",
    "logical_cores": 2,
    "memory_bytes": 8 * 2**30,
    "kernel": "6.1",
    "boot_id_hash": "aa",
    "load": [0.1],
    "gpus": [{"name": "G", "driver": "1", "uuid_hash": "u"}],
}
VERSIONS = {"python": "3.11.7", "torch": "2.13.0+cpu", "pandas": "3.1"}


@pytest.mark.parametrize(
    ("machine", "software", "same"),
    [
        ({}, {}, True),
        ({"load": [9.0]}, {}, True),
        ({"boot_id_hash": "bb"}, {}, True),
        ({"memory_bytes": 8 * 2**30 - 2**20}, {}, True),
        ({}, {"pandas": "3.2"}, True),
        ({"cpu_model": "Example 8"}, {}, False),
        ({"logical_cores": 4}, {}, False),
        ({"memory_bytes": 16 * 2**30}, {}, False),
        ({"kernel": "6.2"}, {}, False),
        ({"gpus": [{"name": "G", "driver": "2", "uuid_hash": "u"}]}, {}, False),
        ({"gpus": []}, {}, False),
        ({}, {"torch": "2.13.1+cpu"}, False),
        ({}, {"python": "3.12.1"}, False),
    ],
)
def test_the_fingerprint_changes_with_what_changes_times(
    machine: dict[str, Any], software: dict[str, str], same: bool
) -> None:
    """Oracle: the issue: another machine, torch or driver starts a new session."""
    changed = fingerprint({**MACHINE, **machine}, {**VERSIONS, **software})

    assert (changed == fingerprint(MACHINE, VERSIONS)) is same


def test_versions_are_the_installed_ones() -> None:
    """Oracle: the running interpreter and torch itself."""
    import torch

    found = versions(["torch", "no-such-package"])

    assert found["torch"] == torch.__version__
    assert found["no-such-package"] is None
    assert found["python"] == ".".join(str(part) for part in sys.version_info[:3])


def test_the_meters_of_the_parent_import_no_torch() -> None:
    """The parent describes, samples and hashes without torch (a fresh interpreter is asked)."""
    code = (
        "import sys; from bertopt_bench.measure import disturbance, gpus, machine, provenance; "
        "from bertopt_bench.measure import capabilities, clock, memory, tracing, ceilings; "
        "from bertopt_bench.measure import advice, gpu_advice, suitability, torch_build; "
        "from bertopt_bench import doctor; "
        "machine.describe_machine(); machine.versions(); provenance.package_code(); "
        "meter = disturbance.Disturbance(); meter.start(); meter.stop(); "
        "sys.exit('torch' in sys.modules)"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (run.returncode, run.stderr) == (0, "")
