"""An arm of a duel, real and tiny: what it answers, and that it computes what a trial computes."""

from __future__ import annotations

import math
import os
import sys
from functools import partial
from itertools import count
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import pytest
import torch

from bertopt_bench.dispatch.duel import PROTOCOL
from bertopt_bench.dispatch.local import Zygote
from bertopt_bench.measure import clock
from bertopt_bench.results.duels import ArmRun, Block
from bertopt_bench.trial import arm as arm_module
from bertopt_bench.trial import passes
from bertopt_bench.trial.arm import run_arm
from bertopt_bench.trial.assemble import assemble
from bertopt_bench.trial.live import Trial
from bertopt_bench.trial.worker import run_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MakeRequest = Callable[..., dict[str, Any]]

WARM = {"do": "warm", "trace": True, "window_seconds": 0.001, "most_seconds": 0.05}
BLOCK = {"do": "block", "steps": 4, "rewarm": 1}


def arm_request(make_request: MakeRequest, share: float = 0.0, **axes: Any) -> dict[str, Any]:
    return {**make_request(**axes), "injected_share": share, "modules": [], "overlay": []}


def obey(request: dict[str, Any], *commands: dict[str, Any]) -> list[dict[str, Any]]:
    """Let an arm obey commands in this process; give its answers."""
    said: list[dict[str, Any]] = []
    orders = iter([*commands, None])
    run_arm({**request, "dispatched_ns": monotonic_ns()}, said.append, [0], partial(next, orders))
    return said


def test_an_arm_answers_each_command_with_what_the_engine_stores(make_request: MakeRequest) -> None:
    """Oracle: the stored models take the answers as they are; a kind for each command."""
    said = obey(arm_request(make_request), WARM, BLOCK, BLOCK)

    assert [one["kind"] for one in said] == ["ready", "warm", "block", "block"]
    assert said[0]["protocol"] == PROTOCOL
    warm, block = said[1], said[2]
    run = ArmRun(
        arm="a",
        status="ok",
        warm_windows=warm["windows"],
        **{
            key: warm[key]
            for key in ("imported", "steady", "peak_memory_bytes", "kernels_ran", "initial_loss",
                        "initial_weights_sha256")
        },
    )  # fmt: skip
    assert run.kernels_ran
    assert "bertopt_bench" in run.imported["modules"]
    stored = Block(
        round=0,
        position=0,
        arm="a",
        clock_seconds=block["began_ns"] / 1e9,
        **{
            key: block[key]
            for key in ("steps", "wall_seconds", "injected_seconds", "step_seconds", "disturbance")
        },
    )
    assert (stored.steps, len(stored.step_seconds)) == (4, 4)
    assert stored.injected_seconds == 0.0
    assert sum(stored.step_seconds) <= stored.wall_seconds
    assert block["finite"] is True


def test_the_first_answer_is_of_the_untrained_model(make_request: MakeRequest) -> None:
    """Oracle: an assembled trial's own evaluation and hash; near ln(vocabulary) by theory."""
    request = arm_request(make_request)
    trial, warm = assemble(request), obey(request, WARM)[1]

    assert warm["initial_loss"] == trial.evaluate().loss
    assert warm["initial_weights_sha256"] == trial.initial_weights_sha256
    assert warm["initial_loss"] == pytest.approx(math.log(64), rel=0.05)


def test_an_arm_that_need_not_trace_says_nothing_of_it(make_request: MakeRequest) -> None:
    """Oracle: the fields of a trace are absent, not wrong."""
    warm = obey(arm_request(make_request), {**WARM, "trace": False})[1]

    assert not {"peak_memory_bytes", "kernels_ran"} & warm.keys()


def test_windows_last_as_long_as_asked_and_stop_where_two_agree(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: step seconds as a script gives them: two unlike windows, then one like the second."""
    seconds = [1.0] * 2 + [3.0] * 5 + [2.0] * 5 + [2.02] * 5

    def scripted(self: Any, steps: int) -> list[float]:
        taken, seconds[:steps] = seconds[:steps], []
        return taken

    monkeypatch.setattr(arm_module._Arm, "_steps", scripted)
    command = {**WARM, "window_seconds": 4.5, "most_seconds": 60.0}
    warm = obey(arm_request(make_request), command)[1]

    assert warm["windows"] == [[3.0] * 5, [2.0] * 5, [2.02] * 5]
    assert warm["steady"] is True


def test_windows_that_never_agree_end_at_their_number_or_their_time(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the protocol's 50 windows; a limit of no time leaves one window."""
    growing = count(1)
    monkeypatch.setattr(arm_module._Arm, "_steps", lambda _, steps: [1.5 ** next(growing)] * steps)
    request = arm_request(make_request)
    told = [obey(request, {**WARM, "most_seconds": limit})[1] for limit in (3600.0, 0.0)]

    assert [len(one["windows"]) for one in told] == [50, 1]
    assert [one["steady"] for one in told] == [False, False]


def test_two_arms_that_obey_the_same_commands_are_equal_bit_for_bit(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: each other, over warm-up, blocks and a schedule that begins anew; dropout on."""
    drained: list[float] = []
    plain = Trial.drain

    def noted(self: Trial) -> list[float]:
        losses = plain(self)
        drained.extend(losses)
        return losses

    monkeypatch.setattr(Trial, "drain", noted)
    monkeypatch.setattr(arm_module.steadiness, "windows_agree", lambda *_: True)
    request = arm_request(make_request, regularizer=["dropout"])
    steps = {**WARM, "window_seconds": 1e-9, "most_seconds": 60.0}  # five steps a window
    trajectories = []
    for _ in range(2):
        obey(request, steps, BLOCK, BLOCK, {**BLOCK, "steps": 3})
        trajectories.append(tuple(drained))
        drained.clear()

    assert trajectories[0] == trajectories[1]
    # First the restored trial's own step, two windows with two steps before, then the blocks.
    assert len(trajectories[0]) >= 1 + 2 + 10 + 14
    assert len(set(trajectories[0])) > 20


def test_a_slowed_arm_computes_what_its_baseline_computes(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the baseline's losses, bit for bit: the delay is time and nothing else."""
    drained: list[float] = []
    plain = Trial.drain
    monkeypatch.setattr(
        Trial, "drain", lambda self: drained.extend(losses := plain(self)) or losses
    )
    monkeypatch.setattr(arm_module.steadiness, "windows_agree", lambda *_: True)
    seen = []
    for share in (0.0, 0.5):
        obey(
            arm_request(make_request, share),
            {**WARM, "window_seconds": 1e-9, "most_seconds": 60.0},
            BLOCK,
        )
        seen.append(tuple(drained))
        drained.clear()

    assert seen[0] == seen[1]


def test_the_injected_share_is_of_the_arms_own_steps(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a scripted clock: steps of 10 ms, and the share of each put in after it, to 1 %.

    Each look at the clock takes a microsecond, so that the delay's loop gets on.
    """
    now = [0]

    def look_ns() -> int:
        now[0] += 1_000
        return now[0]

    def step(_: Trial, _index: int) -> None:
        now[0] += 10_000_000

    monkeypatch.setattr(arm_module, "perf_counter", lambda: look_ns() / 1e9)
    monkeypatch.setattr(arm_module, "perf_counter_ns", look_ns)
    monkeypatch.setattr(
        arm_module.clock, "step_clock", lambda _, steps: clock.HostClock(steps, now=look_ns)
    )
    for share in (0.05, 0.25, 1.0):
        request = arm_request(make_request, share)
        trial = assemble(request)
        arm = arm_module._Arm(trial, request, [0])
        with monkeypatch.context() as patch:
            patch.setattr(Trial, "step", step)
            block = arm.block({**BLOCK, "steps": 20})
        own = block["wall_seconds"] - block["injected_seconds"]
        assert own == pytest.approx(20 * 0.010, rel=0.01)
        assert block["injected_seconds"] / own == pytest.approx(share, rel=0.01)
        assert block["step_seconds"] == pytest.approx([0.010 * (1 + share)] * 20, rel=0.01)
        trial.close()


NAN = '''
import torch


class Nan(torch.optim.SGD):
    """Makes every weight NaN from its 26th step on."""

    def __init__(self, groups, lr: float = 0.1):
        super().__init__(groups, lr=lr)
        self.count = 0

    def step(self, closure=None):
        super().step(closure)
        self.count += 1
        if self.count > 25:
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.fill_(float("nan"))
'''


def test_an_arm_whose_losses_are_no_numbers_says_so_for_good(
    make_request: MakeRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: an optimizer that writes NaN after 25 steps: numerics fail in the timed run."""
    (tmp_path / "own_nan.py").write_text(NAN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)  # entries from outside are looked at in a child that starts here
    request = arm_request(make_request, optimizer="own_nan:Nan")
    monkeypatch.setattr(arm_module.steadiness, "windows_agree", lambda *_: True)
    said = obey(
        request,
        {**WARM, "window_seconds": 1e-9, "most_seconds": 60.0},
        *[{**BLOCK, "steps": 8}] * 4,
    )

    assert [one["finite"] for one in said[2:]] == [True, False, False, False]


def test_a_schedule_begins_anew_where_it_would_end_within_a_block(
    make_request: MakeRequest,
) -> None:
    """Oracle: the schedule's place after each block, by hand; never past its end while it fits."""
    trial = assemble(arm_request(make_request))
    arm = arm_module._Arm(trial, arm_request(make_request), [0])
    last = len(trial.multipliers)
    places = []
    for _ in range(4):
        arm.block({"steps": 3, "rewarm": 1})
        places.append(trial.schedule_step)

    assert last in {6, 7}
    assert places == [4, 4, 4, 4]
    arm.block({"steps": 2, "rewarm": 0})
    assert trial.schedule_step == 6
    trial.close()


def test_an_unknown_command_is_a_failure_that_names_it(make_request: MakeRequest) -> None:
    """Oracle: the worker's rule: whatever goes wrong becomes a message with a reason."""
    said: list[dict[str, Any]] = []
    orders = iter([{"do": "dance"}, None])
    request = {**arm_request(make_request), "threads": 1}
    run_task("arm", request, said.append, [0], partial(next, orders))

    assert [one["kind"] for one in said] == ["ready", "failure"]
    assert "dance" in said[1]["reason"]


def test_a_kernel_that_did_not_run_fails_the_arm(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the trace's own error, which names what ran."""

    def mismatch(*_: Any) -> None:
        raise passes.KernelMismatchError("kernel.attention was forced, but nothing ran")

    monkeypatch.setattr(passes, "check_kernels", mismatch)
    said: list[dict[str, Any]] = []
    orders = iter([WARM, None])
    run_task("arm", arm_request(make_request), said.append, [0], partial(next, orders))

    assert said[-1]["kind"] == "failure"
    assert "was forced" in said[-1]["reason"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_an_idle_arm_waits_in_its_pipe_and_uses_no_processor(make_request: MakeRequest) -> None:
    """Oracle: the kernel: the state of every thread, and the CPU time of an arm that is not asked.

    Both arms are alive; while one runs blocks, the other's clock ticks must stand still.
    """
    request = arm_request(make_request)

    def ticks(pid: int | None) -> tuple[str, int]:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return words[0], int(words[11]) + int(words[12])

    before = Path.cwd()
    with Zygote(threads=1, wait_policy="passive") as zygote:
        idle, busy = (zygote.fork("arm", request) for _ in range(2))
        try:
            for child in (idle, busy):
                assert child.hear(60) is not None
                assert child.ask({**WARM, "trace": False}, 60) is not None
            start = ticks(idle.pid)
            work = ticks(busy.pid)[1]
            for _ in range(20):
                assert busy.ask({**BLOCK, "steps": 50}, 60) is not None
            assert ticks(busy.pid)[1] > work + 5
            state, spent = ticks(idle.pid)
            assert state == "S"
            assert spent <= start[1] + 1
            tasks = list(Path(f"/proc/{idle.pid}/task").iterdir())
            states = {(t / "stat").read_text().rpartition(")")[2].split()[0] for t in tasks}
            assert states == {"S"}
            answer = idle.ask(BLOCK, 60)
            assert answer is not None
            assert answer["finite"]
        finally:
            idle.close()
            busy.close()
    assert Path.cwd() == before
    assert torch.get_num_threads() == 1
    for child in (idle, busy):
        with pytest.raises(ProcessLookupError):
            os.kill(child.pid or 0, 0)


def test_losses_that_were_no_numbers_once_are_remembered(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a script of drained losses: one NaN before the timed blocks, none in them."""
    monkeypatch.setattr(arm_module.steadiness, "windows_agree", lambda *_: True)
    script = iter([[math.inf]])
    monkeypatch.setattr(Trial, "drain", lambda _: next(script, [1.0]))
    monkeypatch.setattr(passes, "burn_in", lambda *_: [0.1])
    said = obey(arm_request(make_request), {**WARM, "trace": False}, BLOCK, BLOCK)

    assert [one["finite"] for one in said[2:]] == [False, False]


def test_the_trajectory_begins_at_the_initial_weights(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a fresh trial's first loss: burn-in and trace leave no mark."""
    request = arm_request(make_request, regularizer=["dropout"])
    fresh = assemble(request)
    fresh.step(0)
    drained: list[list[float]] = []
    plain = Trial.drain
    monkeypatch.setattr(Trial, "drain", lambda self: drained.append(plain(self)) or drained[-1])
    monkeypatch.setattr(arm_module._Arm, "_windows", lambda *_: ([], True))
    obey(request, WARM)

    assert drained[-1] == plain(fresh)


class Meter:
    """Stands in for a GPU's meter: its clock after each window, as a script says."""

    def __init__(self, clocks: Iterator[float | None]) -> None:
        self.clocks = clocks

    def sm_clock_mhz(self) -> float | None:
        return next(self.clocks)


@pytest.mark.parametrize(
    ("clocks", "windows", "steady"),
    [
        ([1000.0, 1500.0, 1700.0, 1730.0], 4, True),
        ([1900.0, 1700.0, 1660.0], 3, True),  # a hot GPU slows down
        ([1700.0, 1700.0], 2, True),
        ([None, None], 2, True),  # NVML does not say
        ([100.0 * 1.1**n for n in range(50)], 50, False),
    ],
)
def test_warm_up_waits_until_the_gpus_clock_has_settled(
    make_request: MakeRequest,
    monkeypatch: pytest.MonkeyPatch,
    clocks: list[float | None],
    windows: int,
    steady: bool,
) -> None:
    """Oracle: the protocol: SM clocks within 3 %; the windows' times agree from the first on."""
    devices: list[Any] = []
    monkeypatch.setattr(
        arm_module, "gpu_state", lambda device: devices.append(device) or Meter(iter(clocks))
    )
    monkeypatch.setattr(arm_module._Arm, "_steps", lambda _, steps: [0.1] * steps)
    command = {**WARM, "trace": False, "most_seconds": 3600.0}
    warm = obey(arm_request(make_request), command)[1]

    assert (len(warm["windows"]), warm["steady"]) == (windows, steady)
    assert [device.type for device in devices] == ["cpu"]


def test_on_a_processor_no_clock_is_asked_for(make_request: MakeRequest) -> None:
    """Oracle: there is no meter, and the rule takes None as nothing known."""
    trial = assemble(arm_request(make_request))
    arm = arm_module._Arm(trial, arm_request(make_request), [0])

    assert arm.gpu is None
    assert arm._clock_mhz() is None
    trial.close()


def test_a_schedule_begins_anew_where_it_would_end_within_a_window(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the schedule's own length, which four windows of five steps exceed."""
    places: list[int] = []
    plain = Trial.update

    def noted(self: Trial) -> None:
        places.append(self.schedule_step)
        plain(self)

    monkeypatch.setattr(Trial, "update", noted)
    monkeypatch.setattr(arm_module.steadiness, "MOST_WINDOWS", 4)
    monkeypatch.setattr(arm_module.steadiness, "windows_agree", lambda *_: False)
    trial = assemble(arm_request(make_request))
    arm = arm_module._Arm(trial, arm_request(make_request), [0])
    arm._windows(1e-9, 3600.0)

    assert len(places) == 2 + 4 * 5 > len(trial.multipliers)
    assert max(places) < len(trial.multipliers)
    assert places[-5:] == [0, 1, 2, 3, 4]
    trial.close()
