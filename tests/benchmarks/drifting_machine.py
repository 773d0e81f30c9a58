"""Simulate duels of identical code on a machine that drifts, and write them as a results folder.

Log step time = Ornstein-Uhlenbeck drift of the machine (sd 10 %, time constant in steps) + AR(1)
noise of 3 % + one step in fifty 1.5 times as long + an effect of the process (sd 2 %). Both arms of
a round run one after the other in a drawn order, so that they share the drift.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bertopt_bench.results.duels import (
    CONTROL,
    ArmRun,
    Block,
    Declaration,
    DeclaredArm,
    Replicate,
)
from bertopt_bench.results.store import ResultsFolder

if TYPE_CHECKING:
    from pathlib import Path

BASELINE = "adamw"
STEP_SECONDS = 0.05
NOISE, CARRIED = 0.03, 0.5  # of the AR(1) process: standard deviation, correlation of neighbours


class Machine:
    """Draws step times; the drift goes on from one process to the next."""

    def __init__(
        self, seed: int, *, drift: float = 0.10, tau_steps: float = 400.0, process: float = 0.02
    ) -> None:
        self.draw = np.random.default_rng(seed)
        self.drift, self.keep, self.process = drift, math.exp(-1 / tau_steps), process
        self.level = self.draw.normal(0.0, drift)
        self.noise = 0.0
        self.clock = 0.0

    def new_process(self) -> float:
        """Draw what a process adds to each of its log step times."""
        return float(self.draw.normal(0.0, self.process))

    def step(self, effect: float) -> float:
        """Draw one step's seconds."""
        fresh = math.sqrt(1 - self.keep**2) * self.drift
        self.level = self.keep * self.level + self.draw.normal(0.0, fresh)
        self.noise = CARRIED * self.noise + self.draw.normal(0.0, NOISE * math.sqrt(1 - CARRIED**2))
        spike = math.log(1.5) if self.draw.random() < 0.02 else 0.0
        seconds = STEP_SECONDS * math.exp(self.level + self.noise + effect + spike)
        self.clock += seconds
        return float(seconds)


def replicate(
    machine: Machine, session: str, number: int, *, rounds: int, steps: int, slower: float = 0.0
) -> Replicate:
    """Run one fresh process of each arm; ``slower`` is the control's log slow-down."""
    effects = {BASELINE: machine.new_process(), CONTROL: machine.new_process() + slower}
    blocks, start = [], machine.clock
    for turn in range(rounds):
        for position, arm in enumerate(machine.draw.permutation(list(effects))):
            began = machine.clock
            seconds = tuple(machine.step(effects[arm]) for _ in range(steps))
            blocks.append(
                Block(
                    round=turn,
                    position=position,
                    arm=str(arm),
                    clock_seconds=began,
                    steps=steps,
                    wall_seconds=math.fsum(seconds),
                    step_seconds=seconds,
                )
            )
    return Replicate(
        session=session,
        replicate=number,
        seed=1,
        status="ok",
        started_utc="2026-11-25T00:00:00+00:00",
        elapsed_seconds=machine.clock - start,
        start_order=tuple(effects),
        arms=tuple(ArmRun(arm=arm, status="ok", finite=True) for arm in effects),
        blocks=tuple(blocks),
    )


def declaration(replicates: int) -> Declaration:
    """Declare the A/A pair."""
    arms = (
        DeclaredArm(label=BASELINE, role="baseline", cell_id="0" * 12, cell={}),
        DeclaredArm(label=CONTROL, role="control", cell_id="0" * 12, cell={}),
    )
    return Declaration(
        name="simulated",
        arms=arms,
        comparisons=((BASELINE, CONTROL),),
        metrics=("step_time",),
        alpha=0.01,
        family_error=0.05,
        margins={"step_time": 0.0},
        looks=(replicates,),
        purpose="calibration",
    )


def write_duels(
    path: Path,
    *,
    seed: int,
    sessions: int,
    replicates: int = 12,
    rounds: int = 6,
    steps: int = 10,
    tau_steps: float = 400.0,
    slower: float = 0.0,
) -> Path:
    """Write a results folder of duels, each on a machine of its own."""
    with ResultsFolder(path) as folder:
        for index in range(sessions):
            name = f"2026-11-25T00-{index // 60:02}-{index % 60:02}Z-0000"
            folder.start_session(
                {
                    "session": name,
                    "matrix": {"name": "simulated", "digest": "0123456789abcdef"},
                    "code": {"version": "0.1.0"},
                    "order_seed": seed,
                    "declared": {"duel": declaration(replicates).model_dump(mode="json")},
                }
            )
            machine = Machine(1000 * seed + index, tau_steps=tau_steps)
            for number in range(replicates):
                folder.append_replicate(
                    replicate(machine, name, number, rounds=rounds, steps=steps, slower=slower)
                )
    return path
