"""Write matrices as files and expand them, for the tests of the matrix room."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix import cells, spec

if TYPE_CHECKING:
    from bertopt_bench.matrix.cells import Cell
    from bertopt_bench.matrix.spec import Matrix


def toml(value: Any) -> str:
    """Write TOML: inline tables, and JSON for what the two languages share."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def load(document: dict[str, Any]) -> Matrix:
    """Read a document as a matrix file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "drawn.toml")
        file.write_text("\n".join(f"{key} = {toml(value)}" for key, value in document.items()))
        return spec.load(file)


def expand(document: dict[str, Any]) -> list[Cell]:
    """Expand a document without asking any skip rule."""
    return cells.expand(load(document))
