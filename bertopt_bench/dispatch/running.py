"""One session of `run`: probe, prepare, order, run what is missing or stale, close."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from bertopt_bench.dispatch.local import Zygote, trial_threads
from bertopt_bench.dispatch.opening import first_line
from bertopt_bench.dispatch.outcomes import ending
from bertopt_bench.dispatch.preparing import ask_capabilities, prepare_text
from bertopt_bench.dispatch.sessions import SessionRun, trial_request, utc_now
from bertopt_bench.matrix.cells import expand, plan_trials
from bertopt_bench.matrix.forecast import fitting, known_texts
from bertopt_bench.matrix.identity import canonical_json
from bertopt_bench.matrix.labels import drawn_from
from bertopt_bench.measure.machine import describe_machine
from bertopt_bench.measure.provenance import package_code

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.dispatch.progress import Display
    from bertopt_bench.matrix.cells import Cell
    from bertopt_bench.matrix.spec import Matrix
    from bertopt_bench.results.pending import Pending
    from bertopt_bench.results.store import ResultsFolder

    Texts = dict[str, Mapping[str, Any]]


def run_session(
    matrix: Matrix, store: ResultsFolder, display: Display, most_bytes: int | None = None
) -> dict[str, int]:
    """Run what is missing or stale; give the number of trials by how they ended.

    Cells whose forecast of allocated bytes is above `most_bytes` are skipped.
    """
    for warning in store.warnings:
        display.say(f"warning: {warning}")
    display.working("looking at this machine", 0, 0)
    capabilities = ask_capabilities()
    cells = expand(matrix, capabilities)
    texts = prepare_texts(matrix, cells, display)
    known_of = known_texts(cells)
    cells = fitting(cells, most_bytes, known_of)
    code = package_code()
    order_seed = secrets.randbelow(2**32)
    pending = store.pending(plan_trials(cells, matrix, order_seed), code, texts)
    if pending.plans and matrix.skip_slower_precisions:
        display.working("timing the precisions against fp32", 0, 0)
        capabilities["precision_ratio"] = precision_ratios(matrix, cells, texts, display)
        cells = fitting(expand(matrix, capabilities), most_bytes, known_of)
        pending = store.pending(plan_trials(cells, matrix, order_seed), code, texts)
    for reason, count in pending.reasons().items():
        display.say(f"{count} trials run again, the old records are kept: {reason}")
    if not pending.plans:
        display.say(f"{store.path}: nothing is missing or stale")
        return {}
    known: dict[str, Any] = {"capabilities": capabilities, "code": code, "order_seed": order_seed}
    session = store.start_session(describe_session(matrix, cells, pending, **known))
    told: dict[str, Any] = {"timing": matrix.timing, "texts": texts, "code": code}
    told |= {"threads": trial_threads(), "tuned": matrix.tuned, "measure": matrix.measure}
    run = SessionRun(session, store, display, **told)
    run.run(pending.plans)
    ended = {"kind": "end", "session": session, "at_utc": utc_now(), "counts": run.counts}
    store.append_session_event({**ended, "load": describe_machine()["load"]})
    return run.counts


def prepare_texts(matrix: Matrix, cells: Sequence[Cell], display: Display) -> Texts:
    """Prepare each distinct workload once; give the prepared text by cell id."""
    prepared: dict[str, Mapping[str, Any]] = {}
    texts: Texts = {}
    for cell in cells:
        if cell.skip is None:
            workload = cell.content["workload"]
            key = canonical_json(drawn_from(workload))
            if key not in prepared:
                prepared[key] = prepare_text(
                    workload,
                    matrix.seeds,
                    display.working,
                    matrix.measure.get("train_batches", 0),
                )
            texts[cell.id] = prepared[key]
    return texts


def precision_ratios(
    matrix: Matrix, cells: Sequence[Cell], texts: Texts, display: Display
) -> dict[str, dict[str, float]]:
    """Time each precision of each device against fp32 on the first cell that has fp32."""
    ratios: dict[str, dict[str, float]] = {}
    live = [cell for cell in cells if cell.skip is None]
    threads = trial_threads()
    with Zygote(threads=threads) as zygote:
        for device in sorted({cell.content["device"]["name"] for cell in live}):
            here = [cell for cell in live if cell.content["device"]["name"] == device]
            choices = {c.content["precision"]["name"]: c.content["precision"] for c in here}
            base = next((c for c in here if c.content["precision"]["name"] == "fp32"), None)
            if base is None or len(choices) < 2:
                continue
            names = ["fp32", *sorted(choices.keys() - {"fp32"})]
            requests = [
                trial_request(
                    {**base.content, "precision": choices[name]},
                    texts[base.id],
                    seed=matrix.seeds[0],
                    steps=base.content["workload"]["steps"],
                    timing=matrix.timing,
                )
                for name in names
            ]
            task = {"requests": requests, "threads": threads}
            limit = matrix.timing["timeout_seconds"]
            outcome = zygote.run("precision_ratios", task, timeout_seconds=limit)
            if outcome.final is None or outcome.final["kind"] != "result":
                why = ending(outcome, limit)["reason"]
                display.say(f"warning: precisions of {device} could not be compared: {why}")
                continue
            ratios[device] = dict(zip(names, outcome.final["ratios"], strict=True))
    return ratios


def describe_session(
    matrix: Matrix,
    cells: Sequence[Cell],
    pending: Pending,
    *,
    capabilities: Mapping[str, Any],
    code: Mapping[str, Any],
    order_seed: int,
) -> dict[str, Any]:
    """Give a session's first line."""
    return first_line(
        matrix,
        code=code,
        order_seed=order_seed,
        declared={
            "cells": len(cells),
            "skipped_cells": sum(cell.skip is not None for cell in cells),
            "seeds": list(matrix.seeds),
            "replicates": matrix.replicates,
            "trials": len(pending.plans),
            "stale": dict(pending.reasons()),
            "timing": dict(matrix.timing),
            "measure": dict(matrix.measure),
            "allow": list(matrix.allow),
            "exclusions": [rule.reason for rule in matrix.exclusions],
            "threads": trial_threads(),
            "precision_ratio": capabilities.get("precision_ratio", {}),
        },
    )
