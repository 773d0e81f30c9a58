"""Single cells are chosen by overrides, by label, or by the start of an id."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bertopt_bench.errors import UserError
from bertopt_bench.matrix.cells import expand
from bertopt_bench.matrix.chosen import choose_cells
from bertopt_bench.matrix.spec import load

if TYPE_CHECKING:
    from pathlib import Path

MATRIX = """
name = "mine"
seeds = [3, 4]
[workload]
model = "tiny"
steps = 10
[axes]
optimizer = ["adamw", "sgd"]
precision = ["fp32", "bf16"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(MATRIX)
    return path


def test_overrides_narrow_the_matrix_and_labels_say_what_differs(file: Path) -> None:
    """Oracle: the cells of the matrix itself, by id."""
    chosen = choose_cells(file, ["optimizer=sgd precision=fp32", "optimizer=sgd precision=bf16"])
    ids = {cell.id: cell.label for cell in expand(load(file))}

    assert [cell.label for cell in chosen.cells] == ["fp32", "bf16"]
    assert [ids[cell.id] for cell in chosen.cells] == ["sgd · fp32", "sgd · bf16"]
    assert chosen.matrix.digest == load(file).digest, "the folder's matrix is the one on disk"


def test_cells_that_an_include_adds_are_found_by_what_they_choose(file: Path) -> None:
    """Oracle: the cells of the matrix itself, by content; options that go unsaid are open."""
    file.write_text(
        MATRIX
        + """
[[include]]
optimizer = "adamw"
precision = "fp32"
attention = {name = "math", reduced = true}
model = "mini"
[[include]]
optimizer = "adamw"
precision = "fp32"
regularizer = [["weight_decay", "dropout"]]
"""
    )

    for text in ("attention=math", "model=mini", "precision=fp32 attention={name='math'}"):
        (cell,) = choose_cells(file, [text]).cells
        assert cell.content["kernel"]["attention"]["reduced"] is True
    (cell,) = choose_cells(file, ["regularizer=[['weight_decay','dropout']]"]).cells
    assert [part["name"] for part in cell.content["regularizer"]] == ["weight_decay", "dropout"]
    with pytest.raises(UserError, match=r"stands for 6 cells; .*model \(tiny, mini\)"):
        choose_cells(file, [])
    with pytest.raises(UserError, match="stands for 3 cells"):
        choose_cells(file, ["optimizer=adamw precision=fp32"])


def test_a_label_or_the_start_of_an_id_names_a_cell(file: Path) -> None:
    """Oracle: the cells of the matrix itself."""
    cell = expand(load(file))[2]

    assert choose_cells(file, [cell.label]).cells[0].id == cell.id
    assert choose_cells(file, [cell.id[:6]]).cells[0].id == cell.id


def test_a_matrix_of_one_cell_needs_no_name(file: Path) -> None:
    """Oracle: the one cell that is left."""
    overrides = ["axes.optimizer=sgd", "axes.precision=fp32"]

    (cell,) = choose_cells(file, [], overrides=overrides).cells

    assert cell.content["optimizer"]["name"] == "sgd"


def test_overrides_may_go_beyond_the_matrix(file: Path) -> None:
    """As an arm may. Oracle: the cell's content."""
    (cell,) = choose_cells(file, ["optimizer=lion precision=fp32 attention=math"]).cells

    assert cell.content["kernel"]["attention"]["name"] == "math"


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["sgdd · fp32"], "Did you mean 'sgd · fp32'"),
        (["nothing"], "has no cell 'nothing'"),
        (["optimizer=sgd"], "stands for 2 cells"),
        (["optimizer=sgd"], r"They differ in precision \(fp32, bf16\)"),
        ([], "stands for 4 cells"),
        ([" "], r"as in --cell 'optimizer=lion attention=math', or name one by label or id: adamw"),
        (["optimizer=lion"], "as in --cell 'optimizer=lion precision=VALUE'"),
        (["optimizer=sgd precision=fp32", "sgd · fp32"], "is the same cell as"),
        (["optimiser=sgd"], "Did you mean 'optimizer'"),
        (["optimizer=sgdd precision=fp32"], "Did you mean 'sgd"),
        (["optimizer=sgd optimizer=adamw"], "given twice"),
        (["sgd · fp32", "sgd · bf16", "adamw · fp32"], "at most 2"),
        (["optimizer={"], "open"),
    ],
)
def test_a_mistake_is_told(file: Path, texts: list[str], words: str) -> None:
    """Oracle: the house rule: what came, what is allowed, the nearest name."""
    with pytest.raises(UserError, match=words):
        choose_cells(file, texts)


def test_a_cell_that_cannot_run_here_says_its_reason(file: Path) -> None:
    """Oracle: the skip rule of fp16 training on CPU, asked with a machine that has only that."""
    capabilities = {
        "cuda": {"count": 0, "names": [], "capability": []},
        "packages": {"pytorch_optimizer": None},
        "compiler": True,
    }
    with pytest.raises(UserError, match=r"cannot run here: .*fp16"):
        choose_cells(file, ["optimizer=sgd precision=fp16"], capabilities=capabilities)
