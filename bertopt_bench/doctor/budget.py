"""Keep ``doctor`` under a minute: the time that is left, and what was cut to stay within it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BUDGET_SECONDS = 55.0  # starting Python and writing it all take a second or two more


@dataclass(slots=True)
class Budget:
    """The seconds that all measures share, from the moment it is made; a clock may be scripted."""

    seconds: float = BUDGET_SECONDS
    clock: Callable[[], float] = time.monotonic
    cuts: list[str] = field(default_factory=list)
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.clock()

    @property
    def spent(self) -> float:
        """Give the seconds that have passed."""
        return self.clock() - self.began

    @property
    def left(self) -> float:
        """Give the seconds that a measure may still take; below 0 where it is overdrawn."""
        return self.seconds - self.spent

    def cut(self, what: str) -> None:
        """Note in words what is left out or made shorter."""
        self.cuts.append(what)
