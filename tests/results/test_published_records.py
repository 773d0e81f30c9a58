"""What `challenge` asks of published records before it runs anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bertopt_bench.challenging import _baseline_of, _beside
from bertopt_bench.errors import UserError
from bertopt_bench.matrix.protocols import read_protocol

PROTOCOL = read_protocol(Path(__file__).parents[2] / "benchmarks/protocols/tiny-v1.toml")


def record(seed: int, *, status: str = "ok", to: int = 200) -> Any:
    """Give a record of the tuned baseline that was evaluated every 25 steps up to one."""
    workload = {"steps": 200}
    return SimpleNamespace(
        seed=seed,
        status=status,
        tuning=SimpleNamespace(arm="AdamW"),
        cell={"workload": workload, "optimizer": {"name": "adamw"}, "regularizer": []},
        evaluations=[SimpleNamespace(step=s, loss=8 - s / 100) for s in range(0, to + 1, 25)],
    )


def published(*records: Any) -> Any:
    return SimpleNamespace(counted=records)


def test_whole_records_of_the_baseline_are_taken() -> None:
    """Oracle: the eight seeds of tiny-v1."""
    found = _baseline_of(published(*(record(seed) for seed in range(1, 9))), PROTOCOL)

    assert sorted(found) == list(range(1, 9))


def test_records_that_lack_a_seed_or_an_end_are_told_before_anything_runs() -> None:
    """Oracle: the seeds that are missing by name; a band of runs of which one has no end."""
    with pytest.raises(UserError, match="no seed 7, 8 of AdamW"):
        _baseline_of(published(*(record(seed) for seed in range(1, 7))), PROTOCOL)
    rest = [record(seed) for seed in range(1, 8)]
    for lost in (record(8, status="diverged"), record(8, to=175)):
        with pytest.raises(UserError, match="all finished"):
            _baseline_of(published(*rest, lost), PROTOCOL)


def test_a_protocol_outside_of_a_checkout_has_a_place_that_is_empty() -> None:
    """Oracle: a file at the root, which has no three folders above it."""
    assert _beside(replace(PROTOCOL, file=Path("/tiny-v1.toml"))).parts[0] == "/"
    here = _beside(PROTOCOL)
    assert here == PROTOCOL.file.resolve().parents[2] / "results" / "protocols" / "tiny-v1"
