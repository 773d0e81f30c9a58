"""An arm of a duel: a live trial that runs a block of steps when it is told to, and else sleeps.

Between two commands the process waits in a read of its pipe: nothing of it runs. Each command is a
message ``{"do": ...}``, each answer has the same word as its ``kind``:

- ``warm``: burn-in, a traced step if wanted, then windows of steps until two successive ones agree;
- ``block``: a few discarded steps after the switch, then ``steps`` timed ones under one sync.

The trajectory goes on over warm-up and blocks: every arm is given the same batches in the same
order, the first ones again after the last. How many steps it takes is its own: windows and blocks
last about as long for all arms, so that a faster one takes more (a copy of an arm takes as many a
block as it). The schedule begins anew where it would end within a window or a block, and stays at
its last value in one that is longer than all of it.
"""

from __future__ import annotations

import math
from time import monotonic_ns, perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Any

from bertopt_bench.measure import clock, steadiness
from bertopt_bench.measure.disturbance import Disturbance
from bertopt_bench.measure.imports import prove_imports
from bertopt_bench.measure.torch_build import gpu_state
from bertopt_bench.trial import passes
from bertopt_bench.trial.assemble import assemble
from bertopt_bench.trial.checking import check_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableSequence

    from bertopt_bench.trial.live import Trial

    Send = Callable[[dict[str, Any]], None]
    Receive = Callable[[], dict[str, Any] | None]

ARM_PROTOCOL = 1
"""Raised when commands or answers change: parent and worker may be of two revisions."""


def run_arm(
    request: Mapping[str, Any], send: Send, counter: MutableSequence[int], receive: Receive
) -> None:
    """Assemble the arm and obey until the pipe closes."""
    trial = assemble(request)
    assembled = (monotonic_ns() - request["dispatched_ns"]) / 1e9
    send({"kind": "ready", "protocol": ARM_PROTOCOL, "assemble_seconds": assembled})
    arm = _Arm(trial, request, counter)
    commands = {"warm": arm.warm, "block": arm.block}
    while (command := receive()) is not None:
        send({"kind": command["do"], **commands[command["do"]](command)})
    trial.close()


class _Arm:
    """A trial with what lasts over its blocks."""

    def __init__(
        self, trial: Trial, request: Mapping[str, Any], counter: MutableSequence[int]
    ) -> None:
        self.trial, self.request, self.counter = trial, request, counter
        self.injected_share: float = request["injected_share"]
        self.gpu = gpu_state(trial.device)
        self.disturbance = Disturbance(gpu=self.gpu)
        self.taken = 0
        self.finite = True

    def warm(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Evaluate at the initial weights, burn in, run windows of steps until two agree.

        Where that is asked for (once a duel, or always where memory is compared) kernels are
        checked and a step is traced.
        """
        trial = self.trial
        if command["trace"]:
            check_numbers(trial)
        initial = trial.evaluate().loss
        burn_in = passes.burn_in(trial, self.request["timing"]["burn_in_steps"])
        traced = self._traced() if command["trace"] else {}
        trial.restore()
        trial.step(0)  # makes the optimizer's state anew
        self._drain()
        windows, steady = self._windows(command["window_seconds"], command["most_seconds"])
        return {
            "initial_loss": initial,
            "initial_weights_sha256": trial.initial_weights_sha256,
            "first_step_seconds": burn_in[0],
            "windows": windows,
            "steady": steady,
            "imported": prove_imports(self.request["modules"], self.request["overlay"]),
            **traced,
        }

    def _traced(self) -> dict[str, Any]:
        """Trace a step: which operations ran (a forced kernel among them), and the peak."""
        traced, peak_bytes = passes.trace(self.trial)
        return {"kernels_ran": list(traced.operations), "peak_memory_bytes": peak_bytes}

    def _windows(self, seconds: float, most_seconds: float) -> tuple[list[list[float]], bool]:
        """Run windows of steps until two agree, a GPU's clock too; say whether two did in time."""
        begin = perf_counter()
        estimate = self._window(2)[-1]
        steps = steadiness.steps_for(seconds, estimate, steadiness.LEAST_WINDOW_STEPS)
        windows, clocks = [self._window(steps)], [self._clock_mhz()]
        while len(windows) < steadiness.MOST_WINDOWS and perf_counter() - begin < most_seconds:
            windows.append(self._window(steps))
            clocks.append(self._clock_mhz())
            settled = steadiness.clocks_agree(*clocks[-2:])
            if settled and steadiness.windows_agree(*windows[-2:]):
                return windows, True
        return windows, False

    def _window(self, steps: int) -> list[float]:
        """Run a window of steps and give their seconds."""
        self._make_room(steps)
        return self._steps(steps)

    def _clock_mhz(self) -> float | None:
        """Read the clock of the GPU; None on a processor, or where the GPU does not say."""
        return None if self.gpu is None else self.gpu.sm_clock_mhz()

    def _make_room(self, steps: int) -> None:
        """Let the schedule begin anew where it would end within the next steps."""
        if self.trial.schedule_step + steps > len(self.trial.multipliers):
            self.trial.schedule_step = 0

    def block(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Run discarded steps, then timed ones; the wall time ends with a sync."""
        steps, rewarm = command["steps"], command["rewarm"]
        self._make_room(rewarm + steps)
        self._steps(rewarm)
        timer = clock.step_clock(self.trial.device, steps)
        self.disturbance.start()
        began, start = monotonic_ns(), perf_counter_ns()
        injected = self._timed(timer, steps)
        self.trial.synchronize()
        wall = (perf_counter_ns() - start) / 1e9
        noted = self.disturbance.stop()
        self._drain()
        return {
            "steps": steps,
            "began_ns": began,
            "wall_seconds": wall,
            "injected_seconds": injected,
            "step_seconds": timer.durations_seconds(),
            "disturbance": noted,
            "finite": self.finite,
        }

    def _steps(self, steps: int) -> list[float]:
        """Run steps outside any block and give their seconds."""
        timer = clock.step_clock(self.trial.device, steps)
        self._timed(timer, steps)
        self.trial.synchronize()
        self._drain()
        return timer.durations_seconds()

    def _timed(self, timer: clock.StepClock, steps: int) -> float:
        """Step under a clock; give the seconds by which the arm was slowed on purpose."""
        trial, count, share = self.trial, self.trial.batches.count, self.injected_share
        injected = 0.0
        timer.start()
        for _ in range(steps):
            begin = perf_counter()
            trial.step(self.taken % count)
            self.taken += 1
            if share:
                trial.synchronize()
                injected += _delay(share * (perf_counter() - begin))
            timer.mark()
            self.counter[0] = self.taken
        return injected

    def _drain(self) -> None:
        self.finite = self.finite and all(map(math.isfinite, self.trial.drain()))


def _delay(seconds: float) -> float:
    """Pass time and give how much really passed; a sleep would be too coarse."""
    begin = perf_counter()
    while (passed := perf_counter() - begin) < seconds:
        pass
    return passed
