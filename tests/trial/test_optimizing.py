"""Decay goes where it belongs, and the schedule is evaluated beforehand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from bertopt_bench.errors import UserError
from bertopt_bench.trial.optimizing import build_optimizer, multipliers


def parameters(seed: int = 0) -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "matrix": torch.nn.Parameter(torch.randn(5, 3, generator=generator)),
        "vector": torch.nn.Parameter(torch.randn(3, generator=generator)),
    }


def groups(named: dict[str, torch.nn.Parameter]) -> list[dict[str, Any]]:
    return [{"params": [p], "names": [role], "role": role} for role, p in named.items()]


def adam(
    groups: list[dict[str, Any]], *, lr: float = 0.1, l2: float = 0.0, fused: bool = False
) -> torch.optim.Adam:
    """An entry whose class has coupled decay only."""
    rows = [{**g, "weight_decay": 0.0 if g["role"] == "vector" else l2} for g in groups]
    return torch.optim.Adam(rows, lr=lr, fused=fused)


def train(optimizer: torch.optim.Optimizer, named: dict[str, torch.nn.Parameter]) -> None:
    for step in range(5):
        for parameter in named.values():
            parameter.grad = torch.cos(parameter.detach() * (step + 1))
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (step + 1)
        optimizer.step()


def test_adam_with_decoupled_decay_is_torch_adamw_bit_for_bit() -> None:
    """Oracle: torch.optim.AdamW with its own weight_decay on the matrix and 0 on the vector."""
    ours, theirs = parameters(), parameters()
    train(
        build_optimizer(
            adam, frozenset({"lr", "l2"}), groups(ours), {"lr": 0.1}, {"weight_decay": 0.3}
        ),
        ours,
    )
    adamw = torch.optim.AdamW(
        [
            {"params": [theirs["matrix"]], "weight_decay": 0.3},
            {"params": [theirs["vector"]], "weight_decay": 0.0},
        ],
        lr=0.1,
    )
    train(adamw, theirs)

    for name in ours:
        assert torch.equal(ours[name], theirs[name])


def test_coupled_decay_by_the_harness_equals_the_optimizers_own() -> None:
    """Oracle: the same entry given its own ``l2`` argument."""
    own, harness = parameters(), parameters()
    train(build_optimizer(adam, frozenset({"lr", "l2"}), groups(own), {}, {"l2": 0.3}), own)
    train(build_optimizer(adam, frozenset({"lr"}), groups(harness), {}, {"l2": 0.3}), harness)

    for name in own:
        assert torch.equal(own[name], harness[name])


def test_a_fused_step_that_found_infinities_decays_nothing() -> None:
    """Oracle: the weights before; ``found_inf`` is how GradScaler tells a fused step."""
    named = parameters()
    before = copy.deepcopy(named)
    optimizer = build_optimizer(
        adam, frozenset({"lr"}), groups(named), {"fused": True}, {"weight_decay": 0.3}
    )
    optimizer.grad_scale = None
    optimizer.found_inf = torch.ones(())
    for parameter in named.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()

    assert torch.equal(named["matrix"], before["matrix"])


def test_decay_asked_for_twice_is_refused() -> None:
    """Oracle: the design's sentence; both numbers are named."""
    with pytest.raises(UserError, match=r"weight_decay .*0\.1.*0\.3"):
        build_optimizer(
            adam,
            frozenset({"lr", "weight_decay"}),
            groups(parameters()),
            {"weight_decay": 0.1},
            {"weight_decay": 0.3},
        )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.1])
def test_a_schedule_that_gives_nonsense_is_refused_before_training(bad: float) -> None:
    """Oracle: the step at which the nonsense was planted."""
    with pytest.raises(UserError, match="step 3"):
        multipliers(lambda step: bad if step == 3 else 1.0, 5)
