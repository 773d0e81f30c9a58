"""Cells that were tuned: ``[[tuned]]`` of a matrix, and the matrix that `tune` writes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.keys import Key, Place, came

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_KEYS: Mapping[str, Key] = {
    "cell": Key("str"),
    "arm": Key("str"),
    "points": Key("int", least=1),
    "extensions": Key("int", least=0),
    "seeds": Key("int", least=1),
    "edge_optimum": Key("list"),
    "ledger": Key("str"),
}
"""What is known of a tuned cell: its arm, the points that were tried (extensions among them), the
tuning seeds, the options whose best value lies on an edge, and the ledger's sha256."""


_BARE = re.compile(r"[A-Za-z0-9_-]+")


def read_tuned(tables: Sequence[Any], place: Place) -> dict[str, dict[str, Any]]:
    """Read ``[[tuned]]``: what is known of tuned cells, by their id.

    Raises:
        MatrixError: a key is missing, unknown or of the wrong kind.
    """
    found: dict[str, dict[str, Any]] = {}
    for index, value in enumerate(tables):
        spot = place.item(index)
        table = spot.table(value)
        spot.known(table, _KEYS)
        missing = [key for key in _KEYS if key not in table]
        if missing:
            raise spot.error(f"has no {missing[0]}; `bertopt-bench tune` writes such tables.")
        known = {key: rule.read(table[key], spot.at(key)) for key, rule in _KEYS.items()}
        if not all(isinstance(option, str) for option in known["edge_optimum"]):
            what = came(known["edge_optimum"])
            raise spot.at("edge_optimum").error(f"is {what}; it must be a list of options' names.")
        found[known.pop("cell")] = known
    return found


def write_matrix(
    document: Mapping[str, Any], contents: Sequence[Mapping[str, Any]], tuned: Sequence[Any]
) -> str:
    """Write a matrix of cells that differ in their axes alone, with what is known of their tuning.

    Args:
        document: the other keys of the matrix, ``workload`` with them.
        contents: one a cell.
        tuned: the tables ``[[tuned]]``.
    """
    first, *others = [_axes(content) for content in contents]
    lines = [f"{key} = {toml(value)}" for key, value in document.items() if value != {}]
    lines += ["", "[axes]", *(f"{axis} = {toml(choice)}" for axis, choice in first.items())]
    for axes in others:
        lines += ["", "[[include]]"]
        lines += [f"{axis} = {toml(one)}" for axis, one in axes.items() if one != first.get(axis)]
    for table in tuned:
        lines += ["", "[[tuned]]", *(f"{key} = {toml(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def toml(value: Any) -> str:
    """Write a value as TOML on one line; an option without a value is left out.

    >>> toml({"lr": 1e-05, "name": "adamw", "adamw_lr": None})
    '{lr = 1e-05, name = "adamw"}'
    >>> toml({"my:Own": True})
    '{"my:Own" = true}'
    """
    if isinstance(value, dict):
        pairs = ((_key(k), part) for k, part in value.items() if part is not None)
        return "{" + ", ".join(f"{key} = {toml(part)}" for key, part in pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key)


def _axes(content: Mapping[str, Any]) -> dict[str, Any]:
    """Give a cell's choices as a matrix writes them: a composition is a list in the list."""
    found: dict[str, Any] = {}
    for axis, choice in content.items():
        if axis == "workload":
            continue
        found[axis] = [_wrapped(choice)] if isinstance(choice, list) else _wrapped(choice)
    return found


def _wrapped(choice: Any) -> Any:
    """Keep an option's list one value: a list of lists is a choice of one."""
    if isinstance(choice, list):
        return [_wrapped(part) for part in choice]
    if isinstance(choice, dict):
        return {key: _wrapped_option(part) for key, part in choice.items()}
    return choice


def _wrapped_option(part: Any) -> Any:
    if isinstance(part, dict):  # kernels: a choice each
        return {key: _wrapped_option(one) for key, one in part.items()}
    return [part] if isinstance(part, list) else part
