"""Say to a user what came, what is allowed, the nearest name and what to do."""

from __future__ import annotations

import difflib
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that the user can mend: shown as text, exit code 2, never as a traceback."""


class OutOfBudget(UserError):  # noqa: N818 - what happened, not what is wrong
    """The time allowed does not pay for enough replicates for any verdict."""


class MatrixError(UserError):
    """A mistake in a matrix file, with the file and the path of the key."""

    def __init__(self, file: Path | str, key: str, text: str) -> None:
        self.file, self.key = str(file), key
        where = f"{file}: {key}: " if key else f"{file}: "
        super().__init__(where + text)


def place_of(error: BaseException) -> str:
    """Say where an exception was raised: a file's bare name, so that no path goes into a record."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Name the closest allowed word as a sentence, or nothing where none is close."""
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
