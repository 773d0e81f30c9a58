"""Run the real command in a folder of its own, on real text, with a very small model."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from small_workload import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MATRIX = (
    """
name = "small"
seeds = [1]
"""
    + SMALL
    + """
[timing]
burn_in_steps = 2
phase_steps = 1
timeout_seconds = 120.0
[axes]
optimizer = ["adamw", "sgd"]
"""
)

OWN = '''
"""Optimizers of a user's own; some of them misbehave."""
import os, signal
import torch


class Mine(torch.optim.SGD):
    """SGD under another name."""

    def __init__(self, groups, lr: float = 0.1):
        super().__init__(groups, lr=lr)


class Nan(Mine):
    """Makes every weight NaN at its fourth step."""

    def step(self, closure=None):
        super().step(closure)
        self.count = getattr(self, "count", 0) + 1
        if self.count > 3:
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.fill_(float("nan"))


class Killed(Mine):
    """Kills its own process."""

    def step(self, closure=None):
        os.kill(os.getpid(), signal.SIGKILL)


class Hangs(Mine):
    """Never comes back."""

    def step(self, closure=None):
        signal.pause()


class Greedy(Mine):
    """Asks for more memory than any machine has."""

    def step(self, closure=None):
        torch.empty(1 << 60)


class Raises(Mine):
    """Has a bug."""

    def step(self, closure=None):
        raise KeyError("a bug")
'''


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Share one text cache, so that the text is prepared once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a user's folder: a matrix and a module of optimizers."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "small.toml").write_text(MATRIX)
    (folder / "own.py").write_text(OWN)
    return folder


@pytest.fixture(scope="module")
def environment(cache: Path) -> dict[str, str]:
    """Give the commands' environment: the shared cache, one thread bound to no core.

    Test workers run side by side, and bound threads would all sit on the first core.
    """
    threads = {"OMP_NUM_THREADS": "1", "OMP_PROC_BIND": "false"}
    return {**os.environ, **threads, "BERTOPT_BENCH_CACHE": str(cache)}


@pytest.fixture(scope="module")
def command(
    project: Path, environment: dict[str, str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Give a function that runs ``bertopt-bench`` with arguments in the user's folder."""

    def run(*arguments: str, timeout: float = 170) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bertopt_bench", *arguments],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
