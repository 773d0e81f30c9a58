"""What the capability probe says of a machine that the test sets up."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING

from bertopt_bench.measure.capabilities import has_compiler

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_probe_prints_the_mapping_of_the_contract() -> None:
    """Oracle: torch in this process; one line of JSON and nothing else on stdout."""
    import torch

    run = subprocess.run(
        [sys.executable, "-m", "bertopt_bench.measure.capabilities"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(run.stdout)

    assert set(found) == {"torch", "cuda", "packages", "compiler", "cpu"}
    assert torch.__version__.startswith(found["torch"])
    assert found["cuda"]["count"] == torch.cuda.device_count()
    assert len(found["cuda"]["names"]) == len(found["cuda"]["capability"])
    assert found["cpu"]["threads"] >= 1
    assert set(found["packages"]) >= {"pytorch_optimizer", "datasets", "pyarrow"}


def program(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)


def test_a_compiler_needs_both_itself_and_pythons_headers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Oracle: inductor's rule: $CXX alone where it is set, and Python.h beside it."""
    headers = tmp_path / "include"
    headers.mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(headers))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("CXX", "my-compiler")
    program(tmp_path / "bin", "g++")
    assert not has_compiler()

    program(tmp_path / "bin", "my-compiler")
    assert not has_compiler()

    (headers / "Python.h").write_text("")
    assert has_compiler()


def test_without_cxx_only_the_platforms_own_compiler_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Inductor looks for g++ on Linux: clang++ alone is not found by it."""
    (tmp_path / "Python.h").write_text("")
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CXX", raising=False)
    program(tmp_path / "bin", "clang++")
    assert not has_compiler()

    program(tmp_path / "bin", "g++")

    assert has_compiler()
