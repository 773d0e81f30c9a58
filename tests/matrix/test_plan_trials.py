"""The order of trials: randomised complete blocks."""

from __future__ import annotations

from collections import Counter
from typing import Any

from written_matrices import load

from bertopt_bench.matrix import cells

PLANNED: dict[str, Any] = {
    "seeds": [3, 5],
    "replicates": 3,
    "workload": {"steps": 40},
    "timing": {"steps": 7},
    "axes": {"optimizer": ["sgd", "adam", "lion", "momentum"], "precision": ["fp32", "fp64"]},
}


def test_trials_run_in_randomised_complete_blocks() -> None:
    """Oracle: each run of 8 trials has one seed and one replicate, and every cell once."""
    matrix = load(PLANNED)
    found = cells.expand(matrix)
    plans = cells.plan_trials(found, matrix, order_seed=11)
    blocks = [plans[start : start + 8] for start in range(0, len(plans), 8)]

    assert len(plans) == 8 * 2 * 3
    assert [(b[0].replicate, b[0].seed) for b in blocks] == [
        (0, 3), (0, 5), (1, 3), (1, 5), (2, 3), (2, 5)
    ]  # fmt: skip
    for block in blocks:
        assert len({(plan.replicate, plan.seed) for plan in block}) == 1
        assert {plan.cell.id for plan in block} == {cell.id for cell in found}
    orders = {tuple(plan.cell.id for plan in block) for block in blocks}
    assert len(orders) == 6


def test_the_order_is_drawn_by_the_seed_alone() -> None:
    """Oracle: the same draw with the cells handed over backwards; another seed draws another."""
    matrix = load(PLANNED)
    found = cells.expand(matrix)
    plans = cells.plan_trials(found, matrix, order_seed=11)

    assert cells.plan_trials(found[::-1], matrix, order_seed=11) == plans
    assert cells.plan_trials(found, matrix, order_seed=12) != plans


def test_every_cell_stands_in_every_place_equally_often() -> None:
    """Oracle: 4 cells over 2,000 blocks: 500 each in first place, within 5 deviations (97)."""
    matrix = load({**PLANNED, "axes": {"optimizer": PLANNED["axes"]["optimizer"]}})
    found = cells.expand(matrix)
    first = Counter(
        plan.cell.id
        for seed in range(334)
        for plan in cells.plan_trials(found, matrix, order_seed=seed)[::4]
    )

    assert sum(first.values()) == 2004
    assert all(abs(count - 501) < 97 for count in first.values())


def test_later_replicates_only_repeat_the_timing() -> None:
    """Oracle: 40 steps of training in replicate 0, the 7 of ``timing.steps`` after it."""
    matrix = load(PLANNED)
    steps = {
        (plan.replicate, plan.steps) for plan in cells.plan_trials(cells.expand(matrix), matrix, 1)
    }
    whole = load({**PLANNED, "timing": {}})

    assert steps == {(0, 40), (1, 7), (2, 7)}
    assert {p.steps for p in cells.plan_trials(cells.expand(whole), whole, 1)} == {40}
