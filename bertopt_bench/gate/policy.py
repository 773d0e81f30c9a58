"""Read a gate's policy file: everything in it is checked before anything runs."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.matrix.arms import read_arms
from bertopt_bench.matrix.duels import Settings
from bertopt_bench.matrix.keys import Key, Place, came, refuse_not_finite, refuse_repeats
from bertopt_bench.matrix.overrides import split_words
from bertopt_bench.matrix.quantities import read_seconds, read_share

if TYPE_CHECKING:
    from collections.abc import Mapping

METRICS = ("step_time", "peak_memory", "loss")
TOP = {
    "matrix": Key("str"),
    "metric": None,  # a name or a list of them
    "margin": None,  # a share, or a table by metric
    "cells": Key("list"),
    "gate_runs_per_month": Key("int", least=1, most=1_000_000),
    "false_alarms_per_year": Key("float", 1.0, above=0, most=1_000_000),
    "replicates": Key("int", 12, least=6, most=200),
    "budget": None,  # a duration
    "base": Key("str"),
    "differs": Key("list"),
    "accepted": Key("list"),
}
REQUIRED = ("matrix", "cells", "gate_runs_per_month")
ACCEPTED = ("cell", "metric", "bound", "reason", "expiry")


@dataclass(frozen=True, slots=True)
class GatedCell:
    """A cell to gate: the overrides as written, and the cell's id."""

    text: str
    id: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A slow-down that is intended: up to ``bound``, to the end of the day ``expiry``."""

    cell: str
    metric: str
    bound: float
    reason: str
    expiry: date


@dataclass(frozen=True, slots=True)
class Policy:
    """What a policy file says, checked.

    ``margins`` and bounds are shares of times and bytes, nats of losses (None: a quarter of the
    baseline's standard deviation over seeds). ``seeds`` counts those of the matrix. ``differs``
    names what recorded sets may differ in.
    """

    file: Path
    source: str
    matrix: Path
    metrics: tuple[str, ...]
    margins: Mapping[str, float | None]
    cells: tuple[GatedCell, ...]
    gate_runs_per_month: int
    false_alarms_per_year: float
    replicates: int
    seeds: int
    budget_seconds: float | None
    base: str | None
    differs: tuple[str, ...]
    accepted: tuple[Accepted, ...]

    @property
    def name(self) -> str:
        """Give the file's name without its ending."""
        return self.file.stem

    def acceptance(self, cell: str, metric: str, today: date) -> Accepted | None:
        """Give what is accepted of a cell and metric today; the last day counts."""
        for one in self.accepted:
            if (one.cell, one.metric) == (cell, metric) and today <= one.expiry:
                return one
        return None

    def margins_of(self, cell: str, today: date) -> dict[str, float | None]:
        """Give the margins of a cell, raised where a slow-down is accepted today."""
        margins: dict[str, float | None] = {}
        for metric, margin in self.margins.items():
            accepted = self.acceptance(cell, metric, today)
            margins[metric] = margin if accepted is None else max(margin or 0.0, accepted.bound)
        return margins

    def expired(self, today: date) -> list[Accepted]:
        """Give the acceptances that no longer count."""
        return [one for one in self.accepted if one.expiry < today]


def read_policy(path: Path | str) -> Policy:
    """Read a policy file.

    Raises:
        MatrixError: a mistake, with file and key path, what is allowed and the nearest name.
        UserError: the file cannot be read.
    """
    path = Path(path)
    text, document = _document(path)
    root = Place(path)
    plain = _plain(document, root)
    metrics = _metrics(document.get("metric", "step_time"), root.at("metric"))
    margins = _margins(document.get("margin"), metrics, root.at("margin"))
    matrix = path.parent / plain["matrix"]
    if not matrix.is_file():
        raise root.at("matrix").error(f"is {came(plain['matrix'])}; there is no file {matrix}.")
    cells, seeds = _cells(plain["cells"], matrix, root.at("cells"))
    budget = document.get("budget")
    return Policy(
        file=path,
        source=text,
        matrix=matrix,
        metrics=metrics,
        margins=margins,
        cells=cells,
        gate_runs_per_month=plain["gate_runs_per_month"],
        false_alarms_per_year=plain["false_alarms_per_year"],
        replicates=plain["replicates"],
        seeds=seeds,
        budget_seconds=None if budget is None else read_seconds(budget, root.at("budget").error),
        base=_filled(plain["base"], root.at("base")),
        differs=_texts(plain["differs"] or [], root.at("differs")),
        accepted=_acceptances(plain["accepted"] or [], cells, margins, root.at("accepted")),
    )


def _plain(document: dict[str, Any], root: Place) -> dict[str, Any]:
    """Check the names of all keys, and the values of those that are one plain value."""
    root.known(document, TOP)
    for key in REQUIRED:
        if key not in document:
            raise root.at(key).error(f"is missing. A policy must have: {', '.join(REQUIRED)}.")
    refuse_not_finite(document, root)
    return {
        key: rule.read(document[key], root.at(key)) if key in document else rule.default
        for key, rule in TOP.items()
        if rule is not None
    }


def _document(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        close = nearest(str(path), map(str, path.parent.glob("*.toml")))
        raise UserError(f"policy file {path}: {error.strerror}.{close}") from error
    except UnicodeDecodeError as error:
        raise Place(path).error(f"is not UTF-8 text (byte {error.start}).") from error
    try:
        return text, tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise Place(path).error(f"is no TOML: {error}.") from error


def _metrics(value: Any, place: Place) -> tuple[str, ...]:
    written = value if isinstance(value, list) else [value]
    if not written:
        raise place.error(f"is an empty list; name one or more of {', '.join(METRICS)}.")
    rule = Key("str", choices=METRICS)
    places = [place.item(i) if isinstance(value, list) else place for i in range(len(written))]
    metrics = [rule.read(one, spot) for one, spot in zip(written, places, strict=True)]
    refuse_repeats(metrics, places)
    return tuple(metrics)


def _margins(value: Any, metrics: tuple[str, ...], place: Place) -> dict[str, float | None]:
    """Read one share for all ratios, or a table by metric; the loss has its own unit."""
    if value is None:
        usual = dict(Settings().margins)
        return {metric: usual[metric] for metric in metrics}
    if isinstance(value, dict):
        place.known(value, metrics, "metric")
        missing = next((m for m in metrics if m not in value and m != "loss"), None)
        if missing is not None:
            raise place.at(missing).error("is missing; give every gated metric its margin.")
        margins = {metric: _amount(metric, one, place.at(metric)) for metric, one in value.items()}
        return {metric: margins.get(metric) for metric in metrics}
    if "loss" in metrics:
        raise place.error(
            f"is {came(value)}; a loss has its margin in nats, so give a table: "
            'margin = { step_time = "2%", loss = 0.01 }. Without loss it is a quarter of the '
            "baseline's standard deviation over seeds."
        )
    return {metric: _amount(metric, value, place) for metric in metrics}


def _amount(metric: str, value: Any, place: Place) -> float:
    """Read a margin or bound: a share, or nats of a loss."""
    if metric != "loss":
        return read_share(value, place.error)
    nats: float = Key("float", least=0).read(value, place)
    return nats


def _cells(written: list[Any], matrix: Path, place: Place) -> tuple[tuple[GatedCell, ...], int]:
    """Read the cells, each by overrides that leave the matrix one; count the matrix' seeds."""
    if not written:
        raise place.error("is an empty list; name at least one cell, as 'optimizer=adamw'.")
    found: dict[str, GatedCell] = {}
    seeds = 0
    for index, text in enumerate(written):
        spot = place.item(index)
        words = _words(text, spot)
        try:
            loaded, arms = read_arms(matrix, base=words)
        except UserError as error:
            raise spot.error(f"'{text}' must give one cell of the matrix, but {error}") from error
        cell, seeds = arms[0].cell, len(loaded.seeds)
        if cell.id in found:
            raise spot.error(f"'{text}' is the cell of '{found[cell.id].text}' again; keep one.")
        found[cell.id] = GatedCell(" ".join(words), cell.id)
    return tuple(found.values()), seeds


def _words(text: Any, place: Place) -> tuple[str, ...]:
    words = tuple(split_words(text)) if isinstance(text, str) else ()
    if not words:
        raise place.error(f"is {came(text)}; it must be overrides, as 'optimizer=lion'.")
    return words


def _filled(value: str | None, place: Place) -> str | None:
    if value is not None and not value.strip():
        raise place.error("is empty; name a revision, or leave the key out.")
    return value


def _texts(written: list[Any], place: Place) -> tuple[str, ...]:
    rule = Key("str")
    return tuple(rule.read(value, place.item(index)) for index, value in enumerate(written))


def _acceptances(
    written: list[Any],
    cells: tuple[GatedCell, ...],
    margins: Mapping[str, float | None],
    place: Place,
) -> tuple[Accepted, ...]:
    found: list[Accepted] = []
    for index, table in enumerate(written):
        spot = place.item(index)
        one = _acceptance(spot.table(table), cells, margins, spot)
        if any((one.cell, one.metric) == (other.cell, other.metric) for other in found):
            raise spot.error(f"accepts {one.metric} of '{one.cell}' a second time; keep one.")
        found.append(one)
    return tuple(found)


def _acceptance(
    table: Mapping[str, Any],
    cells: tuple[GatedCell, ...],
    margins: Mapping[str, float | None],
    place: Place,
) -> Accepted:
    place.known(table, ACCEPTED)
    for key in ACCEPTED:
        if key not in table:
            raise place.at(key).error(f"is missing. It must have: {', '.join(ACCEPTED)}.")
    metric: str = Key("str", choices=tuple(margins)).read(table["metric"], place.at("metric"))
    bound = _amount(metric, table["bound"], place.at("bound"))
    margin = margins[metric] or 0.0
    if bound <= margin:
        raise place.at("bound").error(
            f"is {came(table['bound'])}; below the margin ({margin:g}) nothing needs accepting."
        )
    reason: str = Key("str").read(table["reason"], place.at("reason"))
    if not reason.strip():
        raise place.at("reason").error("is empty; say why the slow-down is intended.")
    return Accepted(
        cell=_accepted_cell(table["cell"], cells, place.at("cell")),
        metric=metric,
        bound=bound,
        reason=" ".join(reason.split()),
        expiry=_day(table["expiry"], place.at("expiry")),
    )


def _accepted_cell(text: Any, cells: tuple[GatedCell, ...], place: Place) -> str:
    """Give the gated cell that is meant; its overrides may stand in any order."""
    ordered = " ".join(sorted(_words(text, place)))
    known = {" ".join(sorted(split_words(cell.text))): cell.text for cell in cells}
    if ordered not in known:
        raise place.error(
            f"'{text}' is none of the policy's cells: {'; '.join(known.values())}."
            f"{nearest(ordered, known)}"
        )
    return known[ordered]


def _day(value: Any, place: Place) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise place.error(f"is {came(value)}; it must be a day without quotes, as 2027-01-31.")
    return value


def in_unit(metric: str, amount: float | None) -> float | None:
    """Turn a margin or bound into the unit of findings: log ratios, and nats as they are."""
    return amount if amount is None or metric == "loss" else math.log1p(amount)
