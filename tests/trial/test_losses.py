"""Every kind of MLM loss trains alike: the same loss and gradients, whatever is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from bertopt_bench.trial import passes
from bertopt_bench.trial.assemble import assemble
from bertopt_bench.trial.losses import spread_labels

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeRequest = Callable[..., dict[str, Any]]


def loss_and_gradients(request: dict[str, Any]) -> tuple[float, list[torch.Tensor]]:
    trial = assemble(request)
    loss = trial.forward(trial.fetch(1, 0), 1)
    trial.backward(loss)
    return loss.item(), [p.grad for p in trial.model.parameters() if p.grad is not None]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["dense", "chunked", {"name": "chunked", "rows": 3}])
def test_losses_and_gradients_agree(make_request: MakeRequest, name: Any, precision: str) -> None:
    """Oracle: the gathered loss, to 1e-5 in fp32 and to bf16's rounding in bf16."""
    tolerance = 1e-5 if precision == "fp32" else 0.02
    expected = loss_and_gradients(make_request(precision=precision))
    found = loss_and_gradients(make_request(mlm_loss=name, precision=precision))

    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    assert len(found[1]) == len(expected[1])
    for ours, theirs in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_the_dense_loss_can_be_smoothed(make_request: MakeRequest) -> None:
    """Oracle: the gathered loss with the same smoothing."""
    requests = [make_request(regularizer=["label_smoothing"], **axes) for axes in (
        {}, {"mlm_loss": "dense"},
    )]  # fmt: skip
    gathered, dense = (loss_and_gradients(request)[0] for request in requests)

    assert dense == pytest.approx(gathered, rel=1e-6)


def test_labels_are_spread_to_their_slots(make_request: MakeRequest) -> None:
    """Oracle: every label written out by a loop; unused places hide no other label."""
    trial = assemble(make_request())
    for index in range(trial.batches.count):
        batch = trial.batches.at(index)
        slots = batch.input_ids.numel()
        expected = [-100] * slots
        for place, label in zip(batch.masked_index.tolist(), batch.labels.tolist(), strict=True):
            if label != -100:
                expected[place] = label

        assert spread_labels(batch, slots).tolist() == expected


@pytest.mark.parametrize("name", ["dense", "chunked"])
def test_evaluations_do_not_depend_on_the_loss(make_request: MakeRequest, name: str) -> None:
    """Oracle: the evaluation of the trial with the usual loss, at the same weights."""
    usual, other = assemble(make_request()).evaluate(), assemble(make_request(mlm_loss=name))

    assert other.evaluate() == usual


def test_the_chunked_loss_is_seen_in_the_trace(make_request: MakeRequest) -> None:
    """Oracle: torch's name of the operation; without it the trial fails."""
    trial = assemble(make_request(mlm_loss="chunked"))
    traced, _ = passes.trace(trial)

    assert any("linear_cross_entropy_batch_chunked" in name for name in traced.operations)

    usual = assemble(make_request())
    usual.kernels = {**usual.kernels, "mlm_loss": trial.kernels["mlm_loss"]}
    with pytest.raises(passes.KernelMismatchError, match=r"kernel\.mlm_loss was forced"):
        passes.trace(usual)


def test_dense_writes_the_logits_of_all_slots(make_request: MakeRequest) -> None:
    """Oracle: the shape of the head's product, B * S rows instead of M."""
    shapes = []
    for axes in ({}, {"mlm_loss": "dense"}):
        trial = assemble(make_request(**axes))
        head = trial.model.cls["predictions"]  # type: ignore[index]
        head.register_forward_hook(lambda *call: shapes.append(list(call[2].shape)))
        trial.step(0)

    assert shapes == [[8, 64], [48, 64]]
