"""Optimizers against torch's own classes, hand-written references and closed forms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from drawn import ENTRIES, LR, make_groups, parameters, run, train

from bertopt_bench import catalogue
from bertopt_bench.axes.optimizers import adaptive, descent

if TYPE_CHECKING:
    from collections.abc import Callable


def run_torch(make: Callable[[list[dict[str, Any]]], Any], decay: float) -> list[torch.Tensor]:
    """Train torch's class on bare groups with decay, the vectors in a group without."""
    groups = make_groups()
    bare = [
        {"params": group["params"], "weight_decay": 0.0 if group["role"] == "vector" else decay}
        for group in groups
    ]
    return train(make(bare), parameters(groups), 8)


TORCH: list[tuple[str, dict[str, float], Callable[[Any], Any]]] = [
    ("sgd", {"l2": 0.1}, lambda g: torch.optim.SGD(g, lr=LR)),
    ("momentum", {"l2": 0.1}, lambda g: torch.optim.SGD(g, lr=LR, momentum=0.9)),
    ("nesterov", {"l2": 0.1}, lambda g: torch.optim.SGD(g, lr=LR, momentum=0.9, nesterov=True)),
    ("adam", {"l2": 0.1}, lambda g: torch.optim.Adam(g, lr=LR, eps=1e-6)),
    ("adamw", {"weight_decay": 0.1}, lambda g: torch.optim.AdamW(g, lr=LR, eps=1e-6)),
    ("adagrad", {"l2": 0.1}, lambda g: torch.optim.Adagrad(g, lr=LR)),
    ("rmsprop", {"l2": 0.1}, lambda g: torch.optim.RMSprop(g, lr=LR, eps=1e-6)),
    ("nadam", {"l2": 0.1}, lambda g: torch.optim.NAdam(g, lr=LR, eps=1e-6)),
    (
        "nadam",
        {"weight_decay": 0.1},
        lambda g: torch.optim.NAdam(g, lr=LR, eps=1e-6, decoupled_weight_decay=True),
    ),
    ("radam", {"l2": 0.1}, lambda g: torch.optim.RAdam(g, lr=LR, eps=1e-6)),
    (
        "radam",
        {"weight_decay": 0.1},
        lambda g: torch.optim.RAdam(g, lr=LR, eps=1e-6, decoupled_weight_decay=True),
    ),
    ("adafactor", {"weight_decay": 0.1}, lambda g: torch.optim.Adafactor(g, lr=LR)),
]


@pytest.mark.parametrize(("name", "decay", "make"), TORCH)
def test_entry_equals_torchs_class(
    name: str, decay: dict[str, float], make: Callable[[Any], Any]
) -> None:
    """Eight steps with decay on all but vectors are torch's, bit for bit; oracle: torch.optim."""
    ours = run(name, lr=LR, **decay)

    theirs = run_torch(make, next(iter(decay.values())))

    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(ours, run(name, lr=LR), strict=True))


def test_lion_equals_its_paper() -> None:
    """Eight steps equal algorithm 2 of arXiv 2302.06675, written out here."""
    lr, beta1, beta2, decay = LR, 0.9, 0.99, 0.1
    groups = make_groups()
    moments = [torch.zeros_like(weight) for weight in parameters(groups)]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _ in range(8):
            for index, weight in enumerate(parameters(groups)):
                gradient = torch.randn(weight.shape, generator=generator)
                direction = (beta1 * moments[index] + (1 - beta1) * gradient).sign()
                weight.sub_(lr * (direction + (decay if weight.ndim > 1 else 0.0) * weight))
                moments[index] = beta2 * moments[index] + (1 - beta2) * gradient

    ours = run("lion", lr=lr, weight_decay=decay)

    torch.testing.assert_close(ours, [w.detach() for w in parameters(groups)])


def test_lamb_equals_its_paper() -> None:
    """Eight steps equal version 3 of algorithm 2 of arXiv 1904.00962, written out here.

    Vectors take the Adam step without a trust ratio; norms are clipped at 10.
    """
    lr, beta1, beta2, eps = LR, 0.9, 0.999, 1e-6
    groups = make_groups()
    state = [(torch.zeros_like(w), torch.zeros_like(w)) for w in parameters(groups)]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _ in range(8):
            for (first, second), weight in zip(state, parameters(groups), strict=True):
                gradient = torch.randn(weight.shape, generator=generator)
                first.mul_(beta1).add_((1 - beta1) * gradient)
                second.mul_(beta2).add_((1 - beta2) * gradient**2)
                update = first / (second.sqrt() + eps)
                ratio = weight.norm().clamp(max=10) / update.norm() if weight.ndim > 1 else 1.0
                weight.sub_(lr * ratio * update)

    ours = run("lamb", lr=lr)

    torch.testing.assert_close(ours, [w.detach() for w in parameters(groups)])


def test_ademamix_equals_its_paper() -> None:
    """Eight steps equal algorithm 1 of arXiv 2409.03137 without its ramps, written out here."""
    lr, (beta1, beta2, beta3), alpha, eps, decay = LR, (0.9, 0.999, 0.9999), 5.0, 1e-6, 0.1
    groups = make_groups()
    state = [[torch.zeros_like(weight) for _ in range(3)] for weight in parameters(groups)]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for step in range(1, 9):
            for (fast, square, slow), weight in zip(state, parameters(groups), strict=True):
                gradient = torch.randn(weight.shape, generator=generator)
                fast.mul_(beta1).add_((1 - beta1) * gradient)
                slow.mul_(beta3).add_((1 - beta3) * gradient)
                square.mul_(beta2).add_((1 - beta2) * gradient**2)
                mixed = fast / (1 - beta1**step) + alpha * slow
                update = mixed / ((square / (1 - beta2**step)).sqrt() + eps)
                weight.sub_(lr * (update + (decay if weight.ndim > 1 else 0.0) * weight))

    ours = run("ademamix", lr=lr, weight_decay=decay)

    torch.testing.assert_close(ours, [w.detach() for w in parameters(groups)], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "factor"),
    [("adam", 1), ("adamw", 1), ("adagrad", 1), ("lion", 1), ("rmsprop", 10)],
)
def test_first_step_is_a_multiple_of_the_gradients_sign(name: str, factor: float) -> None:
    """From rest the step is -lr sign(g), ten times that for RMSprop (alpha 0.99); closed form."""
    before = parameters(make_groups())
    generator = torch.Generator().manual_seed(1)
    signs = [torch.randn(weight.shape, generator=generator).sign() for weight in before]

    after = run(name, steps=1, lr=LR)

    moved = [(a - b.detach()) / (LR * factor) for a, b in zip(after, before, strict=True)]
    torch.testing.assert_close(moved, [-sign for sign in signs], rtol=0, atol=2e-3)


def test_lambs_first_step_is_lr_times_the_weights_norm() -> None:
    """Each tensor but vectors moves by lr times its norm (norms under 10); closed form."""
    before = parameters(make_groups())

    after = run("lamb", steps=1, lr=LR)

    for old, new in zip(before, after, strict=True):
        if old.ndim > 1:
            assert (new - old).norm().item() == pytest.approx(LR * old.norm().item(), rel=1e-4)


def test_muons_first_step_is_nearly_orthogonal() -> None:
    """Singular values of a matrix' step lie near lr * 0.2 sqrt(max side); Jordan et al., 0.7..1.2.

    All other weights take AdamW's step; oracle: torch.optim.AdamW.
    """
    before, after = parameters(make_groups()), run("muon", steps=1, lr=LR)
    adamw = run("adamw", steps=1, lr=LR)

    for old, new in zip(before[:2], after[:2], strict=True):
        step = (old.detach() - new) / (LR * 0.2 * math.sqrt(max(old.shape)))
        singular = torch.linalg.svdvals(step)
        assert 0.65 < singular.min() <= singular.max() < 1.25
    assert all(torch.equal(a, b) for a, b in zip(after[2:], adamw[2:], strict=True))


@pytest.mark.parametrize("adjust_lr", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_in_fp32_is_torchs_but_for_its_roundings(adjust_lr: str, nesterov: bool) -> None:
    """Eight steps with decay; oracle: torch.optim.Muon made to orthogonalise without rounding.

    Its ``bfloat16()`` is the only rounding, so it is given tensors whose ``bfloat16()`` is fp32.
    """
    options = {"adjust_lr": adjust_lr, "nesterov": nesterov, "lr": LR, "weight_decay": 0.1}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
        exact = run("muon", **options)

    found = run("muon", ns_precision="fp32", **options)
    rounded = run("muon", **options)

    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-3 * LR)
    assert any((a - b).abs().max() > 1e-3 * LR for a, b in zip(rounded, exact, strict=True))


@pytest.mark.parametrize(
    "name", [name for name, entry in ENTRIES.items() if "weight_decay" in entry.accepts]
)
def test_decoupled_decay_shrinks_weights_without_gradient(name: str) -> None:
    """With gradients of 0, w_T = w_0 (1 - lr decay) ** T, and vectors stay; closed form."""
    groups = make_groups()
    before = [weight.detach().clone() for weight in parameters(groups)]
    optimizer = catalogue.resolve("optimizer", name)(groups, lr=0.1, weight_decay=0.5)
    for _ in range(3):
        for weight in parameters(groups):
            weight.grad = torch.zeros_like(weight)
        optimizer.step()

    for old, new in zip(before, parameters(groups), strict=True):
        factor = 0.95**3 if old.ndim > 1 else 1.0
        torch.testing.assert_close(new.detach(), old * factor)


def test_coupled_decay_is_rescaled_by_adam() -> None:
    """With a gradient of 0, Adam with l2 moves by lr sign(w) whatever the decay; closed form."""
    groups = make_groups()
    before = [weight.detach().clone() for weight in parameters(groups)]
    optimizer = adaptive.adam(groups, lr=LR, l2=0.1, eps=1e-12)
    for weight in parameters(groups):
        weight.grad = torch.zeros_like(weight)
    optimizer.step()

    torch.testing.assert_close(parameters(groups)[0].detach(), before[0] - LR * before[0].sign())
    assert torch.equal(parameters(groups)[-1], before[-1])


def test_sgd_on_a_quadratic_is_geometric() -> None:
    """For curvature k the error after t steps is (1 - lr k) ** t; closed form."""
    weight = torch.tensor([[1.0]], dtype=torch.float64, requires_grad=True)
    optimizer = descent.sgd([{"params": [weight], "role": "matrix"}], lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        (0.5 * 3.0 * weight**2).sum().backward()
        optimizer.step()

    assert weight.item() == pytest.approx(0.7**20, rel=1e-12)


def test_adafactors_step_is_relative_to_the_weights() -> None:
    """A vector's first step has rms lr times the vector's; Shazeer and Stern, algorithm 4."""
    before, after = parameters(make_groups()), run("adafactor", steps=1, lr=0.05, clip=1.0)

    for old, new in zip(before, after, strict=True):
        if old.ndim == 1:
            rms = old.detach().square().mean().sqrt().item()
            step = (new - old.detach()).square().mean().sqrt().item()
            assert step == pytest.approx(0.05 * rms, rel=1e-4)
