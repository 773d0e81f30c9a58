"""A replicate of a duel: who starts when, who runs when, and what is left where one falls."""

from __future__ import annotations

import io
import json
import os
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bertopt_bench.dispatch.duel import PROTOCOL, Contender, DuelSession
from bertopt_bench.dispatch.progress import PlainDisplay
from bertopt_bench.results.duels import CONTROL, Declaration, DeclaredArm, Replicate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

TEXT = {"batches": {"1": {"sha256": "b"}, "2": {"sha256": "b2"}}, "evaluation": {"sha256": "e"}}
OURS = SimpleNamespace(python=sys.executable, root=None, overlay=(), modules=[], description={})


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the file in which scripted arms note what they were told."""
    file = tmp_path / "log"
    file.touch()
    monkeypatch.setenv("BERTOPT_BENCH_SCRIPT_LOG", str(file))
    monkeypatch.chdir(Path(__file__).parent)  # the worker's module is found there
    return file


def contender(label: str, seconds: float = 0.1, inject: float = 0.0, **script: Any) -> Contender:
    cell = {
        "script": {"name": label, "step_seconds": seconds, **script},
        "workload": {"steps": 9},
        "optimizer": {"name": "own_module:Mine"},
        "schedule": {"name": "constant"},
        "regularizer": [],
        "precision": {"name": "fp32"},
        "device": {"name": "cpu"},
        "kernel": {},
    }
    same = "base" if label in {CONTROL, "slowed"} else None
    return Contender(label, cell, OURS, TEXT, injected_share=inject, same_as=same)  # type: ignore[arg-type]


def duel(contenders: list[Contender], **declared: Any) -> DuelSession:
    arms = tuple(
        DeclaredArm(
            label=c.label,
            role="control" if c.label == CONTROL else "arm",
            cell_id="x",
            cell=dict(c.cell),
            injected_share=c.injected_share,
        )
        for c in contenders
    )
    declaration = Declaration(
        name="scripted",
        arms=arms,
        comparisons=(),
        metrics=("step_time",),
        alpha=0.01,
        family_error=0.05,
        margins={"step_time": 0.02},
        looks=(12,),
        **{"rounds": 4, "seeds": (1, 2), **declared},
    )
    return DuelSession(
        session="s",
        declaration=declaration,
        contenders=contenders,
        display=PlainDisplay(io.StringIO()),
        timing={"timeout_seconds": 60.0},
        order_seed=5,
        threads=1,
        worker="scripted_arms",
        mismatch=lambda *_: None,
    )


def told(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.fixture
def run(log: Path) -> Callable[..., Replicate]:
    """Run one replicate of scripted arms."""

    def once(*contenders: Contender, number: int = 0, **declared: Any) -> Replicate:
        return duel(list(contenders), **declared).replicate(number)

    return once


def test_every_arm_runs_one_block_a_round_and_never_beside_another(
    run: Callable[..., Replicate], log: Path
) -> None:
    """Oracle: the arms' own notes: each command ends before the next one begins."""
    replicate = run(contender("base"), contender("lion", 0.2), contender(CONTROL))

    assert replicate.status == "ok"
    counts = Counter((block.round, block.arm) for block in replicate.blocks)
    assert counts == {(r, a): 1 for r in range(4) for a in ("base", "lion", CONTROL)}
    notes = told(log)
    assert all(
        end["do"] == f"end {begin['do']}" and end["arm"] == begin["arm"]
        for begin, end in zip(notes[::2], notes[1::2], strict=True)
    )
    assert len({note["pid"] for note in notes}) == 3


def test_orders_are_drawn_anew_and_follow_from_the_seed(run: Callable[..., Replicate]) -> None:
    """Oracle: the same seed and number give the same orders, another number others."""
    arms = [contender("base"), contender("lion"), contender("muon"), contender(CONTROL)]
    first, again, other = run(*arms), run(*arms), run(*arms, number=1)

    def orders(replicate: Replicate) -> list[tuple[str, ...]]:
        rounds = {b.round: [] for b in replicate.blocks}  # type: dict[int, list[str]]
        for block in replicate.blocks:
            rounds[block.round].append(block.arm)
        return [replicate.start_order, *map(tuple, rounds.values())]

    assert orders(first) == orders(again)
    assert orders(first) != orders(other)
    assert len(set(orders(first))) > 1
    assert (first.seed, other.seed) == (1, 2)


def test_the_start_order_is_balanced_over_two_replicates(run: Callable[..., Replicate]) -> None:
    """Oracle: an arm's places in the two orders always sum to the same; a third is drawn anew."""
    arms = [contender(label) for label in ("base", "lion", "muon", CONTROL)]
    first, second = (run(*arms, number=number).start_order for number in (0, 1))
    drawn = {run(*arms, number=number).start_order for number in (0, 2, 4, 6)}

    assert {first.index(arm) + second.index(arm) for arm in first} == {len(arms) - 1}
    assert len(drawn) > 1


def test_a_block_lasts_half_a_second_and_three_steps(run: Callable[..., Replicate]) -> None:
    """Oracle: 0.5 s by the script's step seconds, rounded up; copies of an arm take its length."""
    replicate = run(
        contender("base", 0.04),
        contender("slow", 0.9),
        contender("slowed", 0.05, 0.25),
        contender(CONTROL, 0.06),
    )
    steps = {block.arm: block.steps for block in replicate.blocks}

    assert steps["slow"] == 3
    assert steps["base"] == steps["slowed"] == steps[CONTROL] == 13  # by the fastest of the three


def test_alternating_arms_run_one_process_at_a_time_forwards_and_backwards(
    run: Callable[..., Replicate], log: Path
) -> None:
    """Oracle: ABBA written out: the second half of the starts mirrors the first."""
    replicate = run(contender("base"), contender("lion"), contender(CONTROL), design="alternating")

    order = list(replicate.start_order)
    assert order[3:] == order[:3][::-1]
    assert Counter(block.arm for block in replicate.blocks) == {"base": 4, "lion": 4, CONTROL: 4}
    pids = [note["pid"] for note in told(log)]
    assert len({*pids}) == 6
    assert pids == sorted(pids, key=pids.index)  # no process speaks after the next one began


def test_the_injected_delay_is_recorded(run: Callable[..., Replicate]) -> None:
    """Oracle: the share asked for, of the script's step seconds."""
    replicate = run(contender("base"), contender("slowed", inject=0.05), contender(CONTROL))

    for block in replicate.blocks:
        share = block.injected_seconds / (block.wall_seconds - block.injected_seconds)
        assert share == pytest.approx(0.05 if block.arm == "slowed" else 0.0)


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        ({"dies_at": "warm"}, "failed", "exited with 7"),
        ({"dies_at": "block"}, "failed", "exited with 7"),
        ({"fails_at": "block"}, "out_of_memory", "no room"),
        ({"protocol": 9}, "failed", "protocol 9"),
    ],
)
def test_an_arm_that_falls_ends_its_replicate_with_a_reason(
    run: Callable[..., Replicate], script: dict[str, Any], status: str, words: str
) -> None:
    """Oracle: the design: every end has a status and a reason; the arm is named."""
    replicate = run(contender("base"), contender("bad", **script), contender(CONTROL))

    assert replicate.status == status
    assert "'bad'" in replicate.reason
    assert words in replicate.reason


def test_a_worker_that_imported_the_wrong_code_ends_the_replicate(log: Path) -> None:
    """Oracle: the proof is handed to the check, and what it says is the reason."""
    session = duel([contender("base"), contender(CONTROL)])
    session.mismatch = lambda proof, _: f"it proved {proof['name']}"
    replicate = session.replicate(0)

    assert replicate.status == "failed"
    assert "imported the wrong code: it proved" in replicate.reason


def test_replicates_differ_in_hash_seed_and_library_base(log: Path) -> None:
    """Oracle: what the processes themselves report, over two replicates of one duel."""
    session = duel([contender("base"), contender(CONTROL)], rounds=2)
    first, second = session.replicate(0), session.replicate(1)

    seeds, bases = (
        [[run.process[key] for run in one.arms] for one in (first, second)]
        for key in ("hash_seed", "library_bases")
    )
    assert seeds[0][0] == seeds[0][1]  # one zygote: arms of a replicate share it
    assert seeds[0][0] != seeds[1][0]
    if Path("/proc/sys/kernel/randomize_va_space").read_text().strip() != "0":
        assert bases[0][0] != bases[1][0]
    assert first.arms[0].process["thread_variables"]["OMP_WAIT_POLICY"] == "passive"


def test_nothing_is_left_running_after_a_replicate(
    run: Callable[..., Replicate], log: Path
) -> None:
    """Oracle: the kernel: no process with the arms' numbers remains."""
    run(contender("base"), contender("bad", fails_at="block"), contender(CONTROL))

    for pid in {note["pid"] for note in told(log)}:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_parent_and_worker_agree_on_the_protocol() -> None:
    """Oracle: the worker's own constant."""
    from bertopt_bench.trial.arm import ARM_PROTOCOL

    assert PROTOCOL == ARM_PROTOCOL


@pytest.mark.parametrize(("protocol", "words"), [(9, "protocol 9"), (None, "no protocol")])
def test_a_worker_of_another_protocol_is_refused_before_it_is_told_anything(
    run: Callable[..., Replicate], log: Path, protocol: int | None, words: str
) -> None:
    """Oracle: the worker's own notes: it would die of the first command, and never gets one."""
    old = contender("old", protocol=protocol, dies_at="warm")
    replicate = run(contender("base"), old, contender(CONTROL))

    assert replicate.status == "failed"
    assert f"'old' speaks {words} of duels" in replicate.reason
    assert "old" not in {note["arm"] for note in told(log)}
    (ended,) = [arm for arm in replicate.arms if arm.arm == "old"]
    assert (ended.status, words in ended.reason) == ("failed", True)
