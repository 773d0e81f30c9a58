"""What share of the matrix-product rate does a training step reach, and what eats the rest?

`mini` at batch 32 and length 128 by default, on real text, as a matrix makes the trial: each round
takes a step and, beside it, square products in the same precision: a b, a b', a' b, since a
processor may have a fast way for one of them only. The share is the step's model FLOPs by what the
fastest would have done in the step's time. Beside it stand the steps' page faults and the kernel's
time for them: blocks above 32 MiB are mapped anew for each step by glibc, unless the environment
has MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184. Then one step under the profiler, by kind
of operation: time, and the rate of what has FLOPs; and the products that took longest, by shapes.

    python benchmarks/peers/precision_share.py [--precision bf16] [--attention default math ...]
        [--model mini] [--batch-size 32] [--rounds 20] [--product-size 2048]

On a CPU without 16-bit arithmetic torch's products in bf16 are plain loops: take --product-size 512
and few rounds there.
"""

from __future__ import annotations

import argparse
import statistics
from resource import RUSAGE_SELF, getrusage
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from setting import QUICKSTART, request_for

from bertopt_bench.trial.assemble import assemble
from bertopt_bench.trial.operations import operations_record
from bertopt_bench.trial.passes import trace
from bertopt_bench.workload import formulas

if TYPE_CHECKING:
    from bertopt_bench.trial.live import Trial

GOAL = 0.40
BATCHES = 4  # distinct ones, over and over
PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def request(arguments: argparse.Namespace, attention: str) -> dict[str, Any]:
    reduced = attention == "math_reduced"
    kernel = "{name='math', reduced=true}" if reduced else f"'{attention}'"
    return request_for(
        QUICKSTART,
        f"workload.corpus='{arguments.corpus}'",
        f"workload.model='{arguments.model}'",
        f"workload.vocabulary_size={arguments.vocabulary}",
        f"workload.seq_len={arguments.seq_len}",
        f"workload.batch_size={arguments.batch_size}",
        f"workload.steps={BATCHES}",
        f"workload.evaluate_every={BATCHES}",
        f"axes.precision='{arguments.precision}'",
        f"axes.kernel.attention={kernel}",
        "axes.kernel.optimizer_step='fused'",
        "axes.optimizer='adamw'",
        "axes.schedule='constant'",
        "axes.regularizer='none'",
    )


def step_flops(trial: Trial, vocabulary: int) -> int:
    batches = trial.batches
    return formulas.mean_flops(
        formulas.model_size(trial.cell["workload"]["model"]),
        vocabulary=vocabulary,
        slots=batches.slot_tokens[:BATCHES],
        pairs=batches.attended_pairs[:BATCHES],
        masked=batches.head_slots[:BATCHES],
    )


def shares(trial: Trial, flops: int, rounds: int, size: int, dtype: torch.dtype) -> list[float]:
    """Give each round's share, its step beside its own products."""
    left, right, out = (torch.randn(size, size).to(dtype) for _ in range(3))
    pairs = {"a b": (left, right), "a b'": (left, right.t()), "a' b": (left.t(), right)}
    found, faults, system = [], [], []
    for index in range(rounds):
        before, start = getrusage(RUSAGE_SELF), perf_counter()
        trial.step(index % BATCHES)
        step, after = perf_counter() - start, getrusage(RUSAGE_SELF)
        faults.append(after.ru_minflt - before.ru_minflt)
        system.append(after.ru_stime - before.ru_stime)
        trial.drain()
        rates = {words: 2 * size**3 / _fastest(*pair, out) for words, pair in pairs.items()}
        found.append(flops / step / max(rates.values()))
        told = ", ".join(f"{words} {rate / 1e9:.1f}" for words, rate in rates.items())
        print(
            f"  step {step * 1e3:.1f} ms; GFLOP/s {flops / step / 1e9:.1f}, of {told}", flush=True
        )
    print(
        f"  a step: {statistics.median(faults):,.0f} page faults, "
        f"{statistics.median(system) * 1e3:.0f} ms of the kernel's time (medians, all cores)"
    )
    return found


def _fastest(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> float:
    """Give the shortest of three products' seconds."""
    seconds = []
    for _ in range(3):
        start = perf_counter()
        torch.mm(left, right, out=out)
        seconds.append(perf_counter() - start)
    return min(seconds)


def print_kinds(trial: Trial) -> None:
    traced, _ = trace(trial)
    record = operations_record(trial, traced.spans)
    print(f"one traced step: {record['step_seconds'] * 1e3:.1f} ms")
    for kind in sorted(record["kinds"], key=lambda one: -one["seconds"]):
        rest = kind["seconds"] - kind["counted_seconds"]
        rate = kind["flops"] / kind["counted_seconds"] / 1e9 if kind["counted_seconds"] else 0.0
        print(
            f"  {kind['kind']:<10} {kind['seconds'] * 1e3:9.2f} ms, of it {rest * 1e3:8.2f} ms in "
            f"operators without a FLOP formula; the others {rate:.1f} GFLOP/s"
        )


def print_products(trial: Trial) -> None:
    """Print the matrix products by shapes, longest first: what a fast way is lacking for."""
    activity = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity], record_shapes=True, with_flops=True) as seen:
        trial.step(0)
        trial.drain()
    averages = seen.key_averages(group_by_input_shape=True)
    products = [one for one in averages if one.key in PRODUCTS]
    for one in sorted(products, key=lambda one: -one.self_cpu_time_total)[:6]:
        seconds = one.self_cpu_time_total / 1e6
        shapes = " ".join(str(shape) for shape in one.input_shapes if len(shape) > 1)
        print(
            f"  {one.key:<28} {seconds * 1e3:9.2f} ms {one.flops / seconds / 1e9:7.1f} GFLOP/s "
            f"{one.count:4d} calls {shapes}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", choices=DTYPES, default="bf16")
    parser.add_argument("--attention", nargs="*", default=["default", "math_reduced"])
    parser.add_argument("--corpus", default="news")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--vocabulary", type=int, default=30_522)
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--product-size", type=int, default=2048)
    arguments = parser.parse_args()
    dtype = DTYPES[arguments.precision]
    for attention in arguments.attention:
        asked = request(arguments, attention)
        torch.set_num_threads(asked["threads"])
        trial = assemble(asked)
        flops = step_flops(trial, asked["text"]["vocabulary_size"])
        print(f"\n{arguments.model}, {arguments.precision}, attention {attention}: {flops:,} FLOPs")
        trial.step(0)
        found = shares(trial, flops, arguments.rounds, arguments.product_size, dtype)
        print_kinds(trial)
        print_products(trial)
        median = statistics.median(found)
        print(
            f"share of the measured rate: median {median:.1%}, {min(found):.1%} to "
            f"{max(found):.1%}, n = {len(found)} (goal {GOAL:.0%}): "
            f"{'met' if median >= GOAL else 'MISSED'}"
        )


if __name__ == "__main__":
    main()
