"""A replicate whose processes are played in this one: what the engine makes of their answers."""

from __future__ import annotations

import io
from collections import Counter
from types import SimpleNamespace
from typing import Any, Self

import pytest

from bertopt_bench.dispatch import duel as duel_module
from bertopt_bench.dispatch.children import Outcome
from bertopt_bench.dispatch.duel import Contender, DuelSession
from bertopt_bench.dispatch.progress import PlainDisplay
from bertopt_bench.results.duels import CONTROL, Declaration, Replicate

SUBJECT = SimpleNamespace(python="p", root=None, overlay=(), modules=[], description={})
TEXT = {"batches": {"1": {"sha256": "b"}}, "evaluation": {"sha256": "e"}}
CELL = {
    "workload": {"steps": 9},
    "optimizer": {"name": "own_package.inner:Mine"},
    "schedule": {"name": "constant"},
    "regularizer": [{"name": "theirs:Decay"}],
    "precision": {"name": "fp32"},
    "device": {"name": "cpu"},
    "kernel": {"attention": {"name": "default"}},
}


class Played:
    """A child that answers by a script; ``number`` counts the processes of its arm."""

    def __init__(self, stage: Stage, label: str, request: Any) -> None:
        self.stage, self.label, self.request = stage, label, request
        self.number = sum(child.label == label for child in stage.children)
        self.outcome, self.closed = Outcome(), False
        self.asked: list[dict[str, Any]] = []

    def hear(self, *_: Any) -> dict[str, Any]:
        return {"kind": "ready", "protocol": duel_module.PROTOCOL, "assemble_seconds": 0.5}

    def ask(self, command: dict[str, Any], *_: Any) -> dict[str, Any]:
        self.asked.append(command)
        self.stage.running.append(self.label)
        if command["do"] == "warm":
            windows = self.stage.windows.get(self.label, [0.1, 0.1])
            return {
                "imported": {},
                "steady": True,
                "first_step_seconds": 1.0,
                "windows": [[step] * 5 for step in windows],
                "initial_loss": 8.0,
                "initial_weights_sha256": "w",
            }
        return {
            "steps": command["steps"],
            "began_ns": 0,
            "wall_seconds": 0.25,
            "injected_seconds": 0.125,
            "step_seconds": [0.1] * command["steps"],
            "disturbance": {"observed_seconds": 0.25, "major_faults": 1},
            "finite": (self.label, self.number) not in self.stage.broken,
        }

    def close(self) -> None:
        self.closed = True


class Stage:
    """Stands in for zygotes: children are played here, one after the other."""

    description: dict[str, Any] = {"hash_seed": "7"}  # noqa: RUF012 - never written

    def __init__(self) -> None:
        self.children: list[Played] = []
        self.running: list[str] = []
        self.windows: dict[str, list[float]] = {}
        self.broken: set[tuple[str, int]] = set()

    def __call__(self, **given: Any) -> Self:
        self.given = given
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def fork(self, task: str, request: Any) -> Played:
        assert task == "arm"
        alive = [child for child in self.children if not child.closed]
        self.most_alive = max(getattr(self, "most_alive", 0), len(alive) + 1)
        self.children.append(Played(self, request["cell"]["label"], request))
        return self.children[-1]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage()
    monkeypatch.setattr(duel_module, "Zygote", made)
    return made


def contender(label: str, **fields: Any) -> Contender:
    same = "base" if label in {CONTROL, "slowed"} else None
    return Contender(label, {**CELL, "label": label}, SUBJECT, TEXT, same_as=same, **fields)  # type: ignore[arg-type]


def session(*labels: str, **declared: Any) -> DuelSession:
    values = {
        "name": "played",
        "arms": (),
        "comparisons": (),
        "metrics": ("step_time",),
        "alpha": 0.01,
        "family_error": 0.05,
        "margins": {},
        "looks": (6,),
        "rounds": 4,
        "seeds": (1,),
        **declared,
    }
    shares = {"slowed": 0.25}
    return DuelSession(
        session="s",
        declaration=Declaration(**values),
        contenders=[contender(label, injected_share=shares.get(label, 0.0)) for label in labels],
        display=PlainDisplay(io.StringIO()),
        timing={"timeout_seconds": 60.0},
        order_seed=5,
        mismatch=lambda *_: None,
    )


def replicate(*labels: str, number: int = 0, **declared: Any) -> Replicate:
    return session(*labels, **declared).replicate(number)


def steps_of(found: Replicate) -> dict[str, set[int]]:
    return {
        arm: {block.steps for block in found.blocks if block.arm == arm}
        for arm in {block.arm for block in found.blocks}
    }


@pytest.mark.parametrize("broken", [0, 1])
def test_an_arm_that_was_not_finite_in_either_half_says_so(stage: Stage, broken: int) -> None:
    """Oracle: arms that alternate have two processes; the second hides nothing of the first."""
    stage.broken = {("lion", broken)}
    found = replicate("base", "lion", CONTROL, design="alternating")

    assert {run.arm: run.finite for run in found.arms} == {
        "base": True,
        "lion": False,
        CONTROL: True,
    }
    assert stage.most_alive == 1


def test_arms_that_run_together_are_all_alive(stage: Stage) -> None:
    """Oracle: the stage's own count; every child is closed at the end."""
    replicate("base", "lion", CONTROL)

    assert stage.most_alive == 3
    assert all(child.closed for child in stage.children)


def test_bursts_of_a_block_add_up(stage: Stage) -> None:
    """Oracle: by hand: 5 steps a block in bursts of 3 and 2, each of 0.25 s."""
    found = replicate("base", CONTROL, burst_seconds=0.25, rewarm_steps=1)

    for block in found.blocks:
        assert (block.steps, len(block.step_seconds)) == (5, 5)
        assert (block.wall_seconds, block.injected_seconds) == (0.5, 0.25)
        assert block.disturbance == {"observed_seconds": 0.5, "major_faults": 2}
    for child in stage.children:
        bursts = [one for one in child.asked if one["do"] == "block"]
        assert [one["steps"] for one in bursts] == [3, 2] * 4
        assert {one["rewarm"] for one in bursts} == {1}


def test_bursts_of_unlike_arms_take_turns_until_each_has_done_its_steps(stage: Stage) -> None:
    """Oracle: the order in which the stage ran: no arm twice in a row while others have steps."""
    stage.windows = {"fast": [0.02, 0.02], "base": [0.1, 0.1], CONTROL: [0.1, 0.1]}
    found = replicate("base", "fast", CONTROL, rounds=2, burst_seconds=0.1)

    assert steps_of(found) == {"fast": {25}, "base": {5}, CONTROL: {5}}
    bursts = stage.running[3:]
    turns = [bursts[:3], bursts[3:6]]
    assert all(set(turn) == {"base", "fast", CONTROL} for turn in turns)
    assert bursts.count("fast") == 2 * 5
    assert bursts.count("base") == 2 * 2  # of three steps at the least


def test_copies_do_the_same_work_by_the_fastest_window_of_any(stage: Stage) -> None:
    """Oracle: by hand: 0.5 s at 0.04 s a step are 13 steps, and the delay is left out."""
    stage.windows = {
        "base": [0.09, 0.05],
        "slowed": [0.05, 0.06],
        CONTROL: [0.07, 0.08],
        "lion": [0.2, 0.1],
    }
    found = replicate("base", "lion", "slowed", CONTROL)

    assert steps_of(found) == {"base": {13}, "slowed": {13}, CONTROL: {13}, "lion": {5}}


def test_a_step_is_traced_in_the_first_replicate_or_where_bytes_are_compared(
    stage: Stage,
) -> None:
    """Oracle: the commands: a trace costs, and a peak is needed from every replicate."""
    for number, metrics, traced in (
        (0, ("step_time",), True),
        (1, ("step_time",), False),
        (1, ("step_time", "peak_memory"), True),
    ):
        stage.children.clear()
        replicate("base", CONTROL, number=number, metrics=metrics)
        assert {child.asked[0]["trace"] for child in stage.children} == {traced}


def test_a_worker_is_asked_to_prove_the_packages_of_outside_entries(stage: Stage) -> None:
    """Oracle: the top-level packages of the cell's entries, by hand."""
    replicate("base", CONTROL)

    assert stage.children[0].request["modules"] == ["own_package", "theirs"]


def test_idle_arms_must_not_spin(stage: Stage) -> None:
    """Oracle: measurement.md 4.1: OMP_WAIT_POLICY=passive where several arms are alive."""
    replicate("base", CONTROL)

    assert stage.given["wait_policy"] == "passive"


def test_no_block_is_timed_before_every_arm_has_warmed_up(stage: Stage) -> None:
    """Oracle: the order of commands on the stage, arms in the order in which they started."""
    found = replicate("base", "lion", CONTROL)

    assert stage.running[:3] == list(found.start_order)
    assert [child.asked[0]["do"] for child in stage.children] == ["warm"] * 3
    assert stage.children[0].asked[0]["window_seconds"] >= 0.5


def test_copies_that_alternate_do_the_same_work(stage: Stage) -> None:
    """Oracle: by hand: whoever of the three starts first chooses, its delay left out."""
    stage.windows = {
        "base": [0.05, 0.05],
        "slowed": [0.125, 0.125],  # 0.1 s, and a quarter of it
        CONTROL: [0.04, 0.04],
        "lion": [0.2, 0.2],
    }
    chosen = {"base": 10, "slowed": 5, CONTROL: 13}
    firsts = set()
    for number in range(16):
        stage.children.clear()
        found = replicate("base", "lion", "slowed", CONTROL, design="alternating", number=number)
        first = next(label for label in found.start_order if label != "lion")
        steps = dict.fromkeys(chosen, chosen[first]) | {"lion": 3}
        assert steps_of(found) == {arm: {count} for arm, count in steps.items()}
        assert {run.block_steps for run in found.arms if run.arm != "lion"} == {chosen[first]}
        firsts.add(first)

    assert firsts == chosen.keys()


@pytest.mark.parametrize("rounds", [1, 2, 3, 6, 7])
def test_alternating_arms_run_every_round_that_was_declared(stage: Stage, rounds: int) -> None:
    """Oracle: the declaration: a block an arm and round; the first half has the odd one."""
    arms = ("base", "lion", CONTROL)
    found = replicate(*arms, design="alternating", rounds=rounds)

    counts = Counter((block.round, block.arm) for block in found.blocks)
    assert counts == {(turn, arm): 1 for turn in range(rounds) for arm in arms}
    order = list(found.start_order)
    assert order == (order[:3] + order[:3][::-1] if rounds > 1 else order[:3])
    told = [sum(one["do"] == "block" for one in child.asked) for child in stage.children]
    assert told == [rounds - rounds // 2] * 3 + [rounds // 2] * 3 * (rounds > 1)
