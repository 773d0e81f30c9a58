"""Choose single cells of a matrix: by overrides as an arm's, by label, or by the start of an id."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.matrix.arms import on_axis, read_pairs
from bertopt_bench.matrix.cells import expand, expand_one
from bertopt_bench.matrix.keys import Place
from bertopt_bench.matrix.labels import cell_labels
from bertopt_bench.matrix.spec import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bertopt_bench.matrix.cells import Cell
    from bertopt_bench.matrix.overrides import Override
    from bertopt_bench.matrix.spec import Matrix

LEAST_ID = 4  # letters of an id that may stand for it
OPTION = "--cell"


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
    if "=" in text:
        place = Place(OPTION)
        pairs = read_pairs([text], OPTION)
        keys = [on_axis(k, value, place, "a cell", ()) for k, value in pairs.items()]
        return _alone(load(file, [*overrides, *keys]), f"{OPTION} '{text}'", capabilities)
    if text:
        known = [word for c in cells for word in (c.label, c.id)]
        shown = "; ".join(f"{c.label} ({c.id})" for c in cells[:6])
        more = f"; and {len(cells) - 6} more" if len(cells) > 6 else ""
        raise UserError(
            f"{matrix.file} has no cell '{text}'. Cells: {shown}{more}. Or narrow the matrix, as "
            f"in {OPTION} 'optimizer=lion attention=math'.{nearest(text, known)}"
        )
    return _alone(matrix, "it", capabilities)


def _alone(matrix: Matrix, who: str, capabilities: Mapping[str, Any] | None) -> Cell:
    said, example = "a profile is of one", OPTION + " '{}=VALUE'"
    return expand_one(matrix, capabilities, f"{who} stands for", said, example)
