"""Be the command ``bertopt-bench``, with duels that the variable SCRIPT scripts as JSON."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from scripted_duels import ScriptedDuels

from bertopt_bench.gate import running

if TYPE_CHECKING:
    from pathlib import Path

    from bertopt_bench.gate.running import Means, Request


def main() -> None:
    """Run the real command line; only the duels of its gate are scripted."""
    from bertopt_bench.cli import main as command_line

    whole = running.run_gate

    def scripted(request: Request, means: Means) -> int:
        duels = ScriptedDuels(json.loads(os.environ.get("SCRIPT", "{}")), make_folders=True)
        return whole(request, replace(means, run_duel=duels, write_page=_write_page))

    running.run_gate = scripted
    command_line()


def _write_page(folders: object, page: Path) -> None:
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(str(folders))


if __name__ == "__main__":
    main()
