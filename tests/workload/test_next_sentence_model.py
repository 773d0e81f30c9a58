"""Pooler and relation against transformers' BertForPreTraining, and their formulas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bertopt_bench.workload import formulas, optimizer_memory
from bertopt_bench.workload.checkpoints import load, save
from bertopt_bench.workload.model import (
    BertConfig,
    BertForMaskedLM,
    initialise,
    parameter_groups,
)

if TYPE_CHECKING:
    from pathlib import Path

SIZE = formulas.ModelSize(hidden=32, layers=2, heads=4, intermediate=48, positions=40)
VOCABULARY, BATCH, LENGTH = 101, 3, 20
INDEX = torch.tensor([1, 5, 24, 33, 41, 50])
FIRST = torch.arange(BATCH, dtype=torch.int32) * LENGTH
CONFIG = BertConfig(VOCABULARY, SIZE, next_sentence=True)


def made() -> BertForMaskedLM:
    model = BertForMaskedLM(CONFIG)
    generator = torch.Generator().manual_seed(1)
    initialise(model, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


def test_outputs_loss_and_gradients_equal_transformers(tmp_path: Path) -> None:
    """Within 1e-5; oracle: transformers.BertForPreTraining, from the exported checkpoint."""
    import transformers

    ours = made()
    save(ours, None, tmp_path)
    theirs, told = transformers.BertForPreTraining.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    draw = torch.Generator().manual_seed(2)
    ids = torch.randint(5, VOCABULARY, (BATCH, LENGTH), generator=draw)
    segments = (torch.arange(LENGTH) > 9).int().expand(BATCH, -1)
    told_apart = torch.tensor([0, 1, 1])
    words = torch.randint(5, VOCABULARY, (len(INDEX),), generator=draw)
    labels = torch.full((BATCH * LENGTH,), -100).scatter_(0, INDEX, words)

    logits, relation = ours.eval()(ids.int(), None, INDEX, segments, first_index=FIRST)
    loss = functional.cross_entropy(logits, words) + functional.cross_entropy(relation, told_apart)
    expected = theirs.eval()(
        input_ids=ids,
        token_type_ids=segments.long(),
        labels=labels.view(BATCH, LENGTH),
        next_sentence_label=told_apart,
    )

    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(relation, expected.seq_relationship_logits, **close)
    flat = expected.prediction_logits.view(-1, VOCABULARY)
    torch.testing.assert_close(logits, flat[INDEX], **close)
    torch.testing.assert_close(loss, expected.loss, **close)
    loss.backward()
    expected.loss.backward()
    others = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, others[name].grad, **close)
    again = BertForMaskedLM(CONFIG)
    load(again, tmp_path)
    for name, value in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_flops_and_parameters_equal_the_formulas() -> None:
    """Forward and backward, exactly; oracles: torch's FLOP counter, the live model's parameters."""
    model = made()
    ids = torch.randint(5, VOCABULARY, (BATCH, LENGTH), dtype=torch.int32)
    sizes = {
        "vocabulary": VOCABULARY, "batch": BATCH, "seq_len": LENGTH,
        "masked": len(INDEX), "pooled": BATCH,
    }  # fmt: skip
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        logits, relation = model(ids, None, INDEX, first_index=FIRST)
        (logits.sum() + relation.sum()).backward()

    assert counted.get_total_flops() == formulas.train_flops(SIZE, **sizes)
    assert formulas.parameter_count(SIZE, vocabulary=VOCABULARY, next_sentence=True) == sum(
        p.numel() for p in model.parameters()
    )
    without = formulas.parameter_count(SIZE, vocabulary=VOCABULARY)
    h = SIZE.hidden
    assert sum(p.numel() for p in model.parameters()) - without == h * h + h + 2 * h + 2


def test_shapes_by_role_are_those_of_the_model() -> None:
    """Oracle: the live model's groups, in their order."""
    shapes = optimizer_memory.parameter_groups(SIZE, vocabulary=VOCABULARY, next_sentence=True)
    live = {group["role"]: group["params"] for group in parameter_groups(made())}

    assert shapes.keys() == live.keys()
    for role, parameters in live.items():
        counts = [parameter.numel() for parameter in parameters]
        assert [shape.count for shape in shapes[role]] == counts


def test_sizes_of_bert_base_for_pre_training() -> None:
    """Oracle: 110,106,428 parameters of bert-base-uncased's BertForPreTraining, decoder tied."""
    base = formulas.model_size("base")

    assert formulas.parameter_count(base, vocabulary=30_522, next_sentence=True) == 110_106_428


def test_the_pooler_alone_stays_what_it_was() -> None:
    """Oracle: no name of the relation among the weights, and logits alone come out."""
    model = BertForMaskedLM(BertConfig(VOCABULARY, SIZE, pooler=True))
    names = model.state_dict()

    assert "bert.pooler.dense.weight" in names
    assert not any("seq_relationship" in name for name in names)
    out = model(torch.full((1, 4), 7, dtype=torch.int32), None, None)
    assert isinstance(out, torch.Tensor)
