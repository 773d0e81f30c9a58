"""A training step of `mini` against transformers.BertForMaskedLM: same weights, batch, optimizer.

Three arms, paired and interleaved, in fp32 and in bf16 autocast:

- ours, with the attention kernel that the precision is best served by (fp32 `default`, bf16
  `math` with `reduced = true`), as a matrix would choose them;
- transformers as it is: its head runs on every position;
- transformers with a gathered head: its encoder, and its head on the masked positions only. What
  the gather brings and what the rest brings are so told apart.

Then the share of the machine's matrix-product rate (2048 cubed, the fastest of three products
beside each step) that our step reaches by the FLOP formula. glibc's allocator is as it comes:
raising its mmap threshold speeds all arms, transformers' most.

    python benchmarks/peers/transformers_step.py [--pairs 30]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from pairing import paired_ratio
from torch.nn import functional

from bertopt_bench.axes.kernels import Kernel
from bertopt_bench.axes.kernels.attention import math
from bertopt_bench.workload import formulas
from bertopt_bench.workload.checkpoints import save
from bertopt_bench.workload.loss import masked_cross_entropy
from bertopt_bench.workload.model import BertConfig, BertForMaskedLM, initialise

if TYPE_CHECKING:
    from collections.abc import Callable

VOCABULARY, BATCH, LENGTH, MASKED = 30_522, 16, 128, 19  # 19 = round(0.15 * 126)


class Arm:
    """A model with its own fused AdamW, stepped on one fixed batch."""

    def __init__(self, model: torch.nn.Module, loss: Callable[[Any], torch.Tensor]) -> None:
        self.model, self.loss = model, loss
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def seconds(self, autocast: Callable[[], AbstractContextManager[Any]]) -> float:
        start = perf_counter()
        with autocast():
            loss = self.loss(self.model)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return perf_counter() - start


def _masked_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw ids [b, S] with masked ones, their flat index [M], and what they were [M]."""
    ids = torch.randint(5, VOCABULARY, (BATCH, LENGTH))
    positions = torch.stack([torch.randperm(LENGTH - 2)[:MASKED] + 1 for _ in range(BATCH)])
    index = (positions + torch.arange(BATCH)[:, None] * LENGTH).flatten()
    targets = ids.flatten()[index].clone()
    ids.view(-1)[index] = 103
    return ids, index, targets


def make_arms() -> dict[str, Arm]:
    """Build the arms from one set of random weights and one batch."""
    import transformers

    torch.manual_seed(0)
    config = BertConfig(vocabulary_size=VOCABULARY, size=formulas.model_size("mini"))
    model = BertForMaskedLM(config)
    initialise(model, torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        save(model, None, Path(folder))
        copies = [
            transformers.BertForMaskedLM.from_pretrained(
                folder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
            )
            for _ in range(2)
        ]
    ids, index, targets = _masked_batch()
    labels = torch.full_like(ids, -100)
    labels.view(-1)[index] = targets
    real = torch.ones_like(ids)

    def ours(m: Any) -> torch.Tensor:
        return masked_cross_entropy(m(ids, None, index), targets) / len(targets)

    def dense(m: Any) -> torch.Tensor:
        return m(input_ids=ids, attention_mask=real, labels=labels).loss

    def gathered(m: Any) -> torch.Tensor:
        hidden = m.bert(input_ids=ids, attention_mask=real).last_hidden_state
        logits = m.cls(hidden.view(-1, hidden.shape[-1])[index])
        return functional.cross_entropy(logits.float(), targets)

    for copy in copies:
        copy.train()
    model.train()
    return {
        "ours": Arm(model, ours),
        "transformers": Arm(copies[0], dense),
        "transformers, gathered head": Arm(copies[1], gathered),
    }


GOALS = {  # by precision: over transformers, over transformers with a gathered head
    "fp32": (2.8, 1.0),
    "bf16": (3.0, 1.0),
}
ATTENTION = {"fp32": Kernel(), "bf16": math(reduced=True)}


def compare(arms: dict[str, Arm], precision: str, pairs: int) -> None:
    """Print losses and ratios in one precision."""

    def autocast() -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()

    def ours_seconds() -> float:
        kernel = ATTENTION[precision]
        with kernel.context() if kernel.context else nullcontext():
            return ours.seconds(autocast)

    with torch.no_grad(), autocast():
        losses = {name: float(arm.loss(arm.model)) for name, arm in arms.items()}
    print(f"\n{precision}: losses " + ", ".join(f"{n} {v:.6f}" for n, v in losses.items()))
    if precision == "fp32":
        spread = max(losses.values()) - min(losses.values())
        print(f"fp32: losses within {spread:.1e} (goal: 1e-4): {said(spread <= 1e-4)}")
    ours = arms["ours"]
    for arm in arms.values():
        for _ in range(3):
            arm.seconds(autocast)
    for (name, arm), goal in zip(list(arms.items())[1:], GOALS[precision], strict=True):
        result = paired_ratio(lambda arm=arm: arm.seconds(autocast), ours_seconds, pairs=pairs)
        print(f"{precision}: {name} by ours: {result}")
        print(f"{precision}: goal {goal}: {said(result.ratio >= goal)}")


def said(met: bool) -> str:  # noqa: FBT001 - reads well
    return "met" if met else "MISSED"


def share_of_peak(arm: Arm, rounds: int) -> None:
    """Print the share of the matrix-product rate, each round's step beside its own product."""
    flops = formulas.train_flops(
        formulas.model_size("mini"),
        vocabulary=VOCABULARY,
        batch=BATCH,
        seq_len=LENGTH,
        masked=BATCH * MASKED,
    )
    left, right, out = (torch.randn(2048, 2048) for _ in range(3))
    shares = []
    for _ in range(rounds):
        step = arm.seconds(nullcontext)
        products = []
        for _ in range(3):
            start = perf_counter()
            torch.mm(left, right, out=out)
            products.append(perf_counter() - start)
        shares.append(flops / step / (2 * 2048**3 / min(products)))
    quartiles = statistics.quantiles(shares, n=4)
    print(
        f"\nfp32 share of the measured matrix-product rate: median {quartiles[1]:.1%}, quartiles "
        f"{quartiles[0]:.1%} to {quartiles[2]:.1%}, n = {rounds} (goal: 65 %): "
        f"{said(quartiles[1] >= 0.65)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    for precision in ("fp32", "bf16"):
        arms = make_arms()
        compare(arms, precision, arguments.pairs)
        if precision == "fp32":
            share_of_peak(arms["ours"], arguments.pairs)


if __name__ == "__main__":
    main()
