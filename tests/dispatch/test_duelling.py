"""A duel's session: what is declared, how many replicates run, when it stops, what it leaves.

Replicates are scripted on a scripted clock: nothing is measured and no time passes.
"""

from __future__ import annotations

import hashlib
import io
import math
import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import pytest

from bertopt_bench.dispatch import duelling, sessions
from bertopt_bench.dispatch.children import Outcome
from bertopt_bench.dispatch.declaring import duel_digest
from bertopt_bench.dispatch.duelling import prepare_duel, run_duel
from bertopt_bench.dispatch.progress import PlainDisplay
from bertopt_bench.duelling import exit_code
from bertopt_bench.errors import UserError
from bertopt_bench.matrix.arms import CONTROL, read_arms
from bertopt_bench.matrix.duels import PRESET_REPLICATES, Settings
from bertopt_bench.measure.memory import available_bytes
from bertopt_bench.results.duels import (
    ArmRun,
    Block,
    Declaration,
    Finding,
    Replicate,
    Verdicts,
)
from bertopt_bench.results.store import ResultsFolder
from bertopt_bench.results.tables import load_results
from bertopt_bench.stats.duels import analyse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bertopt_bench.dispatch.duelling import DuelPlan

MATRIX = """
name = "small"
seeds = [1, 2, 3]
[workload]
model = {hidden = 16, layers = 1, heads = 2, intermediate = 32}
steps = 20
[axes]
optimizer = "adamw"
"""
SUBJECT = SimpleNamespace(
    python="python",
    root=None,
    overlay=(),
    modules=[],
    description={"python": "3.11.7"},
    expected={"python": "3.11.7", "implementation": "CPython", "versions": {}, "harness": "h1"},
)


class Clock:
    """Stands in for the module ``time``: it goes on when a script says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class ScriptedSession:
    """Stands in for DuelSession: replicates take so long, differ by so much, and may fall."""

    def __init__(
        self, clock: Clock, seconds: Mapping[int, float], effect: float, falls: int
    ) -> None:
        self.clock, self.seconds, self.effect, self.falls = clock, seconds, effect, falls
        self.asked: list[int] = []
        self.given: dict[str, Any] = {}

    def begin(self, **given: Any) -> Self:
        self.given = given
        return self

    def replicate(self, number: int) -> Replicate:
        self.asked.append(number)
        self.given["display"].begin(number + 1, 12, f"replicate {number + 1}", 1)
        seconds = self.seconds.get(number, self.seconds[0])
        self.clock.now += seconds
        draw = random.Random(number)
        labels = [arm.label for arm in self.given["declaration"].arms]
        speeds = {
            label: math.exp(draw.gauss(0, 0.004) + (self.effect if label == "arm" else 0.0))
            for label in labels
        }
        fell = number == self.falls
        return Replicate(
            session=self.given["session"],
            replicate=number,
            seed=1,
            status="failed" if fell else "ok",
            reason="'arm' failed: a bug" if fell else "",
            started_utc="t",
            elapsed_seconds=seconds,
            arms=tuple(
                ArmRun(arm=label, status="ok", finite=True, initial_loss=8.0) for label in labels
            ),
            blocks=tuple(
                Block(
                    round=turn,
                    position=0,
                    arm=label,
                    clock_seconds=0.0,
                    steps=10,
                    wall_seconds=speeds[label] * (1 + turn),
                )
                for turn in range(2)
                for label in labels
            ),
        )


class Bench(SimpleNamespace):
    """A session that ran: its verdicts, what was asked, the folder it left."""

    verdicts: Verdicts
    session: ScriptedSession
    plan: DuelPlan
    folder: Path
    shown: str


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DuelPlan]:
    """Prepare a duel of ``adamw`` and ``arm`` without interpreters and text."""
    monkeypatch.setattr(duelling, "prepare_subject", lambda **_: SUBJECT)
    monkeypatch.setattr(
        duelling,
        "prepare_text",
        lambda workload, seeds, _: {
            "batches": {str(seed): {"sha256": "b"} for seed in seeds},
            "evaluation": {"sha256": "e"},
            "text_sha256": "t",
            "tokenizer_sha256": "k",
            "vocabulary_size": workload["vocabulary_size"],
        },
    )
    monkeypatch.setattr(duelling, "available_bytes", lambda _: None)
    file = tmp_path / "small.toml"
    file.write_text(MATRIX)

    def make(*arms: str, **settings: Any) -> DuelPlan:
        matrix, read = read_arms(file, arms=arms or ["label=arm optimizer=sgd"])
        return prepare_duel(matrix, read, Settings(**settings), PlainDisplay(io.StringIO()))

    return make


@pytest.fixture
def fight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Callable[..., DuelPlan]
) -> Callable[..., Bench]:
    """Run a session of scripted replicates."""

    def run(
        seconds: float | Mapping[int, float] = 10.0,
        *,
        effect: float = 0.1,
        falls: int = -1,
        judge: Callable[..., Verdicts] = analyse,
        least: int | None = None,
        **settings: Any,
    ) -> Bench:
        clock = Clock()
        monkeypatch.setattr(duelling, "time", clock)
        pace = seconds if isinstance(seconds, dict) else {0: seconds}
        session = ScriptedSession(clock, pace, effect, falls)
        monkeypatch.setattr(duelling, "DuelSession", session.begin)
        made = plan(**settings)
        if least is not None:
            made = duelling.replace(made, least_replicates=least)
        shown = io.StringIO()
        with ResultsFolder.open(tmp_path / "results", made.digest) as store:
            verdicts = run_duel(made, store, PlainDisplay(shown), judge)
        return Bench(
            verdicts=verdicts,
            session=session,
            plan=made,
            folder=tmp_path / "results",
            shown=shown.getvalue(),
        )

    return run


# --- what is declared ---


def test_the_declaration_in_the_sessions_first_line_is_what_ran(
    fight: Callable[..., Bench],
) -> None:
    """Oracle: what the engine was given, and what the session file says before any replicate."""
    bench = fight(replicates=8, alpha=0.02, rounds=4)
    (session,) = load_results(bench.folder).sessions
    declared = Declaration.model_validate(session.declared["duel"])

    assert declared == bench.plan.declaration == bench.session.given["declaration"]
    assert (declared.looks, declared.alpha, declared.rounds) == ((8,), 0.02, 4)
    assert session.order_seed == bench.session.given["order_seed"]
    assert session.declared["timing"] == bench.session.given["timing"]
    assert session.matrix["digest"] == bench.plan.digest
    assert session.declared["subjects"].keys() == {"adamw", "arm", CONTROL}


def test_an_a_a_arm_is_always_added_and_does_the_baselines_work(
    plan: Callable[..., DuelPlan],
) -> None:
    """Oracle: by hand: roles, the control's cell, the family, whose block length is whose."""
    made = plan("optimizer=sgd", "inject=5%", "optimizer=lion inject=5%")
    roles = [(arm.label, arm.role) for arm in made.declaration.arms]

    assert roles == [
        ("baseline", "baseline"),
        ("optimizer=sgd", "arm"),
        ("inject=5%", "arm"),
        ("optimizer=lion inject=5%", "arm"),
        (CONTROL, "control"),
    ]
    cells = [arm.cell for arm in made.declaration.arms]
    assert cells[-1] == cells[0] == cells[2] != cells[1]
    assert [one.same_as for one in made.contenders] == [None, None, "baseline", None, "baseline"]
    assert made.declaration.comparisons == tuple(("baseline", label) for label, _ in roles[1:4])


def test_blocks_take_turns_in_bursts_on_a_cpu_and_not_where_arms_alternate(
    plan: Callable[..., DuelPlan],
) -> None:
    """Oracle: the protocol: 1 or 2 discarded steps after each switch, blocks of half a second."""
    together, apart = plan().declaration, plan(alternate=True).declaration

    assert together.design == "rounds"
    assert together.burst_seconds is not None
    assert together.burst_seconds < together.block_seconds
    assert (apart.design, apart.burst_seconds, apart.rewarm_steps) == ("alternating", None, 2)
    assert min(together.block_seconds, apart.block_seconds) >= 0.5
    assert together.least_block_steps >= 3


@pytest.mark.parametrize(
    ("free", "design"), [(None, "rounds"), (1 << 40, "rounds"), (1 << 29, "alternating")]
)
def test_arms_that_do_not_fit_in_memory_together_alternate(
    plan: Callable[..., DuelPlan], monkeypatch: pytest.MonkeyPatch, free: int | None, design: str
) -> None:
    """Oracle: three processes of some 400 MiB each, in half a GiB, in a TiB, in who knows."""
    monkeypatch.setattr(duelling, "available_bytes", lambda _: free)

    assert plan().declaration.design == design


def test_the_digest_names_what_is_compared_and_not_how(plan: Callable[..., DuelPlan]) -> None:
    """Oracle: by hand: a folder takes more sessions of the same arms, however they are judged."""
    first = plan()
    assert first.digest == plan(alpha=0.05, replicates=20, metrics=("peak_memory",)).digest
    others = [
        plan("label=arm optimizer=lion"),
        plan("label=other optimizer=sgd"),
        plan("label=arm optimizer=sgd", "optimizer=lion"),
        plan("label=arm optimizer=sgd revision=v1"),
        plan("label=arm optimizer=sgd python=python3"),
        plan("label=arm optimizer=sgd inject=5%"),
    ]
    digests = {one.digest for one in (first, *others)}

    assert len(digests) == 7
    assert duel_digest(first.matrix, first.arms[:-1]) == first.digest


# --- how many replicates ---


def test_a_fixed_number_is_run_and_looked_at_once(fight: Callable[..., Bench]) -> None:
    """Oracle: the number that was declared; every replicate is on disk, in order."""
    bench = fight(replicates=9)
    loaded = load_results(bench.folder)

    assert bench.session.asked == list(range(9))
    assert [one.replicate for one in loaded.replicates] == list(range(9))
    assert len(loaded.sessions[0].verdicts) == 1
    assert loaded.sessions[0].end is not None
    assert loaded.sessions[0].end["counts"] == {"replicates": 9, "trials": 0}


@pytest.mark.parametrize(
    ("each", "budget", "runs"),
    [
        (10, 1000, 12),
        (10, 126.5, 12),
        (10, 121, 11),
        (10, 106, 10),
        (10, 100, 8),
        (10, 84, 6),
        (10, 64, 6),
    ],
)
def test_a_budget_cuts_to_a_preset_number(
    fight: Callable[..., Bench], each: float, budget: float, runs: int
) -> None:
    """Oracle: by hand: 95 % of the budget over the first one's seconds, down to a preset."""
    bench = fight(each, replicates=12, budget_seconds=budget)

    assert len(bench.session.asked) == runs
    assert runs in PRESET_REPLICATES
    assert bench.verdicts.replicates == runs


def test_only_the_first_replicates_cost_decides(fight: Callable[..., Bench]) -> None:
    """Oracle: later ones that take longer, or find more, change nothing: no data is looked at."""
    usual = fight(10.0, replicates=12, budget_seconds=100).session.asked
    slower = fight({0: 10.0, 3: 500.0}, replicates=12, budget_seconds=100).session.asked
    clearer = fight(10.0, effect=0.9, replicates=12, budget_seconds=100).session.asked

    assert usual == slower == clearer == list(range(8))


def test_a_budget_too_small_says_what_is_needed_and_keeps_what_ran(
    fight: Callable[..., Bench], tmp_path: Path
) -> None:
    """Oracle: the figures by hand: 50 s pay for 4 of 10 s; six and a margin are 72 s."""
    with pytest.raises(UserError, match=r"takes 10 s .* 50 s pays for 4; 6 .* --budget 72s"):
        fight(10.0, replicates=12, budget_seconds=50)
    loaded = load_results(tmp_path / "results")

    assert len(loaded.replicates) == 1
    assert loaded.sessions[0].end is None
    assert fight(10.0, replicates=12, budget_seconds=72).verdicts.replicates == 6


def test_a_budget_never_cuts_below_what_the_declared_verdict_needs(
    fight: Callable[..., Bench],
) -> None:
    """Oracle: at alpha .01 six replicates could say nothing: 2/2^6 > .01."""
    with pytest.raises(UserError, match="pays for 6; 8 are needed"):
        fight(10.0, replicates=12, budget_seconds=70, least=8)
    assert fight(10.0, replicates=12, budget_seconds=100, least=8).verdicts.replicates == 8


def test_a_number_between_the_presets_is_run_where_the_budget_allows(
    fight: Callable[..., Bench],
) -> None:
    """Oracle: nine were declared: nine, or eight, and never ten."""
    assert fight(10.0, replicates=9, budget_seconds=1000).verdicts.replicates == 9
    assert fight(10.0, replicates=9, budget_seconds=92).verdicts.replicates == 8
    with pytest.raises(UserError, match=r"9 are needed.*--budget 108s"):
        fight(10.0, replicates=9, budget_seconds=70, least=9)


# --- when it stops ---


def scripted(*widths: float, verdict: str = "inconclusive") -> Callable[..., Verdicts]:
    """Judge by a script: the half-width at each look."""

    def judge(declaration: Declaration, replicates: Any, records: Any, **more: Any) -> Verdicts:
        also = more.pop("also")
        half = widths[more["look"] - 1]
        found = Finding(
            metric="step_time",
            baseline="adamw",
            arm="arm",
            n=len(replicates),
            low=-half,
            high=half,
            verdict=verdict,
        )
        assert also == []
        return Verdicts(replicates=len(replicates), state="valid", findings=(found,), **more)

    return judge


@pytest.mark.parametrize(
    ("widths", "looks"),
    [((0.009,), [10]), ((0.02, 0.01), [10, 20]), ((0.03, 0.02, 0.011), [10, 20, 30])],
)
def test_until_looks_at_ten_twenty_and_thirty_and_nowhere_else(
    fight: Callable[..., Bench], widths: tuple[float, ...], looks: list[int]
) -> None:
    """Oracle: the protocol's presets; a verdict on disk for each look."""
    bench = fight(until=0.01, judge=scripted(*widths))
    (session,) = load_results(bench.folder).sessions
    seen = [Verdicts.model_validate(one) for one in session.verdicts]

    assert len(bench.session.asked) == looks[-1]
    assert [one.replicates for one in seen] == looks
    assert [one.look for one in seen] == list(range(1, len(looks) + 1))
    assert session.declared["duel"]["looks"] == [10, 20, 30]


def test_a_decided_duel_looks_no_more(fight: Callable[..., Bench]) -> None:
    """Oracle: nothing is left to ask: its alpha was paid for at this look."""
    assert len(fight(until=0.001, judge=scripted(0.5, verdict="slower")).session.asked) == 10


def test_a_budget_cuts_the_looks_too(fight: Callable[..., Bench]) -> None:
    """Oracle: 190 s of 10 s each: a look at 10, and one at the preset 16 in place of 20."""
    bench = fight(10.0, until=0.001, budget_seconds=190, judge=scripted(0.5, 0.4, 0.3))
    assert bench.verdicts.replicates == 16
    assert bench.verdicts.look == 2


def test_a_look_at_nothing_new_is_not_taken(fight: Callable[..., Bench]) -> None:
    """Oracle: a budget for 10: the look at 10 stands alone."""
    bench = fight(10.0, until=0.001, budget_seconds=106, judge=scripted(0.5, 0.4, 0.3))
    (session,) = load_results(bench.folder).sessions

    assert len(bench.session.asked) == 10
    assert len(session.verdicts) == 1


def test_until_without_a_comparison_ends_at_its_first_look(fight: Callable[..., Bench]) -> None:
    """Oracle: an A/A duel has no width to wait for."""

    def judge(*_: Any, **more: Any) -> Verdicts:
        more.pop("also")
        return Verdicts(replicates=10, state="valid", findings=(), **more)

    assert len(fight(until=0.01, judge=judge, comparisons=()).session.asked) == 10


# --- when it falls ---


@pytest.mark.parametrize(("falls", "budget"), [(0, None), (0, 1e6), (0, 1.0), (2, None), (2, 1e6)])
def test_a_fallen_replicate_ends_the_duel_as_invalid_with_exit_code_three(
    fight: Callable[..., Bench], falls: int, budget: float | None
) -> None:
    """Oracle: the design: `invalid` is refused, exit 3; what ran is kept, no more is run.

    A first replicate that fell says nothing of what a budget pays for.
    """
    bench = fight(10.0, falls=falls, replicates=12, budget_seconds=budget)

    assert bench.session.asked == list(range(falls + 1))
    assert bench.verdicts.state == "invalid"
    assert "a bug" in bench.verdicts.reasons[0]
    assert exit_code(bench.verdicts) == 3
    assert [one.status for one in load_results(bench.folder).replicates][-1] == "failed"


def test_a_machine_that_changed_meanwhile_is_refused(
    fight: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: two descriptions that differ in the processor's model."""
    models = iter(["one", *["another"] * 9])
    real = duelling.describe_machine()
    monkeypatch.setattr(duelling, "describe_machine", lambda: {**real, "cpu_model": next(models)})
    bench = fight(replicates=6)

    assert bench.verdicts.state == "invalid"
    assert "processor changed" in bench.verdicts.reasons[0]


def test_a_torn_line_of_the_folder_is_said(fight: Callable[..., Bench], tmp_path: Path) -> None:
    """Oracle: the warning that reading gives; a second session goes on beside the first."""
    fight(replicates=6)
    file = tmp_path / "results/replicates.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    bench = fight(replicates=6)

    assert "warning" in bench.shown
    assert "torn" in bench.shown
    loaded = load_results(tmp_path / "results")
    assert len(loaded.sessions) == 2
    assert [one.replicate for one in loaded.replicates] == [*range(5), *range(6)]
    assert {one.session for one in loaded.replicates} == {one.session for one in loaded.sessions}


# --- training ---


class ScriptedZygote:
    """Stands in for a preloaded parent: a trial that ends at a loss of its own."""

    description = dict.fromkeys(
        ("pid", "hash_seed", "environment_bytes", "threads", "thread_variables", "affinity")
    )
    asked: list[tuple[str, int]] = []  # noqa: RUF012 - emptied for each test
    falls = ""
    foreign = ""
    silent = ""

    def __init__(self, **given: Any) -> None:
        self.given = given

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, task: str, request: Any, *, on_message: Any, **_: Any) -> Outcome:
        assert task == "trial"
        name = request["cell"]["optimizer"]["name"]
        self.asked.append((name, request["seed"]))
        on_message({"kind": "burned_in", **self.proof(name)})
        final = (
            {"kind": "failure", "status": "failed", "reason": "a bug"}
            if name == self.falls
            else {"kind": "result", "status": "ok", "reason": "", **self.proof(name)}
        )
        steps = request["cell"]["workload"]["steps"]
        loss = 5.0 + 0.1 * request["seed"] - (1.0 if name == "sgd" else 0.0)
        seen = [
            {
                "step": step,
                "loss": loss,
                "losses": [],
                "masked_accuracy": 0.0,
                "train_seconds": 1.0,
                "evaluation_seconds": 0.1,
            }
            for step in range(0, steps + 1, 4)
        ]
        on_message(final)
        return Outcome(final=final, evaluations=seen, exit_code=0)

    def proof(self, name: str) -> dict[str, Any]:
        """Prove this package at ``h1``; the foreign optimizer's worker has another one."""
        if name == self.silent:
            return {}
        sources = "h2" if name == self.foreign else "h1"
        harness = {"version": "0.2", "root": "root", "sources": sources}
        own = {"version": None, "sources": "s1"}
        modules = {"bertopt_bench": harness, "norms": own, "absent": None}
        return {"imported": {"python": "3.11.7", "implementation": "CPython", "modules": modules}}


@pytest.fixture
def zygotes(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedZygote]:
    monkeypatch.setattr(ScriptedZygote, "asked", [])
    monkeypatch.setattr(duelling, "Zygote", ScriptedZygote)
    return ScriptedZygote


def test_arms_whose_loss_is_compared_train_on_every_seed_and_leave_records(
    fight: Callable[..., Bench], zygotes: type[ScriptedZygote]
) -> None:
    """Oracle: by hand: three arms on three seeds, the A/A arm under its own label; no replicate."""
    bench = fight(metrics=("loss",))
    loaded = load_results(bench.folder)

    assert bench.session.asked == []
    assert sorted((str(one.arm), one.seed) for one in loaded.records) == sorted(
        (arm, seed) for arm in ("adamw", "arm", CONTROL) for seed in (1, 2, 3)
    )
    assert {one.status for one in loaded.records} == {"ok"}
    blocks = [zygotes.asked[i : i + 3] for i in (0, 3, 6)]
    assert [{seed for _, seed in block} for block in blocks] == [{1}, {2}, {3}]
    (found,) = bench.verdicts.findings
    assert found.differences == pytest.approx([-1.0] * 3)
    assert found.verdict == "inconclusive"  # three seeds are points, without a verdict
    assert bench.verdicts.controls[0].differences == (0.0, 0.0, 0.0)
    assert loaded.sessions[0].end is not None
    assert loaded.sessions[0].end["counts"] == {"replicates": 0, "trials": 9}


def test_time_to_target_needs_replicates_and_training(
    fight: Callable[..., Bench], zygotes: type[ScriptedZygote]
) -> None:
    """Oracle: both families' data are on disk, training once however many looks there are."""
    bench = fight(metrics=("time_to_target", "step_time"), replicates=6, target_loss=5.25)
    loaded = load_results(bench.folder)

    assert (len(loaded.replicates), len(loaded.records)) == (6, 9)
    assert [one.metric for one in bench.verdicts.findings] == ["time_to_target", "step_time"]


def test_a_training_run_that_failed_refuses(
    fight: Callable[..., Bench], zygotes: type[ScriptedZygote], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: its own reason; exit code 3."""
    monkeypatch.setattr(zygotes, "falls", "sgd")
    bench = fight(metrics=("loss",))

    assert bench.verdicts.state == "invalid"
    assert "'arm' seed" in bench.verdicts.reasons[0]
    assert "a bug" in bench.verdicts.reasons[0]
    assert exit_code(bench.verdicts) == 3
    assert [name for name, _ in zygotes.asked].count("sgd") == 1
    assert zygotes.asked[-1][0] == "sgd"  # hours of training would change nothing


@pytest.mark.parametrize(
    "fields", [{"a_field_of_tomorrow": 1}, {"losses": "none"}], ids=["unknown", "malformed"]
)
def test_a_worker_of_another_revision_that_says_what_no_record_holds_refuses(
    fight: Callable[..., Bench],
    zygotes: type[ScriptedZygote],
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, Any],
) -> None:
    """Oracle: refused with exit code 3 and a record that says why, not a traceback."""
    real = sessions.record_fields

    def told(outcome: Any, limit: float) -> dict[str, Any]:
        return {**real(outcome, limit), **fields}

    monkeypatch.setattr(sessions, "record_fields", told)
    bench = fight(metrics=("loss",))

    assert bench.verdicts.state == "invalid"
    assert "messages are not those of this version" in bench.verdicts.reasons[0]
    assert exit_code(bench.verdicts) == 3
    assert load_results(bench.folder).trials["status"].tolist() == ["failed"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("foreign", "imported the wrong code: the sources of bertopt_bench are h2"),
        ("silent", "does not prove what it imported"),
    ],
)
def test_a_training_arm_of_the_wrong_code_or_of_none_that_it_proves_is_refused(
    fight: Callable[..., Bench],
    zygotes: type[ScriptedZygote],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    words: str,
) -> None:
    """Oracle: as a timed arm: invalid, exit code 3, no direction; nothing more is trained."""
    monkeypatch.setattr(zygotes, kind, "sgd")
    bench = fight(metrics=("loss",))
    records = load_results(bench.folder).records
    (wrong,) = [one for one in records if one.arm == "arm"]

    assert wrong.status == "failed"
    assert wrong.reason.startswith(words)
    assert (wrong.evaluations, wrong.losses) == ((), ())
    assert bool(wrong.imported) == (kind == "foreign")
    assert {one.status for one in records if one is not wrong} <= {"ok"}
    assert zygotes.asked[-1][0] == "sgd"
    assert bench.verdicts.state == "invalid"
    assert words in bench.verdicts.reasons[0]
    assert [one.verdict for one in bench.verdicts.findings] == ["refused"]
    assert exit_code(bench.verdicts) == 3


def test_a_training_record_names_its_own_arms_commit(
    fight: Callable[..., Bench], zygotes: type[ScriptedZygote], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: what each arm's subject was made of; a project's commit is not this package's."""
    ours = {"version": "0.1", "commit": "a" * 40, "dirty_hash": ""}
    told = {"environment": "shared", "commit": "c" * 40, "dirty_hash": "d1", "project": "kernels/"}
    other = SimpleNamespace(
        **{**vars(SUBJECT), "description": told, "modules": ["absent", "norms"]}
    )
    own = SimpleNamespace(
        **{**vars(other), "expected": {**SUBJECT.expected, "harness_commit": "c" * 40}}
    )
    codes = []
    for subject in (other, own):
        made = iter([SUBJECT, subject, SUBJECT])  # for the baseline, the arm, the control
        monkeypatch.setattr(duelling, "prepare_subject", lambda made=made, **_: next(made))
        monkeypatch.setattr(duelling, "package_code", lambda: ours)
        bench = fight(metrics=("loss",))
        records = [
            one
            for one in load_results(bench.folder).records
            if one.session == bench.verdicts.session
        ]
        assert bench.verdicts.findings[0].differences == pytest.approx([-1.0] * 3)
        assert {one.code.commit for one in records if one.arm != "arm"} == {"a" * 40}
        assert {one.code.checkout for one in records if one.arm != "arm"} == {None}
        codes += [one.code for one in records if one.arm == "arm" and one.seed == 1]
    project, package = codes

    assert (project.version, project.commit, project.dirty_hash) == ("0.1", "a" * 40, "")
    assert (package.version, package.commit, package.dirty_hash) == ("0.2", "c" * 40, "d1")
    del told["environment"]
    for code in codes:
        assert code.checkout is not None
        assert code.checkout.model_dump() == told
        assert code.outside == {"norms": "s1"}


def test_nothing_is_trained_after_a_replicate_fell(
    fight: Callable[..., Bench], zygotes: type[ScriptedZygote]
) -> None:
    """Oracle: the duel is refused already: hours of training would change nothing."""
    bench = fight(metrics=("time_to_target",), replicates=6, falls=0)

    assert zygotes.asked == []
    assert bench.verdicts.state == "invalid"


def test_a_duel_can_be_declared_before_anything_is_prepared(plan: Callable[..., DuelPlan]) -> None:
    """Oracle: the declaration of the same duel made ready, but for what its arms import."""
    made = plan("optimizer=sgd", replicates=9)
    early = duelling.intended(made.matrix, made.arms[:-1], Settings(replicates=9))
    blank = [arm.model_copy(update={"python": None}) for arm in made.declaration.arms]

    assert early == made.declaration.model_copy(update={"arms": tuple(blank)})


def test_the_digest_follows_the_code_that_was_made_ready(
    plan: Callable[..., DuelPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: by hand: the same words of an arm at another commit are another comparison."""
    digests = []
    for commit in ("c1", "c2", "c1"):
        told = {"environment": "shared", "commit": commit}
        subject = SimpleNamespace(**{**vars(SUBJECT), "description": told})
        monkeypatch.setattr(duelling, "prepare_subject", lambda subject=subject, **_: subject)
        named = plan("label=arm optimizer=sgd revision=main").digest
        digests.append((named, plan("label=arm optimizer=sgd").digest))

    assert digests[0] == digests[2]
    assert digests[0][0] != digests[1][0]
    assert digests[0][1] == digests[1][1]  # no arm names code


def test_a_folder_of_plain_arms_goes_on_from_version_to_version(
    plan: Callable[..., DuelPlan],
) -> None:
    """Oracle: the digest of version 0.1 written out."""
    made = plan("label=arm optimizer=sgd", "inject=5%")
    said = [[a.label, a.cell.id, None, False, a.injected_share] for a in made.arms[:-1]]
    text = duelling.canonical_json([made.matrix.digest, said])

    assert made.digest == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_arms_that_a_control_group_has_no_room_for_alternate(
    plan: Callable[..., DuelPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a machine with a TiB, in it a job that is allowed half a GiB."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1 << 40))
    designs = []
    for limit in ("536870912", "max"):
        for name, text in (
            ("proc/self/cgroup", "0::/job\n"),
            ("sys/fs/cgroup/job/memory.max", f"{limit}\n"),
            ("sys/fs/cgroup/job/memory.current", "0\n"),
        ):
            (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "root" / name).write_text(text)
        monkeypatch.setattr(
            duelling, "available_bytes", lambda device: available_bytes(device, tmp_path / "root")
        )
        designs.append(plan().declaration.design)

    assert designs == ["alternating", "rounds"]
