"""NVIDIA's tools around a profile: what ncu counted is kept, and what it did not stops nothing."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bertopt_bench.profiling import _under_tool

if TYPE_CHECKING:
    from pathlib import Path

HEADER = '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"\n'
COUNTED = HEADER + (
    '"0","gemm","gpu__time_duration.sum","ns","1,000"\n'
    '"0","gemm","dram__bytes_read.sum","byte","2,000"\n'
)


@pytest.mark.parametrize(
    ("left", "points", "said"),
    [
        (COUNTED, [("gemm", 1000.0)], "ncu: "),
        (HEADER, [], "ncu counted nothing that can be used: "),
    ],
)
def test_what_ncu_left_is_read_and_no_use_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str, points: list[Any], said: str
) -> None:
    """Oracle: a stand-in that writes its CSV where it is told: 2,000 bytes over two steps."""
    monkeypatch.setenv("BERTOPT_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "ncu.csv").write_text(left)
    stand_in = tmp_path / "ncu"
    stand_in.write_text(
        f'#!/bin/sh\nwhile [ "$1" != --log-file ]; do shift; done\ncp "{tmp_path}/ncu.csv" "$2"\n'
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    cell = SimpleNamespace(id="0123456789ab", label="sgd", content={"device": {"name": "cuda"}})
    plan: Any = SimpleNamespace(chosen=SimpleNamespace(cells=(cell,)), requests=({},), steps=2)
    lines: list[str] = []

    (found,) = _under_tool(plan, "ncu", tmp_path / "results", lines.append)

    assert [(point.name, point.bytes) for point in found] == points
    assert any(line.startswith(said) for line in lines)
