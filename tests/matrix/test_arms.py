"""Arms of a duel: what may be written, which cells come of it, and what they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bertopt_bench.errors import UserError
from bertopt_bench.matrix.arms import CONTROL, Arm, read_arms

MATRIX = """
name = "arms"
[workload]
steps = 20
[axes]
optimizer = ["adamw", "sgd"]
precision = ["fp32", "fp16"]
"""
CAPABILITIES = {
    "cuda": {"count": 0, "names": [], "capability": []},
    "packages": {"pytorch_optimizer": None},
    "compiler": True,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "arms.toml"
    written.write_text(MATRIX)
    return written


def read(file: Path, base: str | list[str] = "", *arms: str, **more: Any) -> list[Arm]:
    bases = [base] if isinstance(base, str) else base
    return read_arms(file, base=[b for b in bases if b], arms=arms, **more)[1]


BASE = "optimizer=adamw precision=fp32"


def in_file(file: Path, arms: str) -> Path:
    single = MATRIX.replace('["adamw", "sgd"]', '"adamw"').replace('["fp32", "fp16"]', '"fp32"')
    file.write_text(single + arms)
    return file


def test_an_arm_is_the_baseline_with_its_overrides(file: Path) -> None:
    """Oracle: the cells by hand: only what the arm names differs from the baseline."""
    base, lion = read(file, BASE, 'optimizer={name="lion", lr=0.001}')

    assert base.cell.content["optimizer"]["name"] == "adamw"
    assert lion.cell.content["optimizer"]["name"] == "lion"
    assert lion.cell.content["optimizer"]["lr"] == 0.001
    rest = [{k: v for k, v in arm.cell.content.items() if k != "optimizer"} for arm in (base, lion)]
    assert rest[0] == rest[1]
    assert lion.overrides == ('axes.optimizer={"lr":0.001,"name":"lion"}',)
    assert [base.label, lion.label] == ["adamw", "lion"]


def test_the_baseline_may_be_narrowed_in_several_options_and_has_its_own_keys(file: Path) -> None:
    """Oracle: the same baseline in one option or two; two revisions can meet under one harness."""
    one, other = (
        read(file, base, "revision=v1.1 label=new")
        for base in (f"{BASE} revision=v1.0", ["optimizer=adamw revision=v1.0", "precision=fp32"])
    )

    assert one == other
    assert [arm.revision for arm in one] == ["v1.0", "v1.1"]
    assert one[0].cell == one[1].cell


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("workload.steps=8", ("workload", "steps")),
        ("steps=8", ("workload", "steps")),
        ("attention=math", ("kernel", "attention")),
        ("kernel.attention=math", ("kernel", "attention")),
        ("axes.kernel.attention=math", ("kernel", "attention")),
        ("axes.optimizer=sgd", ("optimizer", "name")),
    ],
)
def test_keys_may_be_short_or_dotted(file: Path, key: str, place: tuple[str, str]) -> None:
    """Oracle: the matrix' own tables."""
    base, arm = read(file, BASE, key)
    changed = {
        name for name in arm.cell.content if arm.cell.content[name] != base.cell.content[name]
    }

    assert changed == {place[0]}
    wanted = key.partition("=")[2]
    found = arm.cell.content[place[0]][place[1]]
    assert wanted == str(found["name"] if isinstance(found, dict) else found)


@pytest.mark.parametrize("revision", ["1.10", "12e4567", "1234567", "007", "v1", "2026-11-24"])
def test_a_revision_is_a_text_as_it_was_written(file: Path, revision: str) -> None:
    """Oracle: the words themselves; TOML would make 1.1, inf, a number or a date of them."""
    arm = read(file, BASE, f"revision={revision}")[1]

    assert arm.revision == revision
    assert read(file, BASE, f"optimizer=sgd label={revision}")[1].label == revision


def test_an_arm_has_its_own_interpreter_checkout_and_delay(file: Path) -> None:
    """Oracle: by hand."""
    arm = read(file, BASE, "python=venv/bin/python checkout=../theirs build=true inject=5%")[1]

    assert (arm.python, arm.checkout, arm.build) == ("venv/bin/python", Path("../theirs"), True)
    assert arm.injected_share == pytest.approx(0.05)


def test_arms_of_a_file_come_first_and_the_first_is_the_baseline(file: Path) -> None:
    """Oracle: the file's order; an arm's own label wins over its name."""
    written = """
[arms.old]
optimizer = "sgd"
[arms.new]
optimizer = {name = "lion", lr = 0.001}
label = "newest"
"""
    arms = read(in_file(file, written), "", "optimizer=adam")

    assert [arm.label for arm in arms] == ["old", "newest", "adam"]
    assert [arm.cell.content["optimizer"]["name"] for arm in arms] == ["sgd", "lion", "adam"]


def test_a_baseline_of_the_command_line_makes_the_files_arms_contenders(file: Path) -> None:
    """Oracle: three arms, the first as --base says it."""
    arms = read(
        in_file(file, '[arms.a]\noptimizer = "sgd"\n[arms.b]\noptimizer = "lion"\n'), "steps=8"
    )

    assert [arm.cell.content["optimizer"]["name"] for arm in arms] == ["adamw", "sgd", "lion"]
    assert {arm.cell.content["workload"]["steps"] for arm in arms} == {8}


def test_an_empty_table_of_arms_names_no_baseline(file: Path) -> None:
    """Oracle: as if the table were not there: the matrix' own cell is the baseline."""
    arms = read(in_file(file, "[arms]\n"), "", "optimizer=sgd")

    assert [arm.cell.content["optimizer"]["name"] for arm in arms] == ["adamw", "sgd"]


def test_arms_of_one_cell_are_named_by_what_was_written(file: Path) -> None:
    """Oracle: no axis tells them apart, so their texts must."""
    arms = read(file, BASE, "revision=v1.0", "revision=v1.1 inject=5%")

    assert [arm.label for arm in arms] == ["baseline", "revision=v1.0", "revision=v1.1 inject=5%"]


@pytest.mark.parametrize(
    ("base", "arms", "words"),
    [
        (BASE, ["optimiser=lion"], "Did you mean 'optimizer'"),
        (BASE, ["optimizer=lionn"], "Did you mean 'lion'"),
        (BASE, ["optimizer"], "--arm: 'optimizer' is not of the form KEY=VALUE"),
        ("optimizer", ["steps=8"], "--base: 'optimizer' is not of the form KEY=VALUE"),
        ("optimiser=adamw", ["steps=8"], "Did you mean 'optimizer'"),
        (BASE, [" "], "--arm is empty"),
        (BASE, ["optimizer=sgd optimizer=lion"], "--arm: optimizer: is given twice"),
        (BASE, ['optimizer=["sgd", "lion"]'], "stands for 2 cells"),
        ("precision=fp32", ["steps=8"], "--base optimizer=VALUE"),
        (BASE, ["timing.timeout_seconds=3"], "no such key of an arm"),
        (BASE, ["seeds=[1]"], "no such key of an arm"),
        (BASE, ["axes={optimizer=1}"], "no such key of an arm"),
        (BASE, ["label=same steps=8", "label=same steps=9"], "two arms are called 'same'"),
        (BASE, [f"label={CONTROL} steps=8"], f"two arms are called '{CONTROL}'"),
        (BASE, ["optimizer=sgd inject=5"], "'5%' or 0.02|below 100 %"),
        (BASE, ["optimizer=sgd build=yes"], "build: is 'yes'"),
        (BASE, ["optimizer=sgd revision="], "revision: is ''"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_to_do(
    file: Path, base: str, arms: list[str], words: str
) -> None:
    """Oracle: the house rule: what came, what is allowed, the nearest name, what to do."""
    with pytest.raises(UserError, match=words):
        read(file, base, *arms)


def test_an_error_of_the_files_arms_names_their_place(file: Path) -> None:
    """Oracle: the table's dotted key, as in every other error about a matrix."""
    with pytest.raises(UserError, match=r"arms\.toml: arms\.fast\.optimiser: no such key"):
        read(in_file(file, '[arms.old]\n[arms.fast]\noptimiser = "lion"\n'))
    with pytest.raises(UserError, match=r"revision: is 1\.1 \(a number\)"):
        read(in_file(file, "[arms.old]\n[arms.fast]\nrevision = 1.10\n"))
    with pytest.raises(UserError, match=r"arms\.fast: is 3"):
        read(in_file(file, "[arms]\nold = {}\nfast = 3\n"))


def test_an_arm_that_cannot_run_here_is_refused_with_the_reason(file: Path) -> None:
    """Oracle: the skip rule of fp16 on a CPU; without capabilities no rule is asked."""
    with pytest.raises(UserError, match=r"arm 'precision=fp16' cannot run here: .*fp16"):
        read(file, BASE, "precision=fp16", capabilities=CAPABILITIES)
    assert len(read(file, BASE, "precision=fp16")) == 2
    with pytest.raises(UserError, match="the baseline cannot run here"):
        read(file, "optimizer=adamw precision=fp16", "steps=8", capabilities=CAPABILITIES)


@pytest.mark.parametrize(
    ("arm", "axis"),
    [("optimizer=sgd", "optimizer"), ("optimizer_step=fused attention=math", "kernel.optimizer")],
)
def test_an_arm_that_differs_in_training_alone_is_no_arm_of_inference(
    file: Path, arm: str, axis: str
) -> None:
    """Oracle: what a matrix skips as the same forward pass; training itself may differ so."""
    forward = {"overrides": ["workload.mode=inference"]}

    with pytest.raises(UserError, match=rf"arm '{arm}' differs .* in {axis}.*trains nothing"):
        read(file, BASE, arm, **forward)
    assert len(read(file, BASE, arm)) == 2
    assert len(read(file, BASE, "attention=math", **forward)) == 2
    assert len(read(file, BASE, "revision=v1.0", **forward)) == 2
