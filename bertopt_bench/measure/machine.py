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

from bertopt_bench.measure.gpus import describe_gpus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_ROOT = Path("/")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
_THREAD_VARIABLES = re.compile(r"(OMP|MKL|KMP|GOMP|OPENBLAS|ONEDNN|DNNL|MALLOC|PYTORCH|TORCH)_\w+")
_OTHER_VARIABLES = ("CUDA_VISIBLE_DEVICES", "LD_PRELOAD", "PYTHONHASHSEED")
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
    """Describe hardware, kernel, limits and thread settings; None where the system does not say."""
    return {
        **_processor(root),
        "cache_bytes": cache_bytes(root),
        "governor": _line(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "turbo": _turbo(root),
        **_memory(root),
        "cpu_quota": cpu_quota(root),
        "cpuset": _cgroup_value(root, "cpuset", "cpuset.cpus.effective"),
        "affinity": _affinity(),
        "nice": _nice(),
        "virtualisation": _virtualisation(root),
        "system": platform.system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "boot_id_hash": _hashed(_line(root / "proc/sys/kernel/random/boot_id")),
        "clock_source": _line(
            root / "sys/devices/system/clocksource/clocksource0/current_clocksource"
        ),
        "address_randomisation": _line(root / "proc/sys/kernel/randomize_va_space"),
        "transparent_huge_pages": _chosen(
            _line(root / "sys/kernel/mm/transparent_hugepage/enabled")
        ),
        "load": _load(root),
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
        "installed_hash": _hashed(listing),
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
        level, size, kind = (_line(index / name) for name in ("level", "size", "type"))
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


def cpu_quota(root: Path = _ROOT) -> float | None:
    """Give the least quota of this process' control groups, in cores; None where there is none."""
    quotas = []
    for words in _cgroup_lines(root, "cpu", "cpu.max"):
        quota, _, period = words.partition(" ")
        if quota.isdigit() and period.isdigit():
            quotas.append(int(quota) / int(period))
    for quota, period in zip(
        _cgroup_lines(root, "cpu", "cpu.cfs_quota_us"),
        _cgroup_lines(root, "cpu", "cpu.cfs_period_us"),
        strict=False,
    ):
        if quota.isdigit() and period.isdigit():  # -1 is no limit
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def cpu_flags(root: Path = _ROOT) -> frozenset[str]:
    """Give the instruction set flags that the kernel lists for the first core."""
    facts = _cpuinfo(root)
    return frozenset((facts.get("flags") or facts.get("Features") or "").split())


def _processor(root: Path) -> dict[str, Any]:
    facts = _cpuinfo(root)
    folder = root / "sys/devices/system/cpu"
    places = {
        (_line(core / "physical_package_id"), _line(core / "core_id"))
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
        "simultaneous_threads": _line(folder / "smt/active"),
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
    first = _text(root / "proc/cpuinfo").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _memory(root: Path) -> dict[str, int | None]:
    facts = {}
    for line in _text(root / "proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        facts[key] = int(value.split()[0]) * 1024
    if not facts:
        import psutil

        facts = {"MemTotal": psutil.virtual_memory().total, "SwapTotal": psutil.swap_memory().total}
    return {"memory_bytes": facts.get("MemTotal"), "swap_bytes": facts.get("SwapTotal")}


def _turbo(root: Path) -> bool | None:
    disabled = _line(root / "sys/devices/system/cpu/intel_pstate/no_turbo")
    if disabled is not None:
        return disabled == "0"
    boost = _line(root / "sys/devices/system/cpu/cpufreq/boost")
    return None if boost is None else boost == "1"


def _virtualisation(root: Path) -> dict[str, Any]:
    return {
        "hypervisor": "hypervisor" in cpu_flags(root),
        "product": _line(root / "sys/class/dmi/id/product_name"),
        "container": (root / ".dockerenv").exists() or (root / "run/.containerenv").exists(),
    }


def _load(root: Path) -> list[float] | None:
    words = _text(root / "proc/loadavg").split()[:3]
    return [float(word) for word in words] or None


def _affinity() -> list[int] | None:
    # Absent on macOS and Windows.
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _nice() -> int | None:
    return os.nice(0) if hasattr(os, "nice") else None


def _cgroup_value(root: Path, controller: str, name: str) -> str | None:
    return next((line for line in _cgroup_lines(root, controller, name) if line), None)


def _cgroup_lines(root: Path, controller: str, name: str) -> Iterator[str]:
    """Read a control group's file, the process' own group first, then each one above it.

    Source: cgroups(7): version 2 has an empty controller field, version 1 a folder a controller.
    """
    mounts = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            bases = [mounts, mounts / "unified"]
        elif controller in controllers.split(","):
            bases = [mounts / controller, mounts / controllers]
        else:
            continue
        for base in dict.fromkeys(bases):
            own = base / path.lstrip("/")
            for folder in (own, *own.parents):
                if folder.is_relative_to(base) and (text := _line(folder / name)) is not None:
                    yield text


def _chosen(text: str | None) -> str | None:
    """Take the bracketed word of a sysfs choice such as `always [madvise] never`."""
    found = re.search(r"\[(\w+)\]", text or "")
    return found[1] if found else None


def _bytes(size: str) -> int:
    return int(size[:-1]) * _UNITS[size[-1]] if size[-1] in _UNITS else int(size)


def _hashed(text: str | None) -> str | None:
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else None


def _line(path: Path) -> str | None:
    return _text(path).strip() or None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
