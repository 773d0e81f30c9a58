"""What doctor measures in how much time, on a scripted clock: no process starts, no time passes."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import pytest

from bertopt_bench.dispatch import duelling
from bertopt_bench.dispatch.children import Outcome
from bertopt_bench.doctor import measures
from bertopt_bench.doctor.budget import Budget
from bertopt_bench.errors import UserError
from bertopt_bench.results.duels import ArmRun, Block, Replicate

if TYPE_CHECKING:
    from collections.abc import Callable

SUBJECT = SimpleNamespace(python="p", root=None, overlay=(), modules=[], description={})
VALUES = {"matmul_flops_per_second": {"float32": 1e9}}


class Clock:
    """Goes on when a script says so."""

    def __init__(self) -> None:
        self.now = 500.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def budget(clock: Clock) -> Budget:
    return Budget(55.0, clock=clock)


# --- the trial process ---


def test_one_trial_process_is_started_when_it_is_first_asked_for(
    monkeypatch: pytest.MonkeyPatch, budget: Budget
) -> None:
    """Oracle: what stands in for it notes its start and its end: doctor's idle moment is idle."""
    noted: list[str] = []

    class Noting(ScriptedZygote):
        def __enter__(self) -> Self:
            noted.append("start")
            return self

        def __exit__(self, *_: object) -> None:
            noted.append("end")

    monkeypatch.setattr(measures, "Zygote", lambda **_: Noting(Clock(), 1.0))
    with measures.measures() as means:
        noted.append("idle")
        assert means.torch() == {"cuda": None, "hip": None}
        assert means.ceilings(budget) == {"cpu": VALUES}

    assert noted == ["idle", "start", "end"]


# --- ceilings ---


class ScriptedZygote:
    """Stands in for a trial process: a device's ceilings take so many seconds."""

    def __init__(self, clock: Clock, seconds: float, cuda: str | None = None) -> None:
        self.clock, self.seconds = clock, seconds
        self.description = {"torch_build": {"cuda": cuda, "hip": None}}
        self.asked: list[tuple[str, float]] = []

    def run(self, task: str, request: Any, *, timeout_seconds: float) -> Outcome:
        assert task == "ceilings"
        device = request["device"]
        self.asked.append((f"{device['name']}{device.get('index', '')}", request["seconds_budget"]))
        self.clock.now += min(self.seconds, timeout_seconds)
        if self.seconds > timeout_seconds:
            return Outcome(timed_out=True)
        return Outcome(final={"kind": "result", "values": VALUES}, exit_code=0)


def test_ceilings_are_sampled_in_full_where_there_is_time(clock: Clock, budget: Budget) -> None:
    """Oracle: the module's own seconds; a torch without GPUs is asked for none; nothing is cut."""
    zygote = ScriptedZygote(clock, 3.0)
    found = measures.measure_ceilings(zygote, 2, budget)  # type: ignore[arg-type]

    assert found == {"cpu": VALUES}
    assert zygote.asked == [("cpu", measures.CEILING_SECONDS)]
    assert budget.cuts == []


def test_ceilings_of_many_gpus_never_take_the_noise_floors_time(
    clock: Clock, budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: by hand: 19 s to spare at 6 s a device: three in full, the fourth broken off."""
    monkeypatch.setattr(measures, "ask_capabilities", lambda: {"cuda": {"count": 8}})
    zygote = ScriptedZygote(clock, 5.9, cuda="12.8")
    found = measures.measure_ceilings(zygote, 2, budget)  # type: ignore[arg-type]

    measured = [name for name, values in found.items() if values == VALUES]
    assert measured == ["cpu", "cuda 0", "cuda 1"]
    assert [name for name, _ in zygote.asked] == ["cpu", "cuda0", "cuda1", "cuda2"]
    assert list(found) == ["cpu", *(f"cuda {index}" for index in range(8))]
    assert budget.left == pytest.approx(measures.NOISE_SECONDS)
    assert [found[f"cuda {index}"]["reason"] for index in range(3, 8)] == [
        "no time was left for it"
    ] * 5
    for index in range(2, 8):
        assert any(f"cuda {index} " in words for words in budget.cuts)


def test_less_time_samples_for_less_and_says_so(clock: Clock, budget: Budget) -> None:
    """Oracle: by hand: 2 s to spare, a quarter of which is sampled."""
    clock.now += budget.seconds - measures.NOISE_SECONDS - 2.0
    zygote = ScriptedZygote(clock, 1.0)
    found = measures.measure_ceilings(zygote, 2, budget)  # type: ignore[arg-type]

    assert found == {"cpu": VALUES}
    ((_, seconds),) = zygote.asked
    assert seconds == pytest.approx(0.5)
    assert budget.cuts == ["the ceilings of cpu were sampled for 0.5 s in place of 1.2 s"]


def test_ceilings_that_hang_are_broken_off(clock: Clock, budget: Budget) -> None:
    """Oracle: the clock: the noise floor's time is there still, and the reason is told."""
    found = measures.measure_ceilings(ScriptedZygote(clock, 1e6), 2, budget)  # type: ignore[arg-type]

    assert budget.left == pytest.approx(measures.NOISE_SECONDS)
    assert found["cpu"]["reason"] == "they were not done within 19 s"
    assert budget.cuts == ["the ceilings of cpu were broken off after 19 s"]


# --- the noise floor ---


class ScriptedSession:
    """Stands in for DuelSession: replicates take what a script says."""

    def __init__(self, clock: Clock, seconds: list[float], fate: str = "ok") -> None:
        self.clock, self.seconds, self.fate = clock, seconds, fate
        self.limits: list[float] = []

    def begin(self, **given: Any) -> Self:
        self.given, self.timing = given, given["timing"]
        return self

    def replicate(self, number: int) -> Replicate:
        self.limits.append(self.timing["timeout_seconds"])
        self.clock.now += self.seconds[number]
        draw = random.Random(number)
        labels = [arm.label for arm in self.given["declaration"].arms]
        last = number == len(self.seconds) - 1
        return Replicate(
            session="doctor",
            replicate=number,
            seed=1,
            status=self.fate if last else "ok",  # type: ignore[arg-type]
            reason="'A/A' failed: a bug" if last and self.fate != "ok" else "",
            started_utc="t",
            elapsed_seconds=self.seconds[number],
            arms=tuple(ArmRun(arm=label, status="ok", finite=True) for label in labels),
            blocks=tuple(
                Block(
                    round=0,
                    position=position,
                    arm=label,
                    clock_seconds=0.0,
                    steps=10,
                    wall_seconds=math.exp(draw.gauss(0, 0.01)),
                )
                for position, label in enumerate(labels)
            ),
        )


@pytest.fixture
def noise(
    clock: Clock, budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[dict[str, Any], ScriptedSession]]:
    """Measure the noise of scripted replicates, without interpreters and text."""
    monkeypatch.setattr(duelling, "prepare_subject", lambda **_: SUBJECT)
    monkeypatch.setattr(duelling, "prepare_text", lambda *_: {"batches": {}, "evaluation": {}})
    monkeypatch.setattr(duelling, "available_bytes", lambda _: None)

    def measured(*seconds: float, fate: str = "ok") -> tuple[dict[str, Any], ScriptedSession]:
        session = ScriptedSession(clock, list(seconds), fate)
        monkeypatch.setattr(measures, "DuelSession", session.begin)
        return measures.measure_noise(budget), session

    return measured


def test_six_replicates_of_one_round_give_a_floor(
    noise: Callable[..., Any], budget: Budget
) -> None:
    """Oracle: the least that an interval needs; the blocks that ran; nothing is cut."""
    found, session = noise(*[6.5] * 6)

    assert found["finding"]["n"] == 6
    assert found["finding"]["noise_floor"] > 0
    assert len(found["blocks"]) == 2 * 6
    assert found["what"] == "a tiny BERT on the CPU, 6 replicates of 1 round"
    assert session.given["most_warm_seconds"] == measures.SETTINGS.most_warm_seconds
    assert budget.cuts == []


@pytest.mark.parametrize(
    ("before", "seconds", "runs"),
    [
        (0.0, 9.0, 6),  # 54 of 55 s
        (10.0, 9.0, 5),  # 45 s left
        (10.0, 10.0, 4),
        (10.0, 40.0, 1),
        (49.0, 9.0, 1),  # the first one is let begin while its forecast fits
    ],
)
def test_slow_replicates_are_fewer_and_that_is_said(
    noise: Callable[..., Any],
    clock: Clock,
    budget: Budget,
    before: float,
    seconds: float,
    runs: int,
) -> None:
    """Oracle: by hand: another one begins only while the longest so far fits into what is left."""
    clock.now += before
    found, session = noise(*[seconds] * 7)

    assert len(session.limits) == runs == found["finding"]["n"]
    assert session.limits == [55.0 - before - seconds * i for i in range(runs)]
    assert bool(budget.cuts) is (runs < 6)
    if runs < 6:
        assert budget.cuts == [f"the noise floor rests on {runs} of 6 replicates"]
        assert found["finding"]["noise_floor"] is None


def test_a_slow_replicate_among_fast_ones_is_what_is_reckoned_with(
    noise: Callable[..., Any], budget: Budget
) -> None:
    """Oracle: by hand: after 5 + 20 + 5 + 5 s there are 20 left, after one more 15: too few."""
    found, _ = noise(5.0, 20.0, 5.0, 5.0, 5.0, 5.0)

    assert found["finding"]["n"] == 5
    assert budget.left == 15.0


def test_without_time_for_any_replicate_the_reason_is_told(
    noise: Callable[..., Any], clock: Clock
) -> None:
    """Oracle: the forecast of one replicate; what to do stands in the text."""
    clock.now += 50.0
    with pytest.raises(UserError, match=r"no time was left .* 50 of 55 s are spent"):
        noise(5.0)


def test_a_replicate_that_was_cut_off_leaves_those_before_it(
    noise: Callable[..., Any], budget: Budget
) -> None:
    """Oracle: the script: two whole ones, the third ran out of the time that it was given."""
    found, session = noise(8.0, 8.0, 39.0, fate="timed_out")

    assert session.limits[-1] == 39.0
    assert found["finding"]["n"] == 2
    assert budget.cuts == ["the noise floor rests on 2 of 6 replicates"]


def test_identical_arms_that_fail_are_a_reason(noise: Callable[..., Any]) -> None:
    """Oracle: the arm's own words; no further replicate is run."""
    with pytest.raises(UserError, match=r"identical arms failed: .*a bug"):
        noise(6.0, 6.0, fate="failed")
