"""What the command ``profile`` does, from words to lines: cells, tools, traces, what to say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from bertopt_bench.dispatch.preparing import ask_capabilities
from bertopt_bench.dispatch.profiling import plan_profile, run_profiles, run_tool, tool_calls
from bertopt_bench.errors import UserError
from bertopt_bench.matrix.chosen import choose_cells
from bertopt_bench.matrix.modes import is_inference
from bertopt_bench.measure.ncu import read_counted
from bertopt_bench.report.wording import memory
from bertopt_bench.results.profiles import TRACES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bertopt_bench.dispatch.profiling import ProfilePlan
    from bertopt_bench.dispatch.progress import Display
    from bertopt_bench.matrix.chosen import Chosen
    from bertopt_bench.measure.operator_costs import Point
    from bertopt_bench.results.profiles import Profile
    from bertopt_bench.results.store import ResultsFolder

FIRST = 2
MOST_STEPS = 100
"""A step of BERT-base is some 4,000 events: more steps make traces that no viewer opens."""


def read_steps(text: str) -> tuple[int, int]:
    """Read how many steps, or which: give the first one and their number.

    >>> read_steps("3"), read_steps("50-52")
    ((2, 3), (50, 3))

    Raises:
        UserError: neither, too many, or step 1, which makes the optimizer's state.
    """
    first, dash, last = (part.strip() for part in text.partition("-"))
    if not (first.isdecimal() and (last.isdecimal() or not dash)):
        raise UserError(f"--steps is '{text}'; give a number of steps, as 3, or which, as 50-52.")
    begin, count = (int(first), int(last) - int(first) + 1) if dash else (FIRST, int(first))
    if not 1 <= count <= MOST_STEPS:
        raise UserError(f"--steps is {text}: {count} steps; allowed are 1 to {MOST_STEPS}.")
    if begin < FIRST:
        raise UserError(
            f"--steps is {text}; step 1 makes the optimizer's state and is never profiled. Begin "
            f"with step {FIRST}."
        )
    return begin, count


def _check_length(chosen: Chosen, last: int) -> None:
    for cell in chosen.cells:
        trained = cell.content["workload"]["steps"]
        if last > trained:
            raise UserError(
                f"--steps ends at step {last}, and '{cell.label}' trains {trained}. Take earlier "
                f"ones, or --set workload.steps={last}."
            )


@dataclass(frozen=True, slots=True)
class Asked:
    """What to profile on this machine: cells, steps, and what ncu counted of each cell before."""

    chosen: Chosen
    first: int
    steps: int
    tools: tuple[str, ...]
    counted: tuple[tuple[Point, ...], ...]

    @classmethod
    def read(
        cls,
        matrix_file: Path | str,
        cells: Sequence[str],
        *,
        steps: int | str,
        tools: Sequence[str] = (),
        ncu_csv: Sequence[Path] = (),
        overrides: Sequence[str] = (),
    ) -> Self:
        """Read cells and files; mistakes are told at once, before torch is loaded.

        Raises:
            UserError: no such cell, two alike, one that cannot run here, too few or many steps,
                ncu where nothing runs on a GPU, or a CSV that is none of ncu's.
        """
        first, count = read_steps(str(steps))
        choose = partial(choose_cells, matrix_file, cells, overrides=overrides)
        named = choose()
        forward = next((one for one in named.cells if is_inference(one.content)), None)
        if forward is not None:
            raise UserError(
                f"'{forward.label}' runs forward only (its mode is inference), and profile traces "
                "training steps. Give --set workload.mode=training."
            )
        if "-" in str(steps):  # a plain number of steps goes round a shorter training
            _check_length(named, first + count - 1)
        on_cpu = next((c for c in named.cells if c.content["device"]["name"] == "cpu"), None)
        if "ncu" in tools and on_cpu is not None:
            raise UserError(
                f"--ncu counts what the kernels of a GPU do, and '{on_cpu.label}' runs on the CPU. "
                "Leave --ncu out, or name cells of device=cuda."
            )
        if len(ncu_csv) > len(named.cells):
            raise UserError(
                f"{len(ncu_csv)} files were given with --ncu-csv for {len(named.cells)} cells; "
                "give at most one a cell, in the order of --cell."
            )
        counted = tuple(tuple(read_counted(file, count)) for file in ncu_csv)
        return cls(choose(capabilities=ask_capabilities()), first, count, tuple(tools), counted)

    def run(
        self, store: ResultsFolder, display: Display, say: Callable[[str], None]
    ) -> list[Profile]:
        """Profile the cells into a folder, under NVIDIA's tools first where they were asked for."""
        plan = plan_profile(self.chosen, self.first, self.steps, display)
        counted = list(self.counted)
        for tool in self.tools:
            for index, points in enumerate(_under_tool(plan, tool, store.path, say)):
                if points and index >= len(self.counted):
                    counted += [()] * (index + 1 - len(counted))
                    counted[index] = points
        return run_profiles(plan, store, display, counted)


def _under_tool(
    plan: ProfilePlan, tool: str, folder: Path, say: Callable[[str], None]
) -> list[tuple[Point, ...]]:
    """Run a tool over each cell, or say how it would be; give what ncu counted."""
    counted: list[tuple[Point, ...]] = []
    for call in tool_calls(plan, tool, folder):
        if not call.runnable:
            say(f"{tool} is not on PATH, so it was not run. The command:\n  {call.text}")
            continue
        run_tool(call)
        say(f"{tool}: {call.output}")
        if tool == "ncu":
            counted.append(_counted(call.output, plan.steps, say))
    return counted


def _counted(file: Path, steps: int, say: Callable[[str], None]) -> tuple[Point, ...]:
    """Read what ncu left; where that is no use, the profile goes on without it."""
    try:
        return tuple(read_counted(file, steps))
    except UserError as error:
        say(f"ncu counted nothing that can be used: {error}")
        return ()


def told(profiles: Sequence[Profile], notes: Sequence[str], folder: Path) -> tuple[list[str], bool]:
    """Give the lines that a profile ends with, and whether any cell was traced."""
    traced = any(one.tables for one in profiles)
    lines = [*notes, *(line for one in profiles for line in lines_about(one, folder))]
    return [*lines, *(how_to_open(folder) if traced else [])], traced


def lines_about(profile: Profile, folder: Path) -> list[str]:
    """Say in a few lines what a profile found, or why there is none."""
    tables = profile.tables
    if tables is None or profile.trace_file is None or profile.trace_bytes is None:
        return [f"{profile.label}: {profile.status}: {profile.reason}"]
    return [
        f"{profile.label}: {profile.which} traced",
        f"  trace: {folder / profile.trace_file} ({memory(profile.trace_bytes)})",
    ]


def how_to_open(folder: Path) -> list[str]:
    """Say how the traces are looked at without the page."""
    return [
        "open a trace offline: chrome://tracing in Chromium, 'Load' (reads .json.gz)",
        "or https://ui.perfetto.dev, which reads the file in the browser and sends it nowhere",
        f"TensorBoard: pip install '.[tensorboard]' && tensorboard --logdir {folder / TRACES}",
    ]
