"""Read an entry off a function or class: its signature gives options, its docstring the rest."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

POSITIONAL = {
    "optimizer": "groups",
    "schedule": "total_steps",
    "corpus": "the text after a colon",
    "dataset": "the text after a colon",
}
"""What an axis' entries may be called with, besides their options."""

HIDDEN = {"optimizer": frozenset({"foreach", "fused", "capturable"})}
"""Keywords that another axis sets (``kernel.optimizer_step``, ``kernel.cuda_graph``)."""

KINDS = ("bool", "int", "float", "str", "tuple", "list")
_NOTE = re.compile(r"([A-Z][A-Za-z]*): (.*)")


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of an entry without calling it.

    ``notes`` are the docstring's lines of the form ``Word: text``; ``sources`` maps file to sha256
    for entries from outside this package. ``accepts`` are all keywords, hidden ones too; ``open``
    says that any other keyword is taken as well.
    """

    axis: str
    name: str
    target: str
    options: tuple[Option, ...] = ()
    help: str = ""
    source: str = ""
    search: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    accepts: frozenset[str] = frozenset()
    open: bool = False


def read_entry(axis: str, name: str, target: str, function: Callable[..., Any]) -> Entry:
    """Describe a function or class."""
    text, notes = read_docstring(function)
    parameters = list(_parameters(function))
    named = [p for p in parameters if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]
    if axis.startswith("kernel."):  # the others are the operation's own arguments
        named = [p for p in named if p.kind is p.KEYWORD_ONLY]
    if axis in POSITIONAL and named and named[0].kind is not named[0].KEYWORD_ONLY:
        named = named[1:]
    hidden = HIDDEN.get(axis, frozenset())
    return Entry(
        axis=axis,
        name=name,
        target=target,
        options=tuple(_option(p) for p in named if p.name not in hidden and is_plain(p.default)),
        help=text,
        source=notes.get("Source", ""),
        search=notes.get("Search", ""),
        notes=notes,
        accepts=frozenset(p.name for p in named),
        open=any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


def read_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Split a docstring into its first line and its notes, which begin ``Word: ``."""
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


def is_plain(value: Any) -> bool:
    """Say whether a default can stand in a cell, which is JSON."""
    if value is inspect.Parameter.empty or value is None:
        return True
    if isinstance(value, list | tuple):
        return all(is_plain(part) for part in value)
    return type(value) in {bool, int, float, str}


def _parameters(function: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    try:
        yield from inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a class written in C may have no signature: no option known
        return


def _option(parameter: inspect.Parameter) -> Option:
    required = parameter.default is parameter.empty
    default = None if required else parameter.default
    kind, choices, items = _kind(parameter.annotation)
    if kind == "any" and default is not None and type(default) is not int:
        # an int without annotation (lr=1) may well stand for a float
        kind = type(default).__name__
    kind = "tuple" if kind == "list" else kind
    return Option(parameter.name, kind, choices, default, required, items)


def _kind(annotation: Any) -> tuple[str, tuple[Any, ...] | None, tuple[str, ...]]:
    """Read an annotation, text or type: its kind, the choices of a Literal, a tuple's kinds."""
    nothing = ("any", None, ())
    if annotation is inspect.Parameter.empty:
        return nothing
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    try:
        parts = list(_union(ast.parse(text, mode="eval").body))
    except SyntaxError:
        return nothing
    for part in parts:
        name, elements = _head(part)
        if name == "literal":
            choices = tuple(ast.literal_eval(element) for element in elements)
            return type(choices[0]).__name__, choices, ()
        if name == "tuple" and elements and "..." not in text:
            return name, None, tuple(_kind(ast.unparse(element))[0] for element in elements)
        if name in KINDS:
            return name, None, ()
    return nothing


def _head(node: ast.expr) -> tuple[str, list[ast.expr]]:
    """Split ``a.B[C, D]`` into ``b`` and its elements C and D."""
    outer = node.value if isinstance(node, ast.Subscript) else node
    elements: list[ast.expr] = []
    if isinstance(node, ast.Subscript):
        elements = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return ast.unparse(outer).rpartition(".")[2].lower(), elements


def _union(node: ast.expr) -> Iterator[ast.expr]:
    """Give the members of ``A | B``, ``Union[A, B]`` and ``Optional[A]``."""
    name, elements = _head(node)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # quoted: a forward one
        yield from _union(ast.parse(node.value, mode="eval").body)
    elif isinstance(node, ast.BinOp):
        yield from _union(node.left)
        yield from _union(node.right)
    elif name in {"union", "optional"}:
        for member in elements:
            yield from _union(member)
    else:
        yield node
