"""Real tokens a second without padding, against `padded`: paired, interleaved, on real text.

For `news` and `aws_docs` at their natural lengths, cut at 128 and 512 slots, each layout's training
step alternates with the padded one on the same batch; ratio of real tokens a second with its
interval. In neither text half of the slots are padding; `doc_strings` are the longer ones of
`aws_docs` one by one, a document each, of which more than half is. Beside it the share of padding,
and the ideal ratio: model FLOPs of the padded step by those of its real tokens alone, attention's
squared lengths and the head included. The optimizer's step (fused) is not in the ideal.

    python benchmarks/peers/layouts.py [--pairs 24] [--model mini] [--precision fp32] [--cpu-time]

With --cpu-time it is the CPU time of one thread, which other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any

import torch
from pairing import paired_ratio
from setting import request_for

from bertopt_bench.trial.assemble import assemble
from bertopt_bench.workload import formulas
from bertopt_bench.workload.prepare import cache_root, read_documents

if TYPE_CHECKING:
    from collections.abc import Callable

    from bertopt_bench.trial.live import Trial

MATRIX = Path(__file__).parent.parent / "layouts.toml"
DOC_STRINGS, DOCUMENTS, SHORTEST = "doc_strings", 3000, 110  # a name, a count, characters
BATCHES = 8  # distinct ones, over and over
BATCH_SIZES = {128: 16, 512: 8}
LEAST_SHARE = 0.85  # of the ideal ratio
HALF, LEAST_RATIO = 0.45, 1.6  # where about half of the slots are padding


@dataclass(frozen=True)
class Text:
    """A corpus cut at a length, and what is run on it."""

    name: str
    corpus: str
    seq_len: int
    model: str
    precision: str

    def request(self, layout: str) -> dict[str, Any]:
        return request_for(
            MATRIX,
            f"workload.corpus='{self.corpus}'",
            f"workload.seq_len={self.seq_len}",
            f"workload.batch_size={BATCH_SIZES[self.seq_len]}",
            f"workload.layout='{layout}'",
            f"workload.model='{self.model}'",
            f"workload.steps={BATCHES}",
            f"workload.evaluate_every={BATCHES}",
            f"timing.steps={BATCHES}",
            f"axes.precision='{self.precision}'",
            "axes.kernel.optimizer_step='fused'",
        )


def stepper(trial: Trial, clock: Callable[[], float] = perf_counter) -> Callable[[], float]:
    """Give a function that trains on the next batch and gives its seconds."""
    order = cycle(range(BATCHES))

    def step() -> float:
        index = next(order)
        begin = clock()
        trial.step(index)
        seconds = clock() - begin
        trial.drain()
        return seconds

    return step


def flops(trial: Trial, vocabulary: int, *, real: bool) -> int:
    """Count the mean step: all slots, or the real tokens alone."""
    batches = trial.batches
    return formulas.mean_flops(
        formulas.model_size(trial.cell["workload"]["model"]),
        vocabulary=vocabulary,
        slots=(batches.real_tokens if real else batches.slot_tokens)[:BATCHES],
        pairs=batches.attended_pairs[:BATCHES],
        masked=(batches.masked_tokens if real else batches.head_slots)[:BATCHES],
    )


def compare(text: Text, pairs: int, *, cpu_time: bool) -> None:
    requests = {layout: text.request(layout) for layout in ("padded", "unpadded", "packed")}
    torch.set_num_threads(1 if cpu_time else requests["padded"]["threads"])
    clock = thread_time if cpu_time else perf_counter
    trials = {layout: assemble(request) for layout, request in requests.items()}
    padded = trials["padded"]
    vocabulary = requests["padded"]["text"]["vocabulary_size"]
    ideal = flops(padded, vocabulary, real=False) / flops(trials["unpadded"], vocabulary, real=True)
    padding = 1 - sum(padded.batches.real_tokens) / sum(padded.batches.slot_tokens)
    print(
        f"\n{text.name} at {text.seq_len}, {text.model}, {text.precision}, batch "
        f"{BATCH_SIZES[text.seq_len]}: {padding:.1%} of the slots are padding; ideal {ideal:.2f}"
    )
    for trial in trials.values():
        list(islice(iter(stepper(trial), None), BATCHES))  # every batch once: caches, allocator
        trial.restore()
    print(
        "loss at the first weights: "
        + ", ".join(f"{n} {first_loss(t):.6f}" for n, t in trials.items())
    )
    for layout in ("unpadded", "packed"):
        batches = trials[layout].batches
        left = 1 - sum(batches.real_tokens) / sum(batches.slot_tokens)
        result = paired_ratio(stepper(padded, clock), stepper(trials[layout], clock), pairs=pairs)
        share = result.ratio / ideal
        print(f"{layout} ({left:.1%} padding left): {result}")
        print(
            f"{layout}: {share:.2f} [{result.low / ideal:.2f}, {result.high / ideal:.2f}] of the "
            f"ideal (goal: {LEAST_SHARE}): {said(share >= LEAST_SHARE)}"
        )
        if padding >= HALF:
            print(f"{layout}: goal {LEAST_RATIO} times: {said(result.ratio >= LEAST_RATIO)}")


def write_doc_strings(folder: Path) -> str:
    """Write doc strings of `aws_docs`, evenly picked, a file each; give the corpus of them."""
    documents = read_documents("aws_docs", cache_root(), lambda *_: None)
    lines = [
        line for document in documents for line in document.splitlines() if len(line) >= SHORTEST
    ]
    for number, line in enumerate(lines[:: len(lines) // DOCUMENTS]):
        (folder / f"{number:06}.txt").write_text(line, encoding="utf-8")
    return f"path:{folder}/*.txt"


def first_loss(trial: Trial) -> float:
    with torch.no_grad():
        return float(trial.forward(trial.fetch(0, 0), 0))


def said(met: bool) -> str:  # noqa: FBT001 - reads well
    return "met" if met else "MISSED"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--corpus", nargs="*", default=["news", "aws_docs", DOC_STRINGS])
    parser.add_argument("--seq-len", nargs="*", type=int, default=sorted(BATCH_SIZES))
    parser.add_argument("--cpu-time", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.corpus:
            corpus = write_doc_strings(Path(folder)) if name == DOC_STRINGS else name
            for seq_len in arguments.seq_len if name != DOC_STRINGS else [128]:
                text = Text(name, corpus, seq_len, arguments.model, arguments.precision)
                compare(text, arguments.pairs, cpu_time=arguments.cpu_time)


if __name__ == "__main__":
    main()
