"""Attribution to tokens: the axioms of Sundararajan et al. (2017) on networks of known answer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bertopt_bench.errors import UserError
from bertopt_bench.workload import attribution
from bertopt_bench.workload.attribution import INTEGRATED, PRODUCT, attribute


class Small(nn.Module):
    """A smooth network of embeddings [B, S, h]: no token's part is a product of it alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 8, dtype=torch.float64), nn.Linear(8, 3).double()

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        mixed = torch.softmax(embeddings @ embeddings.transpose(1, 2), -1) @ embeddings
        return self.second(torch.tanh(self.first(mixed)).mean(dim=1))


def texts() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    embeddings = torch.randn(2, 5, 4, generator=draw, dtype=torch.float64)
    return embeddings, torch.tensor([2, 0])


def test_integrated_gradients_are_complete() -> None:
    """Oracle: the axiom: the scores sum up to f(x) - f(baseline), here to 1e-6."""
    pytest.importorskip("captum", reason="comes with the extra attribution")
    embeddings, target = texts()
    found = attribute(Small(), embeddings, target, method=INTEGRATED)

    assert found.scores.shape == (2, 5)
    assert found.residual.abs().max() < 1e-6
    assert found.change.abs().min() > 1e-3


def test_of_a_linear_network_both_methods_are_its_own_terms() -> None:
    """Oracle: computed by hand: of w . x each token's term is w . (x - baseline)."""
    embeddings, target = texts()
    weight = torch.arange(1.0, 5.0, dtype=torch.float64)
    baseline = torch.full_like(embeddings, 0.5)

    def linear(given: torch.Tensor) -> torch.Tensor:
        total = (given * weight).sum(dim=(1, 2))
        return torch.stack([total, -total, 2 * total], dim=1)

    terms = ((embeddings - baseline) * weight).sum(dim=-1) * torch.tensor([[2.0], [1.0]])
    methods = [PRODUCT] if attribution.default_method() == PRODUCT else [PRODUCT, INTEGRATED]
    for method in methods:
        found = attribute(linear, embeddings, target, baseline=baseline, method=method)
        torch.testing.assert_close(found.scores, terms)
        assert found.residual.abs().max() < 1e-6  # captum weighs its points in 32 bits


def test_a_token_that_the_output_does_not_see_gets_nothing() -> None:
    """Oracle: the axiom of sensitivity: the network reads the first two tokens only."""
    embeddings, target = texts()

    def blind(given: torch.Tensor) -> torch.Tensor:
        return torch.tanh(given[:, :2].sum(dim=1))[:, :3]

    scores = attribute(blind, embeddings, target, method=PRODUCT).scores

    assert torch.equal(scores[:, 2:], torch.zeros(2, 3, dtype=torch.float64))
    assert scores[:, :2].abs().min() > 0


def test_gradient_times_input_is_not_complete_and_says_by_how_much() -> None:
    """Oracle: a curved network; the residual is the sum less the change, by hand."""
    embeddings, target = texts()
    found = attribute(Small(), embeddings, target, method=PRODUCT)

    assert found.method == PRODUCT
    torch.testing.assert_close(found.residual, found.scores.sum(1) - found.change)
    assert found.residual.abs().max() > 1e-3


def test_a_mistake_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the design's rule for errors: what came, what is allowed, what to do."""
    embeddings, target = texts()
    with pytest.raises(UserError, match="Did you mean 'gradient_x_input'"):
        attribute(Small(), embeddings, target, method="gradient_input")
    monkeypatch.setattr(attribution, "find_spec", lambda _: None)
    assert attribution.default_method() == PRODUCT
    with pytest.raises(UserError, match=r"attribution\]"):
        attribute(Small(), embeddings, target, method=INTEGRATED)
