"""Coloured text: every token once, its score in words, nothing of a text taken for HTML."""

from __future__ import annotations

import math

from parsed_pages import parsed

from bertopt_bench.report.tokens import coloured, strength, strongest


def test_the_text_reads_as_it_was_and_pieces_join() -> None:
    """Oracle: WordPiece's mark: what begins with ## goes on with the word before it."""
    page = parsed(str(coloured([("[CLS]", 0.0), ("un", 0.2), ("##paid", -0.4), ("bills", 0.1)])))

    assert "".join(page.text) == "[CLS] unpaid bills"
    classes = [value for tag, name, value in page.attributes if (tag, name) == ("span", "class")]
    assert classes == ["tok none", "tok for-2", "tok against-4", "tok for-1"]
    assert ("span", "title", "−0.4") in page.attributes  # noqa: RUF001 - a minus sign


def test_a_text_is_never_html() -> None:
    """Oracle: the parser finds no element that the text wrote."""
    page = parsed(str(coloured([("<script>", 1.0), ('"&', -1.0)])))

    assert not any(tag == "script" for tag, _, _ in page.attributes)
    assert "".join(page.text) == '<script> "&'


def test_strengths_are_four_classes_of_one_scale() -> None:
    """Oracle: by hand: quarters of the largest score; what is no number has no colour."""
    assert [strength(s, 1.0) for s in (0.01, 0.25, 0.26, 0.75, 1.0)] == [
        "for-1", "for-1", "for-2", "for-3", "for-4",
    ]  # fmt: skip
    assert strength(2.0, 1.0) == "for-4"
    assert strength(math.nan, 1.0) == strength(0.0, 1.0) == strength(1.0, 0.0) == "none"


def test_the_strongest_tokens_are_said_in_words() -> None:
    """Oracle: by hand."""
    told = strongest([("a", 0.1), ("good", 0.5), ("not", -0.2), ("day", 0.3)], count=2)

    assert told == "for it: good (+0.5), day (+0.3); against it: not (−0.2)"  # noqa: RUF001
    assert strongest([("a", 0.0)]) == ""
