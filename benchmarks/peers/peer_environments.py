"""Virtual environments of peers, which want other versions than ours: made once, by pip, by name.

They lie below the project's cache, in a folder named by what is asked for; an interrupted one is
made anew. torch is pinned to the version that runs here. Which build of it comes (CPU or CUDA) is
for pip's own configuration to say, as it is for any install.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from bertopt_bench.dispatch.shelves import discard, locked
from bertopt_bench.errors import UserError
from bertopt_bench.workload.cache import cache_root

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
OPTIMUM = "optimum-benchmark"
_MARKER = "whole.json"
_TAIL = 12  # lines of pip's output that an error shows


def _here(name: str) -> str:
    """Pin a package to the version that runs here, whatever its build."""
    return f"{name}=={metadata.version(name).partition('+')[0]}"


@dataclass(frozen=True)
class Environment:
    """What a peer needs; ``constrained`` where it takes this project's pins as they are."""

    name: str
    requirements: tuple[str, ...]
    constrained: bool

    @property
    def folder(self) -> Path:
        """Where it lies, or would."""
        key = json.dumps([self.requirements, self._pins(), sys.version_info[:2]])
        digest = hashlib.sha256(key.encode()).hexdigest()[:12]
        return cache_root().absolute() / "peers" / f"{self.name}-{digest}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin/python"

    def is_whole(self) -> bool:
        """Say whether it was made to its end."""
        return (self.folder / _MARKER).is_file() and self.python.exists()

    def command(self) -> str:
        """Give the line that fills it, for a person."""
        return shlex.join(["pip", "install", *self._pip_words()])

    def make(self) -> None:
        """Make it.

        Raises:
            UserError: pip fails, with the end of what it said.
        """
        discard(self.folder)
        _run([sys.executable, "-I", "-m", "venv", str(self.folder)], self.name)
        _run([str(self.python), "-I", "-m", "pip", "install", *self._pip_words()], self.name)
        (self.folder / _MARKER).write_text(self._pins(), encoding="utf-8")

    def _pip_words(self) -> list[str]:
        held = ["-c", str(CONSTRAINTS)] if self.constrained else []
        return [*held, *self.requirements, _here("torch"), _here("numpy")]

    def _pins(self) -> str:
        text = CONSTRAINTS.read_text(encoding="utf-8") if self.constrained else ""
        return "\n".join([text, _here("torch"), _here("numpy")])


ENVIRONMENTS = {
    one.name: one
    for one in (
        Environment("accelerate", ("accelerate==1.15.0", "transformers"), constrained=True),
        # Its 0.6.0 imports what transformers 5 no longer has, so that our pins do not hold.
        Environment(
            "optimum-benchmark", ("optimum-benchmark==0.6.0", "transformers==4.57.6"), False
        ),
    )
}


def peer_python(name: str, say: Callable[[str], None]) -> Path:
    """Give a peer's interpreter; make its environment where it is not there or not whole."""
    environment = ENVIRONMENTS[name]
    if environment.is_whole():
        return environment.python
    with locked(environment.folder.with_suffix(".lock"), say):
        if not environment.is_whole():
            say(f"making an environment for {name}, once; pip may take minutes:")
            say(f"  {environment.command()}")
            environment.make()
    return environment.python


def _run(command: Sequence[str], name: str) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_TAIL:])
        raise UserError(f"no environment for {name}: {shlex.join(command)} fails:\n{tail}")
