"""Leave cells of a matrix out, each for a stated reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertopt_bench import catalogue
from bertopt_bench.errors import UserError
from bertopt_bench.matrix.choices import dimensions
from bertopt_bench.matrix.keys import Place, came, read_workload_value

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Cells to leave out: on every dimension named, one of the patterns must match.

    A pattern is a workload value, an entry's name, a table of options that must all agree, or for
    regularizers a list of such, all of which must be part of the composition.
    """

    reason: str
    patterns: Mapping[str, tuple[Any, ...]]

    def covers(self, choice: Mapping[str, Any]) -> bool:
        """Say whether a combination (dimension -> level) is left out."""
        return all(
            any(_matches(pattern, choice[name]) for pattern in patterns)
            for name, patterns in self.patterns.items()
        )


def read_exclusion(value: Any, levels: Mapping[str, tuple[Any, ...]], place: Place) -> Exclusion:
    """Read one ``[[exclude]]`` table.

    Raises:
        MatrixError: no reason, no condition, an unknown key, name or option.
    """
    table = place.table(value)
    reason = table.get("reason")
    if not isinstance(reason, str) or not reason.strip():
        raise place.at("reason").error("is missing; say in a text why these cells are left out.")
    patterns = {
        name: _workload_patterns(name.partition(".")[2], part, spot)
        if name.startswith("workload.")
        else _axis_patterns(name, part, levels[name], spot)
        for name, (part, spot) in dimensions(table, place, "reason").items()
    }
    if not patterns:
        raise place.error("names nothing to leave out besides its reason.")
    return Exclusion(reason.strip(), patterns)


def _workload_patterns(key: str, value: Any, place: Place) -> tuple[Any, ...]:
    if not isinstance(value, list):
        return tuple(read_workload_value(key, value, place))
    return tuple(
        found
        for index, part in enumerate(value)
        for found in read_workload_value(key, part, place.item(index))
    )


def _axis_patterns(axis: str, value: Any, levels: tuple[Any, ...], place: Place) -> tuple[Any, ...]:
    written = value if isinstance(value, list) else [value]
    if not written:
        raise place.error("is an empty list; it would leave out nothing.")
    for index, item in enumerate(written):
        spot = place.item(index) if isinstance(value, list) else place
        parts = item if axis == "regularizer" and isinstance(item, list) else [item]
        for part in parts:
            _check_pattern(axis, part, levels, spot)
    return tuple(written)


def _check_pattern(axis: str, pattern: Any, levels: tuple[Any, ...], place: Place) -> None:
    """Refuse names that are no entries, and options that no level of the axis has."""
    if not isinstance(pattern, str | dict):
        raise place.error(f"is {came(pattern)}; it must be a name or a table of options.")
    options = pattern if isinstance(pattern, dict) else {"name": pattern}
    name = options.get("name")
    choices = [part for level in levels for part in (level if isinstance(level, list) else [level])]
    if name is not None:
        choices = [choice for choice in choices if choice["name"] == name]
        if not choices:  # not among the levels (perhaps only since a --set): a typo or not?
            try:
                catalogue.find(axis, str(name))
            except UserError as error:
                raise place.error(str(error)) from error
            return
    known = dict.fromkeys(key for choice in choices for key in choice)
    place.known(options, known, "option")


def _matches(pattern: Any, level: Any) -> bool:
    if isinstance(level, list):  # a composition of regularizers
        parts = pattern if isinstance(pattern, list) else [pattern]
        return all(any(_matches(part, choice) for choice in level) for part in parts)
    if isinstance(pattern, dict) and isinstance(level, dict):
        return all(_agrees(value, level.get(key)) for key, value in pattern.items())
    if isinstance(pattern, str) and isinstance(level, dict):
        return bool(level.get("name") == pattern)
    return bool(pattern == level)


def _agrees(asked: Any, value: Any) -> bool:
    if isinstance(asked, list) and not isinstance(value, list):
        return value in asked
    return bool(asked == value)
