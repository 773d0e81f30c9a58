"""Formulas against hand-computed figures, the live model and torch's own FLOP counter."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bertopt_bench.errors import UserError
from bertopt_bench.workload import formulas
from bertopt_bench.workload.model import BertConfig, BertForMaskedLM, initialise

SMALL = formulas.ModelSize(hidden=32, layers=2, heads=4, intermediate=48, positions=40)
VOCABULARY, BATCH, LENGTH, MASKED = 101, 3, 20, 9


def test_parameters_of_published_sizes() -> None:
    """BERT-base without pooler and with MLM head has 109,514,298 parameters (transformers)."""
    base = formulas.model_size("base")

    assert formulas.parameter_count(base, vocabulary=30_522) == 109_514_298
    assert formulas.parameter_count(base, vocabulary=30_522, mlm=False, pooler=True) == 109_482_240


@pytest.mark.parametrize("position_embedding", ["learned", "sinusoidal"])
@pytest.mark.parametrize("pooler", [False, True])
def test_parameters_equal_the_live_model(position_embedding: str, *, pooler: bool) -> None:
    """The formula counts what torch holds, the tied weight once."""
    config = BertConfig(VOCABULARY, SMALL, position_embedding, pooler=pooler)

    counted = sum(parameter.numel() for parameter in BertForMaskedLM(config).parameters())

    assert counted == formulas.parameter_count(
        SMALL, vocabulary=VOCABULARY, position_embedding=position_embedding, pooler=pooler
    )


def test_flops_equal_torchs_counter_under_math_attention() -> None:
    """Forward, and forward with backward, exactly; oracle: torch.utils.flop_counter."""
    model = BertForMaskedLM(BertConfig(VOCABULARY, SMALL))
    initialise(model, torch.Generator().manual_seed(0))
    ids = torch.randint(5, VOCABULARY, (BATCH, LENGTH), dtype=torch.int32)
    index = torch.randperm(BATCH * LENGTH)[:MASKED]
    sizes = {"vocabulary": VOCABULARY, "batch": BATCH, "seq_len": LENGTH, "masked": MASKED}

    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            logits = model(ids, None, index)
        with FlopCounterMode(display=False) as backward:
            logits.sum().backward()

    assert forward.get_total_flops() == formulas.forward_flops(SMALL, **sizes)
    total = forward.get_total_flops() + backward.get_total_flops()
    assert total == formulas.train_flops(SMALL, **sizes)


def test_train_flops_of_bert_base_by_hand() -> None:
    """S = 128, 19 of 128 slots masked: 0.545 GFLOP a token, as worked out from the layer sizes."""
    per_batch = formulas.train_flops(
        formulas.model_size("base"), vocabulary=30_522, batch=1, seq_len=128, masked=19
    )

    encoder = 12 * (8 * 768**2 + 4 * 768 * 3072 + 4 * 128 * 768)
    head = 2 * 768**2 + 2 * 768 * 30_522
    assert per_batch == 3 * (128 * encoder + 19 * head)
    assert per_batch / 128 == pytest.approx(0.545e9, rel=2e-3)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("tyny", "Did you mean 'tiny'"),
        ({"hidden": 64, "layers": 2, "heads": 2}, "lacks intermediate"),
        ({"hiden": 64, "layers": 2, "heads": 2, "intermediate": 1}, "Did you mean 'hidden'"),
        ({"hidden": 64, "layers": 0, "heads": 2, "intermediate": 1}, "model.layers is 0"),
        ({"hidden": 64, "layers": True, "heads": 2, "intermediate": 1}, "model.layers is True"),
        ({"hidden": 65, "layers": 1, "heads": 2, "intermediate": 1}, "no multiple"),
    ],
)
def test_bad_models_are_refused(model: object, text: str) -> None:
    with pytest.raises(UserError, match=text):
        formulas.model_size(model)  # type: ignore[arg-type]


def test_sizes_of_ones_own() -> None:
    own = {"hidden": 32, "layers": 2, "heads": 4, "intermediate": 48, "positions": 40}

    assert formulas.model_size(own) == SMALL


@pytest.mark.parametrize(
    ("seq_len", "rate", "slots"), [(128, 0.15, 19), (64, 0.15, 9), (4, 0.1, 1)]
)
def test_masked_slots(seq_len: int, rate: float, slots: int) -> None:
    assert formulas.masked_slots(seq_len, rate) == slots
