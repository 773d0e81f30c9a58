"""Schedules against torch's lr_scheduler classes, hand-computed points and sums."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bertopt_bench import catalogue
from bertopt_bench.axes import schedules
from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

T = 40
NAMES = list(catalogue.entries("schedule"))


def values(schedule: Callable[[int], float], steps: int = T) -> list[float]:
    return [schedule(step) for step in range(steps)]


def torch_values(make: Callable[[Any], Any], steps: int = T) -> list[float]:
    """Read the rates that a torch scheduler sets, for an lr of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scheduler steps without optimizer steps
        scheduler = make(optimizer)
        for _ in range(steps):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            scheduler.step()
    return rates


ORACLES: dict[str, tuple[Callable[[int], float], Callable[[Any], Any]]] = {
    "constant": (
        schedules.constant(T),
        lambda o: torch.optim.lr_scheduler.ConstantLR(o, factor=1.0),
    ),
    "exponential": (
        schedules.exponential(T, rate=0.9),
        lambda o: torch.optim.lr_scheduler.ExponentialLR(o, gamma=0.9),
    ),
    "step": (
        schedules.step(T, rate=0.5, step_size=7),
        lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=7, gamma=0.5),
    ),
    "linear": (
        schedules.linear(T, end=0.1),
        lambda o: torch.optim.lr_scheduler.LinearLR(
            o, start_factor=1.0, end_factor=0.1, total_iters=T
        ),
    ),
    "cosine": (
        schedules.cosine(T, end=0.1),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=T, eta_min=0.1),
    ),
    "polynomial": (
        schedules.polynomial(T, power=3.0),
        lambda o: torch.optim.lr_scheduler.PolynomialLR(o, total_iters=T, power=3.0),
    ),
}


@pytest.mark.parametrize("name", ORACLES)
def test_schedule_equals_torchs_class(name: str) -> None:
    """Every update has the rate that torch's scheduler of that shape sets; oracle: torch."""
    ours, theirs = ORACLES[name]

    assert torch_values(theirs) == pytest.approx(values(ours), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
@pytest.mark.parametrize("warmup", [2, 12])
def test_one_cycle_equals_torchs_class(anneal: str, warmup: int) -> None:
    """The whole cycle is OneCycleLR's, with the rise as long as the warm-up; oracle: torch."""
    start, end = 0.04, 4e-6
    ours = schedules.one_cycle(T, start=start, end=end, anneal=anneal, warmup_steps=warmup)

    theirs = torch_values(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=1.0,
            total_steps=T,
            pct_start=warmup / T,
            anneal_strategy={"cosine": "cos", "linear": "linear"}[anneal],
            div_factor=1 / start,
            final_div_factor=start / end,
            cycle_momentum=False,
        ),
        T - 1,  # torch's scheduler refuses a step after the last
    )

    assert theirs == pytest.approx(values(ours, T - 1), rel=1e-9)
    assert ours(T - 1) == pytest.approx(end)


def test_one_cycle_rises_over_three_tenths_by_default() -> None:
    """Without a warm-up given the peak is at torch's pct_start of 0.3: update 12 of 40."""
    rates = values(schedules.one_cycle(T))

    assert rates[0] == pytest.approx(0.04)
    assert rates.index(max(rates)) == 11
    assert max(rates) == 1.0


def test_exponential_is_the_closed_form() -> None:
    """The rate at step t is rate ** t exactly, not a running product; oracle: the formula."""
    assert values(schedules.exponential(1000, rate=0.995), 1000) == [0.995**t for t in range(1000)]


@pytest.mark.parametrize(
    ("schedule", "steps", "expected"),
    [
        (schedules.constant(T), T, 40.0),
        (schedules.linear(T), T, 20.5),  # sum of k / 40 for k = 1..40
        (schedules.linear(T, end=0.5), T, 30.25),  # halfway between that and 40
        (schedules.cosine(T), T, 20.5),  # T/2, and 1/2 for the first update at the full rate
        (schedules.exponential(T, rate=0.5), T, 2.0 - 2.0**-39),
        (schedules.polynomial(T, power=2.0), T, 40 * 41 * 81 / 6 / 1600),  # sum of squares
        (schedules.step(30, rate=0.1), 30, 10 * 1.11),
        (schedules.wsd(T, decay_fraction=0.25), T, 30 + 5.5),  # 30 full, then sum of k / 10
        (schedules.linear(T, warmup_steps=10), T, 5.5 + 15.5),  # k / 10, then k / 30
        (schedules.constant(T, warmup_fraction=0.25), T, 5.5 + 30),
    ],
)
def test_sum_of_rates(schedule: Callable[[int], float], steps: int, expected: float) -> None:
    """The multipliers sum to the number found by hand."""
    assert sum(values(schedule, steps)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (schedules.linear(10, warmup_steps=4), {0: 0.25, 3: 1.0, 4: 1.0, 7: 0.5, 9: 1 / 6, 10: 0}),
        (schedules.cosine(12, warmup_steps=4), {0: 0.25, 4: 1.0, 8: 0.5, 12: 0.0}),
        (schedules.inverse_sqrt(100, warmup_steps=4), {3: 1.0, 4: 1.0, 16: 0.5, 64: 0.25}),
        (schedules.inverse_sqrt(90), {0: 1.0, 27: 0.5, 72: 1 / 3}),  # timescale 9
        (schedules.inverse_sqrt(90, timescale=30), {0: 1.0, 90: 0.5}),
        (schedules.wsd(20, decay_fraction=0.2, warmup_steps=2), {0: 0.5, 15: 1, 16: 1, 18: 0.5}),
        (schedules.wsd(20, decay_fraction=0.2, shape="sqrt"), {16: 1.0, 17: 0.5, 20: 0.0}),
        (schedules.wsd(20, decay_fraction=0.2, shape="cosine", end=0.2), {16: 1.0, 18: 0.6}),
        (schedules.wsd(20, decay_fraction=0.0), {0: 1.0, 19: 1.0}),
        (schedules.polynomial(10, power=2.0, end=0.2), {0: 1.0, 5: 0.4, 10: 0.2}),
        (schedules.step(9, rate=0.1), {2: 1.0, 3: 0.1, 5: 0.1, 6: 0.01, 8: 0.01}),
        (schedules.exponential(10, rate=0.5, warmup_steps=2), {0: 0.5, 1: 1.0, 2: 1.0, 3: 0.5}),
    ],
)
def test_points(schedule: Callable[[int], float], points: dict[int, float]) -> None:
    """First update, end of warm-up, middle and end are the values found by hand."""
    assert {step: schedule(step) for step in points} == pytest.approx(points, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_warm_up_by_steps_and_by_fraction_agree(name: str) -> None:
    """A tenth of 40 steps is 4 steps; oracle: the other way of saying it."""
    make = catalogue.resolve("schedule", name)

    by_fraction = values(make(T, warmup_fraction=0.1))

    assert by_fraction == values(make(T, warmup_steps=4))
    assert by_fraction != values(make(T))


@pytest.mark.parametrize("name", NAMES)
def test_both_ways_of_warming_up_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"warmup_steps is 4 and warmup_fraction is 0\.1"):
        catalogue.resolve("schedule", name)(T, warmup_steps=4, warmup_fraction=0.1)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("linear", {"warmup_steps": 41}, "only 40 steps"),
        ("linear", {"warmup_steps": -1}, "'warmup_steps' is -1; it must be at least 0"),
        ("cosine", {"warmup_fraction": 1.5}, "at least 0 and at most 1"),
        ("cosine", {"end": -0.1}, "'end' is -0.1"),
        ("exponential", {"rate": 0.0}, "'rate' is 0; it must be above 0 and at most 1"),
        ("exponential", {"rate": math.nan}, "'rate' is nan"),
        ("polynomial", {"power": 0.0}, "'power' is 0"),
        ("wsd", {"decay_fraction": 0.9, "warmup_steps": 8}, "8 steps of warm-up and 36 of decay"),
    ],
)
def test_bad_values_are_refused(name: str, options: dict[str, Any], text: str) -> None:
    """What came and what is allowed stand in the error."""
    with pytest.raises(UserError, match=text):
        catalogue.resolve("schedule", name)(T, **options)


@given(
    name=st.sampled_from(NAMES),
    steps=st.integers(1, 300),
    warmup_fraction=st.floats(0, 0.8),
)
def test_every_multiplier_is_a_share(name: str, steps: int, warmup_fraction: float) -> None:
    """No schedule leaves [0, 1] or wastes the first update, whatever the lengths."""
    rates = values(
        catalogue.resolve("schedule", name)(steps, warmup_fraction=warmup_fraction), steps
    )

    assert all(0 <= rate <= 1 for rate in rates)
    assert rates[0] > 0
