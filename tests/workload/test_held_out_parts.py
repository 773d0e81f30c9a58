"""The two parts of the held-out text: one to tune on, one to report on."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bertopt_bench.errors import UserError
from bertopt_bench.workload.tokens import TokenText, select, tuning_half


def documents(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [f"{number} " + "word " * draw.randrange(50, 400) for number in range(count)]


def test_each_part_has_about_half_of_the_characters() -> None:
    """Oracle: what is missing to half is less than any document that did not fit."""
    text = documents(40)
    half = tuning_half(text)
    tuning = sum(len(one) for one, chosen in zip(text, half, strict=True) if chosen)
    whole = sum(map(len, text))

    assert tuning <= whole / 2
    assert whole / 2 - tuning < min(
        len(one) for one, chosen in zip(text, half, strict=True) if not chosen
    )


def test_the_part_of_a_document_depends_on_its_text_alone() -> None:
    """Oracle: the same documents in another order, one of them twice."""
    text = documents(20)
    once = dict(zip(text, tuning_half(text), strict=True))
    order = random.Random(1).sample(text, len(text))

    assert dict(zip(order, tuning_half(order), strict=True)) == once
    twice = tuning_half([*text, text[3]])
    assert twice[3] == twice[-1]


def test_one_document_cannot_be_in_two_parts() -> None:
    """Oracle: the error that says what to raise."""
    with pytest.raises(UserError, match="Raise held_out_fraction"):
        tuning_half(["alone", "alone"])


def test_chosen_documents_keep_their_tokens_and_order() -> None:
    """Oracle: tokens by hand."""
    text = TokenText(np.arange(10, dtype=np.int32), np.array([0, 3, 4, 8, 10]))
    chosen = select(text, [True, False, True, False])

    assert chosen.ids.tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert chosen.starts.tolist() == [0, 3, 7]
