"""Entries from outside this package: found by name, described in a child process.

Importing a user's module may import anything (torch, mostly), so this process only ever sees the
description. ``python -m bertopt_bench.catalogue AXIS TARGET`` prints it as JSON.
"""

from __future__ import annotations

import difflib
import importlib
import json
import os
import sys
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.catalogue.entry import Entry, Option, read_entry
from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

_GROUP = "bertopt_bench."  # entry-point groups are bertopt_bench.<axis>
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_MAX_FILES = 64  # of a larger package only the entry's own modules are hashed

_described: dict[tuple[str, str, str], tuple[Entry, dict[str, str]]] = {}


@cache
def entry_points(axis: str) -> dict[str, str]:
    """Give the names that installed packages add to an axis, with their targets.

    importlib.metadata is loaded only where a package names a group of ours: it costs 30 ms.
    """
    if not any(f"[{_GROUP}".encode() in file.read_bytes() for file in _entry_point_files()):
        return {}
    from importlib import metadata

    return {point.name: point.value for point in metadata.entry_points(group=_GROUP + axis)}


def _entry_point_files() -> Iterator[Path]:
    for folder in filter(os.path.isdir, sys.path):
        with os.scandir(folder) as found:
            names = [item.name for item in found if item.name.endswith((".dist-info", ".egg-info"))]
        files = (Path(folder, name, "entry_points.txt") for name in names)
        yield from (file for file in files if file.is_file())


def import_target(axis: str, target: str) -> tuple[ModuleType, Any]:
    """Import ``module:Name``; give the module and what the name stands for.

    Raises:
        UserError: there is no such module or name, the import fails, or it cannot be called.
    """
    module_name, _, path = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UserError(
            f"{axis} '{target}': importing '{module_name}' fails "
            f"({type(error).__name__}: {error}). It must be installed or lie in {Path.cwd()}."
        ) from error
    value: Any = module
    for part in path.split("."):
        if not hasattr(value, part):
            close = difflib.get_close_matches(part, dir(value), n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise UserError(f"{axis} '{target}': '{module_name}' has no '{part}'.{hint}")
        value = getattr(value, part)
    if not callable(value):
        raise UserError(f"{axis} '{target}' is no function and no class, but {value!r}.")
    return module, value


def describe_here(axis: str, target: str) -> tuple[Entry, dict[str, str]]:
    """Import an entry into this process; give its description and where its source files lie."""
    module, value = import_target(axis, target)
    files = _source_files(module, value)
    entry = read_entry(axis, target, target, value)
    return replace(entry, sources=_hashes(files)), files


def describe_apart(axis: str, target: str) -> Entry:
    """Describe an entry by a child process; again only after one of its files changed.

    Raises:
        UserError: the child could not import it.
    """
    key = (axis, target, str(Path.cwd()))
    if key in _described:
        entry, files = _described[key]
        if _hashes(files) == dict(entry.sources):
            return entry
    answer = _ask_child(axis, target)
    files = answer.pop("files")
    options = [_option(option) for option in answer.pop("options")]
    accepts = frozenset(answer.pop("accepts"))
    entry = Entry(**answer, options=tuple(options), accepts=accepts)
    _described[key] = entry, files
    return entry


def _option(fields: Mapping[str, Any]) -> Option:
    """Make an option of JSON, which has no tuples."""
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
    }
    return Option(**values)


def _ask_child(axis: str, target: str) -> dict[str, Any]:
    import subprocess

    from bertopt_bench.child import module_command

    command = module_command(__package__, axis, target)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        answer: dict[str, Any] = json.loads(done.stdout.rpartition("\n")[2])
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2] or "it said nothing"
        raise UserError(
            f"{axis} '{target}': looking at it in a child process ended with exit code "
            f"{done.returncode}: {last}"
        ) from None
    if "error" in answer:
        raise UserError(answer["error"])
    return answer


def _source_files(module: ModuleType, value: Any) -> dict[str, str]:
    """Give the files whose change makes old results stale, by their place below the import path.

    Of a user's own folder these are all modules imported from it, of an installed package its
    modules, of a large one only those that the entry is written in.
    """
    top = sys.modules[module.__name__.partition(".")[0]]
    place = Path(next(iter(top.__path__)) if hasattr(top, "__path__") else str(top.__file__))
    root = place.resolve().parent
    installed = not _INSTALLED.isdisjoint(root.parts)
    files: dict[str, tuple[str, str]] = {}  # module name -> place below root, absolute path
    for name, found in list(sys.modules.items()):
        file = Path(getattr(found, "__file__", None) or "")
        first = name.partition(".")[0]
        if (
            file.suffix == ".py"
            and file.is_absolute()  # torch.ops and its like name files that are not there
            and (file := file.resolve()).is_relative_to(root)
            and first not in {"__main__", "bertopt_bench"}
            and (first == top.__name__ or not installed)
            and _INSTALLED.isdisjoint(file.relative_to(root).parts)
        ):
            files[name] = file.relative_to(root).as_posix(), str(file)
    if len(files) > _MAX_FILES:
        own = {module.__name__, getattr(value, "__module__", None)}
        files = {name: both for name, both in files.items() if name in own}
    return dict(sorted(files.values()))


def _hashes(files: Mapping[str, str]) -> dict[str, str]:
    import hashlib

    return {
        place: hashlib.sha256(Path(file).read_bytes()).hexdigest() if Path(file).exists() else ""
        for place, file in files.items()
    }


def main() -> None:
    """Describe the entry that the command line names; the answer is the last line printed."""
    axis, target = sys.argv[1:]
    try:
        entry, files = describe_here(axis, target)
        answer = asdict(entry) | {"accepts": sorted(entry.accepts), "files": files}
    except UserError as error:
        answer = {"error": str(error)}
    sys.stdout.write(f"\n{json.dumps(answer)}")
