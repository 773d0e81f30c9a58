"""A live trial: what a step, an evaluation and a skipped step do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn import functional

from bertopt_bench.axes.kernels import Kernel
from bertopt_bench.trial import passes
from bertopt_bench.trial.assemble import assemble, derive_seed

if TYPE_CHECKING:
    from collections.abc import Callable

    from bertopt_bench.trial.live import Trial

    MakeRequest = Callable[..., dict[str, Any]]


def trained(request: dict[str, Any]) -> Trial:
    trial = assemble(request)
    for index in range(trial.steps):
        trial.step(index)
    return trial


def test_two_micro_batches_equal_the_whole_batch(make_request: MakeRequest) -> None:
    """Oracle: the same trial with one micro-batch, to 1e-6 (workload.md 4.4)."""
    whole = trained(make_request(regularizer=["l1", "grad_clip"]))
    parts = trained(make_request({"micro_batches": 2}, regularizer=["l1", "grad_clip"]))

    assert parts.drain() == pytest.approx(whole.drain(), abs=1e-6)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[name], value, rtol=0, atol=2e-6)


def test_an_evaluation_is_the_plain_loss_of_all_masked_tokens(make_request: MakeRequest) -> None:
    """Oracle: cross entropy by hand over the held-out batches, without dropout or smoothing."""
    trial = trained(make_request(regularizer=["dropout", "label_smoothing", "l1"]))
    trial.model.eval()
    total, correct, count = 0.0, 0, 0
    with torch.no_grad():
        for index in range(trial.held_out.count):
            batch = trial.held_out.at(index)
            logits = trial.model(batch.input_ids, batch.attention_mask, batch.masked_index)
            used = batch.labels >= 0
            losses = functional.cross_entropy(logits[used], batch.labels[used], reduction="none")
            total += float(losses.double().sum())
            correct += int((logits[used].argmax(-1) == batch.labels[used]).sum())
            count += int(used.sum())
    seen = trial.evaluate()

    assert seen.loss == pytest.approx(total / count, rel=1e-6)
    assert seen.masked_accuracy == correct / count
    assert trial.model.training


def test_an_evaluation_leaves_no_mark_on_training(make_request: MakeRequest) -> None:
    """Oracle: the same trial that was never evaluated, bit for bit, dropout and EMA included."""
    request = make_request(regularizer=["dropout", "ema"])
    evaluated = assemble(request)
    for index in range(evaluated.steps):
        evaluated.step(index)
        evaluated.evaluate()

    assert evaluated.drain() == trained(request).drain()


@pytest.mark.parametrize("optimizer_step", ["loop", "fused"])
def test_a_skipped_fp16_step_moves_neither_weights_nor_schedule(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch, optimizer_step: str
) -> None:
    """Oracle: the weights before; the rules for skipped steps in workload.md 2d."""
    axes = {"regularizer": ["weight_decay", "proximal_l1"], "optimizer_step": optimizer_step}
    trial = assemble(make_request(precision="fp16", **axes))
    before = {name: value.clone() for name, value in trial.model.state_dict().items()}
    plain = trial.forward
    monkeypatch.setattr(
        type(trial), "forward", lambda _, batch, index: plain(batch, index) * math.inf
    )
    trial.step(0)

    assert (trial.skipped_steps, trial.schedule_step) == (1, 0)
    for name, value in trial.model.state_dict().items():
        assert torch.equal(value, before[name]), name

    monkeypatch.undo()
    trial.step(1)

    assert (trial.skipped_steps, trial.schedule_step) == (1, 1)


def test_a_forced_kernel_that_did_not_run_is_named_with_those_that_did(
    make_request: MakeRequest,
) -> None:
    """Oracle: torch's own names of the math attention, which the cell really runs."""
    trial = assemble(make_request(attention="math"))
    wanted = Kernel(expects=("_scaled_dot_product_cudnn_attention",))
    trial.kernels = {**trial.kernels, "attention": wanted}

    with pytest.raises(passes.KernelMismatchError, match="_scaled_dot_product_attention_math"):
        passes.trace(trial)
    trial.close()


def test_a_kernel_that_another_rules_out_fails_the_trial(make_request: MakeRequest) -> None:
    """Oracle: torch's name of the fused AdamW, which the cell really runs."""
    trial = assemble(make_request(optimizer_step="fused"))
    trial.kernels = {**trial.kernels, "optimizer_step": Kernel(forbids=("_fused_adam",))}

    with pytest.raises(passes.KernelMismatchError, match="_fused_adamw_ ran as well"):
        passes.trace(trial)


@pytest.mark.parametrize("name", ["math", "flash"])
def test_a_forced_attention_runs(make_request: MakeRequest, name: str) -> None:
    """Oracle: the profiler's names of operations, checked by the trace itself."""
    trial = assemble(make_request(attention=name))
    traced, peak = passes.trace(trial)
    trial.close()

    assert any(name in operation for operation in traced.operations if "attention" in operation)
    assert peak > 4 * sum(p.numel() for p in trial.model.parameters())


def test_phases_add_up_to_their_step(make_request: MakeRequest) -> None:
    """Oracle: the pass' own total; `rest` is what is left."""
    phases = passes.time_phases(assemble(make_request()), 2)
    parts = [value for key, value in phases.items() if key not in {"step_seconds", "steps"}]

    assert len(parts) == 5
    assert sum(parts) == pytest.approx(phases["step_seconds"])


def test_proximal_l1_makes_exact_zeros_and_the_penalty_none(make_request: MakeRequest) -> None:
    """Oracle: soft thresholding at lr * strength zeroes small weights; a subgradient never does."""
    strong = {"name": "proximal_l1", "l1": 5.0}
    proximal = trained(make_request(regularizer=[strong], schedule="constant"))
    penalty = trained(make_request(regularizer=["l1"], schedule="constant"))

    assert proximal.exact_zero_share() > 0.1
    assert penalty.exact_zero_share() == 0.0


def test_ema_is_evaluated_at_the_average(make_request: MakeRequest) -> None:
    """Oracle: the same trial without EMA trains alike and evaluates differently."""
    plain = trained(make_request(schedule="constant"))
    averaged = trained(make_request(regularizer=["ema"], schedule="constant"))

    assert averaged.drain() == plain.drain()
    assert averaged.evaluate().loss != plain.evaluate().loss


def test_every_use_of_a_seed_has_a_generator_of_its_own(make_request: MakeRequest) -> None:
    """Oracle: distinct derived seeds, equal weights for equal seeds and others for others."""
    request = make_request()
    other = {**request, "seed": 2, "text": {**request["text"]}}
    other["text"]["batches"] = {"2": request["text"]["batches"]["1"]}
    hashes = [assemble(r).initial_weights_sha256 for r in (request, request, other)]

    assert hashes[0] == hashes[1] != hashes[2]
    assert derive_seed(1, "initial_weights") != derive_seed(1, "dropout")


def test_the_initial_hash_does_not_depend_on_the_precision(make_request: MakeRequest) -> None:
    """Oracle: the design: weights are drawn in fp32 and hashed before they are converted."""
    hashes = {
        assemble(make_request(precision=p)).initial_weights_sha256 for p in ("fp32", "bf16", "fp64")
    }

    assert len(hashes) == 1


def test_more_passes_than_batches_start_over(make_request: MakeRequest) -> None:
    """Oracle: the pass' own count; the text has fewer batches than steps are asked for."""
    trial = assemble(make_request())
    trial.batches.count = 2

    assert passes.time_phases(trial, 5)["steps"] == 5


def test_peak_memory_counts_what_a_regularizer_keeps(make_request: MakeRequest) -> None:
    """Oracle: EMA keeps one fp32 copy of every weight: 4 bytes a parameter more."""
    peaks = []
    for regularizer in ("none", "ema"):
        trial = assemble(make_request(regularizer=[regularizer]))
        passes.burn_in(trial, 2)
        peaks.append(passes.trace(trial)[1])
    parameters = sum(p.numel() for p in trial.model.parameters())

    assert peaks[1] - peaks[0] >= 4 * parameters


def test_a_regularizer_can_run_the_model_again(make_request: MakeRequest) -> None:
    """Oracle: `forward` of the context gives logits [M, V] with a gradient of their own."""
    seen: list[torch.Tensor] = []

    class Twice:
        def loss(self, loss: torch.Tensor, context: Any) -> torch.Tensor:
            seen.append(context.forward())
            return loss + seen[-1].square().mean()

    trial = assemble(make_request(regularizer=["dropout"]))
    plain = trial.regularizers.loss
    plain.append(Twice().loss)
    trial.step(0)

    assert seen[0].shape == (trial.batches.head_slots[0], 64)
    assert seen[0].requires_grad


def test_a_sample_of_train_text_is_evaluated_alike_and_leaves_no_mark(
    make_request: MakeRequest,
) -> None:
    """Oracle: the sample is the held-out text here, so both losses agree; and the plain trial's."""
    request = make_request(regularizer=["dropout", "ema"])
    sampled = {
        **request,
        "text": {**request["text"], "train_sample": request["text"]["evaluation"]},
    }
    plain = assemble(request)
    assert plain.evaluate().train_loss is None
    for index in range(plain.steps):
        plain.step(index)

    other = assemble(sampled)
    for index in range(other.steps):
        other.step(index)
        seen = other.evaluate()
        assert seen.train_loss == seen.loss
    assert other.drain() == plain.drain()
