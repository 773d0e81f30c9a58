"""What README says of the commands is what the program has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from bertopt_bench.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_its_options_are_in_readme(name: str) -> None:
    """Oracle: the command line's own declaration."""
    row = re.search(rf"^\| `bertopt-bench {name}\b.*$", README, re.MULTILINE)

    assert row, name
    for parameter in COMMANDS[name].params:
        if parameter.opts[0].startswith("--"):
            assert parameter.opts[0] in row[0]
    assert COMMANDS[name].help


def test_the_two_commands_name_files_that_exist() -> None:
    """Oracle: the checkout itself."""
    block = README.split("<!-- two commands -->")[1].split("<!-- end -->")[0]

    assert len(re.findall(r"^pip ", block, re.MULTILINE)) == 2
    for file in ("constraints.txt", "benchmarks/quickstart.toml"):
        assert file in block
        assert (ROOT / file).is_file()


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks").glob("*.toml")))
def test_every_shipped_matrix_loads_and_expands(file: Path) -> None:
    """Oracle: the loader itself; the quick start has the 24 cells that README promises."""
    from bertopt_bench.matrix.cells import expand
    from bertopt_bench.matrix.spec import load

    matrix = load(file)
    cells = expand(matrix)

    assert len(cells) == matrix.cell_count()
    if matrix.name == "quickstart":
        assert len(cells) == 24
