"""Read the kernel's small text files; one that is absent or forbidden reads as nothing."""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_STEAL = 7  # the eighth number of /proc/stat's cpu line, proc_stat(5)
_IDLE, _IO_WAIT = 3, 4
_COUNTED = 8  # guest times after these are contained in user and nice


def text(path: Path) -> str:
    """Give the file's text, empty where it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def line(path: Path) -> str | None:
    """Give the file's text without white space around it; None where nothing is left."""
    return text(path).strip() or None


def number(path: Path) -> float | None:
    """Give the number that is all of the file; None where it is none."""
    try:
        return float(text(path))
    except ValueError:
        return None


def chosen(words: str | None) -> str | None:
    """Take the bracketed word of a sysfs choice such as `always [madvise] never`."""
    found = re.search(r"\[(\w+)\]", words or "")
    return found[1] if found else None


def pressure(root: Path, resource: str, field: str) -> float | None:
    """Give a field (avg10, total, ...) of the time in which some task waited for a resource.

    Source: the kernel's accounting/psi.rst: avg10 is in per cent, total in microseconds since boot.
    """
    for words in text(root / "proc/pressure" / resource).splitlines():
        kind, *fields = words.split()
        if kind == "some":
            found = dict(pair.split("=", 1) for pair in fields if "=" in pair)
            return float(found[field]) if field in found else None
    return None


def processor_seconds(root: Path) -> dict[str, float | None]:
    """Give the CPU time of all cores since boot: all of it, the busy part, and what was stolen."""
    words = text(root / "proc/stat").partition("\n")[0].split()
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


def hashed(secret: str | None) -> str | None:
    """Replace an id by 16 digits that tell it from others and no more."""
    return hashlib.sha256(secret.encode()).hexdigest()[:16] if secret else None
