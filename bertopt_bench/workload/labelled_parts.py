"""Divide labelled texts into what is trained on, validation and test, and weigh their classes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypeAlias

from bertopt_bench.errors import UserError, nearest
from bertopt_bench.workload import tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bertopt_bench.workload.datasets import Labelled

Pairs: TypeAlias = "list[tuple[str, str]]"

PARTS = ("train", "validation", "test")
TEST_FRACTION = 0.2
"""Of the documents, where a data set has no official test part."""
MOST_CLASSES = 1000


def part_of(pairs: Pairs, part: str) -> Pairs:
    """Give all of the validation part, or the half of it that tuning or its report looks at."""
    if part == tokens.ALL:
        return pairs
    tuning = tokens.tuning_half([text for text, _ in pairs])
    return [pair for pair, one in zip(pairs, tuning, strict=True) if one == (part == tokens.TUNING)]


def split_parts(data: Labelled, validation_fraction: float, name: str) -> dict[str, Pairs]:
    """Split by the hash of each text, so that one text is on one side, whatever stands around it.

    An official test part stays as it is.

    Raises:
        UserError: a part is empty, or there are fewer than two classes.
    """
    train, test = data.train, data.test
    if test is None:
        train, test = _apart(train, TEST_FRACTION, "test")
    train, validation = _apart(train, validation_fraction, "validation")
    parts = {"train": train, "validation": validation, "test": test}
    for part, pairs in parts.items():
        if not pairs:
            raise UserError(
                f"dataset '{name}': its {part} part is empty. It has {len(data.train)} texts; "
                "raise held_out_fraction, or take more data."
            )
    classes = {label for _, label in train}
    unknown = sorted({label for part in parts.values() for _, label in part} - classes)
    if len(classes) < 2 or len(classes) > MOST_CLASSES or unknown:
        told = f"; not among them, but in another part: {', '.join(unknown[:5])}" if unknown else ""
        raise UserError(
            f"dataset '{name}': its training part has {len(classes)} classes{told}. Allowed are 2 "
            f"to {MOST_CLASSES}, each with texts to train on."
        )
    return parts


def weigh(
    asked: str | Mapping[str, float], classes: Sequence[str], counts: Sequence[int]
) -> list[float] | None:
    """Give a weight a class: none, ``balanced`` (n / (classes x count)), or those of a table.

    Source of ``balanced``: King and Zeng, 2001, as scikit-learn computes it.

    Raises:
        UserError: a table names a class that there is not.
    """
    if asked == "none":
        return None
    if asked == "balanced":
        return [sum(counts) / (len(classes) * count) for count in counts]
    assert not isinstance(asked, str)
    unknown = [name for name in asked if name not in classes]
    if unknown:
        raise UserError(
            f"class_weights names '{unknown[0]}', which is no class. Classes: "
            f"{', '.join(classes)}.{nearest(unknown[0], classes)}"
        )
    return [float(asked.get(name, 1.0)) for name in classes]


def filled(pairs: Iterable[tuple[str, str]]) -> Pairs:
    """Leave out what has no text or no label."""
    return [(text, label.strip()) for text, label in pairs if text.strip() and label.strip()]


def _apart(pairs: Pairs, fraction: float, salt: str) -> tuple[Pairs, Pairs]:
    """Take a fraction away by hash; the salt makes one split independent of another."""

    def taken(text: str) -> bool:
        digest = hashlib.sha256(f"{salt}/{text}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < fraction * 2**64

    sides = [taken(text) for text, _ in pairs]
    return (
        [pair for pair, side in zip(pairs, sides, strict=True) if not side],
        [pair for pair, side in zip(pairs, sides, strict=True) if side],
    )
