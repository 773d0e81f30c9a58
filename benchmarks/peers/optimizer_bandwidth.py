"""What share of the memory's bandwidth do optimizer steps reach, by implementation?

100 M parameters in a BERT's mix of tensors. Steps alternate with an in-place update of the
optimizer's own mix of reads and writes of float32 (SGD 2 and 1, AdamW 4 and 3, AdEMAMix 5 and 4),
the order within a pair drawn; the share is the bytes that the update needs at least by the bytes
that the ceiling moves in the same time, with its interval.

The least bytes are counted in ``bertopt_bench.workload.optimizer_work``; what an implementation
moves besides counts against it.

    python benchmarks/peers/optimizer_bandwidth.py [--pairs 20] [--optimizer adamw --optimizer lion]
"""

from __future__ import annotations

import argparse
import gc
import os
from contextlib import nullcontext
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from pairing import paired_ratio

from bertopt_bench import catalogue
from bertopt_bench.axes import optimizers
from bertopt_bench.measure.in_place import in_place_mix, mix_bytes, mix_name
from bertopt_bench.trial.assemble import build_kernel
from bertopt_bench.trial.regularizing import Regularizers
from bertopt_bench.trial.stepping import make_optimizer
from bertopt_bench.workload.formulas import ModelSize
from bertopt_bench.workload.model import BertConfig, BertForMaskedLM, initialise, parameter_groups
from bertopt_bench.workload.optimizer_work import OPTIMIZER_STEPS

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = ModelSize(hidden=2048, layers=2, heads=16, intermediate=8192, positions=64)
VOCABULARY = 64  # next to nothing: 105 M parameters, nearly all in the encoder
CEILING_PARAMETERS = 25_000_000
GOAL, FUSED_ADAMW_GOAL = 0.60, 0.85
STEPS = ("loop", "foreach", "fused", "compiled")


def make_groups() -> list[dict[str, Any]]:
    """Draw weights and gradients of a BERT."""
    generator = torch.Generator().manual_seed(0)
    model = BertForMaskedLM(BertConfig(VOCABULARY, SIZE))
    initialise(model, generator)
    block = torch.randn(2**16, generator=generator) * 1e-3
    for parameter in model.parameters():
        copies = -(-parameter.numel() // block.numel())
        parameter.grad = block.repeat(copies)[: parameter.numel()].view(parameter.shape).clone()
    return parameter_groups(model)


def has_step(optimizer: str, step: str) -> bool:
    """Say whether the optimizer has such a step, as the skip rules do."""
    accepts = catalogue.find("optimizer", optimizer).accepts
    if step in {"foreach", "fused"}:
        return step in accepts and optimizer not in optimizers.LOOP_ONLY
    return True


def make_step(name: str, step: str) -> Callable[[], float]:
    """Build the optimizer as a trial does; give a call that steps once and gives the seconds."""
    choice = catalogue.canonical(catalogue.find("optimizer", name), {})
    kernel = build_kernel("optimizer_step", {"name": step})
    kernels = {"optimizer_step": kernel}
    optimizer, _ = make_optimizer({"optimizer": choice}, make_groups(), kernels, Regularizers([]))

    def timed() -> float:
        start = perf_counter()
        optimizer.step()
        return perf_counter() - start

    with kernel.context() if kernel.context else nullcontext():
        for _ in range(3):
            timed()
    return timed


def make_ceiling(states: int) -> Callable[[], float]:
    """Give a call that moves the bytes of a mix once and gives the seconds."""
    arrays = [torch.randn(2**10).repeat(CEILING_PARAMETERS // 2**10) for _ in range(states + 2)]
    mix = in_place_mix(*arrays)

    def timed() -> float:
        start = perf_counter()
        mix()
        return perf_counter() - start

    for _ in range(3):
        timed()
    return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--optimizer", action="append", choices=OPTIMIZER_STEPS)
    parser.add_argument("--step", action="append", choices=STEPS)
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    parameters = sum(p.numel() for group in make_groups() for p in group["params"])
    print(f"{parameters / 1e6:.1f} M parameters, {torch.get_num_threads()} threads")
    print("| optimizer | step | ceiling's mix | share of the ceiling | interval | GB/s | ms |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.optimizer or OPTIMIZER_STEPS:
        counted = OPTIMIZER_STEPS[name]
        needed, ceiling = 4 * counted.words * parameters, make_ceiling(counted.states)
        moved = mix_bytes(counted.states) * (CEILING_PARAMETERS // 2**10 * 2**10)
        best = 0.0
        for step in arguments.step or STEPS:
            if not has_step(name, step):
                continue
            torch.compiler.reset()
            gc.collect()
            result = paired_ratio(make_step(name, step), ceiling, pairs=arguments.pairs)
            share, low, high = (
                needed / moved / ratio for ratio in (result.ratio, result.high, result.low)
            )
            best = max(best, share)
            print(
                f"| {name} | {step} | {mix_name(counted.states)} "
                f"| {share:.0%} | {low:.0%} to {high:.0%} "
                f"| {needed / result.first_median_seconds / 1e9:.1f} "
                f"| {result.first_median_seconds * 1e3:.0f} |",
                flush=True,
            )
            if (name, step) == ("adamw", "fused"):
                print(f"adamw, fused: goal {FUSED_ADAMW_GOAL:.0%}: {said(share, FUSED_ADAMW_GOAL)}")
        print(f"{name}: best {best:.0%}, goal {GOAL:.0%}: {said(best, GOAL)}", flush=True)


def said(share: float, goal: float) -> str:
    return "met" if share >= goal else "MISSED"


if __name__ == "__main__":
    main()
