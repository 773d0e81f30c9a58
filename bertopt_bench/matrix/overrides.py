"""Set keys of a matrix from outside its file: ``--set``, and the arms of a duel."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.keys import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    Override = str | tuple[str, Any]
    """``KEY=VALUE`` as a person writes it, or a dotted key with its value."""


def apply_override(document: dict[str, Any], override: Override) -> None:
    """Set one dotted key; a text value that is no TOML is a text, so that names need no quotes.

    Raises:
        MatrixError: not of the form KEY=VALUE, or a key below something that is no table.
    """
    key, value = split_override(override) if isinstance(override, str) else override
    place = Place("--set", key)
    path = [part.strip() for part in key.split(".")]
    if not all(path):
        raise Place("--set").error(f"{override!r} is not of the form KEY=VALUE.")
    table = document
    for depth, part in enumerate(path[:-1], start=1):
        below = table.setdefault(part, {})
        if not isinstance(below, dict):
            raise place.error(f"{'.'.join(path[:depth])} is no table.")
        table = below
    table[path[-1]] = value


def split_override(override: str, option: str = "--set") -> tuple[str, Any]:
    """Split ``KEY=VALUE`` and read the value as TOML where it is.

    Raises:
        MatrixError: not of that form; it names the option that it was given to.
    """
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise Place(option).error(f"{override!r} is not of the form KEY=VALUE.")
    return key.strip(), toml_value(value.strip())


def toml_value(text: str) -> Any:
    """Read a value as TOML; what is none is the text itself."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text


def split_words(text: str, option: str = "--set") -> list[str]:
    """Split ``optimizer={name="lion", lr=1e-3} precision=bf16`` at blanks outside of brackets.

    >>> split_words('a={x=1, y=2} b=c')
    ['a={x=1, y=2}', 'b=c']

    Raises:
        MatrixError: a bracket or a quote is left open, which would swallow the words after it.
    """
    return ["".join(word) for word in _words(text, option)]


def _words(text: str, option: str) -> Iterator[list[str]]:
    word: list[str] = []
    depth, quote = 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        depth += not quote and (letter in "{[") - (letter in "}]")
        if letter.isspace() and not quote and depth <= 0:
            if word:
                yield word
            word = []
        else:
            word.append(letter)
    if quote or depth > 0:
        raise Place(option).error(f"{text!r} leaves a {'quote' if quote else 'bracket'} open.")
    if word:
        yield word
