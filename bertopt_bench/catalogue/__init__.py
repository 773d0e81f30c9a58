"""Read the axes without importing torch: names, options, help, sources and skip rules.

One public function of an axis' module, or of a package's ``PARTS``, is one entry; its signature
and docstring say everything.
An entry of the user's own is written ``module:Name`` and looked at in a child process.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.catalogue import outside
from bertopt_bench.catalogue.entry import (
    HIDDEN,
    POSITIONAL,
    Entry,
    Option,
    read_docstring,
    read_entry,
)
from bertopt_bench.catalogue.values import canonical
from bertopt_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

__all__ = [
    "AXES",
    "HIDDEN",
    "POSITIONAL",
    "TEXTS",
    "Entry",
    "Option",
    "SkipRule",
    "canonical",
    "describe",
    "entries",
    "find",
    "package_of",
    "resolve",
    "skip_rules",
    "validate",
]

_KERNELS = Path(__file__).parent.parent / "axes" / "kernels"
_MODULES = {
    "optimizer": "axes.optimizers",
    "schedule": "axes.schedules",
    "regularizer": "axes.regularizers",
    "precision": "axes.precisions",
    "device": "axes.devices",
    **{
        f"kernel.{file.stem}": f"axes.kernels.{file.stem}"
        for file in sorted(_KERNELS.glob("[!_]*.py"))
    },
    "corpus": "workload.corpora",
    "dataset": "workload.datasets",
}
AXES = tuple(_MODULES)
"""Names of the axes; a ``kernel`` axis for each module in ``axes/kernels``."""

TEXTS = ("corpus", "dataset")
"""Axes that are keys of the workload; their entries may take what follows a colon: path:FILES."""

_SKIPS = ("skips", "kernel_skips", "task_skips")
_CLOSED = {
    "kernel.optimizer_step": "a step belongs to its optimizer, so write optimizer = 'module:Name'",
    "kernel.checkpointing": "what is kept and what is computed again is the network's",
    "kernel.cuda_graph": "a step is captured whole or not at all",
}
"""Axes that take no entry from outside, and what to do instead."""


@dataclass(frozen=True, slots=True)
class SkipRule:
    """Why a cell cannot run here: ``check(cell, capabilities)`` gives the reason or None.

    ``elsewhere`` says that the reason is what this machine lacks: on another the cell may run.
    """

    name: str
    help: str
    allowable: bool
    elsewhere: bool
    check: Callable[[Mapping[str, Any], Mapping[str, Any]], str | None]


def entries(axis: str) -> dict[str, Entry]:
    """Give an axis' entries by name: ours in the order of their source, then installed ones.

    Of installed ones only name and target are known here; ``find`` looks further.
    """
    own = _own_entries(axis)
    installed = {
        name: Entry(axis, name, target, help=f"Installed entry point {target}.")
        for name, target in _installed(axis).items()
        if name not in own
    }
    return {**own, **installed}


def find(axis: str, name: str) -> Entry:
    """Give one entry; one from outside is described by a child process.

    Raises:
        UserError: no such axis or entry, or a user's module that cannot be imported.
    """
    own = _own_entries(axis)
    if name in own:
        return own[name]
    prefix, colon, _ = name.partition(":")
    if axis in TEXTS and colon and prefix in own:  # path:FILES, hf:NAME
        return replace(own[prefix], name=name)
    return replace(outside.describe_apart(axis, _outside_target(axis, name)), name=name)


def describe(axis: str, name: str) -> Entry:
    """Do what ``find`` does within this process: for where the entry is imported anyway."""
    own = _own_entries(axis)
    if name in own:
        return own[name]
    return replace(outside.describe_here(axis, _outside_target(axis, name))[0], name=name)


def resolve(axis: str, name: str) -> Callable[..., Any]:
    """Import what an entry's name stands for.

    Raises:
        UserError: no such entry.
    """
    own = _own_entries(axis)
    prefix, colon, argument = name.partition(":")
    if axis in TEXTS and colon and prefix in own:
        return partial(outside.import_target(axis, own[prefix].target)[1], argument)
    target = own[name].target if name in own else _outside_target(axis, name)
    value: Callable[..., Any] = outside.import_target(axis, target)[1]
    return value


def validate(cell: Mapping[str, Any]) -> None:
    """Call those of our entries in a cell that need no torch, so that bad values are refused early.

    Raises:
        UserError: a schedule, regularizer, precision or kernel refuses its options' values.
    """
    chosen = [("regularizer", choice) for choice in cell["regularizer"]]
    chosen += [(f"kernel.{name}", choice) for name, choice in cell["kernel"].items()]
    chosen += [("precision", cell["precision"]), ("schedule", cell["schedule"])]
    for axis, choice in chosen:
        if choice["name"] not in _own_entries(axis):
            continue
        options = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in choice.items()
            if key != "name"
        }
        positional = (cell["workload"]["steps"],) if axis == "schedule" else ()
        resolve(axis, choice["name"])(*positional, **options)


def package_of(axis: str, name: str) -> str | None:
    """Name the optional package that one of our entries imports, if it needs one."""
    packages: dict[str, str] = getattr(_module(_MODULES[axis]), "PACKAGES", {})
    return packages.get(name)


def skip_rules() -> dict[str, SkipRule]:
    """Give the rules by name: every public function of the modules of ``_SKIPS``."""
    rules = {}
    for module in _SKIPS:
        for name, function in _public_functions(_module(f"axes.{module}")).items():
            text, notes = read_docstring(function)
            allow, elsewhere = (notes.get(note) == "yes" for note in ("Allow", "Elsewhere"))
            rules[name] = SkipRule(name, text, allow, elsewhere, function)
    return rules


def _module(path: str) -> ModuleType:
    return importlib.import_module(f"bertopt_bench.{path}")


@cache
def _own_entries(axis: str) -> dict[str, Entry]:
    if axis not in _MODULES:
        near = nearest(axis, AXES if axis == "kernel" else (*AXES, "kernel"))
        raise UserError(f"no axis '{axis}'. Axes: {', '.join(AXES)}.{near}")
    return {
        name: read_entry(axis, name, f"{module.__name__}:{name}", function)
        for module in _parts(_MODULES[axis])
        for name, function in _public_functions(module).items()
    }


def _parts(path: str) -> list[ModuleType]:
    """Give the modules that an axis' entries are written in: one, or the parts of a package."""
    module = _module(path)
    parts: tuple[str, ...] = getattr(module, "PARTS", ())
    return [_module(f"{path}.{part}") for part in parts] or [module]


def _public_functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }


def _outside_target(axis: str, name: str) -> str:
    """Give ``module:Name`` for a name that is none of ours.

    Raises:
        UserError: it is neither installed nor of that form, or the axis takes ours only.
    """
    installed = _installed(axis)
    if name in installed:
        return installed[name]
    module, _, path = name.partition(":")
    if axis not in _CLOSED and all(
        part.isidentifier() for part in (*module.split("."), *path.split("."))
    ):
        return name
    names = [*_own_entries(axis), *installed]
    own = "One of your own is written 'module:Name'."
    if axis in _CLOSED:
        own = f"It takes none of your own: {_CLOSED[axis]}."
    raise UserError(f"no {axis} '{name}'. Entries: {', '.join(names)}.{nearest(name, names)} {own}")


def _installed(axis: str) -> dict[str, str]:
    """Give the names that installed packages add to an axis that may be added to."""
    return {} if axis in _CLOSED else outside.entry_points(axis)
