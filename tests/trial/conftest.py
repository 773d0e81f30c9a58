"""Requests of very small trials on synthetic batches, as the dispatch room would send them."""

from __future__ import annotations

import json
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from bertopt_bench import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEPS, BATCH, LENGTH, SLOTS, VOCABULARY = 6, 4, 12, 2, 64
WORKLOAD = {
    "name": "mlm",
    "model": {"hidden": 16, "layers": 1, "heads": 2, "intermediate": 32},
    "corpus": "python_docs",
    "vocabulary_size": VOCABULARY,
    "seq_len": LENGTH,
    "batch_size": BATCH,
    "micro_batches": 1,
    "steps": STEPS,
    "position_embedding": "learned",
    "mask_rate": 0.15,
    "evaluate_every": 3,
    "evaluation_batches": 2,
    "held_out_fraction": 0.1,
    "lower_case": True,
}


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


def write_batches(folder: Path, count: int, seed: int) -> dict[str, str]:
    """Write random batches in the format of the workload room; some sequences are padded."""
    draw = np.random.default_rng(seed)
    folder.mkdir()
    lengths = draw.integers(LENGTH // 2, LENGTH + 1, (count, BATCH)).astype(np.int32)
    ids = draw.integers(5, VOCABULARY, (count, BATCH, LENGTH)).astype(np.int32)
    ids[np.arange(LENGTH) >= lengths[..., None]] = 0
    labels = draw.integers(5, VOCABULARY, (count, BATCH, SLOTS))
    labels[:, ::2, 1] = -100  # a slot that is not used
    places = np.tile(np.arange(1, LENGTH // 2 - 1), (count, BATCH, 1))  # a token is masked once
    positions = draw.permuted(places, axis=2)[:, :, :SLOTS].astype(np.int32)
    positions[labels < 0] = 0
    np.save(folder / "input_ids.npy", ids)
    np.save(folder / "lengths.npy", lengths)
    np.save(folder / "masked_position.npy", positions)
    np.save(folder / "masked_label.npy", labels.astype(np.int64))
    return {"folder": str(folder), "sha256": "0" * 64}


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("text")
    return {
        "vocabulary_size": VOCABULARY,
        "batches": {"1": write_batches(folder / "train", STEPS, 1)},
        "evaluation": write_batches(folder / "held_out", 2, 2),
    }


def choice(axis: str, value: str | dict[str, Any]) -> dict[str, Any]:
    """Give a canonical choice, defaults filled in."""
    given = {"name": value} if isinstance(value, str) else value
    options = {key: option for key, option in given.items() if key != "name"}
    return catalogue.canonical(catalogue.find(axis, given["name"]), options)


@pytest.fixture(scope="session")
def make_request(text: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """Give a function: axes by keyword (``regularizer`` a list), workload keys in ``workload``."""

    def make(workload: dict[str, Any] | None = None, **axes: Any) -> dict[str, Any]:
        kernels = {
            operation: choice(f"kernel.{operation}", axes.pop(operation, default))
            for operation, default in (
                ("attention", "default"),
                ("optimizer_step", "default"),
                ("compile", "off"),
            )
        }
        kernels |= {  # a cell says these only where it chooses them
            operation: choice(f"kernel.{operation}", axes.pop(operation))
            for operation in ("gelu", "layer_norm", "mlm_loss", "checkpointing", "cuda_graph")
            if operation in axes
        }
        cell = {
            "workload": {**WORKLOAD, **(workload or {})},
            "optimizer": choice("optimizer", axes.pop("optimizer", "adamw")),
            "schedule": choice("schedule", axes.pop("schedule", "linear")),
            "regularizer": [
                choice("regularizer", part) for part in axes.pop("regularizer", ["none"])
            ],
            "precision": choice("precision", axes.pop("precision", "fp32")),
            "device": choice("device", axes.pop("device", "cpu")),
            "kernel": kernels,
        }
        assert not axes, axes
        request = {
            "cell": cell,
            "seed": 1,
            "replicate": 0,
            "steps": STEPS,
            "timing": {"burn_in_steps": 3, "phase_steps": 2, "timeout_seconds": 60.0},
            "text": text,
            "threads": 1,
            "dispatched_ns": monotonic_ns(),
        }
        loaded: dict[str, Any] = json.loads(json.dumps(request))  # as it travels
        return loaded

    return make
