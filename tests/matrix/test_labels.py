"""Labels of cells: only what varies, and no level whose axis a reader would have to guess."""

from __future__ import annotations

from typing import Any

import pytest

from bertopt_bench.matrix.labels import NOTHING_SAID, cell_labels, shorten_kernels


def cell(optimizer: str = "adamw", **kernels: str) -> dict[str, Any]:
    usual = {"attention": "default", "optimizer_step": "default", "compile": "off"}
    return {
        "workload": {"steps": 5},
        "optimizer": {"name": optimizer},
        "kernel": {name: {"name": level} for name, level in {**usual, **kernels}.items()},
    }


LABELLED = [
    # one operation varies: its levels say enough
    ([cell(), cell(attention="math")], ["default", "math"]),
    # two vary: usual levels go unsaid, levels of one operation only stand for themselves
    (
        [cell(), cell(attention="math"), cell(attention="math", optimizer_step="fused")],
        [NOTHING_SAID, "math", "math · fused"],
    ),
    # ... and "default" is a level of attention too
    (
        [cell(), cell(attention="math"), cell(compile="default")],
        [NOTHING_SAID, "math", "compile=default"],
    ),
    # three or more vary: every level with its operation
    (
        [
            cell(),
            cell(mlm_loss="liger"),
            cell(layer_norm="liger"),
            cell(checkpointing="layers"),
            cell("lion"),
        ],
        [
            "adamw",
            "adamw · mlm_loss=liger",
            "adamw · layer_norm=liger",
            "adamw · checkpointing=layers",
            "lion",
        ],
    ),
]


@pytest.mark.parametrize(("contents", "labels"), LABELLED)
def test_kernels_are_named_where_their_levels_do_not_say_it(
    contents: list[dict[str, Any]], labels: list[str]
) -> None:
    """Oracle: by hand, after the rule of ``cell_labels``; no two cells share a label."""
    assert cell_labels(contents) == labels
    assert len(set(labels)) == len(labels)


def test_options_follow_their_level() -> None:
    """Oracle: by hand: math attention twice, once with its option, beside another operation."""
    reduced = cell()
    reduced["kernel"]["attention"] = {"name": "math", "reduced": True}
    plain = cell()
    plain["kernel"]["attention"] = {"name": "math", "reduced": False}

    assert cell_labels([cell(gelu="tanh"), plain, reduced]) == [
        "tanh",
        "math reduced=false",
        "math reduced=true",
    ]


def test_a_submission_is_named_by_the_same_rule() -> None:
    """Oracle: by hand: curves know levels in words only; one operation alone keeps its levels."""
    rows = [
        {"optimizer": "adamw", "kernel.attention": "default", "kernel.compile": "off"},
        {"optimizer": "adamw", "kernel.attention": "math", "kernel.compile": "off"},
        {"optimizer": "adamw", "kernel.attention": "default", "kernel.compile": "default"},
    ]

    assert shorten_kernels(rows, ["kernel.attention", "kernel.compile"]) == [
        {"optimizer": "adamw"},
        {"optimizer": "adamw", "kernel.attention": "math"},
        {"optimizer": "adamw", "kernel.compile": "compile=default"},
    ]
    assert shorten_kernels(rows, ["kernel.attention"]) == rows
