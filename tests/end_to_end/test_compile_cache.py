"""Cold and warm: a compiled cell by the real command, with a cache of its own on disk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Command = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.slow


def test_the_second_run_finds_every_graph_on_disk(
    command: Command, project: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: an empty folder has nothing and is filled; the same graphs are then all in it."""
    cache = project / "compiled"
    monkeypatch.setitem(environment, "TORCHINDUCTOR_CACHE_DIR", str(cache))
    found = []
    for name, levels in (("cold", ["default", "off"]), ("warm", ["default"])):
        done = command(
            "run", "small.toml", "--set", f"axes.kernel.compile={levels}",
            "--set", "axes.optimizer='adamw'", "--set", f"name='{name}'",
            "--set", "timing.timeout_seconds=400.0", timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        records = read(project / "results" / name)
        assert any(cache.rglob("*")), "the compiler has its cache elsewhere"
        found.append(records["default"])
        assert command("verify", f"results/{name}").returncode == 0
    eager = read(project / "results" / "cold")["off"]
    assert eager["compile_cache"] is eager["compile_seconds"] is None
    cold, warm = (record["compile_cache"] for record in found)

    assert cold["state"] == "cold"
    assert cold["misses"] > 0
    assert cold["hits"] == 0
    assert warm["state"] == "warm"
    assert warm["misses"] == 0
    assert warm["hits"] == cold["misses"]
    for record in found:
        assert 0 < record["compile_seconds"] < record["elapsed_seconds"]
        assert record["time_to_first_step_seconds"] > 0
    assert ">cold," in (project / "reports" / "cold.html").read_text()


def read(folder: Path) -> dict[str, dict[str, Any]]:
    lines = (folder / "records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return {record["cell"]["kernel"]["compile"]["name"]: record for record in records}
