"""A run that is killed goes on from its last evaluation, and its times count nowhere."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bertopt_bench import load_results

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Command = Callable[..., subprocess.CompletedProcess[str]]

SLOWER = """

class Stops(Mine):
    \"\"\"Kills the whole run in step 5 of the training proper, once: a file remembers.\"\"\"

    made = 0

    def __init__(self, groups, lr: float = 0.1):
        super().__init__(groups, lr=lr)
        Stops.made += 1
        self.number, self.count = Stops.made, 0

    def step(self, closure=None):
        super().step(closure)
        self.count += 1
        if (self.number, self.count) == (2, 5) and not os.path.exists("stopped"):
            open("stopped", "w").close()
            os.kill(int(open("run.pid").read()), signal.SIGKILL)
            signal.pause()
"""


@pytest.mark.slow
def test_a_killed_run_continues_its_trial(
    command: Command, project: Path, environment: dict[str, str]
) -> None:
    """Oracle: the same matrix that is never killed: losses, held-out losses, the exit code.

    The optimizer of this test kills the run in step 5 of 6, after the evaluation at step 3; the
    first one that is made is that of the burn-in.
    """
    own = (project / "own.py").read_text() + SLOWER
    (project / "stops.py").write_text(own)
    text = (project / "small.toml").read_text()
    text = text.replace('["adamw", "sgd"]', '"stops:Stops"') + "[measure]\ncheckpoints = true\n"
    (project / "kept.toml").write_text(text)
    arguments = ["run", "kept.toml"]
    with subprocess.Popen(
        [sys.executable, "-m", "bertopt_bench", *arguments, "--results", "kept"],
        cwd=project, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as run:  # fmt: skip
        (project / "run.pid").write_text(str(run.pid))
        _, errors = run.communicate()
    assert run.returncode == -signal.SIGKILL, errors
    assert os.listdir(project / "kept" / "checkpoints")

    again = command(*arguments, "--results", "kept", "--page", "kept.html")
    whole = command(*arguments, "--results", "whole", "--page", "whole.html")
    assert again.returncode == whole.returncode == 0, again.stderr + whole.stderr
    (continued,), (plain,) = (load_results(project / name).counted for name in ("kept", "whole"))

    assert continued.interrupted == (3,)
    assert plain.interrupted == ()
    assert continued.losses == plain.losses
    assert [e.loss for e in continued.evaluations] == [e.loss for e in plain.evaluations]
    assert not (project / "kept" / "checkpoints").exists()
    trials = load_results(project / "kept").trials
    assert trials["interrupted"][0] == "3"
    assert math.isnan(trials["step_seconds"][0])
    assert math.isnan(trials["tokens_per_second"][0])
    assert command("verify", "kept").returncode == 0
    assert "1 interrupted, times left out" in (project / "kept.html").read_text()
    assert "times left out" not in (project / "whole.html").read_text()
