"""Read a matrix file: everything in it is checked before anything runs."""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench import catalogue
from bertopt_bench.errors import MatrixError, UserError, nearest
from bertopt_bench.matrix import choices, convergence, excluding, tuned
from bertopt_bench.matrix.keys import (
    MOST_CELLS,
    READ_DEFAULTS,
    TIMING,
    WORKLOAD,
    Key,
    Place,
    came,
    read_workload_value,
    refuse_not_finite,
    refuse_repeats,
    refuse_too_many,
)
from bertopt_bench.matrix.measuring import read_measure, trains
from bertopt_bench.matrix.overrides import apply_override

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bertopt_bench.matrix.excluding import Exclusion
    from bertopt_bench.matrix.overrides import Override

    Levels = Mapping[str, tuple[Any, ...]]

MOST_BYTES = 1_000_000
TOP = {
    "name": Key("str"),
    "description": Key("str", ""),
    "seeds": Key("list"),
    "replicates": Key("int", 1, least=1, most=10_000),
    "allow": Key("list"),
    "skip_slower_precisions": Key("bool", False),
    "workload": Key("dict"),
    "timing": Key("dict"),
    "measure": Key("dict"),  # read by matrix.measuring
    "axes": Key("dict"),
    "exclude": Key("list"),
    "include": Key("list"),
    "arms": Key("dict"),  # read by matrix.arms, for a duel
    "duel": Key("dict"),  # read by matrix.duels
    "tuning": Key("dict"),  # read by matrix.tuning
    "protocol": Key("dict"),  # read by protocols
    "tuned": Key("list"),
    "convergence": Key("dict"),  # read by matrix.convergence
}
_SEED = Key("int", least=0, most=2**63 - 1)
_NAME = re.compile(r"\w[\w.+-]{0,99}")


@dataclass(frozen=True, slots=True)
class Matrix:
    """What a matrix file says, checked and with every default filled in.

    ``levels`` maps each dimension (a workload key as ``workload.steps``, an axis as ``optimizer``
    or ``kernel.attention``) to its levels; ``includes`` are further such mappings. ``digest``
    changes with what is asked for, not with comments or the order in which it is written. ``tuned``
    says of cells, by id, under which budget and ledger they were chosen.
    """

    file: Path
    name: str
    description: str
    source: str
    digest: str
    seeds: tuple[int, ...]
    replicates: int
    allow: tuple[str, ...]
    skip_slower_precisions: bool
    timing: Mapping[str, Any]
    levels: Levels
    exclusions: tuple[Exclusion, ...]
    includes: tuple[Levels, ...]
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    measure: Mapping[str, Any] = field(default_factory=dict)

    def cell_count(self) -> int:
        """Count the cells, excluded ones too."""
        return sum(count_cells(levels) for levels in (self.levels, *self.includes))


def load(path: Path | str, overrides: Sequence[Override] = ()) -> Matrix:
    """Read a matrix file and set overrides in it, in order.

    Raises:
        MatrixError: a mistake, with file and key path, what is allowed and the nearest name.
        UserError: the file cannot be read.
    """
    path = Path(path)
    text = _read(path)
    document = _parse(path, text)
    for override in overrides:
        apply_override(document, override)
    if not document:
        raise MatrixError(path, "", f"is empty. It may have: {', '.join(TOP)}.")
    refuse_not_finite(document, Place(path))
    said = "".join(f"\n# --set {override!r}" for override in overrides if isinstance(override, str))
    return _matrix(path, text + said, document)


def count_cells(levels: Levels) -> int:
    """Count the cells that a set of levels spans."""
    return math.prod(map(len, levels.values()))


def combinations(levels: Levels) -> Iterator[dict[str, Any]]:
    """Give every combination, the last dimension varying fastest."""
    for values in product(*levels.values()):
        yield dict(zip(levels, values, strict=True))


def read_document(path: Path) -> dict[str, Any]:
    """Read a matrix file as it stands, unchecked.

    Raises:
        UserError: the file cannot be read, or is no TOML.
    """
    return _parse(path, _read(path))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        here = [str(file) for file in path.parent.glob("*.toml")]
        close = nearest(str(path), here)
        raise UserError(f"matrix file {path}: {error.strerror}.{close}") from error
    if len(data) > MOST_BYTES:
        raise MatrixError(path, "", f"is larger than {MOST_BYTES:,} bytes; split it.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MatrixError(path, "", f"is not UTF-8 text (byte {error.start}).") from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # an absurdly long number is a ValueError only
        raise MatrixError(path, "", f"is no TOML: {error}.") from error


def _matrix(path: Path, source: str, document: dict[str, Any]) -> Matrix:
    root = Place(path)
    root.known(document, TOP)
    top = {
        key: rule.read(document[key], root.at(key)) if key in document else rule.default
        for key, rule in TOP.items()
    }
    levels = {
        **_workload(top["workload"] or {}, root.at("workload")),
        **_axes(top["axes"] or {}, root.at("axes")),
    }
    timing = _timing(top["timing"] or {}, levels["workload.steps"], root.at("timing"))
    includes = tuple(
        _include(table, levels, root.at("include").item(index))
        for index, table in enumerate(top["include"] or [])
    )
    parts = (levels, *includes)
    convergence.check(top["convergence"] or {}, root.at("convergence"), trains=trains(parts))
    exclusions = tuple(
        excluding.read_exclusion(table, levels, root.at("exclude").item(index))
        for index, table in enumerate(top["exclude"] or [])
    )
    matrix = Matrix(
        file=path,
        name=_name(top["name"], path),
        description=top["description"],
        source=source,
        digest=_digest(document),
        seeds=_seeds(top["seeds"], root.at("seeds")),
        replicates=top["replicates"],
        allow=_allow(top["allow"] or [], root.at("allow")),
        skip_slower_precisions=top["skip_slower_precisions"],
        timing=timing,
        levels=levels,
        exclusions=exclusions,
        includes=includes,
        tuned=tuned.read_tuned(top["tuned"] or [], root.at("tuned")),
        measure=read_measure(top["measure"] or {}, parts, root.at("measure")),
    )
    return _of_bearable_size(matrix, root)


def _of_bearable_size(matrix: Matrix, root: Place) -> Matrix:
    if matrix.cell_count() > MOST_CELLS:
        raise root.error(
            f"spans {matrix.cell_count():,} cells; at most {MOST_CELLS:,} are allowed. Split it."
        )
    return matrix


def _name(name: str | None, path: Path) -> str:
    given = path.stem if name is None else name
    if not _NAME.fullmatch(given):
        raise MatrixError(
            path,
            "name",
            f"is {given!r}; it names a folder: letters, digits, '_', '.', '+' and '-', at most 100."
            + (" It comes from the file's name: state another." if name is None else ""),
        )
    return given


def _seeds(value: Any, place: Place) -> tuple[int, ...]:
    if value is None:
        return (1,)
    if not value:
        raise place.error("is an empty list; give at least one seed, or leave the key out.")
    places = [place.item(index) for index in range(len(value))]
    seeds = [_SEED.read(seed, spot) for seed, spot in zip(value, places, strict=True)]
    refuse_repeats(seeds, places)
    return tuple(seeds)


def _allow(names: list[Any], place: Place) -> tuple[str, ...]:
    rules = catalogue.skip_rules()
    allowable = [name for name, rule in rules.items() if rule.allowable]
    for index, name in enumerate(names):
        spot = place.item(index)
        if not isinstance(name, str):
            raise spot.error(f"is {came(name)}; it must be the name of a skip rule.")
        if name not in allowable:
            why = "cannot be allowed: the trial could not run" if name in rules else "is unknown"
            raise spot.error(
                f"skip rule '{name}' {why}. Rules that may be allowed: "
                f"{', '.join(allowable)}.{nearest(name, allowable)}"
            )
    refuse_repeats(names, [place.item(index) for index in range(len(names))])
    return tuple(sorted(names))


def _timing(table: dict[str, Any], steps: tuple[int, ...], place: Place) -> dict[str, Any]:
    place.known(table, TIMING)
    timing = {
        key: rule.read(table[key], place.at(key)) if key in table else rule.default
        for key, rule in TIMING.items()
    }
    if timing["steps"] is not None and timing["steps"] > min(steps):
        raise place.at("steps").error(
            f"is {timing['steps']}; it must be at most workload.steps ({min(steps)}): the "
            "schedule ends there."
        )
    return timing


def _workload(table: dict[str, Any], place: Place) -> dict[str, tuple[Any, ...]]:
    place.known(table, WORKLOAD)
    levels = {}
    for key, rule in WORKLOAD.items():
        value = table.get(key, rule.default if rule else READ_DEFAULTS[key])
        levels[f"workload.{key}"] = _workload_levels(key, value, place.at(key))
    return levels


def _workload_levels(key: str, value: Any, place: Place) -> tuple[Any, ...]:
    written = value if isinstance(value, list) else [value]
    if not written:
        raise place.error(choices.EMPTY)
    found: list[Any] = []
    places: list[Place] = []
    for index, item in enumerate(written):
        spot = place.item(index) if isinstance(value, list) else place
        values = read_workload_value(key, item, spot)
        refuse_too_many(len(found) + len(values), place)
        found += values
        places += [spot] * len(values)
    refuse_repeats(found, places)
    return tuple(found)


def _axes(table: dict[str, Any], place: Place) -> dict[str, tuple[Any, ...]]:
    """Give every axis' levels, those of the silent ones by default."""
    written = _flat_axes(table, place)
    return {
        axis: choices.read_levels(axis, written[axis], place.at(axis))
        if axis in written
        else (choices.default_level(axis, place.at(axis)),)
        for axis in choices.axis_names()
    }


def _flat_axes(table: dict[str, Any], place: Place) -> dict[str, Any]:
    """Check the names of axes; turn the table ``kernel`` into axes ``kernel.<operation>``."""
    axes = choices.axis_names()
    kernels = [axis.partition(".")[2] for axis in axes if axis.startswith("kernel.")]
    place.known(table, [*(axis for axis in axes if "." not in axis), "kernel"], "axis")
    flat = {axis: value for axis, value in table.items() if axis != "kernel"}
    if "kernel" in table:
        spot = place.at("kernel")
        spot.known(spot.table(table["kernel"]), kernels, "operation")
        flat.update({f"kernel.{name}": value for name, value in table["kernel"].items()})
    return flat


def _include(value: Any, levels: Levels, place: Place) -> dict[str, tuple[Any, ...]]:
    """Read further cells; what they do not name is what the matrix fixes, else the default."""
    table = place.table(value)
    if not table:
        raise place.error("is empty; name an axis or a workload key.")
    asked = {
        name: _workload_levels(name.partition(".")[2], part, spot)
        if name.startswith("workload.")
        else choices.read_levels(name, part, spot)
        for name, (part, spot) in choices.dimensions(table, place).items()
    }
    defaults = {**_workload({}, place), **_axes({}, place)}
    return {
        name: asked.get(name) or (own if len(own) == 1 else defaults[name])
        for name, own in levels.items()
    }


def _digest(document: Mapping[str, Any]) -> str:
    """Hash what is asked for: neither name nor description, lists of levels in any order."""

    def unordered(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return sorted(value, key=lambda part: json.dumps(part, sort_keys=True, default=str))

    meaning: dict[str, Any] = {}
    for key, value in document.items():
        if key in {"workload", "axes"}:
            meaning[key] = {name: unordered(part) for name, part in value.items()}
        elif key not in {"name", "description", "arms", "duel", "tuning", "protocol"}:
            meaning[key] = unordered(value)
    if "kernel" in meaning.get("axes", {}):
        kernel = meaning["axes"]["kernel"]
        meaning["axes"]["kernel"] = {name: unordered(part) for name, part in kernel.items()}
    text = json.dumps(meaning, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
