"""Write a diagnosis of ``doctor`` for a person, in plain words."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from bertopt_bench.doctor import Diagnosis
    from bertopt_bench.measure.advice import Advice

WIDTH = 100
_LABEL = 30
_LEAST_REPLICATES = 6
_GROUPS = {
    "Processor": (
        "cpu_model",
        "cpu_stepping",
        "microcode",
        "sockets",
        "physical_cores",
        "logical_cores",
        "simultaneous_threads",
        "numa_nodes",
        "cache_bytes",
    ),
    "Clock": (
        "governor",
        "frequency_driver",
        "energy_preference",
        "turbo",
        "cpu_mhz_now",
        "cpu_mhz_most",
        "platform_profile",
        "on_battery",
    ),
    "Memory": (
        "memory_bytes",
        "memory_available_bytes",
        "memory_limit_bytes",
        "swap_bytes",
        "transparent_huge_pages",
    ),
    "Limits of this process": (
        "affinity",
        "cpu_quota",
        "cpuset",
        "throttled_periods",
        "nice",
        "address_randomisation",
        "addresses_randomised",
        "variables",
    ),
    "System": ("system", "kernel", "architecture", "virtualisation", "clock_source"),
    "Now": ("load", "runnable_threads", "pressure", "steal_share_since_boot"),
}
PLAIN = "a b"
_IDLE = ("foreign_cpu_share", "steal_share", "cpu_pressure_share")
_TORCH = (
    "version",
    "cuda",
    "libraries",
    "threads",
    "matmul_precision",
    "precision",
    "determinism",
    "attention",
    "allocator",
)
_WORDS = {
    ("cpu_quota", None): "none",
    ("memory_limit_bytes", None): "none",
    ("cuda", None): "none",
    ("cudnn", None): "none",
    ("address_randomisation", "0"): "off",
    ("address_randomisation", "1"): "of stack and libraries",
    ("address_randomisation", "2"): "full (leave it on: replicates must draw their own layouts)",
    ("simultaneous_threads", "0"): "off",
    ("simultaneous_threads", "1"): "on",
}


def write(diagnosis: Diagnosis) -> str:
    """Write all of it: environment, ceilings, noise floor, advice, and what was not looked at."""
    parts = (
        _environment(diagnosis),
        _ceilings(diagnosis.ceilings),
        _noise(diagnosis.noise),
        _advice(diagnosis.advice),
        _not_looked_at(diagnosis),
    )
    lines = [line for part in parts for line in (*part, "")]
    return "\n".join([*lines, f"{diagnosis.elapsed_seconds:.0f} s"])


def _environment(diagnosis: Diagnosis) -> Iterator[str]:
    for title, names in _GROUPS.items():
        yield title
        yield from _rows({name: diagnosis.machine.get(name) for name in names})
    yield "In an idle moment"
    yield from _rows({name: diagnosis.idle.get(name) for name in _IDLE})
    for number, gpu in enumerate(diagnosis.machine.get("gpus") or ()):
        yield f"GPU {number}"
        yield from _rows(gpu)
    yield "torch, in a trial's process"
    if "reason" in diagnosis.torch:
        yield f"  not described: {diagnosis.torch['reason']}"
    else:
        yield from _rows({name: diagnosis.torch.get(name) for name in _TORCH})
    yield "Software"
    yield from _rows({name: value for name, value in diagnosis.versions.items() if value})
    yield from _rows({f"bertopt-bench {name}": value for name, value in diagnosis.code.items()})


def _ceilings(ceilings: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "Ceilings: what this machine can do at most"
    for device, values in ceilings.items():
        if "reason" in values:
            yield f"  {device}: not measured: {values['reason']}"
            continue
        size = values["matmul_size"]
        warm = values.get("matmul_warm_seconds")
        before = f"{warm:g} s of them" if warm else "one"
        for dtype, flops in values["matmul_flops_per_second"].items():
            count = len(values["samples"]["matmul_seconds"][dtype])
            name = f"{device}: product in {dtype}"
            operands = values.get("matmul_operands", {}).get(dtype, PLAIN)
            laid = f", operands laid as {operands}" if operands != PLAIN else ""
            note = f"{size} cubed{laid}, fastest of {count} after {before}"
            yield _row(name, f"{flops / 1e9:,.0f} GFLOP/s ({note})")
        for dtype, why in values["skipped"].items():
            yield _row(f"{device}: product in {dtype}", f"not measured: {why}")
        for name, key, note in (
            ("AdamW's mix", "bandwidth", values["bandwidth_mix"]),
            ("plain copy", "copy", "1 read and 1 write of float32"),
        ):
            rate, count = (
                values[f"{key}_bytes_per_second"],
                len(values["samples"][f"{key}_seconds"]),
            )
            yield _row(f"{device}: {name}", f"{rate / 1e9:,.1f} GB/s ({note}; fastest of {count})")
        for mix, rate in (values.get("update_bytes_per_second") or {}).items():
            count = len(values["samples"]["update_seconds"][mix])
            note = f"{rate / 1e9:,.1f} GB/s (fastest of {count})"
            yield _row(f"{device}: in place, {mix}", note)


def _noise(noise: Mapping[str, Any]) -> Iterator[str]:
    yield "Noise floor: identical code timed against itself"
    finding = noise.get("finding")
    if not finding:
        yield f"  not measured: {noise.get('reason') or 'nothing was timed'}"
        return
    said = [noise["what"]] if noise.get("what") else []
    said.append(_interval(finding))
    floor = finding.get("noise_floor")
    if floor is not None:
        said.append(
            f"Noise floor {math.expm1(floor):.1%}: no smaller difference between two arms can be "
            f"told from noise here, now, with {finding['n']} replicates; more narrow it."
        )
    if finding.get("verdict") == "disagrees":
        said.append(
            "Identical code was found to differ beyond chance: no duel of this hour can be "
            "believed. Quieten the machine and run doctor again."
        )
    elif "interval_excludes_zero" in (finding.get("flags") or ()):
        said.append(
            "Careful: the interval excludes 0. With so few replicates it does now and then by "
            "chance: run doctor again, or bertopt-bench calibrate."
        )
    said += [f"Too noisy for a verdict: {reason}." for reason in noise.get("reasons") or ()]
    for words in said:
        yield from _wrapped(words, "  ", "  ")


def _interval(finding: Mapping[str, Any]) -> str:
    """Write n, estimate and interval; below 6 replicates there is none."""
    n, estimate = finding["n"], finding.get("estimate")
    low, high = finding.get("low"), finding.get("high")
    said = f"n = {n} replicates"
    if estimate is not None:
        said += f": second arm {_percent(estimate)} against the first"
    if low is None or high is None:
        least = f", and {_LEAST_REPLICATES} are the least" if n < _LEAST_REPLICATES else ""
        return f"{said}; no interval: {finding.get('reason') or 'too few replicates'}{least}"
    return (
        f"{said}, 95 % interval {_percent(low)} to {_percent(high)} "
        f"(half-width {math.expm1((high - low) / 2):.1%})"
    )


def _advice(advice: Iterable[Advice]) -> Iterator[str]:
    said = list(advice)
    changes = [one for one in said if one.kind == "change"]
    notes = [one for one in said if one.kind == "note"]
    yield "What to change on this machine for better numbers"
    if not changes:
        yield "  nothing that could be seen"
    for number, one in enumerate(changes, start=1):
        yield from _told(f"{number}. ", one)
    if notes:
        yield "What cannot be changed here, and what follows"
        for one in notes:
            yield from _told("- ", one)


def _told(mark: str, advice: Advice) -> Iterator[str]:
    indent = "  " + " " * len(mark)
    yield from _wrapped(f"{advice.topic}: {advice.fact}.", "  " + mark, indent)
    yield from _wrapped(f"Why: {advice.why}.", indent, indent)
    # A command must stay whole, to be copied.
    yield f"{indent}Do: {advice.do}"


def _not_looked_at(diagnosis: Diagnosis) -> Iterator[str]:
    for reason in diagnosis.changed:
        yield from _wrapped(f"Careful: {reason}.", "", "")
    if diagnosis.cut:
        yield "What was cut to stay under a minute"
        for words in diagnosis.cut:
            yield from _wrapped(words, "  - ", "    ")
    yield "What this did not look at"
    for words in diagnosis.not_looked_at:
        yield from _wrapped(words, "  - ", "    ")


def _rows(facts: Mapping[str, Any]) -> Iterator[str]:
    for name, value in facts.items():
        if isinstance(value, dict) and any(isinstance(inner, dict) for inner in value.values()):
            yield from _rows({f"{name} {key}": inner for key, inner in value.items()})
        else:
            yield _row(_label(name), shown(name, value))


def _label(name: str) -> str:
    """Write a name without the unit that its value carries."""
    return name.removesuffix("_bytes").removesuffix("_watts").replace("_", " ")


def _row(name: str, value: str) -> str:
    lines = textwrap.wrap(
        value, WIDTH, initial_indent=" " * (_LABEL + 4), subsequent_indent=" " * (_LABEL + 4)
    )
    first = (lines or [""])[0].strip()
    return "\n".join([f"  {name.ljust(_LABEL)}  {first}".rstrip(), *lines[1:]])


def shown(name: str, value: Any) -> str:
    """Write a fact with its unit, which the end of its name tells."""
    if isinstance(value, dict):
        parts = [f"{key.replace('_', ' ')} {_part(name, key, v)}" for key, v in value.items()]
        return ", ".join(parts) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if (name, value) in _WORDS:
        return _WORDS[name, value]
    if value is None or isinstance(value, bool):
        return {None: "not visible", True: "yes", False: "no"}[value]
    for ending, written in _UNITS.items():
        if name.endswith(ending):
            return written(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _part(name: str, key: str, value: Any) -> str:
    """Write one value of several: shares and bytes have their unit in the outer name."""
    if name == "pressure":
        return shown("share", value)
    return shown("bytes" if name.endswith("bytes") else key, value)


def _memory(value: float) -> str:
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= factor:
            return f"{value / factor:.4g} {unit}"
    return f"{value:.0f} B"


def _percent(log_ratio: float) -> str:
    return f"{math.expm1(log_ratio):+.1%}"


def _wrapped(words: str, first: str, later: str) -> list[str]:
    return textwrap.wrap(
        words,
        WIDTH,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )


_UNITS: Mapping[str, Callable[[float], str]] = {
    "bytes": _memory,
    "share": "{:.2%}".format,
    "share_since_boot": "{:.2%}".format,
    "watts": "{:.0f} W".format,
}
