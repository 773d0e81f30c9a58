"""Read what a matrix chooses on an axis: names, option tables, lists of them, compositions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertopt_bench import catalogue
from bertopt_bench.errors import UserError
from bertopt_bench.matrix.keys import WORKLOAD, came, products, refuse_repeats, refuse_too_many

if TYPE_CHECKING:
    from bertopt_bench.catalogue import Entry
    from bertopt_bench.matrix.keys import Place

DEFAULTS = {
    "optimizer": "adamw",
    "schedule": "linear",
    "regularizer": "none",
    "precision": "fp32",
    "device": "cpu",
    "kernel.attention": "default",
    "kernel.checkpointing": "off",
    "kernel.cuda_graph": "off",
    "kernel.gelu": "default",
    "kernel.layer_norm": "default",
    "kernel.mlm_loss": "sparse",
    "kernel.optimizer_step": "default",
    "kernel.compile": "off",
}
"""What an axis is where the matrix is silent."""

EMPTY = "is an empty list; name at least one, or leave the key out."


def axis_names() -> list[str]:
    """Name the axes that a cell has a value for, kernels as ``kernel.<operation>``."""
    return [name for name in catalogue.AXES if name not in catalogue.TEXTS]


def dimensions(table: dict[str, Any], place: Place, also: str = "") -> dict[str, tuple[Any, Place]]:
    """Give what an ``[[include]]`` or ``[[exclude]]`` names: value and place by dimension.

    Kernels may stand in a table ``kernel`` or, since no other key is called so, by themselves.
    """
    axes = axis_names()
    kernels = [axis.partition(".")[2] for axis in axes if axis.startswith("kernel.")]
    plain = [axis for axis in axes if "." not in axis]
    place.known(table, [*filter(None, [also]), *plain, "kernel", *kernels, *WORKLOAD])
    named: dict[str, tuple[Any, Place]] = {}
    for key, value in table.items():
        spot = place.at(key)
        if key == "kernel":
            spot.known(spot.table(value), kernels, "operation")
            named.update({f"kernel.{k}": (part, spot.at(k)) for k, part in value.items()})
        elif key != also:
            prefix = "workload." if key in WORKLOAD else "kernel." if key in kernels else ""
            named[prefix + key] = (value, spot)
    return named


def default_level(axis: str, place: Place) -> Any:
    """Give the level of an axis that the matrix does not mention."""
    return read_levels(axis, DEFAULTS.get(axis, "default"), place)[0]


def read_levels(axis: str, value: Any, place: Place) -> tuple[Any, ...]:
    """Give an axis' levels in the order written: canonical choices (lists of them: regularizer).

    Raises:
        MatrixError: an unknown name or option, a wrong type, an empty list, a repeated level.
    """
    written = value if isinstance(value, list) else [value]
    if not written:
        raise place.error(EMPTY)
    levels: list[Any] = []
    places: list[Place] = []
    for index, item in enumerate(written):
        spot = place.item(index) if isinstance(value, list) else place
        found = _composed(item, spot) if axis == "regularizer" else _expanded(axis, item, spot)
        refuse_too_many(len(levels) + len(found), place)
        levels += found
        places += [spot] * len(found)
    refuse_repeats(levels, places)
    return tuple(levels)


def _composed(item: Any, place: Place) -> list[list[dict[str, Any]]]:
    """Read one regularizer or an inner list of them, which work together in that order."""
    if not isinstance(item, list):
        return [[choice] for choice in _expanded("regularizer", item, place)]
    if not item:
        raise place.error("is an empty list; for no regularizer write 'none'.")
    parts = [_expanded("regularizer", part, place.item(index)) for index, part in enumerate(item)]
    names = [part[0]["name"] for part in parts]
    if "none" in names and len(names) > 1:
        raise place.error("composes 'none' with others; leave 'none' out.")
    for index, name in enumerate(names):
        if name in names[:index]:
            raise place.item(index).error(f"composes '{name}' twice; keep one.")
    return [list(combination) for combination in products(parts, place)]


def _expanded(axis: str, item: Any, place: Place) -> list[dict[str, Any]]:
    """Read a name or an option table, in which a list of values stands for one level each."""
    options: dict[str, Any] = {}
    name = item
    if isinstance(item, dict):
        if "name" not in item:
            raise place.error(f"has no 'name'; it must say which {axis} its options are for.")
        options = {key: value for key, value in item.items() if key != "name"}
        name = item["name"]
    if not isinstance(name, str):
        inner = "" if axis != "regularizer" else ", or a list of these"
        raise place.error(f"is {came(item)}; it must be a name or a table with 'name'{inner}.")
    try:
        entry = catalogue.find(axis, name)
    except UserError as error:
        raise place.error(str(error)) from error
    lists = [_values(entry, key, value, place.at(key)) for key, value in options.items()]
    return [
        _canonical(entry, dict(zip(options, values, strict=True)), place)
        for values in products(lists, place)
    ]


def _values(entry: Entry, key: str, value: Any, place: Place) -> list[Any]:
    """Give the values an option takes in turn; a flat list is one value of a tuple option."""
    if not isinstance(value, list):
        return [value]
    if not value:
        raise place.error("is an empty list; give at least one value, or leave the option out.")
    kind = next((option.kind for option in entry.options if option.name == key), "any")
    if kind == "tuple" and not all(isinstance(part, list) for part in value):
        return [value]
    return value


def _canonical(entry: Entry, options: dict[str, Any], place: Place) -> dict[str, Any]:
    try:
        return catalogue.canonical(entry, options)
    except UserError as error:
        named = [key for key in options if f"option '{key}'" in str(error)]
        spot = place.at(named[0]) if named else place
        raise spot.error(str(error)) from error
