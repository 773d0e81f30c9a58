"""The comparison of two sets in words: whole tables, both values, nothing that breaks out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from made_sets import arm, declaration, replicates, trial, write_duel, write_run

from bertopt_bench.errors import UserError
from bertopt_bench.report.comparison import FORMATS, NO_GATE, check_format, render
from bertopt_bench.results.tables import load_results
from bertopt_bench.stats.sets import SetComparison, compare_sets

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("old", "new|<b>")


def compared(folder: Path, seeds: int = 8, differs: Any = (), **fields: Any) -> SetComparison:
    """Compare a cell whose loss falls by about .1, and one that diverges in B."""
    seen = [[], []]
    for which, shift in enumerate((0.0, -0.1)):
        for seed in range(1, seeds + 1):
            seen[which].append(trial("adamw", seed, 5 + seed / 100 + shift * (1 + seed / 50)))
            bad = {"status": "diverged", "reason": "r", "diverged_at_step": 2, "evaluations": []}
            seen[which].append(trial("lion", seed, 5 + seed / 90, **(bad if which else {})))
    a, b = (
        load_results(write_run(folder / name, name, one, **more))
        for name, one, more in (("a", seen[0], {}), ("b", seen[1], fields))
    )
    return compare_sets(a, b, differs=differs)


def test_text_has_a_row_a_cell_with_everything_in_it(tmp_path: Path) -> None:
    """Oracle: by hand: what eight seeds say of a cell, and why times say nothing."""
    text = render(compared(tmp_path), NAMES)
    loss = text[text.index("loss:") :].splitlines()

    heads = "cell B against A 95 % interval n p (Holm) q verdict"
    row = next(line for line in loss if line.strip().startswith("adamw"))
    assert any(" ".join(line.split()) == heads for line in loss)
    assert row.split()[1:3] == ["-0.1090", "nats"]
    assert "nats to" in row
    assert row.split()[-1] == "lower"
    assert " 8 " in row
    assert "+inf (diverged)" in text
    assert "step_time: refused: the sets were not measured in the same rounds" in text
    assert " ".join(text.split()).endswith(NO_GATE)
    assert max(map(len, text.splitlines())) <= 120


def test_few_seeds_show_what_they_spread_over_and_no_interval(tmp_path: Path) -> None:
    """Oracle: three seeds; one."""
    three = render(compared(tmp_path / "3", 3), NAMES)
    one = render(compared(tmp_path / "1", 1), NAMES)

    assert "none; all -0.1060 nats to -0.1020 nats" in three
    assert "3 of at least 6" in three
    assert "one run" in one


def test_json_has_every_finding_and_is_json(tmp_path: Path) -> None:
    """Oracle: Python's reader, which takes no NaN here; infinities are words."""
    text = render(compared(tmp_path), NAMES, "json")

    def refuse(word: str) -> None:
        raise AssertionError(word)

    read = json.loads(text, parse_constant=refuse)
    loss = read["metrics"]["loss"]["findings"]
    assert [one["cell"] for one in loss] == ["adamw", "lion"]
    assert loss[1]["differences"] == ["inf"] * 8
    assert loss[0]["verdict"] == "lower"
    assert read["metrics"]["step_time"]["refusal"].startswith("the sets were not measured")
    assert (read["exit_code"], read["a"], read["anchor"]) == (0, "old", None)


def test_markdown_can_not_be_broken_out_of(tmp_path: Path) -> None:
    """Oracle: one width a table; the folder's name is text."""
    text = render(compared(tmp_path), NAMES, "markdown")

    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 2
    for block in blocks:
        assert len({line.replace("\\|", "").count("|") for line in block}) == 1
    assert "<b>" not in text


@pytest.mark.parametrize("form", FORMATS)
def test_a_refusal_says_both_values_and_what_to_do(tmp_path: Path, form: str) -> None:
    """Oracle: one field that differs, undeclared."""
    found = compared(tmp_path, versions={"torch": "2.12.0"})

    text = " ".join(render(found, NAMES, form).split())
    assert "2.13.0+cpu in A and 2.12.0 in B" in text
    assert "--differs torch" in text
    assert found.exit_code == 3


def test_what_was_declared_is_told_with_what_came_of_it(tmp_path: Path) -> None:
    """Oracle: torch differs, the governor does not, the hash over packages has to."""
    fields = {"versions": {"torch": "2.12.0", "installed_hash": "h2"}}
    found = compared(tmp_path, differs=("torch", "governor"), **fields)

    lines = render(found, NAMES).splitlines()
    assert (
        "- torch was declared to differ, and does: torch is 2.13.0+cpu in A and 2.12.0 in B"
        in lines
    )
    assert "- governor was declared to differ, and does not" in lines
    assert "- with it, installed_hash is h1 in A and h2 in B" in lines


def test_ratios_name_their_anchor_and_the_margin_in_force(tmp_path: Path) -> None:
    """Oracle: two duels that are alike."""
    declared = declaration([arm("adamw"), arm("lion")])
    speeds = {"adamw": 0.02, "lion": 0.03}
    a, b = (
        load_results(
            write_duel(tmp_path / n, n, declared, replicates(n, declared, speeds, noise=0.05))
        )
        for n in "ab"
    )

    text = " ".join(render(compare_sets(a, b), NAMES).split())

    assert "as ratios to the anchor 'adamw'. Margin 2.00 %; in force is" in text


def test_an_unknown_format_is_a_mistake_with_the_nearest() -> None:
    """Oracle: the house rule on errors."""
    with pytest.raises(UserError, match="Did you mean 'json'"):
        check_format("jsn")
