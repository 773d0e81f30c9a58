"""Keys set from outside a matrix file: how words are cut and values are read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertopt_bench.errors import MatrixError
from bertopt_bench.matrix.overrides import apply_override, split_override, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("  \t ", []),
        ("optimizer=lion", ["optimizer=lion"]),
        (" a=1   b=2 ", ["a=1", "b=2"]),
        ('optimizer={name="lion", lr=1e-3} b=c', ['optimizer={name="lion", lr=1e-3}', "b=c"]),
        ("a=[1, [2, 3]] b=c", ["a=[1, [2, 3]]", "b=c"]),
        ('label="two words" b=c', ['label="two words"', "b=c"]),
        ("""label='a } b' b=c""", ["label='a } b'", "b=c"]),
        ("""label="it's" b=c""", ["""label="it's\"""", "b=c"]),
    ],
)
def test_words_are_cut_at_blanks_outside_of_brackets_and_quotes(
    text: str, words: list[str]
) -> None:
    """Oracle: by hand."""
    assert split_words(text) == words


@pytest.mark.parametrize("text", ["label=it's optimizer=lion", "a={x=1 b=2", 'a=[1, "b=2'])
def test_an_open_bracket_or_quote_is_refused(text: str) -> None:
    """Oracle: else it swallows the words after it, and the arm would be its own baseline."""
    with pytest.raises(MatrixError, match="open") as caught:
        split_words(text, "--arm")
    assert str(caught.value).startswith("--arm: ")


@given(st.lists(st.from_regex(r"[a-z.]{1,8}=[a-z0-9.%-]{1,8}", fullmatch=True), max_size=5))
@pytest.mark.slow
def test_words_without_brackets_are_what_any_shell_would_cut(words: list[str]) -> None:
    """Oracle: str.split."""
    text = "  ".join(words)

    assert split_words(text) == text.split()


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("a=1", ("a", 1)),
        (" a.b = 1.5 ", ("a.b", 1.5)),
        ("a=lion", ("a", "lion")),
        ('a="lion"', ("a", "lion")),
        ("a=true", ("a", True)),
        ("a={x=1}", ("a", {"x": 1})),
        ("a=5%", ("a", "5%")),
        ("a=", ("a", "")),
        ("a=b=c", ("a", "b=c")),
        ("a=1\nb=2", ("a", "1\nb=2")),
    ],
)
def test_a_value_is_toml_where_it_is_and_else_a_text(text: str, pair: tuple[str, Any]) -> None:
    """Oracle: TOML's own grammar; a second key smuggled in by a new line is no value."""
    assert split_override(text) == pair


@pytest.mark.parametrize("text", ["", "a", "=1", "  =1"])
def test_what_is_no_pair_is_refused_with_the_option_it_was_given_to(text: str) -> None:
    """Oracle: the option's own name in the error."""
    with pytest.raises(MatrixError, match=r"--base.*KEY=VALUE"):
        split_override(text, "--base")


def test_an_override_sets_a_dotted_key_and_makes_tables_on_the_way() -> None:
    """Oracle: by hand."""
    document: dict[str, Any] = {"axes": {"optimizer": "sgd"}, "name": "n"}
    apply_override(document, "axes.kernel.attention=math")
    apply_override(document, ("axes.optimizer", {"name": "lion"}))

    assert document == {
        "axes": {"optimizer": {"name": "lion"}, "kernel": {"attention": "math"}},
        "name": "n",
    }


@pytest.mark.parametrize("override", ["name.x=1", "a..b=1", ".a=1"])
def test_a_key_below_no_table_or_with_an_empty_part_is_refused(override: str) -> None:
    """Oracle: TOML has no such key."""
    with pytest.raises(MatrixError):
        apply_override({"name": "n"}, override)
