"""The contract of layouts: loss and gradients equal those of `padded`, on the same sequences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from segmented import by_segments
from torch._dynamo.utils import counters

from bertopt_bench.trial import passes
from bertopt_bench.trial.assemble import assemble
from bertopt_bench.trial.batches import Batches
from bertopt_bench.trial.layouts import Arrangement, RaggedBatches, arrange
from bertopt_bench.workload import ragged

if TYPE_CHECKING:
    from collections.abc import Callable

    from bertopt_bench.trial.live import Trial

    MakeRequest = Callable[..., dict[str, Any]]

CPU = torch.device("cpu")
LAYOUTS = ("unpadded", "packed")
WAYS = [("runs", False), ("rows", False), ("rows", True), ("borders", False), ("borders", True)]
EXACT = {"rtol": 1e-5, "atol": 1e-5}


def laid_out(trial: Trial, request: dict[str, Any], arrangement: Arrangement) -> Trial:
    """Give the trial batches that are arranged otherwise than its cell asks for."""
    micro = request["cell"]["workload"]["micro_batches"]
    for name, place in (
        ("batches", request["text"]["batches"]["1"]),
        ("held_out", request["text"]["evaluation"]),
    ):
        setattr(trial, name, RaggedBatches(Path(place["folder"]), CPU, micro, arrangement))
    return trial


def gradients(trial: Trial, index: int) -> tuple[float, list[torch.Tensor]]:
    """Give a step's summed loss and the gradient of every parameter, without an update."""
    total = 0.0
    trial.model.zero_grad()
    for micro in range(trial.batches.micro_batches):
        batch = trial.fetch(index, micro)
        loss = trial.penalise(trial.forward(batch, index), batch)
        trial.backward(loss)
        total += float(loss.detach())
    return total, [parameter.grad.clone() for parameter in trial.model.parameters()]


def check_equal(trial: Trial, padded: Trial) -> None:
    for index in range(padded.batches.count):
        loss, ours = gradients(trial, index)
        expected, theirs = gradients(padded, index)
        assert loss == pytest.approx(expected, rel=1e-5, abs=1e-5)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, **EXACT)
    assert trial.evaluate().loss == pytest.approx(padded.evaluate().loss, rel=1e-5)
    assert trial.evaluate().masked_accuracy == padded.evaluate().masked_accuracy


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("way", "fixed"), WAYS)
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_loss_and_gradients_equal_padded(
    make_request: MakeRequest,
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    way: str,
    micro_batches: int,
    *,
    fixed: bool,
) -> None:
    """Oracle: the padded trial: every step's loss and gradients, and the evaluation, to 1e-5.

    Attention over borders runs on a GPU only; a plain one of its meaning stands in for it.
    """
    monkeypatch.setattr(ragged, "varlen", by_segments)
    request = make_request({"micro_batches": micro_batches}, regularizer=["l1"])
    trial = laid_out(assemble(request), request, Arrangement(layout, way, fixed))

    check_equal(trial, assemble(request))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("attention", ["math", "flash"])
def test_forced_kernels_compute_it_too(
    make_request: MakeRequest, layout: str, attention: str
) -> None:
    """Oracle: the padded trial under the default attention."""
    trial = assemble(make_request({"layout": layout}, attention=attention))
    padded = assemble(make_request())

    check_equal(trial, padded)
    trial.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_trajectory_is_that_of_padded(make_request: MakeRequest, layout: str) -> None:
    """Oracle: the padded trial's losses and weights after all steps, in 64 bits to 1e-9.

    In 32 bits AdamW's first step turns rounding of tiny gradients into whole learning rates.
    """
    options: dict[str, Any] = {"precision": "fp64", "regularizer": ["label_smoothing", "ema"]}
    trials = [assemble(make_request(workload, **options)) for workload in ({"layout": layout}, {})]
    for trial in trials:
        for index in range(trial.steps):
            trial.step(index)
    losses = [trial.drain() for trial in trials]
    states = [trial.model.state_dict() for trial in trials]

    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    for name, value in states[1].items():
        torch.testing.assert_close(states[0][name], value, rtol=1e-7, atol=1e-9)


def test_a_batch_computes_what_its_fullest_micro_batch_does(make_request: MakeRequest) -> None:
    """Oracle: the written lengths, by hand: unpadded slots and pairs are theirs and their squares'.

    The second micro-batch of the first batch is the fuller one, and so is its neighbour's first.
    """
    request = make_request()
    folder = Path(request["text"]["batches"]["1"]["folder"])
    lengths = np.load(folder / "lengths.npy").astype(np.int64)
    lengths[0] = np.sort(lengths[0])
    lengths[1] = np.sort(lengths[1])[::-1]
    np.save(folder / "lengths.npy", lengths.astype(np.int32))
    batches = RaggedBatches(folder, CPU, 2, Arrangement("unpadded", "runs", False))
    parts = lengths.reshape(len(lengths), 2, -1)
    rows = parts.shape[2] * batches.seq_len
    assert parts[0, 0].sum() < parts[0, 1].sum()
    assert parts[1, 0].sum() > parts[1, 1].sum()

    for index in range(batches.count):
        found = batches.filled(index)
        assert found.slots == parts[index].sum(axis=1).max() / rows
        pairs = np.square(parts[index]).sum(axis=1).max()
        assert found.pairs == pairs / (rows * batches.seq_len)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("fixed", [False, True])
def test_the_same_tokens_lie_in_fewer_slots(
    make_request: MakeRequest, layout: str, *, fixed: bool
) -> None:
    """Oracle: the written files: each sequence's tokens in order, each masked slot's label."""
    request = make_request()
    folder = Path(request["text"]["batches"]["1"]["folder"])
    written = Batches(folder, CPU)
    ids, lengths = np.load(folder / "input_ids.npy"), np.load(folder / "lengths.npy")
    positions = np.load(folder / "masked_position.npy")
    labels = np.load(folder / "masked_label.npy")
    batches = RaggedBatches(folder, CPU, 1, Arrangement(layout, "runs", fixed))

    for index in range(batches.count):
        batch = batches.at(index)
        ragged_mask = batch.attention_mask
        assert isinstance(ragged_mask, ragged.Ragged)
        flat, ends, seen = batch.input_ids.tolist(), 0, []
        for count, length in ragged_mask.runs:
            for _ in range(count):
                assert ragged_mask.position_ids[ends : ends + length].tolist() == [*range(length)]
                seen.append(flat[ends : ends + length])
                ends += length
            if not count:
                assert set(flat[ends : ends + length]) == {0}
                ends += length
        expected = [row[:n].tolist() for row, n in zip(ids[index], lengths[index], strict=True)]
        assert sorted(seen) == sorted(expected)
        masked = [
            (int(ids[index, row, positions[index, row, k]]), int(labels[index, row, k]))
            for row, k in zip(*np.nonzero(labels[index] >= 0), strict=True)
        ]
        used = batch.labels >= 0
        shown = batch.input_ids[batch.masked_index[used].long()].tolist()
        assert sorted(zip(shown, batch.labels[used].tolist(), strict=True)) == sorted(masked)
    assert batches.real_tokens == written.real_tokens
    assert batches.masked_tokens == written.masked_tokens
    assert batches.attended_pairs == np.square(lengths.astype(np.int64)).sum(axis=1).tolist()
    assert sum(batches.slot_tokens) <= sum(written.slot_tokens) or fixed
    if layout == "unpadded" and not fixed:
        assert batches.slot_tokens == batches.real_tokens
        assert batches.head_slots == batches.masked_tokens


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.slow
def test_fixed_shapes_are_compiled_once(make_request: MakeRequest, layout: str) -> None:
    """One graph for all steps, none in the second pass; oracle: torch's own count, eager losses."""
    request = make_request()
    trial = laid_out(assemble(request), request, Arrangement(layout, "rows", fixed=True))
    eager = [gradients(trial, index)[0] for index in range(trial.batches.count)]
    trial.compiled = torch.compile(trial.model, backend="aot_eager", fullgraph=True, dynamic=False)
    before = counters["stats"]["unique_graphs"]
    compiled = [gradients(trial, index)[0] for index in range(trial.batches.count)]

    assert counters["stats"]["unique_graphs"] == before + 1
    assert compiled == pytest.approx(eager, rel=1e-5)
    slots = {tuple(trial.batches.at(i).input_ids.shape) for i in range(trial.batches.count)}
    assert len(slots) == 1
    assert len(set(trial.batches.slot_tokens)) == len(set(trial.batches.head_slots)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_compiled_layout_compiles_nothing_in_the_timed_loop(
    make_request: MakeRequest, layout: str
) -> None:
    """Oracle: torch's count of graphs after burn-in; the eager padded trial's losses."""
    trial = assemble(make_request({"layout": layout}, compile="default", optimizer="sgd"))
    passes.burn_in(trial, 3)
    passes.trace(trial)
    trial.restore()
    graphs = counters["stats"]["unique_graphs"]
    padded = assemble(make_request(optimizer="sgd"))
    for one in (trial, padded):
        for index in range(one.steps):
            one.step(index)
    held_out = trial.evaluate().loss

    assert counters["stats"]["unique_graphs"] == graphs
    assert trial.drain() == pytest.approx(padded.drain(), rel=1e-5)
    assert held_out == pytest.approx(padded.evaluate().loss, rel=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dropout_trains_and_evaluates_without_it(make_request: MakeRequest, layout: str) -> None:
    """Oracle: two passes over a batch differ in training, and evaluations agree with padded."""
    request = make_request({"layout": layout}, regularizer=["dropout"])
    trial = assemble(request)
    first, second = (float(trial.forward(trial.fetch(0, 0), 0).detach()) for _ in range(2))

    assert first != second
    assert trial.evaluate().loss == pytest.approx(assemble(make_request()).evaluate().loss)


def cell_of(make_request: MakeRequest, layout: str, **axes: Any) -> dict[str, Any]:
    cell: dict[str, Any] = make_request({"layout": layout}, **axes)["cell"]
    return cell


def test_the_arrangement_follows_device_precision_and_kernels(make_request: MakeRequest) -> None:
    """Oracle: what each attention can do: flash's segments are CUDA, 16 bits, no dropout."""

    def on_cuda(**axes: Any) -> tuple[str, bool]:
        cell = cell_of(make_request, "packed", **axes)
        cell["device"] = {"name": "cuda", "index": 0}
        found = arrange(cell)
        return found.attention, found.fixed

    assert arrange(cell_of(make_request, "unpadded")) == Arrangement("unpadded", "runs", False)
    assert arrange(cell_of(make_request, "packed", compile="default")) == Arrangement(
        "packed", "rows", True
    )
    assert on_cuda(precision="bf16") == ("borders", False)
    assert on_cuda(precision="fp16", compile="default") == ("borders", True)
    assert on_cuda() == ("rows", False)
    assert on_cuda(precision="bf16", attention="flash") == ("borders", False)
    assert on_cuda(precision="fp16", attention="flash_attn") == ("borders", False)
    assert on_cuda(precision="bf16", attention="efficient") == ("rows", False)
    assert on_cuda(precision="bf16", regularizer=["dropout"]) == ("rows", False)
    hidden = [{"name": "dropout", "attention_dropout": 0.0}]
    assert on_cuda(precision="bf16", regularizer=hidden) == ("borders", False)
    assert arrange(make_request()["cell"]).layout == "padded"
