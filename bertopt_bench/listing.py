"""What ``list`` prints: the axes, the entries of one, all about one. Never imports torch."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

from bertopt_bench import catalogue
from bertopt_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bertopt_bench.catalogue import Entry, Option

KERNEL, WIDTH = "kernel", 100


def show(axis: str, entry: str) -> None:
    """Print the listing that the command line asks for; ``kernel`` stands for its operations.

    Raises:
        UserError: no such axis or entry; the text names the nearest.
    """
    if axis in {"", KERNEL} and not entry:
        text = list_axes(f"{axis}." if axis else "")
    elif not entry:
        text = list_entries(axis)
    elif axis == KERNEL:
        having = _operations(entry)
        text = "\n\n".join(describe_entry(catalogue.find(one, entry)) for one in having)
    else:
        text = describe_entry(catalogue.find(axis, entry))
    sys.stdout.write(text + "\n")


def _operations(entry: str) -> list[str]:
    """Name the kernel axes that have an entry of this name."""
    operations = [axis for axis in catalogue.AXES if axis.startswith(f"{KERNEL}.")]
    names = {axis: catalogue.entries(axis) for axis in operations}
    found = [axis for axis in operations if entry in names[axis]]
    if not found:
        if ":" in entry:
            raise UserError(f"'{entry}' may serve any operation: name one, as kernel.attention.")
        known = sorted({name for entries in names.values() for name in entries})
        near = nearest(entry, known)
        raise UserError(f"no kernel '{entry}'. Kernels: {', '.join(known)}.{near}")
    return found


def list_axes(start: str = "") -> str:
    """List the axes whose names begin so with the names of their entries."""
    axes = [axis for axis in catalogue.AXES if axis.startswith(start)]
    width = max(map(len, axes)) + 2
    rows = [
        textwrap.fill(
            ", ".join(catalogue.entries(axis)),
            WIDTH,
            initial_indent=axis.ljust(width),
            subsequent_indent=" " * width,
        )
        for axis in axes
    ]
    return "\n".join(rows)


def list_entries(axis: str) -> str:
    """List an axis' entries, each with its help line; then how one of a user's own is called."""
    entries = catalogue.entries(axis)
    width = max(map(len, entries)) + 2
    lines = [f"{name.ljust(width)}{entry.help}" for name, entry in entries.items()]
    for entry in entries.values():
        if "Own" in entry.notes:
            lines += ["", *textwrap.wrap(f"Your own: {entry.notes['Own']}", WIDTH)]
    return "\n".join(lines)


def describe_entry(entry: Entry) -> str:
    """Tell all about an entry: help, options with kinds and defaults, notes, source."""
    lines = [f"{entry.axis} {entry.name}", f"  {entry.help}", "", "Options"]
    lines += _table(entry.options) or ["  none"]
    for name, text in entry.notes.items():
        lines += ["", *textwrap.wrap(f"{name}: {text}", WIDTH)]
    return "\n".join(lines)


def _table(options: Iterable[Option]) -> list[str]:
    rows = [(option.name, _kind(option), _default(option)) for option in options]
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) + 2 for column in range(2)]
    return [f"  {name.ljust(widths[0])}{kind.ljust(widths[1])}{rest}" for name, kind, rest in rows]


def _kind(option: Option) -> str:
    if option.choices:
        return " | ".join(map(str, option.choices))
    return f"({', '.join(option.items)})" if option.items else option.kind


def _default(option: Option) -> str:
    return "required" if option.required else f"default {option.default}"
