"""Read the axes without importing torch: names, options, help, sources and skip rules.

One public function of an axis' module is one entry; its signature and docstring say everything.
An entry of the user's own, ``module:Name``, is looked at in a child process, since importing it
may import anything.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import hashlib
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType

_PACKAGE = Path(__file__).parent
_MODULES = {
    "optimizer": "axes.optimizers",
    "schedule": "axes.schedules",
    "regularizer": "axes.regularizers",
    "precision": "axes.precisions",
    "device": "axes.devices",
    **{
        f"kernel.{file.stem}": f"axes.kernels.{file.stem}"
        for file in sorted((_PACKAGE / "axes" / "kernels").glob("[!_]*.py"))
    },
    "corpus": "workload.corpora",
}
AXES = tuple(_MODULES)
"""Names of the axes; a ``kernel`` axis for each module in ``axes/kernels``."""

POSITIONAL = {"optimizer": "groups", "schedule": "total_steps"}
"""What an axis' entries are called with, besides their options."""

HIDDEN = {"optimizer": frozenset({"foreach", "fused"})}
"""Keywords that another axis sets (kernel.optimizer_step)."""

CORPUS_PREFIXES = ("path", "hf")
"""Corpora named with an argument: ``path:FILES`` and ``hf:NAME``."""

_GROUP = "bertopt_bench."  # entry-point groups are bertopt_bench.<axis>
_KINDS = ("bool", "int", "float", "str", "tuple", "list")
_NOTE = re.compile(r"([A-Z][A-Za-z]*): (.*)")
_MAX_PACKAGE_FILES = 64  # of a larger package only the entry's own modules are hashed


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """A keyword of an entry.

    ``kind`` is float, int, bool, str, tuple, or any (nothing is known: taken as it comes);
    ``items`` are the kinds of a tuple of fixed length.
    """

    name: str
    kind: str
    choices: tuple[Any, ...] | None = None
    default: Any = None
    required: bool = False
    items: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """What is known of an entry without calling it.

    ``sources`` maps file to sha256 for entries from outside this package. ``accepts`` are all
    keywords, hidden ones too; ``open`` says that any other keyword is taken as well.
    """

    axis: str
    name: str
    target: str
    options: tuple[Option, ...] = ()
    help: str = ""
    source: str = ""
    search: str = ""
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    accepts: frozenset[str] = frozenset()
    open: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class SkipRule:
    """Why a cell cannot run here: ``check(cell, capabilities)`` gives the reason or None."""

    name: str
    help: str
    allowable: bool
    check: Callable[[Mapping[str, Any], Mapping[str, Any]], str | None]


def entries(axis: str) -> dict[str, Entry]:
    """Give an axis' entries by name: ours in the order of their source, then installed ones.

    Of installed ones only name and target are known here; ``find`` looks further.
    """
    own = _own_entries(_known_axis(axis))
    installed = {
        name: Entry(axis, name, target, help=f"Installed entry point {target}.")
        for name, target in _entry_points(axis).items()
        if name not in own
    }
    return {**own, **installed}


def find(axis: str, name: str) -> Entry:
    """Give one entry; one from outside is described in a child process.

    Raises:
        UserError: no such axis or entry, or the user's module cannot be imported.
    """
    own = _own_entries(_known_axis(axis))
    if name in own:
        return own[name]
    if axis == "corpus" and name.partition(":")[0] in CORPUS_PREFIXES and ":" in name:
        return dataclasses.replace(own[name.partition(":")[0]], name=name)
    return dataclasses.replace(_described_apart(axis, _outside_target(axis, name)), name=name)


def describe(axis: str, name: str) -> Entry:
    """Do what ``find`` does within this process: for where the entry is imported anyway."""
    own = _own_entries(_known_axis(axis))
    if name in own:
        return own[name]
    return dataclasses.replace(_describe_outside(axis, _outside_target(axis, name))[0], name=name)


def resolve(axis: str, name: str) -> Callable[..., Any]:
    """Import what an entry's name stands for.

    Raises:
        UserError: no such entry.
    """
    own = _own_entries(_known_axis(axis))
    if axis == "corpus" and name.partition(":")[0] in CORPUS_PREFIXES:
        name = name.partition(":")[0]
    target = own[name].target if name in own else _outside_target(axis, name)
    return _import_target(axis, target)[1]


def canonical(entry: Entry, options: Mapping[str, Any]) -> dict[str, Any]:
    """Give the entry's full choice: its name and every option, defaults filled in, as plain JSON.

    Raises:
        UserError: an unknown option, a wrong type, a value that is no choice, or one missing.
    """
    known = {option.name: option for option in entry.options}
    who = f"{entry.axis} '{entry.name}'"
    for key in options:
        if key in known or (entry.open and key not in HIDDEN.get(entry.axis, ())):
            continue
        if key in HIDDEN.get(entry.axis, ()):
            raise UserError(
                f"{who} is not told '{key}' here: set kernel.optimizer_step to "
                "'loop', 'foreach' or 'fused'."
            )
        takes = f"It takes: {', '.join(known)}." if known else "It takes no options."
        raise UserError(f"{who} takes no option '{key}'. {takes}{_nearest_option(key, known)}")
    choice: dict[str, Any] = {"name": entry.name}
    for option in known.values():
        if option.name in options:
            choice[option.name] = _checked(who, option, options[option.name])
        elif option.required:
            raise UserError(f"{who} needs the option '{option.name}' ({option.kind}).")
        else:
            choice[option.name] = _plain(option.default)
    return choice | {key: _plain(value) for key, value in options.items() if key not in known}


def validate(cell: Mapping[str, Any]) -> None:
    """Call those entries of a cell that need no torch, so that bad values are refused early.

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


def skip_rules() -> dict[str, SkipRule]:
    """Give the rules by name: every public function of ``axes/skips.py``."""
    rules = {}
    for name, function in _public_functions(_module("axes.skips")).items():
        text, notes = _docstring(function)
        rules[name] = SkipRule(name, text, notes.get("Allow") == "yes", function)
    return rules


def _known_axis(axis: str) -> str:
    if axis in _MODULES:
        return axis
    raise UserError(f"no axis '{axis}'. Axes: {', '.join(AXES)}.{nearest(axis, AXES)}")


def _module(path: str) -> ModuleType:
    return importlib.import_module(f"bertopt_bench.{path}")


@cache
def _own_entries(axis: str) -> dict[str, Entry]:
    module = _module(_MODULES[axis])
    return {
        name: _entry(axis, name, f"{module.__name__}:{name}", function)
        for name, function in _public_functions(module).items()
    }


def _public_functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }


def _entry(axis: str, name: str, target: str, function: Callable[..., Any]) -> Entry:
    """Describe a function or class by its signature and docstring."""
    text, notes = _docstring(function)
    options, accepts, takes_any = _options(axis, function)
    return Entry(
        axis=axis,
        name=name,
        target=target,
        options=options,
        help=text,
        source=notes.get("Source", ""),
        search=notes.get("Search", ""),
        notes=notes,
        accepts=accepts,
        open=takes_any,
    )


def _docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Split a docstring into its first line and its notes: paragraphs that begin ``Word: ``."""
    lines = (inspect.getdoc(function) or "").splitlines()
    notes: dict[str, str] = {}
    key = ""
    for line in lines[1:]:
        begins = _NOTE.match(line)
        if begins:
            key = begins[1]
            notes[key] = begins[2].strip()
        elif not line.strip():
            key = ""
        elif key:
            notes[key] += f" {line.strip()}"
    return (lines[0].strip() if lines else ""), notes


def _options(
    axis: str, function: Callable[..., Any]
) -> tuple[tuple[Option, ...], frozenset[str], bool]:
    """Read a signature: the options, all keywords, and whether any further keyword is taken."""
    parameters = list(inspect.signature(function).parameters.values())
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = [p for p in parameters if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]
    if axis in POSITIONAL and named and named[0] is parameters[0]:
        named = named[1:]
    hidden = HIDDEN.get(axis, frozenset())
    options = [_option(p) for p in named if p.name not in hidden and _is_plain(p.default)]
    return tuple(options), frozenset(p.name for p in named), takes_any


def _option(parameter: inspect.Parameter) -> Option:
    required = parameter.default is parameter.empty
    default = None if required else parameter.default
    kind, choices, items = _kind(parameter.annotation)
    if kind == "any" and default is not None:
        # an int without annotation (lr=1) may well stand for a float
        kind = "any" if type(default) is int else type(default).__name__
    kind = "tuple" if kind == "list" else kind
    return Option(parameter.name, kind, choices, default, required, items)


def _kind(annotation: Any) -> tuple[str, tuple[Any, ...] | None, tuple[str, ...]]:
    """Read an annotation, text or type: its kind, the choices of a Literal, a tuple's kinds."""
    if annotation is inspect.Parameter.empty:
        return "any", None, ()
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    try:
        parts = list(_union(ast.parse(text, mode="eval").body))
    except SyntaxError:
        return "any", None, ()
    for part in parts:
        inner = part.slice if isinstance(part, ast.Subscript) else None
        elements = inner.elts if isinstance(inner, ast.Tuple) else [inner] if inner else []
        name = ast.unparse(part.value if isinstance(part, ast.Subscript) else part)
        name = name.rpartition(".")[2].lower()
        if name == "literal":
            choices = tuple(ast.literal_eval(element) for element in elements)
            return type(choices[0]).__name__, choices, ()
        if name in _KINDS:
            items = () if name != "tuple" else tuple(_kind(ast.unparse(e))[0] for e in elements)
            return name, None, () if "..." in text else items
    return "any", None, ()


def _union(node: ast.expr) -> Iterable[ast.expr]:
    """Give the members of ``A | B``, ``Union[A, B]`` and ``Optional[A]``."""
    if isinstance(node, ast.BinOp):
        yield from _union(node.left)
        yield from _union(node.right)
    elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith(
        ("Union", "Optional")
    ):
        for member in node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]:
            yield from _union(member)
    else:
        yield node


def _checked(who: str, option: Option, value: Any) -> Any:
    """Give a value as the option's kind.

    Raises:
        UserError: it is none.
    """
    what = f"{who}: option '{option.name}'"
    if option.choices is not None:
        if value not in option.choices or isinstance(value, bool) != (option.kind == "bool"):
            close = nearest(str(value), map(str, option.choices))
            allowed = ", ".join(map(repr, option.choices))
            raise UserError(f"{what} is {value!r}; it must be one of {allowed}.{close}")
        return value
    if option.kind == "tuple":
        return _checked_tuple(what, option, value)
    return _as_kind(what, option.kind, value)


def _checked_tuple(what: str, option: Option, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise UserError(f"{what} is {value!r}; it must be a list of values.")
    kinds = option.items or ("any",) * len(value)
    if len(value) != len(kinds):
        raise UserError(f"{what} has {len(value)} values; it must have {len(kinds)}.")
    return [_as_kind(what, kind, part) for kind, part in zip(kinds, value, strict=True)]


def _as_kind(what: str, kind: str, value: Any) -> Any:
    """Give a value as the kind says: whole numbers are floats too, nothing else is converted."""
    if kind == "float" and type(value) in {int, float}:
        return float(value)
    if kind == type(value).__name__ or (kind not in _KINDS and _is_plain(value)):
        return _plain(value)
    raise UserError(f"{what} is {value!r} ({type(value).__name__}); it must be {_A[kind]}.")


_A = {
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "str": "a text",
}


def _is_plain(value: Any) -> bool:
    """Say whether a default can stand in a cell (JSON)."""
    if value is inspect.Parameter.empty or value is None:
        return True
    if isinstance(value, list | tuple):
        return all(_is_plain(part) for part in value)
    return type(value) in {bool, int, float, str}


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _nearest_option(key: str, known: Iterable[str]) -> str:
    """Name the nearest option, also where the user wrote out an abbreviation (learning_rate)."""
    initials = "".join(part[:1] for part in key.split("_"))
    found = next((name for name in known if name == initials), "")
    return f" Did you mean '{found}'?" if found else nearest(key, known)


# ---- entries from outside this package ----


@cache
def _entry_points(axis: str) -> dict[str, str]:
    """Give the names that installed packages add to an axis, with their targets.

    importlib.metadata is loaded only if some package names our group: it costs 30 ms.
    """
    files = (
        file
        for folder in sys.path
        if folder and os.path.isdir(folder)  # noqa: PTH112 - a Path for every sys.path is slower
        for info in os.scandir(folder)
        if info.name.endswith((".dist-info", ".egg-info"))
        and os.path.exists(file := f"{info.path}/entry_points.txt")  # noqa: PTH110 - likewise
    )
    if not any(f"[{_GROUP}".encode() in Path(file).read_bytes() for file in files):
        return {}
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=_GROUP + axis)}


def _outside_target(axis: str, name: str) -> str:
    """Give ``module:Name`` for a name that is none of ours.

    Raises:
        UserError: it is neither of that form nor installed.
    """
    installed = _entry_points(axis)
    if name in installed:
        return installed[name]
    module, _, attribute = name.partition(":")
    if all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
        return name
    names = [*_own_entries(axis), *installed]
    raise UserError(
        f"no {axis} '{name}'. Entries: {', '.join(names)}.{nearest(name, names)} "
        "One of your own is written 'module:Name'."
    )


def _import_target(axis: str, target: str) -> tuple[ModuleType, Any]:
    module_name, _, path = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UserError(
            f"{axis} '{target}': cannot import '{module_name}' "
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
