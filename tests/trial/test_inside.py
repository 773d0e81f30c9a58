"""Looking inside: the norms are right, and training does not know that it was looked at."""

from __future__ import annotations

import math
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn import functional

from bertopt_bench.trial import inside
from bertopt_bench.trial.assemble import assemble

if TYPE_CHECKING:
    from collections.abc import Callable

    from bertopt_bench.trial.live import Trial

    MakeRequest = Callable[..., dict[str, Any]]

NEVER = 2**63


def trained(request: dict[str, Any], look: tuple[int, ...] = ()) -> Trial:
    """Train; the steps in `look`, counted from 0, are observed."""
    trial = assemble(request)
    for index in range(trial.steps):
        if index in look:
            inside.observe_step(trial, index)
        else:
            trial.step(index)
    return trial


CELLS = [
    {"regularizer": ["dropout", "grad_clip", "ema"]},
    {"workload": {"micro_batches": 2}, "precision": "bf16"},
    {"precision": "fp16", "optimizer_step": "loop"},
    {"workload": {"layout": "packed"}, "optimizer": "muon", "regularizer": ["l1", "dropout"]},
    {"mlm_loss": "chunked", "checkpointing": "layers", "regularizer": ["dropout"]},
]


@pytest.mark.parametrize("axes", CELLS)
def test_training_does_not_know_that_it_was_looked_at(
    make_request: MakeRequest, axes: dict[str, Any]
) -> None:
    """Oracle: the same trial that nobody looks into; losses and final weights, bit for bit."""
    axes = dict(axes)
    request = make_request(axes.pop("workload", None), **axes)
    plain, looked = trained(request), trained(request, (0, 1, 4))

    assert looked.drain() == plain.drain()
    for name, value in plain.model.state_dict().items():
        assert torch.equal(looked.model.state_dict()[name], value), name


def test_the_second_training_repeats_the_first(make_request: MakeRequest) -> None:
    """Oracle: the losses of the first; a foreign loss is noticed."""
    trial = trained(make_request(regularizer=["dropout"]))
    losses = trial.drain()
    ends: dict[str, Any] = {"diverged": None, "deadline_ns": NEVER}
    seen = inside.look_inside(trial, losses, 3, **ends)

    assert seen["same_losses"]
    assert seen["reason"] == ""
    assert seen["steps"] == [1, 3, 6]
    assert not inside.look_inside(trial, [*losses[:-1], 0.0], 3, **ends)["same_losses"]


def test_a_look_ends_before_its_trial_is_killed(make_request: MakeRequest) -> None:
    """Oracle: a deadline that has passed: nothing is seen, and the reason says so."""
    trial = trained(make_request())
    now = monotonic_ns()
    seen = inside.look_inside(trial, trial.drain(), 3, diverged=None, deadline_ns=now)

    assert seen["steps"] == []
    assert "timeout_seconds" in seen["reason"]


def test_norms_are_those_of_torch_linalg(make_request: MakeRequest) -> None:
    """Oracle: torch.linalg.vector_norm of the same tensors, computed by hand around one step.

    Loss by torch's own cross entropy; SGD's update is lr times the gradient.
    """
    request = make_request(optimizer={"name": "sgd", "lr": 0.5}, schedule="constant")
    trial, other = assemble(request), assemble(request)
    seen = inside.observe_step(trial, 0)

    batch = other.batches.at(0)
    logits = other.model(batch.input_ids, batch.attention_mask, batch.masked_index)
    functional.cross_entropy(logits, batch.labels, ignore_index=-100).backward()
    layer = [
        p for n, p in other.model.named_parameters() if n.startswith("bert.encoder.layer.0.output.")
    ]
    gradient = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in layer]))
    weight = torch.linalg.vector_norm(torch.cat([p.detach().flatten() for p in layer]))

    name = "layer 0 output"
    assert seen["gradient_norm"][name] == pytest.approx(float(gradient), rel=1e-5)
    assert seen["weight_norm"][name] == pytest.approx(float(weight), rel=1e-6)
    assert seen["update_ratio"][name] == pytest.approx(float(0.5 * gradient / weight), rel=1e-4)

    words, table = other.model.bert.embeddings, other.model.bert.embeddings.word_embeddings
    summed = table(batch.input_ids) + words.position_embeddings.weight[:12]
    summed = summed + words.token_type_embeddings.weight[0]
    tokens = torch.linalg.vector_norm(summed, dim=-1)
    by_hand = tokens.square().mean().sqrt()
    assert seen["activation_norm"]["embeddings"] == pytest.approx(float(by_hand.detach()), rel=1e-5)


def test_norms_of_two_layers_by_hand() -> None:
    """Oracle: computed by hand: 3-4-5 triangles, joined over both tensors of a module."""
    assert inside.norm([torch.tensor([3.0]), torch.tensor([[4.0]])]) == 5.0
    assert inside.norm([torch.tensor([3.0, 4.0]), torch.tensor([12.0])]) == 13.0
    assert math.isnan(inside.norm([]))
    # two tokens of norms 5 and 13: sqrt((25 + 169) / 2)
    assert float(inside.token_norm(torch.tensor([[3.0, 4.0], [5.0, 12.0]]))) == math.sqrt(97)


def test_every_parameter_has_a_module_and_every_module_an_activation(
    make_request: MakeRequest,
) -> None:
    """Oracle: the model's own list of parameters; the modules that the design names."""
    trial = assemble(make_request({"model": {**SIZES, "layers": 2}}))
    groups = inside.by_module(trial.model)
    parts = ("attention", "intermediate", "output")

    assert sum(len(group) for group in groups.values()) == len(list(trial.model.parameters()))
    assert list(groups) == [
        "embeddings",
        *(f"layer {layer} {part}" for layer in (0, 1) for part in parts),
        "head",
    ]
    assert inside.observe_step(trial, 0)["activation_norm"].keys() == groups.keys()


SIZES = {"hidden": 16, "heads": 2, "intermediate": 32}


def test_the_last_steps_before_a_divergence_are_all_looked_at() -> None:
    """Oracle: by hand."""
    assert inside.steps_to_look_at(100, 3, 51) == [1, 26, 46, 47, 48, 49, 50, 51]
    assert inside.steps_to_look_at(100, 1, None) == [1]
    assert inside.steps_to_look_at(100, 8, 2) == [1, 2]


def test_a_divergence_is_traced_to_its_step_and_layer(make_request: MakeRequest) -> None:
    """Oracle: a weight of layer 1 is made a thousand times larger before step 4, by this test."""
    from bertopt_bench.stats.growth import find_growth

    trial = assemble(make_request({"model": {**SIZES, "layers": 2}}, schedule="constant"))
    look = inside.Look(list(inside.by_module(trial.model)))
    for step in range(1, 5):
        if step == 4:
            with torch.no_grad():
                trial.model.bert.encoder["layer"][1].intermediate["dense"].weight.mul_(1e3)
        inside._note(look, step, inside.observe_step(trial, step - 1))
    rows = [
        {"step": step, "module": module, **{f: getattr(look, f)[at][place] for f in FIGURES}}
        for at, step in enumerate(look.steps)
        for place, module in enumerate(look.modules)
    ]
    growth = find_growth(rows, 4)

    assert growth is not None
    assert (growth.step, growth.module) == (4, "layer 1 intermediate")
    assert growth.calm_step == 1
    assert growth.factor > 100


FIGURES = ("activation_norm", "gradient_norm", "weight_norm", "update_ratio")
