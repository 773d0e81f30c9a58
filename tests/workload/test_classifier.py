"""The classifier's network and criteria, against transformers and torch."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional

from bertopt_bench.workload import checkpoints, classifier_formulas
from bertopt_bench.workload.classifier import BertForClassification, summed_loss, weight_sums
from bertopt_bench.workload.formulas import ModelSize
from bertopt_bench.workload.model import BertConfig, BertForMaskedLM, initialise, parameter_groups

if TYPE_CHECKING:
    from pathlib import Path

SIZE = ModelSize(hidden=32, layers=2, heads=4, intermediate=64, positions=24)
CLASSES, VOCABULARY = 3, 50


def made(pooling: str) -> BertForClassification:
    config = BertConfig(VOCABULARY, SIZE, pooler=pooling == "cls")
    model = BertForClassification(config, CLASSES, pooling=pooling)
    initialise(model, torch.Generator().manual_seed(3))
    return model.eval()


def texts() -> tuple[torch.Tensor, torch.Tensor]:
    """Give ids [3, 10] and lengths: 10, 7 and 4."""
    ids = torch.randint(5, VOCABULARY, (3, 10), generator=torch.Generator().manual_seed(4))
    real = torch.arange(10) < torch.tensor([10, 7, 4])[:, None]
    return ids * real, real


def test_logits_equal_those_of_transformers() -> None:
    """Oracle: transformers' BertForSequenceClassification with our state_dict, names and all."""
    transformers = pytest.importorskip("transformers", reason="pip install 'transformers>=5.0'")
    model = made("cls")
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=24,
        num_labels=CLASSES,
    )
    theirs = transformers.BertForSequenceClassification(config).eval()
    missing, unknown = theirs.load_state_dict(model.state_dict(), strict=False)
    ids, real = texts()

    with torch.no_grad():
        ours = model(ids, real[:, None, None, :])
        expected = theirs(input_ids=ids, attention_mask=real.long()).logits

    assert not unknown
    assert not [name for name in missing if "position_ids" not in name]
    assert (ours - expected).abs().max() < 1e-5


def test_mean_pooling_leaves_padding_out() -> None:
    """Each padded text has the logits that it has alone. Oracle: the text without padding."""
    model = made("mean")
    ids, real = texts()

    with torch.no_grad():
        together = model(ids, real[:, None, None, :])
        alone = torch.cat(
            [model(row[None, mask], None) for row, mask in zip(ids, real, strict=True)]
        )

    assert (together - alone).abs().max() < 1e-5


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_both_criteria_are_the_same_number(smoothing: float, weighted: bool) -> None:
    """Value and gradient. Oracle: torch's cross_entropy, mean by hand over the weights' sum."""
    draw = torch.Generator().manual_seed(5)
    logits = torch.randn(6, 4, generator=draw, dtype=torch.float64)
    labels = torch.tensor([0, 3, -100, 1, 1, 2])
    weight = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64) if weighted else None
    expected = functional.cross_entropy(logits, labels, weight, label_smoothing=smoothing)

    gradients = []
    for criterion in ("cross_entropy", "negative_log_likelihood"):
        ours = logits.clone().requires_grad_()
        loss = summed_loss(
            ours, labels, criterion=criterion, weight=weight, label_smoothing=smoothing
        )
        mean = loss / weight_sums(labels[None], weight)[0]
        gradients.append(torch.autograd.grad(mean, ours)[0])
        assert mean.item() == pytest.approx(expected.item(), rel=1e-12)
    assert torch.allclose(*gradients, rtol=1e-12)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_parameters_are_counted_by_the_formula_and_grouped(pooling: str) -> None:
    """Oracle: the tensors themselves; only encoder matrices are ``matrix``."""
    model = made(pooling)
    workload = {"model": asdict(SIZE), "position_embedding": "learned", "pooling": pooling}

    counted = classifier_formulas.parameter_count(workload, vocabulary=VOCABULARY, classes=CLASSES)
    heads = {
        name
        for group in parameter_groups(model)
        if group["role"] == "head"
        for name in group["names"]
    }

    assert counted == sum(parameter.numel() for parameter in model.parameters())
    assert "classifier.weight" in heads
    assert ("bert.pooler.dense.weight" in heads) is (pooling == "cls")


def test_a_checkpoint_of_pretraining_gives_its_encoder_alone(tmp_path: Path) -> None:
    """Encoder equal bit for bit, head and absent pooler as drawn. Oracle: the saved model."""
    saved = BertForMaskedLM(BertConfig(VOCABULARY, SIZE))
    initialise(saved, torch.Generator().manual_seed(8))
    checkpoints.save(saved, None, tmp_path)
    model = made("cls")
    before = {name: value.clone() for name, value in model.state_dict().items()}

    checkpoints.load_encoder(model, tmp_path)

    trained = saved.state_dict()
    for name, value in model.state_dict().items():
        source = trained if name in trained else before
        assert torch.equal(value, source[name]), name
