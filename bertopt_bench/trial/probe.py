"""Ask this machine whether a precision is slower than fp32: paired, interleaved blocks of steps."""

from __future__ import annotations

import statistics
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bertopt_bench.trial.assemble import assemble

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.trial.live import Trial

ROUNDS = 7
STEPS = 4  # a block


def step_time_ratios(requests: Sequence[Mapping[str, Any]]) -> list[float]:
    """Give the median over rounds of each request's block time by the first request's.

    The order within a round turns, so that drift hits all alike.
    """
    trials = [assemble(request) for request in requests]
    for trial in trials:
        _block(trial)
    rounds = []
    for turn in range(ROUNDS):
        order = [(turn + shift) % len(trials) for shift in range(len(trials))]
        times = {index: _block(trials[index]) for index in order}
        rounds.append([times[index] / times[0] for index in range(len(trials))])
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def _block(trial: Trial) -> float:
    trial.precision.apply()
    trial.step(0)  # re-warm after the switch
    trial.device.synchronize()
    start = perf_counter()
    for index in range(STEPS):
        trial.step(index % trial.batches.count)
    trial.device.synchronize()
    seconds = perf_counter() - start
    trial.drain()
    return seconds
