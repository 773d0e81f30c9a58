"""Regularizers against autograd, torch's own functions and closed forms."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bertopt_bench import catalogue
from bertopt_bench.axes import regularizers
from bertopt_bench.errors import UserError

NAMES = list(catalogue.entries("regularizer"))
HOOKS = {
    "model_options",
    "criterion_options",
    "optimizer_options",
    "loss",
    "gradients",
    "after_step",
    "eval_weights",
    "state_dict",  # these two for checkpoints, where something is held between steps
    "load_state_dict",
}


def make_groups(lr: float = 0.1) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 5, generator=generator).requires_grad_()
    vector = torch.randn(5, generator=generator).requires_grad_()
    return [
        {"params": [matrix], "role": "matrix", "lr": lr},
        {"params": [vector], "role": "vector", "lr": lr},
    ]


def weights(groups: list[dict[str, Any]]) -> list[torch.Tensor]:
    return [weight for group in groups for weight in group["params"]]


@pytest.mark.parametrize("name", NAMES)
def test_entries_have_no_other_hooks(name: str) -> None:
    """An entry gives an object whose public methods are hooks that the trial knows."""
    made = catalogue.resolve("regularizer", name)()

    public = {name for name in dir(made) if name[0] != "_" and callable(getattr(made, name))}

    assert public
    assert public <= HOOKS


@pytest.mark.parametrize(
    ("name", "hook", "expected"),
    [
        ("none", "model_options", {}),
        ("none", "criterion_options", {}),
        ("none", "optimizer_options", {}),
        ("l2", "optimizer_options", {"l2": 1e-4}),
        ("weight_decay", "optimizer_options", {"weight_decay": 0.01}),
        ("dropout", "model_options", {"dropout": 0.1, "attention_dropout": 0.1}),
        ("label_smoothing", "criterion_options", {"label_smoothing": 0.1}),
    ],
)
def test_options_are_handed_on(name: str, hook: str, expected: dict[str, float]) -> None:
    """Defaults reach the part that applies them: Devlin et al.'s decay and dropout."""
    assert getattr(catalogue.resolve("regularizer", name)(), hook)() == expected


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_l1_adds_the_subgradient_once_a_step(micro_batches: int) -> None:
    """Over all micro-batches the penalty's gradient is l1 * sign(w), on no vector; closed form."""
    groups = make_groups()
    penalty = regularizers.l1(l1=0.03)
    context = SimpleNamespace(groups=groups, share=1 / micro_batches)
    for _ in range(micro_batches):
        loss = sum(weight.sum() for weight in weights(groups)) * 0.0
        penalty.loss(loss, context).backward()

    matrix, vector = weights(groups)
    torch.testing.assert_close(matrix.grad, 0.03 * matrix.detach().sign())
    assert torch.equal(vector.grad, torch.zeros(5))


def test_l1_adds_the_sum_of_absolute_weights() -> None:
    """The loss grows by l1 times the sum of absolute weights; closed form."""
    groups = make_groups()
    context = SimpleNamespace(groups=groups, share=1.0)

    loss = regularizers.l1(l1=0.5).loss(torch.tensor(2.0), context)

    torch.testing.assert_close(loss, 2.0 + 0.5 * weights(groups)[0].abs().sum())


def test_proximal_l1_shrinks_to_exact_zeros() -> None:
    """Without gradients w_T = sign(w_0) max(|w_0| - l1 * sum of lr, 0); closed form."""
    groups = make_groups()
    before = [weight.detach().clone() for weight in weights(groups)]
    shrink = regularizers.proximal_l1(l1=0.5)
    for lr in (0.8, 0.4, 0.2):
        for group in groups:
            group["lr"] = lr
        shrink.after_step(groups)

    matrix, vector = weights(groups)
    expected = before[0].sign() * (before[0].abs() - 0.7).clamp(min=0)
    torch.testing.assert_close(matrix.detach(), expected)
    assert int((matrix == 0).sum()) == int((before[0].abs() <= 0.7).sum()) > 0
    assert torch.equal(vector, before[1])


@pytest.mark.parametrize(("max_norm", "factor"), [(1.0, 0.2), (10.0, 1.0)])
def test_grad_clip_bounds_the_global_norm(max_norm: float, factor: float) -> None:
    """Gradients of norm 3 and 4 have norm 5 together and are scaled alike; hand-computed."""
    groups = make_groups()
    matrix, vector = weights(groups)
    matrix.grad = torch.zeros(6, 5)
    matrix.grad[0, 0] = 3.0
    vector.grad = torch.tensor([0.0, 4.0, 0.0, 0.0, 0.0])

    regularizers.grad_clip(max_norm=max_norm).gradients(groups)

    assert matrix.grad[0, 0].item() == pytest.approx(3.0 * factor, rel=1e-5)
    assert vector.grad[1].item() == pytest.approx(4.0 * factor, rel=1e-5)


def test_ema_equals_torchs_averaged_model() -> None:
    """Without ramp five updates give what AveragedModel holds; oracle: torch.optim.swa_utils."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    module = torch.nn.Linear(3, 2)
    oracle = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    average = regularizers.ema(decay=0.9, ramp=False)
    groups = [{"params": list(module.parameters()), "role": "matrix", "lr": 0.1}]
    for step in range(5):
        with torch.no_grad():
            for weight in module.parameters():
                weight.add_(torch.sin(weight * 7 + step))
        oracle.update_parameters(module)
        average.after_step(groups)

    trained = [weight.detach().clone() for weight in module.parameters()]
    with average.eval_weights():
        for ours, theirs in zip(module.parameters(), oracle.module.parameters(), strict=True):
            assert torch.equal(ours, theirs)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), trained, strict=True))


def test_emas_ramp_forgets_the_start() -> None:
    """Weights 1, 2, 4: the second update has decay 2/11, the third 3/12; hand-computed."""
    weight = torch.tensor([[1.0]], requires_grad=True)
    groups = [{"params": [weight], "role": "matrix", "lr": 0.1}]
    average = regularizers.ema(decay=0.99)
    for value in (1.0, 2.0, 4.0):
        with torch.no_grad():
            weight.fill_(value)
        average.after_step(groups)

    second = 2 / 11 * 1.0 + 9 / 11 * 2.0
    with average.eval_weights():
        assert weight.item() == pytest.approx(3 / 12 * second + 9 / 12 * 4.0)
    assert weight.item() == 4.0


def test_ema_evaluates_the_weights_themselves_before_the_first_step() -> None:
    """An evaluation at step 0 sees the initial weights."""
    groups = make_groups()
    with regularizers.ema().eval_weights():
        assert torch.equal(weights(groups)[0], weights(make_groups())[0])


def test_ema_puts_weights_back_after_an_error() -> None:
    """An evaluation that fails leaves the trained weights in place."""
    groups = make_groups()
    average = regularizers.ema()
    average.after_step(groups)
    with torch.no_grad():
        weights(groups)[0].add_(1.0)
    trained = weights(groups)[0].detach().clone()

    def evaluate() -> None:
        with average.eval_weights():
            raise RuntimeError

    with pytest.raises(RuntimeError):
        evaluate()
    assert torch.equal(weights(groups)[0], trained)


def test_a_fresh_entry_has_no_state() -> None:
    """Calling the entry again forgets the average: the exact restore relies on it."""
    groups = make_groups()
    regularizers.ema().after_step(groups)
    with torch.no_grad():
        weights(groups)[0].add_(1.0)
    fresh = regularizers.ema()
    fresh.after_step(groups)

    with fresh.eval_weights():
        assert torch.equal(weights(groups)[0], weights(make_groups())[0] + 1.0)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("l1", {"l1": -1.0}, "'l1' is -1.0; it must be 0 or more"),
        ("proximal_l1", {"l1": float("inf")}, "'l1' is inf"),
        ("l2", {"l2": -0.1}, "'l2' is -0.1"),
        ("weight_decay", {"weight_decay": float("nan")}, "'weight_decay' is nan"),
        ("dropout", {"dropout": 1.0}, "'dropout' is 1.0; it must be at least 0 and below 1"),
        ("dropout", {"attention_dropout": -0.1}, "'attention_dropout' is -0.1"),
        ("label_smoothing", {"label_smoothing": 2.0}, "'label_smoothing' is 2.0"),
        ("grad_clip", {"max_norm": 0.0}, "'max_norm' is 0.0; it must be above 0"),
        ("ema", {"decay": 1.0}, "'decay' is 1.0"),
    ],
)
def test_values_out_of_range_are_refused(name: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        catalogue.resolve("regularizer", name)(**options)
