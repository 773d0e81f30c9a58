"""Formulas against hand-computed figures, the live model and torch's own FLOP counter."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bertopt_bench.errors import UserError
from bertopt_bench.workload import formulas
from bertopt_bench.workload.model import BertConfig, BertForMaskedLM, initialise
from bertopt_bench.workload.ragged import Ragged

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


def test_ragged_flops_equal_torchs_counter_under_math_attention() -> None:
    """Sequences of 20, 7 and 3 tokens side by side; oracle: torch.utils.flop_counter, exactly."""
    lengths = (20, 7, 3)
    model = BertForMaskedLM(BertConfig(VOCABULARY, SMALL))
    initialise(model, torch.Generator().manual_seed(0))
    positions = torch.cat([torch.arange(length, dtype=torch.int32) for length in lengths])
    ids = torch.randint(5, VOCABULARY, (30,), dtype=torch.int32)
    mask = Ragged(positions, LENGTH, runs=tuple((1, length) for length in lengths))
    sizes = {"vocabulary": VOCABULARY, "slots": 30, "pairs": 400 + 49 + 9, "masked": MASKED}

    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            logits = model(ids, mask, torch.arange(MASKED))
        with FlopCounterMode(display=False) as backward:
            logits.sum().backward()

    expected = formulas.ragged_forward_flops(SMALL, **sizes)
    assert forward.get_total_flops() == expected
    assert forward.get_total_flops() + backward.get_total_flops() == 3 * expected


def test_mean_flops_of_steps_by_hand() -> None:
    """Oracle: the padded formula where all steps are padded; else the rounded mean of two steps."""
    padded = {"vocabulary": VOCABULARY, "batch": BATCH, "seq_len": LENGTH, "masked": MASKED}
    slots, pairs = BATCH * LENGTH, BATCH * LENGTH**2
    same = formulas.mean_flops(
        SMALL, vocabulary=VOCABULARY, slots=[slots] * 7, pairs=[pairs] * 7, masked=[MASKED] * 7
    )
    each = [
        formulas.ragged_forward_flops(SMALL, vocabulary=VOCABULARY, slots=t, pairs=p, masked=m)
        for t, p, m in ((30, 458, 9), (12, 50, 3))
    ]
    mean = formulas.mean_flops(
        SMALL, vocabulary=VOCABULARY, slots=[30, 12], pairs=[458, 50], masked=[9, 3], factor=1
    )

    assert same == formulas.train_flops(SMALL, **padded)
    assert mean == -(-sum(each) // 2)


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


def cell(optimizer: str, **workload: object) -> dict[str, object]:
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
        "kernel": {"attention": {"name": "default"}, "optimizer_step": {"name": "loop"}},
    }


def kernels(**operations: str) -> dict[str, object]:
    plain = cell("adamw", seq_len=32, batch_size=4)
    chosen = {operation: {"name": name} for operation, name in operations.items()}
    return {**plain, "kernel": {**plain["kernel"], **chosen}}  # type: ignore[dict-item]


def test_recomputed_layers_are_a_forward_pass_more() -> None:
    """Oracle: by hand: the encoder's 12 layers of base on 4 sequences of 32 slots."""
    size = formulas.model_size("base")
    shape = {"vocabulary": 30_522, "batch": 4, "seq_len": 32}
    again = formulas.computed_flops(kernels(checkpointing="layers"))
    usual = formulas.computed_flops(kernels())

    assert usual == formulas.train_flops(size, masked=4 * 4, **shape)
    assert again - usual == 4 * 32 * 12 * (8 * 768**2 + 4 * 768 * 3072 + 4 * 32 * 768)


def test_a_dense_loss_computes_the_head_on_all_slots() -> None:
    """Oracle: by hand: 28 slots more a sequence."""
    usual, dense = kernels(), kernels(mlm_loss="dense")

    assert formulas.computed_flops(dense) - formulas.computed_flops(usual) == (
        3 * 4 * (32 - 4) * (2 * 768**2 + 2 * 768 * 30_522)
    )
