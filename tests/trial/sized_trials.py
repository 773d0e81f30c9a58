"""Trials of real sizes on synthetic batches, for the tests of memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from bertopt_bench import catalogue
from bertopt_bench.trial.assemble import assemble
from bertopt_bench.workload import formulas
from bertopt_bench.workload.masking import IGNORED

if TYPE_CHECKING:
    from pathlib import Path

    from bertopt_bench.trial.live import Trial

VOCABULARY = 4096
MASK_RATE = 0.15


@dataclass(frozen=True, slots=True)
class Sized:
    """What of a cell changes its memory; the ``shortest`` sequence is that share of the longest."""

    model: str | tuple[tuple[str, int], ...] = "tiny"
    precision: str = "fp32"
    seq_len: int = 64
    batch_size: int = 8
    micro_batches: int = 1
    optimizer: str = "adamw"
    optimizer_step: str = "default"
    attention: str = "default"
    regularizer: str = "none"
    compile: str = "off"
    checkpointing: str = "off"
    mlm_loss: str = "sparse"
    layout: str = "padded"
    shortest: float = 0.5

    @property
    def slots(self) -> int:
        """Give the slots of a step, padding included."""
        return self.batch_size * self.seq_len

    def cell(self) -> dict[str, Any]:
        """Give the canonical cell."""
        return {
            "workload": {
                "name": "mlm",
                "model": self.model if isinstance(self.model, str) else dict(self.model),
                "corpus": "python_docs",
                "vocabulary_size": VOCABULARY,
                "seq_len": self.seq_len,
                "batch_size": self.batch_size,
                "micro_batches": self.micro_batches,
                "steps": 4,
                "position_embedding": "learned",
                "mask_rate": MASK_RATE,
                "evaluate_every": 4,
                "evaluation_batches": 1,
                "held_out_fraction": 0.1,
                "lower_case": True,
                **({} if self.layout == "padded" else {"layout": self.layout}),
            },
            "optimizer": choice("optimizer", self.optimizer),
            "schedule": choice("schedule", "linear"),
            "regularizer": [choice("regularizer", self.regularizer)],
            "precision": choice("precision", self.precision),
            "device": choice("device", "cpu"),
            "kernel": {
                "attention": choice("kernel.attention", self.attention),
                "optimizer_step": choice("kernel.optimizer_step", self.optimizer_step),
                "compile": choice("kernel.compile", self.compile),
                "checkpointing": choice("kernel.checkpointing", self.checkpointing),
                "mlm_loss": choice("kernel.mlm_loss", self.mlm_loss),
            },
        }


def is_endless(sized: Sized) -> bool:
    """Say whether the processor emulates a trial's arithmetic, which takes minutes a step.

    Bytes are the same wherever they are counted; a processor that computes in bf16 counts them.
    """
    computes = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return sized.precision == "bf16" and sized.model in {"mini", "small"} and not computes


def choice(axis: str, name: str) -> dict[str, Any]:
    """Give a canonical choice; ``math reduced`` is math attention that stays in 16 bits."""
    name, *words = name.split()
    return catalogue.canonical(catalogue.find(axis, name), dict.fromkeys(words, True))


def write_batches(folder: Path, sized: Sized) -> dict[str, str]:
    """Write three random batches of these sizes, with some padding."""
    batch, length = sized.batch_size, sized.seq_len
    slots = formulas.masked_slots(length, MASK_RATE)
    place = folder / f"{batch}x{length}x{sized.shortest}"
    least = round(sized.shortest * length)
    if not place.exists():
        draw = np.random.default_rng(0)
        place.mkdir()
        np.save(place / "input_ids.npy", draw.integers(5, VOCABULARY, (3, batch, length), np.int32))
        lengths = draw.integers(least, length + 1, (3, batch), np.int32)
        np.save(place / "lengths.npy", lengths)
        positions = draw.integers(1, least - 1, (3, batch, slots), np.int32)
        np.save(place / "masked_position.npy", positions)
        labels = draw.integers(5, VOCABULARY, (3, batch, slots))
        labels[np.arange(slots) >= np.maximum(1, MASK_RATE * lengths[..., None])] = IGNORED
        np.save(place / "masked_label.npy", labels)
    return {"folder": str(place), "sha256": "0" * 64}


def live(folder: Path, sized: Sized, mode: str = "training") -> Trial:
    """Assemble the trial."""
    if is_endless(sized):
        pytest.skip("needs a processor with 16-bit arithmetic: emulated, a step takes minutes")
    batches = write_batches(folder, sized)
    text = {"vocabulary_size": VOCABULARY, "batches": {"1": batches}, "evaluation": batches}
    cell = sized.cell()
    cell["workload"] |= {} if mode == "training" else {"mode": mode}
    request = {"cell": cell, "seed": 1, "steps": 4, "text": text}
    return assemble(request)
