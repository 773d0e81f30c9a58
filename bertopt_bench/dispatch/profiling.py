"""One session of `profile`: each cell in a child of its own, traced, summed up, kept.

NVIDIA's tools follow programs that were started, so for them a request is written down and run by
``bertopt_bench.trial.ranged``.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.dispatch.local import Zygote, trial_threads
from bertopt_bench.dispatch.opening import first_line
from bertopt_bench.dispatch.outcomes import ending
from bertopt_bench.dispatch.running import prepare_texts
from bertopt_bench.dispatch.sessions import (
    CEILING_TIMEOUT_SECONDS,
    ceilings_request,
    packages_of,
    trial_request,
    utc_now,
)
from bertopt_bench.errors import UserError
from bertopt_bench.matrix.cells import TrialPlan
from bertopt_bench.measure.ncu import METRICS
from bertopt_bench.measure.provenance import package_code
from bertopt_bench.measure.trace_tables import tabulate_trace
from bertopt_bench.measure.traces import mend, parse_trace, read_trace, write_trace
from bertopt_bench.results.profiles import Profile, append_profile, trace_place, worker_name
from bertopt_bench.results.store import told
from bertopt_bench.workload.cache import cache_root

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.dispatch.progress import Display
    from bertopt_bench.matrix.cells import Cell
    from bertopt_bench.matrix.chosen import Chosen
    from bertopt_bench.measure.operator_costs import Point
    from bertopt_bench.results.store import ResultsFolder

TOOLS = ("nsys", "ncu")


@dataclass(frozen=True, slots=True)
class ProfilePlan:
    """What to profile, and all that its children need."""

    chosen: Chosen
    first: int
    steps: int
    requests: tuple[Mapping[str, Any], ...]
    threads: int


def plan_profile(chosen: Chosen, first: int, steps: int, display: Display) -> ProfilePlan:
    """Prepare the text of the cells and write their requests: so many steps from the first one on.

    Raises:
        UserError: the text cannot be had.
    """
    matrix, threads = chosen.matrix, trial_threads()
    texts = prepare_texts(matrix, chosen.cells, display)
    requests = tuple(
        {
            **trial_request(
                cell.content,
                texts[cell.id],
                seed=matrix.seeds[0],
                steps=cell.content["workload"]["steps"],
                timing=matrix.timing,
                threads=threads,
            ),
            "first_profiled_step": first,
            "profiled_steps": steps,
        }
        for cell in chosen.cells
    )
    return ProfilePlan(chosen, first, steps, requests, threads)


def run_profiles(
    plan: ProfilePlan,
    store: ResultsFolder,
    display: Display,
    counted: Sequence[Sequence[Point]] = (),
) -> list[Profile]:
    """Profile each cell and keep what came out, whatever it was; ``counted`` has a list a cell."""
    session = store.start_session(_describe(plan))
    profiles = []
    cells = plan.chosen.cells
    for index, (cell, request) in enumerate(zip(cells, plan.requests, strict=True)):
        trial = TrialPlan(cell, request["seed"], 0, request["steps"])
        display.begin(index + 1, len(cells), cell.label, plan.steps)
        with Zygote(threads=plan.threads, preload=packages_of([trial])) as zygote:
            if index == 0:
                _ceilings(zygote, cell, store, session, plan.threads)
            fields = _profiled(zygote, cell, request, store.path, session, display)
        points = tuple(counted[index]) if index < len(counted) else ()
        profile = Profile(
            session=session,
            cell_id=cell.id,
            cell=dict(cell.content),
            label=cell.label,
            seed=request["seed"],
            first_step=plan.first,
            profiled_steps=plan.steps,
            counted=points,
            **fields,
        )
        append_profile(store.path, profile)
        display.end(profile.status, f": {profile.reason}" if profile.reason else "")
        profiles.append(profile)
    ends = {"profiled": sum(profile.status == "ok" for profile in profiles)}
    store.append_session_event(
        {"kind": "end", "session": session, "at_utc": utc_now(), "counts": ends}
    )
    return profiles


def _profiled(
    zygote: Zygote,
    cell: Cell,
    request: Mapping[str, Any],
    folder: Path,
    session: str,
    display: Display,
) -> dict[str, Any]:
    """Run the child, keep its trace, and give the profile's fields."""
    started, began = utc_now(), time.monotonic()
    limit = request["timing"]["timeout_seconds"]
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "trace.json"
        outcome = zygote.run(
            "profile",
            {**request, "trace_file": str(raw)},
            timeout_seconds=limit,
            tick=display.tick,
        )
        fields: dict[str, Any] = {"started_utc": started, **ending(outcome, limit)}
        if fields["status"] == "ok" and outcome.final is not None:
            seen = outcome.final
            keys = ("resident_bytes", "modules_marked", "kernels_ran")
            fields |= {key: seen[key] for key in keys}
            fields |= _kept(raw, cell, folder, session, seen["resident_bytes"])
    return {**fields, "elapsed_seconds": time.monotonic() - began}


def _kept(raw: Path, cell: Cell, folder: Path, session: str, resident_bytes: int) -> dict[str, Any]:
    worker = worker_name(cell.label, cell.id)
    place = trace_place(folder, session, worker, round(time.time() * 1000))
    document = mend(read_trace(raw), place.name.removesuffix(".gz"))
    with told(place):
        size = write_trace(document, place)
    return {
        "trace_file": str(place.relative_to(folder)),
        "trace_bytes": size,
        "tables": tabulate_trace(parse_trace(document), resident_bytes),
    }


def _ceilings(zygote: Zygote, cell: Cell, store: ResultsFolder, session: str, threads: int) -> None:
    """Measure the roofline's roofs once, right before the steps that stand under them."""
    device = dict(cell.content["device"])
    request = ceilings_request(device, threads, {cell.content["precision"]["name"]})
    outcome = zygote.run("ceilings", request, timeout_seconds=CEILING_TIMEOUT_SECONDS)
    if outcome.final is not None and outcome.final["kind"] == "result":
        store.append_session_event(
            {
                "kind": "ceilings",
                "session": session,
                "at_utc": utc_now(),
                "device": device,
                "values": outcome.final["values"],
                "torch": zygote.description["torch_build"],
            }
        )


def _describe(plan: ProfilePlan) -> dict[str, Any]:
    """Give the session's first line."""
    matrix = plan.chosen.matrix
    return first_line(
        matrix,
        code=package_code(),
        order_seed=0,  # nothing is drawn: cells are profiled in the order they were named
        declared={
            "profile": {
                "cells": {cell.id: cell.label for cell in plan.chosen.cells},
                "first_step": plan.first,
                "steps": plan.steps,
                "seed": matrix.seeds[0],
            },
            "timing": dict(matrix.timing),
            "threads": plan.threads,
        },
    )


# --- NVIDIA's tools ---


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A command line that puts a cell's steps under a tool, and the file it leaves."""

    tool: str
    command: tuple[str, ...]
    output: Path

    @property
    def text(self) -> str:
        """Write it for a shell."""
        return shlex.join(self.command)

    @property
    def runnable(self) -> bool:
        """Say whether the tool is on PATH."""
        return shutil.which(self.tool) is not None


def tool_calls(plan: ProfilePlan, tool: str, folder: Path) -> list[ToolCall]:
    """Write each cell's request down and give the command that runs it under ``nsys`` or ``ncu``.

    The folder that the tool writes into is made, so that the command runs as it is printed.

    Raises:
        UserError: the cache or the folder cannot be written.
    """
    calls = []
    with told(folder / tool):
        (folder / tool).mkdir(parents=True, exist_ok=True)
    for cell, request in zip(plan.chosen.cells, plan.requests, strict=True):
        text = json.dumps(request, sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        file = cache_root() / "profile" / f"{name}.json"
        with told(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        worker = worker_name(cell.label, cell.id)
        output = folder / tool / (f"{worker}.csv" if tool == "ncu" else worker)
        steps = [sys.executable, "-m", "bertopt_bench.trial.ranged", str(file)]
        on_cuda = cell.content["device"]["name"] == "cuda"
        calls.append(ToolCall(tool, (*_prefix(tool, output, on_cuda=on_cuda), *steps), output))
    return calls


def _prefix(tool: str, output: Path, *, on_cuda: bool) -> list[str]:
    if tool == "nsys":
        # Without CUDA nothing calls its profiler API, and a range that waits for it never opens.
        range_ = ["--capture-range=cudaProfilerApi", "--capture-range-end=stop"] if on_cuda else []
        return [
            "nsys", "profile", "--trace=cuda,nvtx,osrt", *range_, "--force-overwrite=true",
            f"--output={output}",
        ]  # fmt: skip
    return [
        "ncu", "--csv", "--print-units", "base", "--nvtx", "--profile-from-start", "off",
        "--target-processes", "all", "--metrics", ",".join(METRICS), "--log-file", str(output),
    ]  # fmt: skip


def run_tool(call: ToolCall) -> None:
    """Run the command.

    Raises:
        UserError: the tool failed.
    """
    done = subprocess.run(call.command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (f"{done.stdout}\n{done.stderr}".strip().splitlines() or ["it printed nothing"])[-1]
        raise UserError(
            f"{call.tool} ended with {done.returncode}: {last}. Run it by hand:\n  {call.text}"
        )
