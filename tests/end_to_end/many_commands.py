"""Run many commands in one process, for what ends before anything runs: starting takes longest."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import starmap
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROGRAM = """
import contextlib, io, json, sys, traceback
from bertopt_bench.cli import main
ended = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["bertopt-bench", *arguments]
    told, errors, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        except Exception:
            traceback.print_exc()
            code = 1
    heavy = {"torch", "transformers", "tokenizers"} & set(sys.modules)
    ended.append((code, told.getvalue(), errors.getvalue(), sorted(heavy)))
print(json.dumps(ended))
"""


class Ended(NamedTuple):
    """How a command ended, and which heavy modules were imported by then."""

    returncode: int
    stdout: str
    stderr: str
    heavy: list[str]


def run_many(
    many: Sequence[tuple[str, ...]], folder: Path, environment: dict[str, str]
) -> dict[tuple[str, ...], Ended]:
    """Run commands one after the other in one fresh interpreter; give how each ended."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(many)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(many, starmap(Ended, json.loads(done.stdout.splitlines()[-1])), strict=True))
