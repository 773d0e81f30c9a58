"""Repeat a duel to see how often it errs: identical arms, and one arm slowed on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from bertopt_bench.dispatch.declaring import duel_digest
from bertopt_bench.duelling import CALIBRATION, Asked, fight, plan_duel, read_duel
from bertopt_bench.errors import UserError
from bertopt_bench.matrix.duels import Settings, read_settings
from bertopt_bench.matrix.quantities import read_share
from bertopt_bench.results.reading import read_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bertopt_bench.dispatch.progress import Display
    from bertopt_bench.results.duels import Verdicts
    from bertopt_bench.results.record import Session
    from bertopt_bench.results.store import ResultsFolder

CALIBRATION_SETTINGS = Settings(purpose="calibration", budget_seconds=240.0, most_warm_seconds=1.5)


@dataclass(frozen=True, slots=True)
class Series:
    """Duels to repeat: identical arms (False), and one arm slowed on purpose (True)."""

    asked: Mapping[bool, Asked]
    settings: Settings
    digest: str

    @classmethod
    def read(
        cls, matrix_file: Path | str | None, declared: Mapping[str, Any], inject: str | float
    ) -> Self:
        """Read the cell, a built-in one where none is named.

        Raises:
            UserError: a mistake in the matrix, the share or what is declared; no share at all.
        """
        if not read_share(inject, lambda text: UserError(f"--inject {text}")):
            raise UserError(
                f"--inject {inject}: an arm is slowed by more than 0 and below 100 %, such as 5%. "
                "For identical arms alone give --injected 0."
            )
        file = matrix_file or CALIBRATION
        settings = read_settings(file, declared, CALIBRATION_SETTINGS)
        asked = {False: read_duel(file), True: read_duel(file, inject=inject).require_arms()}
        return cls(asked, settings, duel_digest(asked[True].matrix, asked[True].arms))

    @property
    def name(self) -> str:
        """Name the series as its matrix is named."""
        return self.asked[False].matrix.name

    def fights(
        self, store: ResultsFolder, display: Display, duels: int, injected: int
    ) -> Iterator[Callable[[], Verdicts]]:
        """Give what is still missing in the folder, one duel after the other, ready to run."""
        done = finished_kinds(read_folder(store.path).sessions) if store.has_sessions else []
        turns = calibration_turns(done, duels, injected)
        for number, slowed in enumerate(turns, start=1):
            display.say(f"duel {number} of {len(turns)}: {'one arm slowed' if slowed else 'A/A'}")
            plan, _ = plan_duel(self.asked[slowed], self.settings, display, self.digest)
            yield partial(fight, plan, store, display)


def calibration_turns(done: Sequence[bool], duels: int, injected: int) -> list[bool]:
    """Give what is still to run, in turn: False an A/A duel, True one with a slowed arm.

    ``done`` are the kinds of the sessions that ended before.
    """
    left = {False: duels - done.count(False), True: injected - done.count(True)}
    turns: list[bool] = []
    while left[False] > 0 or left[True] > 0:
        slowed = left[True] > 0 and left[True] * max(duels, 1) >= left[False] * max(injected, 1)
        left[slowed] -= 1
        turns.append(slowed)
    return turns


def finished_kinds(sessions: Sequence[Session]) -> list[bool]:
    """Say of each calibration session that reached its end whether an arm was slowed."""
    return [
        any(arm["injected_share"] for arm in session.declared["duel"]["arms"])
        for session in sessions
        if session.end is not None and "duel" in session.declared
    ]
