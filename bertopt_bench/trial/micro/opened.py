"""What a case consists of once its buffers are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from bertopt_bench.trial.micro.checking import Errors
    from bertopt_bench.trial.micro.implementations import Implementation


def always() -> bool:
    """Say that what has no state stays finite."""
    return True


@dataclass(frozen=True, slots=True)
class Opened:
    """Calls on buffers, and all that goes with them.

    Attributes:
        calls: one a slot.
        context: holds while calls run.
        errors: how exact the result was, checked before anything is timed.
        inputs: what was drawn, before it was cast.
        implementation: with what a trace must show.
        check_again: checks what was timed once more; it raises where that is no longer right.
        restore: puts state that calls change back; None where none does.
        finite: says whether the state has stayed finite.
    """

    calls: Sequence[Callable[[], Any]]
    context: Callable[[], AbstractContextManager[Any]]
    errors: Errors
    inputs: Mapping[str, Any]
    implementation: Implementation
    check_again: Callable[[], None]
    restore: Callable[[], None] | None = None
    finite: Callable[[], bool] = always
