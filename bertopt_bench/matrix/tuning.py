"""Read ``[tuning]`` of a matrix: arms with a space each, one budget for all, seeds of its own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench import catalogue
from bertopt_bench.errors import MatrixError, UserError, nearest
from bertopt_bench.matrix import spaces
from bertopt_bench.matrix.arms import on_axis
from bertopt_bench.matrix.cells import Cell, expand
from bertopt_bench.matrix.identity import canonical_json, cell_id
from bertopt_bench.matrix.keys import Key, Place, came, refuse_repeats
from bertopt_bench.matrix.labels import number
from bertopt_bench.matrix.overrides import apply_override
from bertopt_bench.matrix.spec import load, read_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.catalogue import Entry
    from bertopt_bench.matrix.overrides import Override
    from bertopt_bench.matrix.spaces import Dimension, Options
    from bertopt_bench.matrix.spec import Matrix

SEARCHED = ("optimizer", "schedule", "regularizer")
DRAWN = ("sobol", "halton")
OPTUNA = "optuna:"
PRUNES = ("none", "diverged", "worse_half")
KEYS: Mapping[str, Key] = {
    "points": Key("int", least=2, most=1000),
    "extensions": Key("int", 4, least=0, most=1000),
    "seeds": Key("list"),
    "sampler": Key("str", "grid"),
    "draw_seed": Key("int", 0, least=0, most=2**31),
    "prune": Key("str", "none", choices=PRUNES),
    "report_defaults": Key("list"),
    "arms": Key("dict"),
}
_SEED = Key("int", least=0, most=2**63 - 1)
PART, REPORT_PART = "tuning", "report"


@dataclass(frozen=True, slots=True)
class TunedArm:
    """One contender: its cell at documented defaults, and what of it is searched."""

    name: str
    cell: Cell
    dimensions: tuple[Dimension, ...]
    entries: Mapping[str, Entry]

    def at(self, options: Options) -> Cell:
        """Give the cell at one point of the space.

        Raises:
            UserError: the entry refuses a value.
        """
        content = dict(self.cell.content)
        for key, value in options.items():
            axis, _, option = key.partition(".")
            entry = self.entries[key]
            content[axis] = _with(content[axis], entry, option, value)
        told = " ".join(f"{key.partition('.')[2]}={number(v)}" for key, v in options.items())
        label = f"{self.name} {told}"
        return replace(self.cell, id=cell_id(content), content=content, label=label)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What ``[tuning]`` says; ``matrix`` has the seeds and the held-out part of tuning.

    ``digest`` changes with anything that is asked for.
    """

    matrix: Matrix
    document: Mapping[str, Any]
    arms: tuple[TunedArm, ...]
    report_seeds: tuple[int, ...]
    points: int
    extensions: int
    sampler: str
    draw_seed: int
    prune: str
    report_defaults: tuple[str, ...]
    digest: str

    @property
    def seeds(self) -> tuple[int, ...]:
        """Give the seeds that are tuned on."""
        return self.matrix.seeds

    def declared(self) -> dict[str, Any]:
        """Give what was stated beforehand, as plain JSON."""
        return {
            "points": self.points,
            "extensions": self.extensions,
            "seeds": list(self.seeds),
            "report_seeds": list(self.report_seeds),
            "sampler": self.sampler,
            "draw_seed": self.draw_seed,
            "prune": self.prune,
            "arms": {arm.name: _declared_space(arm) for arm in self.arms},
        }


def _declared_space(arm: TunedArm) -> dict[str, list[float]]:
    return {one.key: list(one.values or (one.low, one.high)) for one in arm.dimensions}


def read_tuning(
    path: Path | str,
    overrides: Sequence[Override] = (),
    capabilities: Mapping[str, Any] | None = None,
) -> Tuning:
    """Read a matrix with its ``[tuning]``.

    Raises:
        MatrixError: no such table, a mistake in it, or seeds that tuning and report share.
    """
    path = Path(path)
    document = read_document(path)
    for override in overrides:
        apply_override(document, override)
    place = Place(path, "tuning")
    if "tuning" not in document:
        raise MatrixError(path, "tuning", "there is no such table; `tune` reads it. " + _EXAMPLE)
    table = _settings(place.table(document["tuning"]), place)
    whole = load(path, overrides)
    seeds = _seeds(table["seeds"], whole.seeds, place.at("seeds"))
    part = [*overrides, ("workload.held_out_part", PART)]
    matrix = replace(load(path, part), seeds=seeds)
    _check_sampler(table["sampler"], place.at("sampler"))
    arms = _arms(path, part, table["arms"], place.at("arms"), capabilities)
    for arm in arms:
        spot = place.at("arms").at(arm.name).at("space")
        spaces.refuse_undrawable(arm.dimensions, table["sampler"], spot)
        if table["sampler"] == "grid":
            spaces.checked_points(spaces.grid(arm.dimensions), table["points"], spot)
    told = canonical_json([whole.digest, {**table, "seeds": sorted(seeds)}])
    defaults = _defaults(table["report_defaults"], [one.name for one in arms], place)
    return Tuning(
        matrix=matrix,
        document=document,
        arms=arms,
        report_seeds=whole.seeds,
        report_defaults=defaults,
        digest=hashlib.sha256(told.encode()).hexdigest()[:16],
        **{key: table[key] for key in _PLAIN},
    )


_PLAIN = ("points", "extensions", "sampler", "draw_seed", "prune")
_EXAMPLE = (
    "As: [tuning] points = 6, seeds = [101, 102]; [tuning.arms.adamw] optimizer = 'adamw', "
    "space.optimizer.lr = { log = [2.5e-4, 8e-3] }."
)


def _settings(table: dict[str, Any], place: Place) -> dict[str, Any]:
    place.known(table, KEYS)
    for key in ("points", "seeds", "arms"):
        if not table.get(key):
            raise place.at(key).error(f"is missing or empty. {_EXAMPLE}")
    return {
        key: rule.read(table[key], place.at(key)) if key in table else rule.default
        for key, rule in KEYS.items()
    }


def _seeds(value: list[Any], report: Sequence[int], place: Place) -> tuple[int, ...]:
    places = [place.item(index) for index in range(len(value))]
    seeds = [_SEED.read(seed, spot) for seed, spot in zip(value, places, strict=True)]
    refuse_repeats(seeds, places)
    shared = sorted(set(seeds) & set(report))
    if shared:
        raise place.error(
            f"shares {shared} with the matrix' seeds, which are the report's. Tune on others: "
            "what is chosen on a seed looks better on it than it is."
        )
    return tuple(seeds)


def _defaults(value: list[Any] | None, names: Sequence[str], place: Place) -> tuple[str, ...]:
    """Name the arms whose documented default is reported beside what was chosen: all, if silent."""
    spot = place.at("report_defaults")
    for name in value or []:
        if name not in names:
            raise spot.error(
                f"names {came(name)}. Arms: {', '.join(names)}.{nearest(str(name), names)}"
            )
    return tuple(names if value is None else value)


def _check_sampler(sampler: str, place: Place) -> None:
    if sampler in {"grid", *DRAWN}:
        return
    if sampler.startswith(OPTUNA) and sampler[len(OPTUNA) :].isidentifier():
        return
    raise place.error(
        f"is '{sampler}'; it must be grid, {', '.join(DRAWN)}, or {OPTUNA}NAME with a class of "
        "optuna.samplers, as optuna:TPESampler."
    )


def _arms(
    path: Path,
    overrides: Sequence[Override],
    table: Mapping[str, Any],
    place: Place,
    capabilities: Mapping[str, Any] | None,
) -> tuple[TunedArm, ...]:
    arms = tuple(
        _arm(path, overrides, name, place.at(name).table(one), place.at(name), capabilities)
        for name, one in table.items()
    )
    seen: dict[str, str] = {}
    for arm in arms:
        searched = {key.partition(".")[2] for key in arm.entries}
        text = canonical_json([arm.cell.content, sorted(searched)])
        if text in seen:
            raise place.at(arm.name).error(f"is the same as arm '{seen[text]}'; keep one.")
        seen[text] = arm.name
    return arms


def _arm(
    path: Path,
    overrides: Sequence[Override],
    name: str,
    table: dict[str, Any],
    place: Place,
    capabilities: Mapping[str, Any] | None,
) -> TunedArm:
    keys = [
        on_axis(key, value, place, "an arm of tuning", ("space",))
        for key, value in table.items()
        if key != "space"
    ]
    cells = expand(load(path, [*overrides, *keys]), capabilities)
    if len(cells) != 1:
        raise place.error(
            f"stands for {len(cells)} cells; an arm is one. Let [axes] and [workload] fix "
            "everything, with one value each."
        )
    spot = place.at("space")
    space = spot.table(table.get("space", {}))
    spaces.refuse_empty(space, spot)
    spot.known(space, SEARCHED, "axis")
    found = [
        (f"{axis}.{option}", spec, spot.at(axis).at(option))
        for axis, options in space.items()
        for option, spec in spot.at(axis).table(options).items()
    ]
    spaces.refuse_empty(dict.fromkeys(key for key, _, _ in found), spot)
    entries = {key: _entry(cells[0], key, where) for key, _, where in found}
    dimensions = tuple(
        spaces.read_dimension(key, spec, _documented(entries[key], key), where)
        for key, spec, where in found
    )
    return TunedArm(name, cells[0], dimensions, entries)


def _entry(cell: Cell, key: str, place: Place) -> Entry:
    """Find the entry of the arm that has the option."""
    axis, _, option = key.partition(".")
    chosen = cell.content[axis]
    names = [part["name"] for part in (chosen if isinstance(chosen, list) else [chosen])]
    found = [catalogue.find(axis, name) for name in names]
    for entry in found:
        if entry.open or any(one.name == option for one in entry.options):
            return entry
    takes = [one.name for entry in found for one in entry.options]
    raise place.error(
        f"{axis} '{' + '.join(names)}' takes no option '{option}'. "
        f"It takes: {', '.join(takes) or 'none'}."
    )


def _documented(entry: Entry, key: str) -> float | None:
    option = key.partition(".")[2]
    values = [one.default for one in entry.options if one.name == option]
    return spaces.read_number(values[0]) if values else None


def _with(chosen: Any, entry: Entry, option: str, value: float) -> Any:
    """Set an option in an axis' choice, or in the part of a composition that has it."""
    if isinstance(chosen, list):
        return [
            _with(part, entry, option, value) if part["name"] == entry.name else part
            for part in chosen
        ]
    given = {k: v for k, v in chosen.items() if k != "name" and v is not None}
    whole = any(one.name == option and one.kind == "int" for one in entry.options)
    typed = int(value) if whole and value == int(value) else value
    checked = catalogue.canonical(entry, {**given, option: typed})
    return {**chosen, option: checked[option]}


def is_possible(arm: TunedArm, options: Options) -> bool:
    """Say whether the entries take these values."""
    try:
        arm.at(options)
    except UserError:
        return False
    return True
