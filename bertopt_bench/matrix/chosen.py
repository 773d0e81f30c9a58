"""Choose single cells of a matrix: by overrides as an arm's, by label, or by the start of an id."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.matrix.arms import on_axis, read_pairs
from bertopt_bench.matrix.cells import expand, expand_one
from bertopt_bench.matrix.keys import Place
from bertopt_bench.matrix.labels import (
    KERNEL,
    cell_labels,
    choices,
    level_labels,
    workload_choices,
    workload_label,
)
from bertopt_bench.matrix.spec import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bertopt_bench.matrix.cells import Cell
    from bertopt_bench.matrix.overrides import Override
    from bertopt_bench.matrix.spec import Matrix

LEAST_ID = 4  # letters of an id that may stand for it
OPTION = "--cell"
ONE = "a profile is of one"
EXAMPLE = "optimizer=lion attention=math"
MOST_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Chosen:
    """A matrix, and the cells that were chosen, named by what tells them apart."""

    matrix: Matrix
    cells: tuple[Cell, ...]


def choose_cells(
    matrix_file: Path | str,
    texts: Sequence[str],
    *,
    overrides: Sequence[Override] = (),
    capabilities: Mapping[str, Any] | None = None,
    most: int = 2,
) -> Chosen:
    """Find the cells that ``--cell`` names; without any, the matrix must stand for one.

    Args:
        matrix_file: the matrix.
        texts: one a cell: ``optimizer=lion attention=math`` narrows the matrix, anything else is a
            label or the start of an id.
        overrides: ``--set`` of the matrix.
        capabilities: what this machine can do; without it no skip rule is asked.
        most: how many cells may be named.

    Raises:
        UserError: no such cell, several, one that cannot run here, too many, or two alike.
    """
    if len(texts) > most:
        raise UserError(f"{len(texts)} cells were named with {OPTION}; at most {most} can be.")
    matrix = load(matrix_file, overrides)
    found = [_one(matrix_file, matrix, text, overrides, capabilities) for text in (texts or [""])]
    for index, cell in enumerate(found):
        if cell.skip is not None:
            raise UserError(f"{_named(texts, index)} cannot run here: {cell.skip}")
        if any(cell.id == other.id for other in found[:index]):
            raise UserError(
                f"{_named(texts, index)} is the same cell as {_named(texts, index - 1)}. Name "
                "another one, or one cell alone."
            )
    labels = cell_labels([cell.content for cell in found])
    return Chosen(
        matrix,
        tuple(replace(cell, label=label) for cell, label in zip(found, labels, strict=True)),
    )


def _named(texts: Sequence[str], index: int) -> str:
    return f"{OPTION} '{texts[index]}'" if texts else "the matrix' cell"


def _one(
    file: Path | str,
    matrix: Matrix,
    text: str,
    overrides: Sequence[Override],
    capabilities: Mapping[str, Any] | None,
) -> Cell:
    """Find the cell that one text names."""
    cells = expand(matrix, capabilities)
    exact = [c for c in cells if text in {c.id, c.label}]
    started = [c for c in cells if len(text) >= LEAST_ID and c.id.startswith(text)]
    if len(exact) == 1 or len(started) == 1:
        return (exact or started)[0]
    if "=" in text or not text.strip():
        return _narrowed(file, cells, text, overrides, capabilities)
    known = [word for c in cells for word in (c.label, c.id)]
    raise UserError(
        f"{matrix.file} has no cell '{text}'. Cells: {_shown(cells)}. Or narrow the matrix, as "
        f"in {OPTION} '{EXAMPLE}'.{nearest(text, known)}"
    )


def _narrowed(
    file: Path | str,
    cells: Sequence[Cell],
    text: str,
    overrides: Sequence[Override],
    capabilities: Mapping[str, Any] | None,
) -> Cell:
    """Find the one cell that chose so; where none did, make one that the matrix has not."""
    pairs = read_pairs([text], OPTION)
    keys = [on_axis(key, value, Place(OPTION), "a cell", ()) for key, value in pairs.items()]
    found = [cell for cell in cells if all(_chose(cell.content, *pair) for pair in keys)]
    if len(found) == 1:
        return found[0]
    who = f"{OPTION} '{text}'" if keys else str(file)
    if not found:
        beyond = replace(load(file, [*overrides, *keys]), includes=())
        open_key = f"{OPTION} '{text} {{}}=VALUE'"
        return expand_one(beyond, capabilities, f"{who} stands for", ONE, open_key)
    raise UserError(
        f"{who} stands for {len(found)} cells{f' of {file}' if keys else ''}; {ONE}. They differ "
        f"in {_differing(found)}. Say more, as in {OPTION} '{EXAMPLE}', or name one by label or "
        f"id: {_shown(found)}."
    )


def _differing(cells: Sequence[Cell]) -> str:
    """List the axes on which cells differ, with their levels."""
    rows = [
        {**levels, **{k: workload_label(k, v) for k, v in _workload(cell).items()}}
        for cell, levels in zip(cells, level_labels([c.content for c in cells]), strict=True)
    ]
    words = {
        axis: dict.fromkeys(row[axis] for row in rows if axis in row)
        for axis in dict.fromkeys(axis for row in rows for axis in row)
    }
    return ", ".join(
        f"{axis.removeprefix(KERNEL)} ({', '.join(levels)})"
        for axis, levels in words.items()
        if len(levels) > 1
    )


def _workload(cell: Cell) -> dict[str, Any]:
    return workload_choices(cell.content["workload"])


def _chose(content: Mapping[str, Any], key: str, value: Any) -> bool:
    """Say whether a cell chose so, by a dotted key of a matrix; options that go unsaid are open.

    As in a matrix a list is of levels; a composed level is a list in it.
    """
    table, _, name = key.partition(".")
    levels = value if isinstance(value, list) else [value]
    if table == "workload":
        return workload_choices(content["workload"]).get(name) in levels
    choice = choices(content).get(name)
    parts = choice if isinstance(choice, list) else [choice]
    composed = [level if isinstance(level, list) else [level] for level in levels]
    return any(len(one) == len(parts) and all(map(_is_choice, parts, one)) for one in composed)


def _is_choice(choice: Mapping[str, Any] | None, wanted: Any) -> bool:
    said = wanted if isinstance(wanted, dict) else {"name": wanted}
    return choice is not None and said.items() <= choice.items()


def _shown(cells: Sequence[Cell]) -> str:
    shown = "; ".join(f"{cell.label} ({cell.id})" for cell in cells[:MOST_SHOWN])
    more = len(cells) - MOST_SHOWN
    return f"{shown}; and {more} more" if more > 0 else shown
