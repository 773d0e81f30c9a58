"""Pairs of sentences in a trial: both losses, every layout, and no change where nobody asks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from bertopt_bench.trial import inside, passes
from bertopt_bench.trial.assemble import assemble
from bertopt_bench.workload import formulas, masking, pairing
from bertopt_bench.workload.memory_formulas import memory_forecast
from bertopt_bench.workload.tokens import TokenText

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bertopt_bench.trial.live import Trial

    MakeRequest = Callable[..., dict[str, Any]]

VOCABULARY, LENGTH, BATCH, STEPS = 64, 12, 4, 6


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Prepare pairs of three made documents, as ``workload.prepare`` writes them."""
    lengths = (60, 45, 50)
    draw = np.random.default_rng(3)
    ids = draw.integers(5, VOCABULARY, sum(lengths), dtype=np.int32)
    text = TokenText(ids, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    folder = tmp_path_factory.mktemp("pairs")

    def write(name: str, steps: int, seed: int | None) -> dict[str, str]:
        place: Path = folder / name
        place.mkdir()
        shape = masking.Shape(steps, BATCH, LENGTH, 0.15, VOCABULARY)
        pairing.write_batches(place, pairing.cut(text, LENGTH), shape, seed, lambda _: None)
        return {"folder": str(place), "sha256": "0" * 64}

    return {
        "vocabulary_size": VOCABULARY,
        "batches": {"1": write("train", STEPS, 1)},
        "evaluation": write("held_out", 2, None),
    }


def live(make_request: MakeRequest, text: dict[str, Any], **axes: Any) -> Trial:
    workload = {"next_sentence": True, **axes.pop("workload", {})}
    return assemble({**make_request(workload, **axes), "text": text})


def test_the_loss_is_that_of_words_and_of_pairs(
    make_request: MakeRequest, pairs: dict[str, Any]
) -> None:
    """Oracle: torch's cross entropies of the model's two outputs, added (Devlin et al., A.2)."""
    trial = live(make_request, pairs)
    batch = trial.fetch(0, 0)
    words, relation = trial.model(
        batch.input_ids,
        batch.attention_mask,
        batch.masked_index,
        batch.segment_ids,
        first_index=batch.first_index,
    )
    expected = functional.cross_entropy(words, batch.labels, ignore_index=-100)
    expected = expected + functional.cross_entropy(relation, batch.next_sentence)

    torch.testing.assert_close(trial.forward(batch, 0), expected)
    seen = trial.evaluate()
    assert seen.next_sentence_loss == pytest.approx(math.log(2), abs=0.02)
    assert 0 <= (seen.next_sentence_accuracy or 0) <= 1


def test_segments_and_pooler_are_trained(make_request: MakeRequest, pairs: dict[str, Any]) -> None:
    """Oracle: gradients that are not 0 in every weight that MLM alone leaves at 0, or has not."""
    trial = live(make_request, pairs)
    trial.backward(trial.forward(trial.fetch(0, 0), 0))
    names = ("token_type_embeddings.weight", "pooler.dense.weight", "seq_relationship.weight")
    found = {n: p.grad for n, p in trial.model.named_parameters() if n.endswith(names)}

    assert len(found) == 3
    for gradient in found.values():
        assert gradient.abs().sum(dim=1).min() > 0


@pytest.mark.parametrize("layout", ["unpadded", "packed"])
def test_layouts_train_alike(make_request: MakeRequest, pairs: dict[str, Any], layout: str) -> None:
    """Oracle: the padded trial: loss, every gradient, held-out figures, to 1e-5."""
    trials = [live(make_request, pairs, workload={"layout": one}) for one in ("padded", layout)]
    losses = [trial.forward(trial.fetch(1, 0), 1) for trial in trials]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-5)
    for trial, loss in zip(trials, losses, strict=True):
        trial.backward(loss)
    for one, other in zip(*(t.model.parameters() for t in trials), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-5)
    padded, other = (trial.evaluate() for trial in trials)
    assert other.next_sentence_loss == pytest.approx(padded.next_sentence_loss, abs=1e-5)
    assert other.next_sentence_accuracy == padded.next_sentence_accuracy


def test_micro_batches_dense_and_chunked_losses_train_alike(
    make_request: MakeRequest, pairs: dict[str, Any]
) -> None:
    """Oracle: the plain trial's losses over all steps, to 1e-5."""

    def losses(**axes: Any) -> list[float]:
        trial = live(make_request, pairs, **axes)
        for index in range(STEPS):
            trial.step(index)
        return trial.drain()

    plain = losses()
    for axes in (
        {"workload": {"micro_batches": 2}},
        {"mlm_loss": "dense"},
        {"mlm_loss": "chunked"},
    ):
        assert losses(**axes) == pytest.approx(plain, abs=1e-5)


def test_burn_in_and_looks_leave_no_mark(make_request: MakeRequest, pairs: dict[str, Any]) -> None:
    """Oracle: the same trial that was neither burned in nor looked into, bit for bit."""
    plain = live(make_request, pairs, regularizer=["dropout"])
    for index in range(STEPS):
        plain.step(index)
    other = live(make_request, pairs, regularizer=["dropout"])  # draws from the same generator
    passes.burn_in(other, 2)
    passes.trace(other)
    other.restore()
    for index in range(STEPS):
        if index == 2:
            seen = inside.observe_step(other, index)
        else:
            other.step(index)

    assert other.drain() == plain.drain()
    assert {"pooler", "next sentence"} <= set(seen["activation_norm"])
    assert seen["gradient_norm"].keys() == seen["activation_norm"].keys()


def test_memory_and_parameters_follow_their_formulas(
    make_request: MakeRequest, pairs: dict[str, Any]
) -> None:
    """Oracle: the live model; in the forecast, 16 bytes a parameter more than without pairs."""
    trial = live(make_request, pairs)
    counted = sum(p.numel() for p in trial.model.parameters())
    size = formulas.model_size(trial.cell["workload"]["model"])
    assert counted == formulas.parameter_count(size, vocabulary=VOCABULARY, next_sentence=True)

    plain = memory_forecast(make_request()["cell"])
    more = memory_forecast(trial.cell)
    added = size.hidden**2 + 3 * size.hidden + 2
    assert more.peak.parameter_bytes - plain.peak.parameter_bytes == 4 * added
    assert more.peak.optimizer_state_bytes - plain.peak.optimizer_state_bytes == 8 * added
