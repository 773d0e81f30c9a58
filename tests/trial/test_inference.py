"""Inference trials, real and tiny: what a pass computes, what the record says, what is refused."""

from __future__ import annotations

import math
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bertopt_bench.axes.kernels import Kernel
from bertopt_bench.matrix.identity import cell_id
from bertopt_bench.results.record import Record
from bertopt_bench.trial import inference, passes
from bertopt_bench.trial.arm import run_arm
from bertopt_bench.trial.assemble import assemble
from bertopt_bench.trial.worker import run_task
from bertopt_bench.workload import formulas, inference_formulas
from bertopt_bench.workload.masking import IGNORED
from bertopt_bench.workload.memory_formulas import memory_forecast_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeRequest = Callable[..., dict[str, Any]]

FORWARD = {"mode": "inference"}


def run(request: dict[str, Any], counter: list[int] | None = None) -> list[dict[str, Any]]:
    """Run a trial in this process; give its messages."""
    said: list[dict[str, Any]] = []
    now = {**request, "dispatched_ns": monotonic_ns()}
    run_task("trial", now, said.append, counter if counter is not None else [0], lambda: None)
    return said


def test_a_pass_gives_the_logits_of_the_network_in_evaluation_mode(
    make_request: MakeRequest,
) -> None:
    """Oracle: the same weights called by hand under no_grad, bit for bit; dropout is off."""
    trial = assemble(make_request(FORWARD, regularizer=["dropout"]))
    seen: list[torch.Tensor] = []
    call = trial.compiled
    trial.compiled = lambda *given: seen.append(call(*given)) or seen[-1]
    trial.step(1)
    batch = trial.fetch(1, 0)
    with torch.no_grad():
        expected = trial.model(batch.input_ids, batch.attention_mask, batch.masked_index)

    assert torch.equal(seen[0], expected)
    assert seen[0].is_inference()
    assert not seen[0].requires_grad


@pytest.mark.parametrize("layout", ["unpadded", "packed"])
def test_a_layout_gives_the_padded_logits(make_request: MakeRequest, layout: str) -> None:
    """Oracle: the padded trial of the same weights and batch, to rounding; fewer slots."""
    padded, other = (
        assemble(make_request({**FORWARD, "layout": name})) for name in ("padded", layout)
    )
    seen = []
    for one in (padded, other):
        batch = one.fetch(1, 0)
        with torch.no_grad():
            logits = one.logits(batch)[batch.labels != IGNORED]
        seen.append((sorted(batch.labels[batch.labels != IGNORED].tolist()), logits))

    assert seen[0][0] == seen[1][0]
    expected, found = (logits.logsumexp(1).sort().values for _, logits in seen)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert sum(other.batches.slot_tokens) <= sum(padded.batches.slot_tokens)


def test_passes_change_nothing_and_keep_nothing(make_request: MakeRequest) -> None:
    """Oracle: weights bit for bit as before; no gradient, no state, no loss."""
    trial = assemble(make_request(FORWARD))
    before = {name: value.clone() for name, value in trial.model.state_dict().items()}
    for index in range(trial.steps):
        trial.step(index)
    trial.restore()

    assert all(torch.equal(before[n], v) for n, v in trial.model.state_dict().items())
    assert all(parameter.grad is None for parameter in trial.model.parameters())
    assert trial.drain() == []
    weights = [*trial.model.parameters(), *trial.model.buffers()]
    assert {id(one) for one in trial.resident_tensors()} == {id(one) for one in weights}
    assert not trial.model.training


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
def test_it_starts_from_the_weights_and_text_of_training(
    make_request: MakeRequest, precision: str
) -> None:
    """Oracle: the training trial of the same cell, its evaluation bit for bit."""
    forward = assemble(make_request(FORWARD, precision=precision, optimizer="muon"))
    trained = assemble(make_request(precision=precision, regularizer=["dropout"]))

    assert forward.initial_weights_sha256 == trained.initial_weights_sha256
    assert forward.evaluate() == trained.evaluate()
    assert not forward.model.training


def test_a_trial_says_what_a_record_stores(make_request: MakeRequest) -> None:
    """Oracle: the counts of the request; FLOPs by torch's own counter; ln(vocabulary) by theory."""
    request, counter = make_request(FORWARD, attention="math"), [0]
    said = run(request, counter)

    assert [one["kind"] for one in said] == ["ready", "burned_in", "evaluation", "result"]
    result = said[-1]
    assert (result["status"], result["timed_steps"], counter) == ("ok", 6, [6])
    assert len(result["step_seconds"]) == len(result["real_tokens"]) == 6
    assert min(result["step_seconds"]) > 0
    assert result["host_syncs_per_step"] == 0
    assert result["graphs_compiled"] == 0
    assert said[2]["loss"] == pytest.approx(math.log(64), rel=0.05)
    trial = assemble(request)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        trial.logits(trial.fetch(0, 0))
    assert result["flops_per_step"] == counted.get_total_flops()
    ran = " ".join(result["kernels_ran"])
    assert "_scaled_dot_product_attention_math" in ran
    assert "backward" not in ran.lower()
    fields = {key: value for key, value in result.items() if key != "kind"}
    record = Record(
        session="s",
        cell_id=cell_id(request["cell"]),
        cell=request["cell"],
        seed=1,
        replicate=0,
        steps=6,
        code={"version": "0"},
        **fields,
    )
    assert record.losses == ()
    assert record.phases is None


def test_the_loop_issues_passes_and_marks_alone(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the order of calls by script: no wait for the device before the last pass."""
    calls: list[str] = []

    class Scripted:
        steps = 3

        def __init__(self) -> None:
            self.device = assemble(make_request(FORWARD)).device

        def step(self, index: int) -> None:
            calls.append(f"step {index}")

        def synchronize(self) -> None:
            calls.append("wait")

    class Clock:
        def start(self) -> None:
            calls.append("start")

        def mark(self) -> None:
            calls.append("mark")

        def durations_seconds(self) -> list[float]:
            return [1.0, 2.0, 3.0]

    monkeypatch.setattr(inference.clock, "step_clock", lambda *_: Clock())
    fields = inference._timed(Scripted(), [0])

    assert calls == ["start", "step 0", "mark", "step 1", "mark", "step 2", "mark", "wait"]
    assert fields["step_seconds"] == [1.0, 2.0, 3.0]


def test_a_pass_without_finite_numbers_fails_with_its_reason(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a weight that is NaN makes the held-out loss NaN; nothing is timed."""
    spoiled = inference.InferenceTrial.__post_init__

    def spoil(trial: Any) -> None:
        spoiled(trial)
        next(trial.model.parameters()).data.fill_(math.nan)

    monkeypatch.setattr(inference.InferenceTrial, "__post_init__", spoil)
    result = run(make_request(FORWARD))[-1]

    assert result["status"] == "failed"
    assert "held-out loss of nan" in result["reason"]
    assert "step_seconds" not in result


def test_a_forced_kernel_that_did_not_run_fails_the_trial(make_request: MakeRequest) -> None:
    """Oracle: a kernel whose operation does not exist."""
    trial = assemble(make_request(FORWARD))
    trial.kernels = {**trial.kernels, "attention": Kernel(expects=("no_such_attention",))}

    with pytest.raises(passes.KernelMismatchError, match="no_such_attention"):
        passes.trace(trial)


@pytest.mark.slow
def test_flex_attention_serves_forward_on_a_cpu(make_request: MakeRequest) -> None:
    """Oracle: the logits under torch's own choice; the record proves that it was compiled."""
    size = {"model": {"hidden": 16, "layers": 1, "heads": 1, "intermediate": 32}}
    request = make_request({"mode": "inference", **size}, attention="flex")
    trial = assemble(request)
    plain = assemble(make_request({"mode": "inference", **size}))
    with torch.inference_mode():
        found, due = (one.logits(one.batches.at(0)) for one in (trial, plain))

    torch.testing.assert_close(found, due, rtol=1e-4, atol=1e-5)
    traced, _ = passes.trace(trial)
    assert any("CompiledFxGraph" in name for name in traced.operations)


def test_an_arm_of_a_duel_steps_forward(make_request: MakeRequest) -> None:
    """Oracle: blocks of passes as they are asked for; the loss at the start is the trial's own."""
    request = {**make_request(FORWARD), "injected_share": 0.0, "modules": [], "overlay": []}
    warm = {"do": "warm", "trace": True, "window_seconds": 0.001, "most_seconds": 0.05}
    block = {"do": "block", "steps": 9, "rewarm": 1}  # more than the trial's own six
    said: list[dict[str, Any]] = []
    orders = iter([warm, block, None])
    now = {**request, "dispatched_ns": monotonic_ns()}
    run_arm(now, said.append, [0], partial(next, orders))

    assert [one["kind"] for one in said] == ["ready", "warm", "block"]
    assert said[1]["initial_loss"] == assemble(request).evaluate().loss
    assert said[1]["peak_memory_bytes"] > 0
    assert (len(said[2]["step_seconds"]), said[2]["finite"]) == (9, True)


SIZE = {"hidden": 96, "layers": 3, "heads": 3, "intermediate": 320}


@pytest.mark.parametrize("attention", ["math", "flash", {"name": "math", "reduced": True}])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
def test_the_forecast_of_memory_is_near_what_is_allocated(
    make_request: MakeRequest, attention: Any, precision: str
) -> None:
    """Oracle: the profiler's allocation events, on a size that the formula was not made from."""
    request = make_request({**FORWARD, "model": SIZE}, attention=attention, precision=precision)
    trial = assemble(request)
    passes.burn_in(trial, 1)
    _, peak = passes.trace(trial)

    assert memory_forecast_bytes(request["cell"]) == pytest.approx(peak, rel=0.05)


def test_a_forward_pass_needs_less_than_training(make_request: MakeRequest) -> None:
    """Oracle: no gradients, state and kept activations: half of the bytes at most."""
    forward, trained = (make_request(mode)["cell"] for mode in (FORWARD, {}))

    assert 2 * memory_forecast_bytes(forward) < memory_forecast_bytes(trained)
    assert 3 * inference_formulas.forward_flops(forward) == formulas.train_flops(
        formulas.model_size(forward["workload"]["model"]),
        vocabulary=64,
        batch=4,
        seq_len=12,
        masked=4 * 2,
    )
