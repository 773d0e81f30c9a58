"""Write recorded result sets of the gated cell, for the tests of the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from made_records import evaluation, record
from made_sets import session_fields
from scripted_duels import CELLS, MATRIX

from bertopt_bench.matrix.arms import read_arms
from bertopt_bench.results.store import ResultsFolder

if TYPE_CHECKING:
    from pathlib import Path

SEEDS = tuple(range(1, 11))
POLICY = f"""
matrix = "gated.toml"
metric = "peak_memory"
margin = "1%"
cells = ["{CELLS[0]}"]
gate_runs_per_month = 60
differs = []
"""


def write_policy(folder: Path, policy: str = POLICY) -> Path:
    """Write a policy and its matrix."""
    (folder / "gated.toml").write_text(MATRIX)
    file = folder / "policy.toml"
    file.write_text(policy)
    return file


def write_set(folder: Path, *peaks: float, cell: str = CELLS[0], **session: Any) -> Path:
    """Write a set with a session for each factor of peak memory, ten seeds in each."""
    matrix = folder.parent / "gated.toml"
    matrix.write_text(MATRIX)
    content = dict(read_arms(matrix, base=(cell,))[1][0].cell.content)
    steps = content["workload"]["steps"]
    with ResultsFolder.open(folder, session_fields("x")["matrix"]["digest"]) as store:
        for number, factor in enumerate(peaks):
            name = f"{folder.name}-{number}"
            started = f"2026-11-24T0{number}:00:00+00:00"
            store.start_session(session_fields(name, started_utc=started, **session))
            for seed in SEEDS:
                store.append(
                    _trial(content, seed, int(factor * 1_000_000), steps) | {"session": name}
                )
    return folder


def _trial(content: dict[str, Any], seed: int, peak: int, steps: int) -> dict[str, Any]:
    return record(
        content,
        seed=seed,
        peak_memory_bytes=peak,
        evaluations=[evaluation(0), evaluation(steps, 5.0)],
        batches_sha256=f"{seed:x}" * 64,
        initial_weights_sha256=f"{seed:x}" * 64,
    )
