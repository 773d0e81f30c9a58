"""What `challenge` asks of published records before it runs anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bertopt_bench.challenging import _baseline_of, _beside, _published, _reported_workload
from bertopt_bench.dispatch import tuning
from bertopt_bench.dispatch.tuning import TuningRun
from bertopt_bench.errors import UserError
from bertopt_bench.matrix.protocols import protocol_hash, read_protocol
from bertopt_bench.tuning import _identity

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
    """Oracle: the ten seeds of tiny-v1."""
    found = _baseline_of(published(*(record(seed) for seed in range(1, 11))), PROTOCOL)

    assert sorted(found) == list(range(1, 11))


def test_records_that_lack_a_seed_or_an_end_are_told_before_anything_runs() -> None:
    """Oracle: the seeds that are missing by name; a band of runs of which one has no end."""
    with pytest.raises(UserError, match="no seed 9, 10 of AdamW"):
        _baseline_of(published(*(record(seed) for seed in range(1, 9))), PROTOCOL)
    rest = [record(seed) for seed in range(1, 10)]
    for lost in (record(10, status="diverged"), record(10, to=175)):
        with pytest.raises(UserError, match="all finished"):
            _baseline_of(published(*rest, lost), PROTOCOL)


def test_a_protocol_outside_of_a_checkout_has_a_place_that_is_empty() -> None:
    """Oracle: a file at the root, which has no three folders above it."""
    assert _beside(replace(PROTOCOL, file=Path("/tiny-v1.toml"))).parts[0] == "/"
    here = _beside(PROTOCOL)
    assert here == PROTOCOL.file.resolve().parents[2] / "results" / "protocols" / "tiny-v1"


def test_a_challenge_passes_on_the_protocol_that_it_follows() -> None:
    """Oracle: the name and hash in its matrix; a protocol itself is named by its own hash."""
    given = {"name": "tiny-v1", "sha256": PROTOCOL.sha256}
    follows: Any = SimpleNamespace(
        document={"name": "tiny-v1-Mine", "protocol": given},
        matrix=SimpleNamespace(name="tiny-v1-Mine"),
    )
    itself: Any = SimpleNamespace(
        document=PROTOCOL.document, matrix=SimpleNamespace(name="tiny-v1")
    )

    assert _identity(follows) == given
    assert _identity(itself) == given
    assert protocol_hash(PROTOCOL.document) == given["sha256"]


@pytest.mark.parametrize("sha256", [PROTOCOL.text_sha256, "0" * 64])
def test_records_and_machines_of_another_text_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sha256: str
) -> None:
    """Oracle: the protocol's own text hash passes, any other is named with what to do."""
    (tmp_path / "sessions.jsonl").touch()
    cell = {"workload": _reported_workload(PROTOCOL)}
    one = SimpleNamespace(text_sha256=sha256, cell=cell, cell_id="one")
    loaded = SimpleNamespace(sessions=(), records=(one,))
    monkeypatch.setattr("bertopt_bench.results.tables.load_results", lambda _: loaded)
    texts = {"cell": {"text_sha256": sha256}}
    monkeypatch.setattr(tuning, "prepare_texts", lambda *_: texts)
    matrix = SimpleNamespace(name="tiny-v1")
    asked: Any = SimpleNamespace(document=PROTOCOL.document, matrix=matrix, arms=())
    run = TuningRun(asked, SimpleNamespace(warnings=()), None, {}, {})  # type: ignore[arg-type]

    if sha256 == PROTOCOL.text_sha256:
        one.cell = {"workload": {**cell["workload"], "steps": 50}}
        with pytest.raises(UserError, match="records of another workload than tiny-v1's"):
            _published(PROTOCOL, tmp_path)
        one.cell = cell
        assert _published(PROTOCOL, tmp_path) is loaded
        run.prepare()
        return
    with pytest.raises(UserError, match="another patch version of Python"):
        _published(PROTOCOL, tmp_path)
    with pytest.raises(UserError, match="of this machine has the hash 0000"):
        run.prepare()
