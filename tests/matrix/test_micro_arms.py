"""Arms of a duel of operations, as words on the command line."""

from __future__ import annotations

import pytest

from bertopt_bench.errors import UserError
from bertopt_bench.matrix import micro
from bertopt_bench.matrix.duels import Settings, read_settings
from bertopt_bench.matrix.micro import (
    OPERATIONS,
    cell_case,
    impossible,
    is_micro,
    memory_bytes,
    micro_cell,
    read_micro_arms,
    read_options,
)


def test_bare_words_are_implementations_and_the_first_arm_is_the_baseline() -> None:
    """Oracle: what was written."""
    matrix, arms = read_micro_arms("attention", arms=["math", "flash"], overrides=["seq_len=512"])

    assert [arm.label for arm in arms] == ["math", "flash"]
    assert matrix.name == "micro-attention"
    for arm, name in zip(arms, ("math", "flash"), strict=True):
        operation, implementation, options = cell_case(arm.cell.content)
        assert (operation, implementation) == ("attention", name)
        assert options["seq_len"] == 512
        assert options["batch_size"] == OPERATIONS["attention"].keys["batch_size"].default
        assert is_micro(arm.cell.content)


def test_options_of_the_first_arm_hold_for_all_and_an_arm_may_change_them() -> None:
    """Oracle: an arm is what differs from the baseline, as in any duel."""
    _, arms = read_micro_arms("gelu", arms=["default hidden_size=64", "dtype=bfloat16"])
    cases = [cell_case(arm.cell.content) for arm in arms]

    assert [implementation for _, implementation, _ in cases] == ["default", "default"]
    assert [options["hidden_size"] for *_, options in cases] == [64, 64]
    assert [options["dtype"] for *_, options in cases] == ["float32", "bfloat16"]
    assert [arm.label for arm in arms] == ["fp32", "bf16"]
    assert arms[1].overrides == ("dtype=bfloat16",)


def test_own_keys_of_arms_hold_here_too() -> None:
    """Oracle: label and inject as any arm knows them; a module:function is an implementation."""
    _, arms = read_micro_arms("gelu", arms=["default", "mine:gelu label=ours inject=5%"])

    assert arms[1].label == "ours"
    assert arms[1].injected_share == pytest.approx(0.05)
    assert arms[1].cell.content["kernel"] == {"gelu": {"name": "mine:gelu"}}


def test_a_lone_arm_is_named_by_its_implementation() -> None:
    """Oracle: --inject adds the second arm later; a label must not be empty."""
    _, arms = read_micro_arms("gelu", arms=["composed"])

    assert [arm.label for arm in arms] == ["composed"]


@pytest.mark.parametrize(
    ("operation", "arms", "overrides", "wanted"),
    [
        ("atention", ["math"], [], "Did you mean 'attention'"),
        ("attention", ["flesh"], [], "Did you mean 'flash'"),
        ("attention", ["math", "flash"], ["seq_length=3"], "Did you mean 'seq_len'"),
        ("attention", ["math", "flash"], ["seq_len=0"], "at least 1"),
        ("attention", ["math", "flash"], ["dtype=float8"], "one of float32"),
        ("attention", ["math flash"], [], "two implementations"),
        ("attention", [], [], "has no arm"),
        ("attention", ["math", "efficient"], [], "CUDA only"),
        ("gelu", ["default", "default"], [], "two arms are called"),
        ("gelu", ["default", "mine:"], [], "no implementation 'mine:'"),
        ("optimizer_step", ["loop", "fused"], ["direction=both"], "no such option"),
    ],
)
def test_mistakes_are_told_with_the_nearest_name(
    operation: str, arms: list[str], overrides: list[str], wanted: str
) -> None:
    """Oracle: the text names what came, what is allowed, and what is near."""
    with pytest.raises(UserError, match=wanted):
        read_micro_arms(operation, arms=arms, overrides=overrides)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_cell_gives_back_the_case_it_was_made_of(name: str) -> None:
    """Oracle: a round trip."""
    operation = OPERATIONS[name]
    options = read_options(operation, {"cache": "cold", "dtype": "bfloat16"})
    cell = micro_cell(operation, operation.implementations[0], options)

    assert cell_case(cell.content) == (name, operation.implementations[0], options)
    assert memory_bytes(cell.content) > 2**20


def test_what_a_device_has_not_is_known_beforehand() -> None:
    """Oracle: torch's own documentation of its attention backends."""
    options = read_options(OPERATIONS["attention"], {"device": "cuda", "padding": 0.5})

    assert "no mask" in str(impossible("attention", "flash", options))
    assert impossible("attention", "efficient", options) is None
    assert "16-bit" in str(impossible("attention", "varlen", options))
    assert impossible("attention", "varlen", {**options, "dtype": "bfloat16"}) is None
    on_cpu = read_options(OPERATIONS["optimizer_step"], {})
    assert "CUDA" in str(impossible("optimizer_step", "capturable", on_cpu))
    assert impossible("optimizer_step", "capturable", {**on_cpu, "device": "cuda"}) is None
    assert impossible("attention", "flash", {**options, "device": "cpu"}) is None


def test_a_duel_without_a_file_takes_its_settings_from_the_command_line() -> None:
    """Oracle: the defaults, and what was given."""
    settings = read_settings(None, {"replicates": 7})

    assert settings == Settings(replicates=7)


@pytest.mark.parametrize("name", OPERATIONS["mlm_loss"].implementations)
def test_no_loss_runs_backward_alone_not_even_a_packages(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: fused losses make gradients in the forward pass: alone, nothing would be timed."""
    monkeypatch.setattr(micro, "find_spec", lambda _package: True)
    given = {"device": "cuda", "dtype": "bfloat16", "direction": "backward"}
    options = read_options(OPERATIONS["mlm_loss"], given)

    assert "take both" in str(impossible("mlm_loss", name, options))
