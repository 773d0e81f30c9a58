"""What holds for every optimizer entry, and for the one that joins two."""

from __future__ import annotations

import copy
import inspect
import re

import pytest
import torch
from drawn import ENTRIES, LR, make_groups, parameters, run, train

from bertopt_bench import catalogue
from bertopt_bench.axes import optimizers
from bertopt_bench.axes.optimizers.matrices import muon
from bertopt_bench.errors import UserError


@pytest.mark.parametrize("name", ENTRIES)
def test_default_rate_lies_within_the_search_space(name: str) -> None:
    """Each entry documents where to search its lr, where its default is from, and its source."""
    entry = ENTRIES[name]
    found = re.match(r"lr log (\S+)\.\.(\S+?)[;.]?(?: |$)", entry.search)
    default = next(option.default for option in entry.options if option.name == "lr")

    assert found is not None
    low, high = float(found[1]), float(found[2])
    assert 2 * low <= default <= high / 2, "a default on the edge is no default"
    assert "lr" in entry.notes["Default"] or "as " in entry.notes["Default"]
    assert entry.source


@pytest.mark.parametrize("name", ENTRIES)
def test_no_entry_decays_by_default(name: str) -> None:
    """Decay is the regularizer axis', so every entry's own default is 0."""
    defaults = {
        o.name: o.default for o in ENTRIES[name].options if o.name in {"weight_decay", "l2"}
    }

    assert defaults
    assert set(defaults.values()) == {0.0}


@pytest.mark.parametrize("name", ENTRIES)
def test_groups_keep_their_roles(name: str) -> None:
    """Every weight is in just one group, which has its role, names and an lr."""
    groups = make_groups()
    optimizer = catalogue.resolve("optimizer", name)(groups)

    kept = {
        id(weight): group["role"] for group in optimizer.param_groups for weight in group["params"]
    }

    assert kept == {id(weight): group["role"] for group in groups for weight in group["params"]}
    assert all(group["lr"] > 0 and group["names"] for group in optimizer.param_groups)


@pytest.mark.parametrize("name", ENTRIES)
def test_it_lowers_a_quadratic(name: str) -> None:
    """Sixty steps at a falling rate lower a sum of squares, and again the very same way."""

    def descend() -> list[torch.Tensor]:
        groups = make_groups()
        optimizer = catalogue.resolve("optimizer", name)(groups, lr=LR)
        for step in range(60):
            for group in optimizer.param_groups:
                group["lr"] = LR * (1 - step / 60)
            optimizer.zero_grad()
            sum(weight.square().sum() for weight in parameters(groups)).backward()
            optimizer.step()
        return [weight.detach() for weight in parameters(groups)]

    first, second = descend(), descend()

    before = sum(weight.square().sum() for weight in parameters(make_groups())).item()
    assert sum(weight.square().sum() for weight in first).item() < 0.9 * before
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ENTRIES)
def test_a_rate_of_0_moves_nothing(name: str) -> None:
    """The schedule reaches every group: with lr 0 in all of them no weight changes."""
    groups = make_groups()
    before = [weight.detach().clone() for weight in parameters(groups)]
    optimizer = catalogue.resolve("optimizer", name)(groups)
    for group in optimizer.param_groups:
        group["lr"] = 0.0

    after = train(optimizer, parameters(groups), 2)

    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("name", ENTRIES)
def test_state_survives_a_round_trip(name: str) -> None:
    """Three steps, a saved and loaded state, three more: as six steps without a break."""
    groups = make_groups()
    make = catalogue.resolve("optimizer", name)
    first = make(groups, lr=LR)
    train(first, parameters(groups), 3)
    copied = [
        {**group, "params": [p.detach().clone() for p in group["params"]]} for group in groups
    ]
    second = make(copied, lr=LR)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for group in second.param_groups:
        group["lr"] = LR / 2
    for group in first.param_groups:
        group["lr"] = LR / 2

    unbroken = train(first, parameters(groups), 3, seed=2)

    assert all(
        torch.equal(a, b)
        for a, b in zip(unbroken, train(second, parameters(copied), 3, seed=2), strict=True)
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name, entry in ENTRIES.items()
        for kind in ("foreach", "fused")
        if kind in entry.accepts and name not in optimizers.LOOP_ONLY
    ],
)
def test_foreach_and_fused_steps_equal_the_loop(name: str, kind: str) -> None:
    """Eight steps agree with the plain loop to rounding; oracle: foreach=False."""
    off = {"foreach": False, "fused": False}
    loop = run(name, lr=LR, **{key: off[key] for key in off if key in ENTRIES[name].accepts})

    torch.testing.assert_close(run(name, lr=LR, **{kind: True}), loop, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ENTRIES)
def test_accepted_keywords_are_what_the_class_supports(name: str) -> None:
    """An entry has fused and capturable just where its class has them, and all have foreach."""
    fused = {"sgd", "momentum", "nesterov", "adam", "adamw", "adagrad"}
    capturable = {"adam", "adamw", "rmsprop", "nadam", "radam"}

    assert ("fused" in ENTRIES[name].accepts) == (name in fused)
    assert ("capturable" in ENTRIES[name].accepts) == (name in capturable)
    assert "foreach" in ENTRIES[name].accepts


def test_muon_is_refused_a_foreach_step_and_hands_the_loop_on() -> None:
    """Oracle: torch.optim.Muon takes no foreach, AdamW's groups keep what they were told."""
    assert "foreach" not in inspect.signature(torch.optim.Muon).parameters
    with pytest.raises(UserError, match="no foreach step"):
        muon(make_groups(), foreach=True)

    told = {
        value: [
            group["foreach"]
            for group in muon(make_groups(), foreach=value).param_groups
            if group["role"] != "matrix"
        ]
        for value in (False, None)
    }

    assert told == {False: [False] * 3, None: [None] * 3}


@pytest.mark.parametrize("name", ["nadam", "radam"])
def test_one_argument_takes_one_kind_of_decay(name: str) -> None:
    with pytest.raises(UserError, match="decays either way, not both"):
        catalogue.resolve("optimizer", name)(make_groups(), weight_decay=0.1, l2=0.1)


def test_muons_hooks_run_once_a_step() -> None:
    """The joined optimizer steps its parts, and its own step hooks fire once."""
    groups = make_groups()
    optimizer = muon(groups)
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))

    train(optimizer, parameters(groups), 2)

    assert calls == ["before", "after"] * 2


def test_muon_gives_only_encoder_matrices_to_muon() -> None:
    """Embeddings and head are matrices too, but AdamW's: their state has two moments."""
    groups = make_groups()
    optimizer = muon(groups)
    train(optimizer, parameters(groups), 1)

    state = {
        group["role"]: set(optimizer.state[weight])
        for group in optimizer.param_groups
        for weight in group["params"]
    }

    assert state["matrix"] == {"momentum_buffer"}
    assert state["embedding"] == state["head"] == state["vector"]
    assert {"exp_avg", "exp_avg_sq"} <= state["head"]


def test_muons_adamw_may_have_its_own_rate() -> None:
    optimizer = muon(make_groups(), lr=0.02, adamw_lr=0.003)

    rates = {group["role"]: group["lr"] for group in optimizer.param_groups}

    assert rates == {"matrix": 0.02, "embedding": 0.003, "head": 0.003, "vector": 0.003}


def test_closures_are_called_by_the_joined_step() -> None:
    """step(closure) gives what the closure gives, with gradients on, as torch's own do."""
    groups = make_groups()
    optimizer = muon(groups)

    def closure() -> torch.Tensor:
        loss: torch.Tensor = sum(weight.square().sum() for weight in parameters(groups))
        loss.backward()
        return loss

    assert optimizer.step(closure).requires_grad
