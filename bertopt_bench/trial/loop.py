"""Train T steps under a clock, stop the clock for evaluations, notice divergence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, MutableSequence

    from bertopt_bench.trial.live import Evaluation

DIVERGED_FACTOR = 2.0
"""A training loss above this multiple of the first one has diverged, where a loss is a mean over
many tokens. A trial says what holds of its own."""


class Trainable(Protocol):
    """What the loop needs of a trial."""

    diverged_factor: ClassVar[float]

    def step(self, index: int) -> None:
        """Train one step without a host sync."""

    def evaluate(self) -> Evaluation:
        """Evaluate on held-out text."""

    def drain(self) -> list[float]:
        """Hand over the losses since the last call."""

    def synchronize(self) -> None:
        """Wait until the device has done all that was issued."""


class StepClock(Protocol):
    """What the loop needs of a clock (see ``measure.clock``)."""

    def begin_segment(self) -> None:
        """Start counting the next step from now."""

    def mark(self) -> None:
        """Note that a step was issued."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is seen at one evaluation: the losses since the one before, and the held-out figures."""

    step: int
    losses: list[float]
    evaluation: Evaluation
    evaluation_seconds: float
    diverged_at_step: int | None


@dataclass(frozen=True, slots=True)
class Start:
    """Where training begins: after so many steps, of which the first had that loss."""

    position: int = 0
    first_loss: float = math.inf


def find_divergence(
    losses: list[float], first_loss: float, start: int, factor: float = DIVERGED_FACTOR
) -> int | None:
    """Give the 1-based step whose loss is not finite or far above the first one, if any."""
    for offset, loss in enumerate(losses, start=1):
        if not math.isfinite(loss) or loss > factor * first_loss:
            return start + offset
    return None


def train(
    trial: Trainable,
    clock: StepClock,
    *,
    evaluate_at: list[int],
    counter: MutableSequence[int],
    report: Callable[[Checkpoint], None],
    start: Start = Start(),
) -> int | None:
    """Train to the last of ``evaluate_at``; give the step at which the trial diverged, if it did.

    ``counter[0]`` follows the updates issued. Between two evaluations nothing but steps, clock
    marks and that count happens.
    """
    position, first_loss = start.position, start.first_loss
    for stop in evaluate_at:
        if stop <= start.position and start.position:
            continue  # seen before this trial was interrupted
        clock.begin_segment()
        step, mark = trial.step, clock.mark
        for index in range(position, stop):
            step(index)
            mark()
            counter[0] = index + 1
        trial.synchronize()
        losses = trial.drain()
        if losses and position == 0:
            first_loss = losses[0]
        diverged = find_divergence(losses, first_loss, position, trial.diverged_factor)
        begin = perf_counter()
        evaluation = trial.evaluate()
        seconds = perf_counter() - begin
        if diverged is None and not math.isfinite(evaluation.loss):
            diverged = stop  # the last update did it: no training loss has seen it yet
        report(Checkpoint(stop, losses, evaluation, seconds, diverged))
        if diverged is not None:
            return diverged
        position = stop
    return None
