"""Describe the machine and the software, without torch and without anything that names a person.

No host name, no user name, no path leaves this module; ids are hashed. `root` stands for "/", so
that a test can write a machine of its own.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.measure.cgroups import (
    cpu_quota,
    cpuset,
    memory_limit_bytes,
    throttled,
    throttling_files,
)
from bertopt_bench.measure.gpus import describe_gpus
from bertopt_bench.measure.kernel_files import (
    chosen,
    hashed,
    line,
    pressure,
    processor_seconds,
    text,
)
from bertopt_bench.measure.power import describe_power

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_ROOT = Path("/")
_NO_RANDOMISATION = 0x0040000  # ADDR_NO_RANDOMIZE
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
_THREAD_VARIABLES = re.compile(r"(OMP|MKL|KMP|GOMP|OPENBLAS|ONEDNN|DNNL|MALLOC|PYTORCH|TORCH)_\w+")
_OTHER_VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "GLIBC_TUNABLES", "LD_PRELOAD", "PYTHONHASHSEED",
    "THP_MEM_ALLOC_ENABLE",
)  # fmt: skip
PACKAGES = (
    "torch",
    "numpy",
    "tokenizers",
    "safetensors",
    "pydantic",
    "pandas",
    "scipy",
    "plotly",
    "triton",
    "pytorch-optimizer",
    "transformers",
    "datasets",
    "pyarrow",
)


def describe_machine(root: Path = _ROOT) -> dict[str, Any]:
    """Describe hardware, kernel, limits, settings and what goes on now.

    None stands where the system does not say.
    """
    affinity = _affinity()
    return {
        **_processor(root),
        "cache_bytes": cache_bytes(root),
        **describe_power(root, affinity or ()),
        **_memory(root),
        "cpu_quota": cpu_quota(root),
        "cpuset": cpuset(root),
        "memory_limit_bytes": memory_limit_bytes(root),
        "affinity": affinity,
        "nice": _nice(),
        "virtualisation": _virtualisation(root),
        "system": platform.system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "boot_id_hash": hashed(line(root / "proc/sys/kernel/random/boot_id")),
        "clock_source": line(
            root / "sys/devices/system/clocksource/clocksource0/current_clocksource"
        ),
        **_address_layout(root),
        "transparent_huge_pages": chosen(line(root / "sys/kernel/mm/transparent_hugepage/enabled")),
        **_activity(root),
        "variables": thread_variables(os.environ),
        "gpus": describe_gpus(root),
    }


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, Any]:
    """Give the versions of Python and the packages, None where absent; torch is not imported.

    `installed_hash` stands for every distribution of the environment with its version.
    """
    from importlib import metadata

    installed = {
        re.sub(r"[-_.]+", "-", dist.name).lower(): dist.version
        for dist in metadata.distributions()
        if dist.name
    }
    listing = "\n".join(f"{name}=={version}" for name, version in sorted(installed.items()))
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        **{name: installed.get(name) for name in packages},
        "installed_hash": hashed(listing),
    }


def fingerprint(machine: Mapping[str, Any], versions: Mapping[str, Any]) -> str:
    """Hash what makes times comparable: another fingerprint is another session.

    Memory counts in whole GiB, since the kernel's own share of it changes from boot to boot.
    """
    memory = machine.get("memory_bytes")
    parts = {
        key: machine.get(key)
        for key in ("cpu_model", "logical_cores", "cpu_quota", "system", "kernel", "architecture")
    }
    parts["memory_gib"] = round(memory / 2**30) if memory else None
    parts["gpus"] = [
        {key: gpu.get(key) for key in ("name", "uuid_hash", "driver", "mig")}
        for gpu in machine.get("gpus") or ()
    ]
    parts["versions"] = {key: versions.get(key) for key in ("python", "implementation", "torch")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def thread_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Pick the variables that steer threads, allocators and torch; a path shows its last part."""
    picked = {
        key: value
        for key, value in sorted(environment.items())
        if _THREAD_VARIABLES.fullmatch(key) or key in _OTHER_VARIABLES
    }
    return {key: re.sub(r"[^\s:,;=]*/", "", value) for key, value in picked.items()}


def last_level_cache_bytes(root: Path = _ROOT) -> int | None:
    """Give the size of the first core's last cache."""
    caches = cache_bytes(root)
    return caches[max(caches)] if caches else None


def cache_bytes(root: Path = _ROOT) -> dict[str, int]:
    """Give the first core's caches by name (L1d, L1i, L2, L3), each in bytes."""
    caches = {}
    for index in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index[0-9]*")):
        level, size, kind = (line(index / name) for name in ("level", "size", "type"))
        if level and size:
            suffix = {"Data": "d", "Instruction": "i"}.get(kind or "", "")
            caches[f"L{level}{suffix}"] = _bytes(size)
    return caches


def allowed_cores(root: Path = _ROOT) -> int:
    """Give how many threads may run at once: the affinity mask, cut by the control group's quota.

    A part of a core counts as a whole one.
    """
    affinity = _affinity()
    cores = len(affinity) if affinity else os.cpu_count() or 1
    quota = cpu_quota(root)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_flags(root: Path = _ROOT) -> frozenset[str]:
    """Give the instruction set flags that the kernel lists for the first core."""
    facts = _cpuinfo(root)
    return frozenset((facts.get("flags") or facts.get("Features") or "").split())


def _processor(root: Path) -> dict[str, Any]:
    facts = _cpuinfo(root)
    folder = root / "sys/devices/system/cpu"
    places = {
        (line(core / "physical_package_id"), line(core / "core_id"))
        for core in folder.glob("cpu[0-9]*/topology")
    }
    nodes = list((root / "sys/devices/system/node").glob("node[0-9]*"))
    return {
        "cpu_model": facts.get("model name") or _brand(),
        "cpu_stepping": " ".join(
            facts[key] for key in ("cpu family", "model", "stepping") if key in facts
        )
        or None,
        "microcode": facts.get("microcode"),
        "logical_cores": os.cpu_count(),
        "physical_cores": len(places) or None,
        "sockets": len({package for package, _ in places}) or None,
        "simultaneous_threads": line(folder / "smt/active"),
        "numa_nodes": len(nodes) or None,
    }


def _brand() -> str | None:
    """Name the processor where there is no /proc/cpuinfo."""
    import subprocess

    if platform.system() == "Darwin":
        run = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"],
            capture_output=True,
            text=True,
            check=False,
        )
        return run.stdout.strip() or None
    return platform.processor() or None


def _cpuinfo(root: Path) -> dict[str, str]:
    first = text(root / "proc/cpuinfo").partition("\n\n")[0]
    pairs = (words.partition(":") for words in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _memory(root: Path) -> dict[str, int | None]:
    facts = {}
    for words in text(root / "proc/meminfo").splitlines():
        key, _, value = words.partition(":")
        facts[key] = int(value.split()[0]) * 1024
    if not facts:
        import psutil

        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        facts = {
            "MemTotal": memory.total,
            "MemAvailable": memory.available,
            "SwapTotal": swap.total,
            "SwapFree": swap.free,
        }
    return {
        "memory_bytes": facts.get("MemTotal"),
        "memory_available_bytes": facts.get("MemAvailable"),
        "swap_bytes": facts.get("SwapTotal"),
        "swap_free_bytes": facts.get("SwapFree"),
    }


def _virtualisation(root: Path) -> dict[str, Any]:
    return {
        "hypervisor": "hypervisor" in cpu_flags(root),
        "product": line(root / "sys/class/dmi/id/product_name"),
        "container": (root / ".dockerenv").exists() or (root / "run/.containerenv").exists(),
    }


def _address_layout(root: Path) -> dict[str, Any]:
    """Tell the kernel's setting (0 none, 1 stack and libraries, 2 heap too) and if it holds here.

    Source: personality(2): a process may have been started without it, as `setarch -R` does.
    """
    setting = line(root / "proc/sys/kernel/randomize_va_space")
    own = line(root / "proc/self/personality")
    fixed = own is not None and bool(int(own, 16) & _NO_RANDOMISATION)
    return {
        "address_randomisation": setting,
        "addresses_randomised": None if setting is None else setting != "0" and not fixed,
    }


def _activity(root: Path) -> dict[str, Any]:
    """Tell what goes on at this moment, and what was taken away since boot."""
    load, seconds = text(root / "proc/loadavg").split(), processor_seconds(root)
    steal, every = seconds["steal_seconds"], seconds["cpu_seconds"]
    shares = {key: pressure(root, key, "avg10") for key in ("cpu", "memory", "io")}
    return {
        "load": [float(word) for word in load[:3]] or None,
        "runnable_threads": int(load[3].partition("/")[0]) if len(load) > 3 else None,
        "pressure": {key: None if share is None else share / 100 for key, share in shares.items()},
        "steal_share_since_boot": None if steal is None or not every else steal / every,
        "throttled_periods": throttled(throttling_files(root))[0],
    }


def _affinity() -> list[int] | None:
    # Absent on macOS and Windows.
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _nice() -> int | None:
    return os.nice(0) if hasattr(os, "nice") else None


def _bytes(size: str) -> int:
    return int(size[:-1]) * _UNITS[size[-1]] if size[-1] in _UNITS else int(size)
