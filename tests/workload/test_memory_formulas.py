"""Formulas of memory against what autograd saves, and against figures by hand."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from bertopt_bench.workload import formulas, memory_formulas
from bertopt_bench.workload.memory_formulas import memory_forecast, memory_forecast_bytes
from bertopt_bench.workload.model import BertConfig, BertForMaskedLM, initialise

VOCABULARY, SEQUENCES, LENGTH, MASKED = 512, 4, 32, 20
HIDDEN, HEADS = 64, 4


def size_of(layers: int) -> formulas.ModelSize:
    return formulas.ModelSize(hidden=HIDDEN, layers=layers, heads=HEADS, intermediate=4 * HIDDEN)


def saved_bytes(layers: int, precision: str, backend: SDPBackend | None, dropout: float) -> int:
    """Count what autograd saves in one forward pass, each storage once, parameters left out."""
    config = BertConfig(VOCABULARY, size_of(layers), dropout=dropout, attention_dropout=dropout)
    model = BertForMaskedLM(config)
    initialise(model, torch.Generator().manual_seed(0))
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seen: dict[int, int] = {}
    kept = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)  # so that no address comes twice
        return tensor

    ids = torch.randint(5, VOCABULARY, (SEQUENCES, LENGTH), dtype=torch.int32)
    mask = (torch.arange(LENGTH) < 20).expand(SEQUENCES, 1, 1, LENGTH)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    forced = nullcontext() if backend is None else sdpa_kernel(backend)
    with autocast, forced, hooks:
        model(ids, mask, torch.arange(MASKED))
    return sum(seen.values())


def step(precision: str = "fp32", **changed: Any) -> memory_formulas.Step:
    """Give what the formulas read of the model above."""
    fields: dict[str, Any] = {
        "size": size_of(2),
        "vocabulary": VOCABULARY,
        "slots": SEQUENCES * LENGTH,
        "masked": MASKED,
        "seq_len": LENGTH,
        "weight": 4,
        "compute": 2 if precision == "bf16" else 4,
        "cuda": False,
        "attention": "default",
        "reduced": False,
        "dropout": False,
        "attention_dropout": False,
        "smoothing": False,
        "gradients_early": False,
        "accumulates": False,
    }
    return memory_formulas.Step(**{**fields, **changed})


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("attention", ["default", "math"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_layers_activations_are_what_autograd_saves(
    precision: str, attention: str, dropout: float
) -> None:
    """Oracle: saved_tensors_hooks, the difference of three layers and two."""
    backend = SDPBackend.MATH if attention == "math" else None
    count = partial(saved_bytes, precision=precision, backend=backend, dropout=dropout)
    kept = memory_formulas.activations(
        step(precision, attention=attention, dropout=dropout > 0, attention_dropout=dropout > 0)
    )

    assert count(3) - count(2) == pytest.approx(kept.layer, rel=0.01)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_lies_around_the_layers_is_what_autograd_saves(precision: str) -> None:
    """Oracle: saved_tensors_hooks, two layers without those of two; the loss is not asked for."""
    count = partial(saved_bytes, precision=precision, backend=None, dropout=0.0)
    kept = memory_formulas.activations(step(precision))

    around = count(2) - 2 * (count(3) - count(2))
    assert around == pytest.approx(kept.embedding + kept.head, rel=0.02)


def test_a_layer_in_numbers_by_hand() -> None:
    """Oracle: workload.md 4.3: 16 sbh numbers, of four bytes each, and figures of the norms."""
    kept = memory_formulas.activations(step())
    statistics = 4 * (2 * 2 + HEADS)  # mean and deviation of two norms, one figure a head

    assert kept.layer == SEQUENCES * LENGTH * (64 * HIDDEN + statistics)


def cell(optimizer: str, way: str = "loop", **workload: object) -> dict[str, Any]:
    """Give as much of a cell as a forecast looks at."""
    return {
        "workload": {
            "model": "base",
            "vocabulary_size": 30_522,
            "seq_len": 8,
            "batch_size": 1,
            "micro_batches": 1,
            "mask_rate": 0.15,
            "position_embedding": "learned",
            **workload,
        },
        "optimizer": {"name": optimizer},
        "regularizer": [{"name": "none"}],
        "precision": {"name": "fp32"},
        "kernel": {"attention": {"name": "default"}, "optimizer_step": {"name": way}},
    }


PARAMETERS = 109_514_298  # of base (transformers)
WORDS = 30_522 * 768


def test_the_forecast_counts_weights_gradients_and_state() -> None:
    """Oracle: by hand: of one short sequence AdamW takes 16 bytes a parameter, SGD 8.

    Besides, the words' gradient waits in two shares, the decoder's and the embeddings'.
    """
    for optimizer, way, each in (("adamw", "fused", 16), ("sgd", "loop", 8)):
        forecast = memory_forecast_bytes(cell(optimizer, way))
        assert forecast == pytest.approx(each * PARAMETERS + 2 * 4 * WORDS, rel=0.01)


@pytest.mark.parametrize(
    ("optimizer", "way", "numbers"),
    [
        ("nadam", "loop", 2 * WORDS),  # a quotient and its root, of the largest weight
        ("adamw", "loop", 2 * WORDS),  # the root and the denominator
        ("adamw", "foreach", 12 * 12 * 768**2),  # a root of every encoder matrix
        ("lion", "default", 12 * 12 * 768**2),
        ("adagrad", "foreach", 2 * 12 * 12 * 768**2),
    ],
)
def test_what_a_step_makes_besides(optimizer: str, way: str, numbers: int) -> None:
    """Oracle: counts by hand from torch.optim's and pytorch-optimizer's sources."""
    in_16_bits = {**cell(optimizer, way), "precision": {"name": "bf16"}}
    found = memory_forecast(in_16_bits)

    assert found.moment == "optimizer"
    assert found.peak.temporary_bytes == 4 * numbers
    assert found.peak.gradient_bytes == 4 * PARAMETERS


def test_muon_keeps_one_moment_of_matrices_and_two_of_the_rest() -> None:
    """Oracle: 12 h h numbers a layer lose a moment."""
    states = [memory_forecast(cell(name)).peak.optimizer_state_bytes for name in ("adamw", "muon")]

    assert states[0] - states[1] == 4 * 12 * 12 * 768**2


def test_parts_sum_to_the_peak_and_none_exceeds_its_own_most() -> None:
    """Oracle: the sum itself."""
    found = memory_forecast(cell("adamw", batch_size=64, seq_len=128))

    assert found.moment in {"forward", "backward"}
    assert (
        found.peak.total_bytes
        == found.peak_bytes
        == memory_forecast_bytes(cell("adamw", batch_size=64, seq_len=128))
    )
    assert found.peak.activation_bytes <= found.largest.activation_bytes
    assert found.peak.gradient_bytes < found.largest.gradient_bytes == 4 * PARAMETERS
