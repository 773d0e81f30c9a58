"""The criterion against torch's own cross entropy."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from bertopt_bench.workload.loss import masked_cross_entropy

SLOTS, VOCABULARY = 37, 301
GRADIENT_ATOL = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 4e-3}
"""In bf16 a rounding apart: gradients lie within -1..1, where it spaces numbers by 2 ** -8."""


def drawn(dtype: torch.dtype, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw logits, and labels of which every fifth is ignored."""
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(SLOTS, VOCABULARY, generator=generator)
    labels = torch.randint(0, VOCABULARY, (SLOTS,), generator=generator)
    labels[::5] = -100
    return logits.to(dtype).requires_grad_(), labels


def oracle(logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return functional.cross_entropy(wide, labels, reduction="sum", label_smoothing=smoothing)


def gradient(loss: torch.Tensor, logits: torch.Tensor, weight: float = 1.0) -> torch.Tensor:
    (found,) = torch.autograd.grad(loss * weight, logits)
    return found


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", GRADIENT_ATOL)
def test_loss_and_gradients_are_torchs(dtype: torch.dtype, smoothing: float) -> None:
    """In every type, in the logits' type; oracle: functional.cross_entropy in fp32 (fp64)."""
    logits, labels = drawn(dtype)
    before = logits.detach().clone()

    loss = masked_cross_entropy(logits, labels, label_smoothing=smoothing)
    found = gradient(loss, logits)

    expected = oracle(logits, labels, smoothing)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0.0)
    assert found.dtype == dtype
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    wanted = gradient(expected, logits)
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=GRADIENT_ATOL[dtype])
    assert torch.equal(logits, before)


def test_the_gradient_is_the_softmax_less_the_target() -> None:
    """Of used slots, and 0 of ignored ones; closed form for logits ln 1, ln 2, ln 5."""
    logits = torch.tensor([1.0, 2.0, 5.0]).log().repeat(2, 1).requires_grad_()

    loss = masked_cross_entropy(logits, torch.tensor([1, -100]))

    assert loss.item() == pytest.approx(math.log(4), rel=1e-6)
    expected = torch.tensor([[0.125, 0.25 - 1, 0.625], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(gradient(loss, logits), expected)


def test_extreme_logits_stay_finite() -> None:
    """Oracle: functional.cross_entropy, whose logarithms do not overflow either."""
    logits, labels = drawn(torch.float32, scale=1e4)

    loss = masked_cross_entropy(logits, labels)

    torch.testing.assert_close(loss, oracle(logits, labels), rtol=1e-6, atol=0.0)
    assert gradient(loss, logits).isfinite().all()


def test_nothing_to_learn_is_a_loss_of_0() -> None:
    """With all labels ignored loss and gradient are exactly 0; closed form."""
    logits, labels = drawn(torch.float32)

    loss = masked_cross_entropy(logits, torch.full_like(labels, -100))

    assert loss.item() == 0.0
    assert torch.equal(gradient(loss, logits), torch.zeros_like(logits))


def test_gradients_are_the_same_bits_each_time() -> None:
    logits, labels = drawn(torch.bfloat16)

    first, second = (gradient(masked_cross_entropy(logits, labels), logits) for _ in range(2))

    assert torch.equal(first, second)


def test_it_counts_the_same_without_gradients() -> None:
    """An evaluation's loss is training's, bit for bit; oracle: the loss with gradients."""
    logits, labels = drawn(torch.bfloat16)

    with torch.no_grad():
        evaluated = masked_cross_entropy(logits.detach(), labels)

    assert torch.equal(evaluated, masked_cross_entropy(logits, labels).detach())
    assert not evaluated.requires_grad


def learn(criterion: object, *, outside: bool) -> list[torch.Tensor]:
    """Take a scaled step of a linear layer under autocast; give loss, gradient, weights."""
    assert callable(criterion)
    _, labels = drawn(torch.float32)
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(SLOTS, 16, generator=generator)
    weight = torch.randn(VOCABULARY, 16, generator=generator).requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with torch.autocast("cpu", torch.bfloat16):
        logits = functional.linear(hidden, weight)
        loss = None if outside else criterion(logits, labels)
    assert logits.dtype == torch.bfloat16
    loss = criterion(logits, labels) if loss is None else loss
    scaler.scale(loss / SLOTS).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    assert weight.grad is not None
    return [loss.detach(), weight.grad, weight.detach()]


@pytest.mark.parametrize("outside", [False, True])
def test_autocast_and_a_scaler_change_nothing(outside: bool) -> None:
    """Within autocast or after it, with scaled gradients; oracle: functional.cross_entropy."""
    ours = learn(masked_cross_entropy, outside=outside)

    # both round the logits' gradient to bf16, so a few of them are a rounding apart
    for found, wanted in zip(ours, learn(oracle, outside=outside), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-3)


def test_a_gradient_scaled_by_a_power_of_two_is_exact() -> None:
    """Unscaling gives the unscaled gradient's bits; closed form."""
    logits, labels = drawn(torch.float32)

    plain = gradient(masked_cross_entropy(logits, labels), logits)
    scaled = gradient(masked_cross_entropy(logits, labels), logits, weight=2.0**16)

    assert torch.equal(scaled / 2.0**16, plain)


@pytest.mark.parametrize("scale", [1.0, torch.ones((), requires_grad=True)])
def test_a_gradients_gradient_is_refused(scale: float | torch.Tensor) -> None:
    """Before it is silently left out, as it would be where the scale is a constant."""
    logits, labels = drawn(torch.float32)
    loss = masked_cross_entropy(logits, labels) * scale

    with pytest.raises(RuntimeError, match="create_graph=True is refused"):
        torch.autograd.grad(loss, logits, create_graph=True)


def test_a_second_backward_pass_is_refused() -> None:
    """Never wrong gradients from the overwritten logarithms."""
    logits, labels = drawn(torch.float32)
    loss = masked_cross_entropy(logits, labels)
    loss.backward(retain_graph=True)

    with pytest.raises(RuntimeError, match="for one pass only"):
        loss.backward()
