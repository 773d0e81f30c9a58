"""What duel, calibrate and doctor share: turns of a calibration, the bank, exit codes."""

from __future__ import annotations

import io
import math
import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bertopt_bench import calibrating, duelling, pipeline
from bertopt_bench.dispatch.progress import PlainDisplay
from bertopt_bench.errors import OutOfBudget, UserError
from bertopt_bench.matrix.duels import Settings
from bertopt_bench.results.bank import withdraw
from bertopt_bench.results.duels import CONTROL, Declaration, DeclaredArm, Finding, Verdicts
from bertopt_bench.results.record import Session
from bertopt_bench.results.record_parts import Code

if TYPE_CHECKING:
    from pathlib import Path

CELL = {"workload": {}, "precision": {"name": "fp32"}}


# --- exit codes ---


def verdicts(state: Any, *words: str, reasons: tuple[str, ...] = ()) -> Verdicts:
    found = tuple(
        Finding(metric="step_time", baseline="b", arm=f"a{i}", n=12, verdict=word)
        for i, word in enumerate(words)
    )
    return Verdicts(
        session="s",
        at_utc="t",
        look=1,
        replicates=12,
        state=state,
        reasons=reasons,
        findings=found,
    )


@pytest.mark.parametrize(
    ("state", "words", "code", "strict"),
    [
        ("valid", ["equivalent"], 0, 0),
        ("valid", ["slower", "faster"], 0, 0),
        ("valid", ["slower", "inconclusive"], 0, 4),
        ("too_noisy", ["inconclusive"], 0, 4),
        ("too_noisy", ["equivalent"], 0, 4),
        ("too_noisy", [], 0, 4),
        ("invalid", ["refused"], 3, 3),
        ("invalid", [], 3, 3),
        ("valid", ["slower", "refused"], 3, 3),
        ("valid", [], 0, 0),
    ],
)
def test_exit_codes_are_the_designs(state: str, words: list[str], code: int, strict: int) -> None:
    """Oracle: the design's list: a duel confirms no regression by itself, so never 1."""
    found = verdicts(state, *words)

    assert duelling.exit_code(found) == code
    assert duelling.exit_code(found, strict=True) == strict


# --- turns ---


@pytest.mark.parametrize(("duels", "injected"), [(12, 6), (3, 3), (0, 2), (2, 0), (1, 7), (0, 0)])
def test_a_calibration_mixes_its_kinds_evenly(duels: int, injected: int) -> None:
    """Oracle: the counts asked for; at no point does a kind run ahead by more than one turn."""
    turns = calibrating.calibration_turns([], duels, injected)

    assert (turns.count(False), turns.count(True)) == (duels, injected)
    for done in range(len(turns) + 1):
        expected = injected * done / max(1, len(turns))
        assert abs(turns[:done].count(True) - expected) <= 1


@pytest.mark.parametrize("done", range(19))
def test_a_calibration_goes_on_where_it_stopped(done: int) -> None:
    """Oracle: what was done and what is left are the whole, however far it came."""
    whole = calibrating.calibration_turns([], 12, 6)
    left = calibrating.calibration_turns(whole[:done], 12, 6)

    assert sorted(whole[:done] + left) == sorted(whole)


def test_more_than_enough_of_one_kind_leaves_the_other() -> None:
    """Oracle: by hand."""
    assert calibrating.calibration_turns([False] * 20, 12, 2) == [True, True]
    assert calibrating.calibration_turns([True] * 9 + [False], 2, 6) == [False]
    assert calibrating.calibration_turns([True] * 6 + [False] * 12, 12, 6) == []


def declaration(slowed: float = 0.0) -> Declaration:
    arms = [DeclaredArm(label="base", role="baseline", cell_id="c", cell=CELL)]
    if slowed:
        arms.append(
            DeclaredArm(label="slowed", role="arm", cell_id="c", cell=CELL, injected_share=slowed)
        )
    arms.append(DeclaredArm(label=CONTROL, role="control", cell_id="c", cell=CELL))
    return Declaration(
        name="n",
        arms=tuple(arms),
        comparisons=tuple(("base", arm.label) for arm in arms[1:-1]),
        metrics=("step_time",),
        alpha=0.01,
        family_error=0.05,
        margins={"step_time": 0.02},
        looks=(12,),
    )


def session(slowed: float, *, ended: bool = True, duel: bool = True) -> Session:
    return Session(
        session=f"s{slowed}{ended}{duel}",
        started_utc="t",
        matrix={},
        code=Code(version="0"),
        order_seed=1,
        declared={"duel": declaration(slowed).model_dump(mode="json")} if duel else {},
        end={"kind": "end"} if ended else None,
    )


def test_only_sessions_that_ended_are_finished() -> None:
    """Oracle: a killed duel has no end; a session of `run` is no duel."""
    sessions = [
        session(0.0),
        session(0.05),
        session(0.05, ended=False),
        session(0.0, duel=False),
    ]

    assert calibrating.finished_kinds(sessions) == [False, True]


# --- the bank ---


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the machine's bank, in a cache of the test's own."""
    monkeypatch.setenv("BERTOPT_BENCH_CACHE", str(tmp_path / "cache"))
    return duelling._bank()


def replicates(n: int = 12, slowed: float = 0.0) -> list[Any]:
    from bertopt_bench.results.duels import ArmRun, Block, Replicate

    labels = ["base", *(["slowed"] if slowed else []), CONTROL]
    made = []
    for number in range(n):
        draw = random.Random(number)
        walls = {label: math.exp(draw.gauss(0, 0.004)) for label in labels}
        if slowed:
            walls["slowed"] *= 1 + slowed
        made.append(
            Replicate(
                session="s",
                replicate=number,
                seed=1,
                status="ok",
                started_utc="t",
                elapsed_seconds=1.0,
                arms=tuple(ArmRun(arm=label, status="ok", finite=True) for label in labels),
                blocks=tuple(
                    Block(
                        round=0,
                        position=0,
                        arm=label,
                        clock_seconds=0.0,
                        steps=10,
                        wall_seconds=walls[label],
                        injected_seconds=walls[label] * slowed / (1 + slowed)
                        if label == "slowed"
                        else 0.0,
                    )
                    for label in labels
                ),
            )
        )
    return made


def fought(
    monkeypatch: pytest.MonkeyPatch, *looks: int, name: str = "s", slowed: float = 0.0
) -> Any:
    """Let ``fight`` judge made replicates at these looks; give the verdicts and what was shown."""
    made, seen = replicates(slowed=slowed), []

    def run_duel(plan: Any, store: Any, display: Any, judge: Any) -> Verdicts:
        for look, count in enumerate(looks, start=1):
            seen.append(
                judge(
                    declaration(slowed),
                    made[:count],
                    [],
                    look=look,
                    session=name,
                    at_utc="t",
                    also=[],
                )
            )
        return seen[-1]

    monkeypatch.setattr(duelling, "run_duel", run_duel)
    shown = io.StringIO()
    given: Any = None
    found = duelling.fight(given, given, PlainDisplay(shown))
    return found, seen, shown.getvalue()


def test_a_duel_is_banked_once_however_often_it_was_looked_at(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a session is one trial: the last look's; the verdicts count it already."""
    found, _, _ = fought(monkeypatch, 8, 10, 12)

    (entry,) = withdraw(bank)
    assert (entry["session"], entry["replicates"]) == ("s", 12)
    assert found.calibration["duels"] == 1
    assert duelling.banked() == found.calibration
    assert found.achieved["replicates"] == 12

    again, seen, _ = fought(monkeypatch, 8, 12, name="second", slowed=0.05)
    assert len(withdraw(bank)) == 2
    assert [one.calibration["duels"] for one in seen] == [2, 2]
    assert again.calibration["power_found"] == 1


def test_what_was_achieved_is_the_half_width_that_is_shown(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the finding's own interval."""
    found, _, _ = fought(monkeypatch, 12, slowed=0.05)
    (finding,) = found.findings

    assert finding.verdict == "slower"
    assert found.achieved["half_width"] == pytest.approx((finding.high - finding.low) / 2)


def test_a_bank_that_cannot_be_written_does_not_cost_the_duel(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a regular file in place of the folder: the verdicts come, and a warning."""
    bank.parent.parent.mkdir(parents=True, exist_ok=True)
    bank.parent.write_text("")
    monkeypatch.setattr(duelling, "withdraw", lambda _: ())
    found, _, shown = fought(monkeypatch, 12)

    assert found.state == "valid"
    assert "warning: not counted towards the calibration" in shown


def test_a_bank_that_cannot_be_read_is_told_before_anything_is_measured(
    bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: an entry of a later version: the error, and no duel was begun."""
    bank.parent.mkdir(parents=True)
    bank.write_text('{"session": "a", "schema_version": 99}\n')
    begun: list[Any] = []
    monkeypatch.setattr(duelling, "run_duel", lambda *given: begun.append(given))
    given: Any = None

    with pytest.raises(UserError, match="schema version 99"):
        duelling.fight(given, given, PlainDisplay(io.StringIO()))
    assert begun == []


# --- reading ---


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(duelling, "ask_capabilities", lambda: None)
    written = tmp_path / "some.toml"
    written.write_text("name = 'some'\n")
    return written


def test_inject_adds_a_slowed_copy_of_the_baseline(file: Path) -> None:
    """Oracle: by hand."""
    asked = duelling.read_duel(file, arms=["optimizer=sgd"], inject="5%")

    assert [(arm.label, arm.injected_share) for arm in asked.arms] == [
        ("adamw", 0.0),
        ("sgd", 0.0),
        ("slowed by 5 %", 0.05),
    ]
    assert asked.arms[2].cell == asked.arms[0].cell
    assert len(duelling.read_duel(file).arms) == 1


def test_a_label_that_inject_would_repeat_is_refused(file: Path) -> None:
    """Oracle: two arms of one label could not be told apart."""
    with pytest.raises(UserError, match="slowed by 5 %"):
        duelling.read_duel(file, arms=["label='slowed by 5 %' optimizer=sgd"], inject="5%")


def test_the_built_in_calibration_is_one_small_cell() -> None:
    """Oracle: the file that ships: read as any matrix."""
    from bertopt_bench.matrix.arms import read_arms

    matrix, arms = read_arms(duelling.CALIBRATION)

    assert len(arms) == 1
    assert matrix.cell_count() == 1


# --- a series ---


@pytest.mark.parametrize("inject", ["0", "0%", 0.0])
def test_a_series_whose_arm_is_not_slowed_is_refused(file: Path, inject: str | float) -> None:
    """Oracle: the house rule: what came, what is allowed, what to do instead."""
    words = rf"--inject {inject}: .* more than 0 and below 100 %.* --injected 0"
    with pytest.raises(UserError, match=words):
        calibrating.Series.read(file, {}, inject)


@pytest.mark.parametrize(("duels", "injected"), [(-1, 6), (12, -2), (0, 0)])
def test_a_series_of_no_duels_is_refused_before_a_folder_is_made(
    tmp_path: Path, duels: int, injected: int
) -> None:
    """Oracle: nothing but the numbers is wrong, and nothing is left behind."""
    folder = tmp_path / "results"

    with pytest.raises(UserError, match="must be"):
        pipeline.calibrate(duels=duels, injected=injected, results=folder)
    assert not folder.exists()


# --- a second session ---


@pytest.mark.parametrize(
    ("state", "budget", "second", "sessions"),
    [
        ("valid", 1000.0, "valid", 1),
        ("too_noisy", None, "valid", 1),
        ("too_noisy", 1000.0, "valid", 2),
        ("too_noisy", 150.0, "valid", 1),
        ("too_noisy", 1000.0, "too_noisy", 2),
        ("too_noisy", 1000.0, "out of budget", 2),
        ("invalid", 1000.0, "valid", 1),
    ],
)
def test_noise_buys_one_more_session_where_the_budget_has_room(
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    budget: float | None,
    second: str,
    sessions: int,
) -> None:
    """Oracle: the design: one more and no third; a session that is too dear costs none."""
    from bertopt_bench.dispatch.duelling import DuelPlan

    now = iter([0.0, 100.0])
    monkeypatch.setattr(duelling, "time", SimpleNamespace(monotonic=lambda: next(now)))
    budgets: list[float | None] = []

    def fight(plan: Any, store: Any, display: Any) -> Verdicts:
        budgets.append(plan.settings.budget_seconds)
        if len(budgets) == 2 and second == "out of budget":
            raise OutOfBudget("too small")
        return verdicts([state, second][len(budgets) - 1], "inconclusive", reasons=("steal",))

    monkeypatch.setattr(duelling, "fight", fight)
    nothing: Any = None
    plan = DuelPlan(nothing, Settings(budget_seconds=budget), (), (), nothing, "d")
    found = duelling.fight_within_budget(plan, nothing, PlainDisplay(io.StringIO()))

    assert budgets == [budget, None if budget is None else budget - 100.0][:sessions]
    wanted = state if sessions == 1 or second == "out of budget" else second
    assert found.state == wanted
