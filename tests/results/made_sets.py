"""Write folders of runs and of duels that hold together, for the tests of their comparison."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from made_records import content, evaluation, record, session

from bertopt_bench.matrix.identity import cell_id
from bertopt_bench.results.duels import (
    CONTROL,
    ArmRun,
    Block,
    Declaration,
    DeclaredArm,
    Replicate,
    Verdicts,
)
from bertopt_bench.results.store import ResultsFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

MACHINE = {
    "cpu_model": "a CPU",
    "governor": "performance",
    "kernel": "6.1",
    "memory_bytes": 8 * 2**30 + 4096,
    "affinity": [0, 1],
    "cache_bytes": {"L1d": 32768, "L3": 2**25},
    "gpus": [],
    "load": [0.1, 0.2, 0.3],
    "boot_id_hash": "b1",
    "fingerprint": "f1",
}
VERSIONS = {
    "python": "3.11.7",
    "implementation": "CPython",
    "torch": "2.13.0+cpu",
    "numpy": "2.4.6",
    "triton": None,
    "installed_hash": "h1",
}
TIMING = {"steps": None, "burn_in_steps": 3, "timeout_seconds": 3600.0, "phase_steps": 3}
PROVED = {
    "python": "3.11.7",
    "implementation": "CPython",
    "addresses": {"libc": "7f00"},
    "modules": {
        "bertopt_bench": {"version": "0.1.0", "root": "root", "sources": "s1", "commit": "a" * 40},
        "torch": {"version": "2.13.0+cpu", "root": "site-packages", "sources": None},
        "numpy": {"version": "2.4.6", "root": "site-packages", "sources": "n1"},
    },
}


def session_fields(name: str, **fields: Any) -> dict[str, Any]:
    """Give a session's first line with all that a comparison looks at; mappings are merged."""
    whole: dict[str, Any] = session(
        session=name, machine=MACHINE, versions=VERSIONS, declared={"threads": 2, "timing": TIMING}
    )
    for key, value in fields.items():
        whole[key] = {**whole[key], **value} if isinstance(value, dict) else value
    return whole


def trial(
    optimizer: str, seed: int, loss: float = 5.0, peak: int = 1_000_000, **fields: Any
) -> dict[str, Any]:
    """Give a whole trial of a cell whose held-out loss ends at a value."""
    if "evaluations" not in fields:
        fields["evaluations"] = [evaluation(0), evaluation(3, loss), evaluation(6, loss)]
    hashes = {"batches_sha256": f"{seed}" * 64, "initial_weights_sha256": f"{seed}" * 64}
    return record(
        content(optimizer=optimizer), seed=seed, peak_memory_bytes=peak, **{**hashes, **fields}
    )


def write_run(folder: Path, name: str, records: Sequence[Mapping[str, Any]], **fields: Any) -> Path:
    """Write a folder of `run` with one session."""
    whole = session_fields(name, **fields)
    with ResultsFolder.open(folder, whole["matrix"]["digest"]) as store:
        store.start_session(whole)
        for one in records:
            store.append({**one, "session": name})
    return folder


def declaration(arms: Sequence[DeclaredArm], **fields: Any) -> Declaration:
    """Declare a duel of these arms, the first one the baseline."""
    first = arms[0]
    control = first.model_copy(update={"label": CONTROL, "role": "control"})
    return Declaration(
        **{
            "name": "made",
            "arms": (*arms, control),
            "comparisons": tuple((first.label, arm.label) for arm in arms[1:]),
            "metrics": ("step_time",),
            "alpha": 0.01,
            "family_error": 0.05,
            "margins": {"step_time": 0.02},
            "looks": (12,),
            "rounds": 2,
            **fields,
        }
    )


def arm(label: str, optimizer: str = "", **fields: Any) -> DeclaredArm:
    """Declare an arm; the cell is that of an optimizer of its name, where none is given."""
    cell = content(optimizer=optimizer or label)
    return DeclaredArm(
        **{"label": label, "role": "arm", "cell_id": cell_id(cell), "cell": cell} | fields
    )


def replicates(
    name: str,
    declared: Declaration,
    speeds: Mapping[str, float],
    count: int = 12,
    noise: float = 0.005,
    proofs: Mapping[str, Mapping[str, Any]] | None = None,
    peak: Callable[[str, int], int] | None = None,
) -> list[Replicate]:
    """Make replicates of a machine that drifts: all arms of a round share its pace.

    ``speeds`` are seconds a step by arm; the A/A arm has the baseline's.
    """
    draw = random.Random(name)
    labels = [one.label for one in declared.arms]
    pace = {**speeds, CONTROL: speeds[labels[0]]}
    made = []
    for number in range(count):
        blocks = []
        own = {label: draw.gauss(0, noise) for label in labels}
        for turn in range(declared.rounds):
            drift = 2 ** draw.uniform(-0.5, 0.5)
            blocks += [
                Block(
                    round=turn,
                    position=position,
                    arm=label,
                    clock_seconds=float(turn),
                    steps=10,
                    wall_seconds=10 * pace[label] * drift * 2 ** own[label],
                )
                for position, label in enumerate(labels)
            ]
        runs = tuple(
            ArmRun(
                arm=label,
                status="ok",
                imported=dict((proofs or {}).get(label, PROVED)),
                peak_memory_bytes=peak(label, number) if peak else 1_000_000,
                initial_weights_sha256="1" * 64,
                batches_sha256="2" * 64,
                evaluation_sha256="3" * 64,
                finite=True,
            )
            for label in labels
        )
        made.append(
            Replicate(
                session=name,
                replicate=number,
                seed=1,
                status="ok",
                started_utc="2026-11-24T02:11:00+00:00",
                elapsed_seconds=1.0,
                start_order=tuple(labels),
                arms=runs,
                blocks=tuple(blocks),
            )
        )
    return made


def write_duel(
    folder: Path,
    name: str,
    declared: Declaration,
    made: Sequence[Replicate],
    *,
    records: Sequence[Mapping[str, Any]] = (),
    state: str = "valid",
    **fields: Any,
) -> Path:
    """Write a folder of `duel` with one session."""
    whole = session_fields(name, **fields)
    whole["declared"] = {**whole["declared"], "duel": declared.model_dump(mode="json")}
    with ResultsFolder.open(folder, whole["matrix"]["digest"]) as store:
        store.start_session(whole)
        for one in made:
            store.append_replicate(one)
        for one in records:
            store.append({**one, "session": name})
        verdicts = Verdicts(
            session=name,
            at_utc=whole["started_utc"],
            look=1,
            replicates=len(made),
            state=state,  # type: ignore[arg-type]
            reasons=() if state == "valid" else ("scripted",),
            findings=(),
        )
        store.append_session_event({"kind": "verdicts", **verdicts.model_dump()})
    return folder
