"""The table ``[tuning]``: arms, spaces, one budget, and what is refused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from bertopt_bench.errors import MatrixError, UserError
from bertopt_bench.matrix import spaces
from bertopt_bench.matrix.cells import expand
from bertopt_bench.matrix.keys import Place
from bertopt_bench.matrix.proposing import propose
from bertopt_bench.matrix.spec import load
from bertopt_bench.matrix.tuned import write_matrix
from bertopt_bench.matrix.tuning import read_tuning

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "seeds = [1, 2]\n[tuning]\nseeds = [101]\n"
ADAMW = """
[tuning.arms.AdamW]
optimizer = "adamw"
regularizer = "weight_decay"
space.optimizer.lr = { below = 2, above = 3 }
space.regularizer.weight_decay = { values = [0.01, 0.1], coarse = true }
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "tuned.toml"
    file.write_text(text)
    return file


def test_a_grid_runs_through_the_default_and_has_it_first(tmp_path: Path) -> None:
    """Oracle: adamw's documented 1e-3, a factor of 2, two steps below and three above."""
    tuning = read_tuning(write(tmp_path, f"{HEAD}points = 12\n{ADAMW}"))
    arm = tuning.arms[0]
    points = spaces.grid(arm.dimensions)

    assert arm.dimensions[0].values == (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008)
    assert len(points) == 12
    assert points[0] == {"optimizer.lr": 0.001, "regularizer.weight_decay": 0.01}
    assert tuning.seeds == (101,)
    assert tuning.report_seeds == (1, 2)


def test_a_point_changes_the_searched_options_and_nothing_else(tmp_path: Path) -> None:
    """Oracle: the cell that the loader makes of the same options."""
    arm = read_tuning(write(tmp_path, f"{HEAD}points = 12\n{ADAMW}")).arms[0]
    cell = arm.at({"optimizer.lr": 0.004, "regularizer.weight_decay": 0.1})
    said = write(
        tmp_path,
        '[workload]\nheld_out_part = "tuning"\n[axes]\n'
        'optimizer = {name = "adamw", lr = 0.004}\n'
        'regularizer = {name = "weight_decay", weight_decay = 0.1}\n',
    )

    assert cell.id == expand(load(said))[0].id
    assert cell.label == "AdamW lr=0.004 weight_decay=0.1"


def test_tuning_and_report_evaluate_on_different_parts_of_the_text(tmp_path: Path) -> None:
    """Oracle: the workload of an arm, and a published cell whose id has no such key."""
    tuning = read_tuning(write(tmp_path, f"{HEAD}points = 12\n{ADAMW}"))
    plain = expand(load(write(tmp_path, "[axes]\noptimizer = 'adamw'\n")))[0]

    assert tuning.arms[0].cell.content["workload"]["held_out_part"] == "tuning"
    assert "held_out_part" not in plain.content["workload"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"seeds = [1, 101]\n[tuning]\nseeds = [101]\npoints = 12\n{ADAMW}", r"shares \[101\]"),
        (f"{HEAD}points = 10\n{ADAMW}", "grid of 12 points"),
        (f"{HEAD}points = 12\n{ADAMW.replace(', coarse = true', '')}", "say coarse = true"),
        (f"{HEAD}points = 12\n{ADAMW.replace('optimizer.lr', 'optimizer.rate')}", "It takes: lr"),
        (f"{HEAD}points = 12\nsampler = 'sobel'\n{ADAMW}", "is 'sobel'; it must be grid"),
        (f"{HEAD}points = 12\nprune = 'late'\n{ADAMW}", "one of none, diverged, worse_half"),
        (f"{HEAD}points = 12\n", "arms: is missing or empty"),
        (f"{HEAD}{ADAMW}", "points: is missing or empty"),
        (f"{HEAD}points = 12\nreport_defaults = ['Adam']\n{ADAMW}", "Did you mean 'AdamW'"),
        ("seeds = [1]\n", "there is no such table"),
        (f"{HEAD}points = 2\n[tuning.arms.a]\noptimizer = 'sgd'\n", "names no option"),
        (f"{HEAD}points = 12\n{ADAMW}{ADAMW.replace('arms.AdamW', 'arms.again')}", "same as arm"),
        (f"{HEAD}points = 12\n{ADAMW}\n[axes]\nprecision = ['fp32', 'bf16']", "2 cells"),
    ],
)  # fmt: skip
def test_mistakes_say_where_they_are_and_what_to_do(tmp_path: Path, text: str, said: str) -> None:
    """Oracle: the words that tell the user what to change."""
    with pytest.raises(MatrixError, match=said):
        read_tuning(write(tmp_path, text))


@pytest.mark.parametrize("sampler", ["sobol", "halton"])
def test_drawn_points_lie_within_bounds_and_begin_with_the_default(
    tmp_path: Path, sampler: str
) -> None:
    """Oracle: the bounds; quasi-random points of an option fall into different eighths of it."""
    text = f"{HEAD}points = 9\nsampler = '{sampler}'\n{ADAMW}"
    tuning = read_tuning(write(tmp_path, text))
    dimensions = tuning.arms[0].dimensions
    found = propose(dimensions, tuning, [])
    rates = [options["optimizer.lr"] for _, options in found[1:]]

    assert found[0][0] == "default"
    assert len(found) == 9
    assert all(0.00025 <= rate <= 0.008 for rate in rates)
    eighths = {math.floor(8 * math.log(rate / 0.00025) / math.log(32)) for rate in rates}
    assert len(eighths) >= 7
    assert propose(dimensions, tuning, [({}, 1.0)] * 4) == found[4:]


def test_what_lies_beyond_an_edge_is_one_factor_further() -> None:
    """Oracle: 0.008 doubled, 0.00025 halved; a list goes on with the ratio of its values."""
    place = Place("matrix.toml", "space")
    rate = spaces.read_dimension("optimizer.lr", {"below": 2, "above": 3}, 0.001, place)
    table: dict[str, Any] = {"values": [0, 0.01, 0.1], "coarse": True}
    decay = spaces.read_dimension("regularizer.weight_decay", table, 0.01, place)

    assert rate.beyond(0.008, 1) == 0.016
    assert rate.beyond(0.00025, -1) == 0.000125
    assert decay.beyond(0.1, 1) == 1.0
    assert decay.beyond(0.0, -1) is None


def test_a_default_outside_of_the_grid_is_added_to_it() -> None:
    """Oracle: three values and the default before them."""
    one = spaces.read_dimension("optimizer.lr", {"log": [1, 4]}, 0.3, Place("m", "s"))

    assert spaces.grid([one]) == [{"optimizer.lr": v} for v in (0.3, 1.0, 2.0, 4.0)]


def test_the_written_matrix_gives_the_cells_that_it_was_made_of(tmp_path: Path) -> None:
    """Oracle: the cells' ids, compositions and tuple options among them."""
    tuning = read_tuning(write(tmp_path, f"{HEAD}points = 12\n{ADAMW}"))
    arm = tuning.arms[0]
    cells = [arm.cell, arm.at({"optimizer.lr": 0.004, "regularizer.weight_decay": 0.1})]
    table = {"cell": cells[1].id, "arm": "AdamW", "points": 12, "extensions": 0, "seeds": 1,
             "edge_optimum": [], "ledger": "0" * 64}  # fmt: skip
    head = {"seeds": [1, 2], "workload": {"held_out_part": "tuning"}}
    text = write_matrix(head, [cell.content for cell in cells], [table])
    matrix = load(write(tmp_path, text))

    assert [cell.id for cell in expand(matrix)] == [cell.id for cell in cells]
    assert matrix.tuned[cells[1].id]["points"] == 12


def test_a_missing_optuna_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the extra's name, where importing the package fails."""
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    text = f"{HEAD}points = 3\nsampler = 'optuna:TPESampler'\n{ADAMW}"
    tuning = read_tuning(write(tmp_path, text))
    dimensions = tuning.arms[0].dimensions
    default = spaces.default_point(dimensions)
    assert default is not None

    assert propose(dimensions, tuning, []) == [("default", default)]
    with pytest.raises(UserError, match=r"pip install 'bertopt-bench\[optuna\]'"):
        propose(dimensions, tuning, [(default, 5.0)])
