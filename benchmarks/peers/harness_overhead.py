"""Does our timed loop cost anything? Two answers, printed.

1. The loop around an empty step: the harness' own time a step, against the quick start's median.
2. Blocks of our loop alternate with blocks of a bare hand-written loop over the same model object,
   optimizer and batches; ratio of ours to bare, with its interval.

    python benchmarks/peers/harness_overhead.py [--pairs 500]
"""

from __future__ import annotations

import argparse
import statistics
from array import array
from time import perf_counter
from typing import Any

import torch
from pairing import paired_ratio
from setting import QUICKSTART, request_for

from bertopt_bench.measure import clock
from bertopt_bench.trial import loop
from bertopt_bench.trial.assemble import assemble
from bertopt_bench.trial.live import Evaluation, Trial

STEPS = 4  # a block


class Empty:
    """A trial whose steps do nothing."""

    def step(self, index: int) -> None: ...

    def evaluate(self) -> Evaluation:
        return Evaluation(0.0, 0.0)

    def drain(self) -> list[float]:
        return []

    def synchronize(self) -> None: ...


def empty_step_seconds(trial: Trial, steps: int = 100_000) -> float:
    """Run the real loop, clock and counter around an empty step."""
    timer = clock.step_clock(trial.device, steps)
    timer.start()
    start = perf_counter()
    loop.train(Empty(), timer, evaluate_at=[steps], counter=array("q", [0]), report=lambda _: None)
    return (perf_counter() - start) / steps


def ours(trial: Trial) -> float:
    """Time a block through our loop, clock, counter and step."""
    timer = clock.step_clock(trial.device, STEPS)
    timer.start()
    quiet = _Quiet(trial)
    start = perf_counter()
    loop.train(quiet, timer, evaluate_at=[STEPS], counter=array("q", [0]), report=lambda _: None)
    return perf_counter() - start


class _Quiet:
    """Our trial without its evaluation, which the bare loop has not either."""

    def __init__(self, trial: Trial) -> None:
        self.step, self.synchronize = trial.step, trial.synchronize
        self.trial = trial

    def evaluate(self) -> Evaluation:
        return Evaluation(0.0, 0.0)

    def drain(self) -> list[float]:
        self.trial.losses.clear()
        self.trial.schedule_step = 0
        return []


def bare(trial: Trial) -> float:
    """Time the same block as anyone would write it."""
    model, optimizer, batches = trial.model, trial.optimizer, trial.batches
    rates = trial.multipliers
    start = perf_counter()
    for index in range(STEPS):
        batch = batches.at(index)
        logits = model(batch.input_ids, batch.attention_mask, batch.masked_index)
        loss = trial.criterion(logits, batch.labels) / batches.masked_tokens[index]
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rates[index]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=500)
    arguments = parser.parse_args()
    request: dict[str, Any] = request_for(QUICKSTART, "axes.precision='fp32'")
    torch.set_num_threads(request["threads"])
    trial = assemble(request)
    for _ in range(10):
        ours(trial)
        bare(trial)
    empty = statistics.median(empty_step_seconds(trial) for _ in range(7))
    result = paired_ratio(lambda: ours(trial), lambda: bare(trial), pairs=arguments.pairs)
    step = result.second_median_seconds / STEPS
    print(f"harness around an empty step: {empty * 1e6:.2f} us a step (median of 7 x 100,000)")
    print(f"quick start's step: {step * 1e3:.2f} ms; share {empty / step:.4%} (goal: 0.5 %)")
    print(f"our loop by a bare loop, blocks of {STEPS} steps: {result}")
    print("goal: lower bound at most 1.005:", "met" if result.low <= 1.005 else "MISSED")


if __name__ == "__main__":
    main()
