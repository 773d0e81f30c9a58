"""Profiles are stored a line each and read back whole."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "measure"))

from made_traces import two_steps

from bertopt_bench.errors import UserError
from bertopt_bench.measure.operator_costs import Point
from bertopt_bench.measure.trace_tables import tabulate_trace
from bertopt_bench.measure.traces import mend, parse_trace
from bertopt_bench.results.profiles import (
    PROFILES,
    Profile,
    append_profile,
    has_profiles,
    load_profiles,
    trace_place,
    worker_name,
)
from bertopt_bench.results.store import ResultsFolder

CODE = {"version": "0.1.0", "commit": "0123456789abcdef", "dirty_hash": ""}


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Profile]:
    """Store a profile in a folder of its own."""
    folder = tmp_path / "made-profile"
    matrix = {"name": "made", "digest": "d"}
    with ResultsFolder.open(folder, "d") as store:
        session = store.start_session({"matrix": matrix, "code": CODE, "order_seed": 0})
        profile = Profile(
            session=session,
            cell_id="c",
            cell={"optimizer": {"name": "sgd"}},
            label="sgd",
            seed=1,
            profiled_steps=2,
            status="ok",
            started_utc="2026-11-25T07:00:00+00:00",
            elapsed_seconds=1.5,
            tables=tabulate_trace(parse_trace(mend(two_steps(), "made")), 5000),
            counted=(Point("gemm", "counted", "kernel", 1, 2.0, 3.0, 4.0),),
        )
        append_profile(folder, profile)
    return folder, profile


def test_a_profile_is_read_back_as_it_was_written(made: tuple[Path, Profile]) -> None:
    """Oracle: equality of the whole object, tables and points among it."""
    folder, profile = made
    loaded = load_profiles(folder)

    assert has_profiles(folder)
    assert loaded.profiles == (profile,)
    assert loaded.latest == (profile,)
    assert [session.session for session in loaded.sessions] == [profile.session]


def test_a_torn_last_line_is_left_out_and_said(made: tuple[Path, Profile]) -> None:
    """Oracle: the store's rule for all its files."""
    folder, profile = made
    with (folder / PROFILES).open("ab") as file:
        file.write(b'{"session": "x')

    loaded = load_profiles(folder)
    assert loaded.profiles == (profile,)
    assert "torn" in loaded.warnings[0]


def test_a_newer_line_or_a_foreign_field_is_refused(made: tuple[Path, Profile]) -> None:
    """Oracle: the store's rule for all its files: file and line are named."""
    folder, _ = made
    line = json.loads((folder / PROFILES).read_text())
    for changed in ({**line, "schema_version": 99}, {**line, "surprise": 1}):
        (folder / PROFILES).write_text(json.dumps(changed) + "\n")
        with pytest.raises(UserError, match=r"profiles\.jsonl, line 1"):
            load_profiles(folder)


def test_traces_lie_where_tensorboard_looks_for_them(tmp_path: Path) -> None:
    """Oracle: torch-tb-profiler's own pattern of file names: worker, time, .pt.trace.json.gz."""
    worker = worker_name("lion lr=0.001 · fp32/ü", "0123456789ab")
    place = trace_place(tmp_path, "session", worker, 1795591454453)

    assert worker == "lion-lr=0-001-fp32-01234567"
    assert place.parent.is_dir()
    assert place.relative_to(tmp_path) == Path(
        "traces/session/lion-lr=0-001-fp32-01234567.1795591454453.pt.trace.json.gz"
    )


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """Oracle: the house rule on errors."""
    (tmp_path / "traces").write_text("a file")
    with pytest.raises(UserError, match="cannot be written"):
        trace_place(tmp_path, "session", "worker", 1)
