"""Describe NVIDIA GPUs by the driver's own command, which needs no package."""

from __future__ import annotations

import csv
import subprocess
from typing import TYPE_CHECKING, Any

from bertopt_bench.measure.kernel_files import hashed

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = 20.0  # a driver that is not kept loaded takes some to start


def _whole(word: str) -> int:
    return int(float(word))


def _on(word: str) -> bool:
    return word == "Enabled"


_FIELDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "name": ("name", str),
    "uuid_hash": ("uuid", hashed),
    "driver": ("driver_version", str),
    "vbios": ("vbios_version", str),
    "memory_bytes": ("memory.total", lambda mebibytes: _whole(mebibytes) * 2**20),
    "power_limit_watts": ("power.limit", float),
    "power_limit_default_watts": ("power.default_limit", float),
    "sm_clock_limit_mhz": ("clocks.max.sm", _whole),
    "sm_clock_application_mhz": ("clocks.applications.graphics", _whole),
    "sm_clock_default_mhz": ("clocks.default_applications.graphics", _whole),
    "ecc": ("ecc.mode.current", _on),
    "mig": ("mig.mode.current", _on),
    "persistence": ("persistence_mode", lambda word: int(_on(word))),
    "pcie_generation": ("pcie.link.gen.current", _whole),
    "pcie_width": ("pcie.link.width.current", _whole),
}
"""Our words: its own, and how an answer is read. Source: nvidia-smi --help-query-gpu."""


def describe_by_command() -> list[dict[str, Any]]:
    """Describe every GPU; an empty list where the command is missing or does not answer.

    A fact that a GPU does not support, or that its driver has no field for, is None.
    """
    fields = [field for field, _ in _FIELDS.values()]
    rows = _ask(fields)
    if rows is None and (names := _ask(fields[:1])):  # one unknown field, and none is answered
        columns = [_ask([field]) or [] for field in fields]
        whole = [one if len(one) == len(names) else [["N/A"]] * len(names) for one in columns]
        rows = [[word for (word,) in row] for row in zip(*whole, strict=True)]
    return [_described(row) for row in rows or []]


def _ask(fields: list[str]) -> list[list[str]] | None:
    """Give a row of answers a GPU; None where the command fails."""
    try:
        run = subprocess.run(
            ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    rows = list(csv.reader(run.stdout.splitlines(), skipinitialspace=True))
    return [row for row in rows if len(row) == len(fields)]


def _described(row: list[str]) -> dict[str, Any]:
    return {
        key: _read(word.strip(), reader)
        for (key, (_, reader)), word in zip(_FIELDS.items(), row, strict=True)
    }


def _read(word: str, reader: Callable[[str], Any]) -> Any:
    """Read an answer; '[N/A]', '[Not Supported]' and their like are none."""
    if word.startswith("[") or word in {"", "N/A"}:
        return None
    try:
        return reader(word)
    except ValueError:
        return None
