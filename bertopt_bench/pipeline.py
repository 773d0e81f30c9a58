"""READ THIS FIRST: the program on one page.

    matrix.toml --load--> Matrix --expand--> Cells --forecast--> Plan --dispatch--> Trials --record--> records.jsonl
                                                                                                           |
                                              HTML page, Markdown, tables <--render-- <--tabulate----------+

Each public function is a command. Side effects live here, in ``dispatch`` and in ``results.store``.
"""  # noqa: E501 - the picture is one line wide

from __future__ import annotations

import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertopt_bench.matrix.spec import Matrix


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Where a run left its results, its page (None where it could not be written), and its ends."""

    results: Path
    page: Path | None
    counts: dict[str, int]


def run_matrix(
    matrix_file: Path | str,
    *,
    results: Path | str | None = None,
    page: Path | str | None = None,
    overrides: Sequence[str] = (),
    new: bool = False,
) -> RunSummary:
    """Run what is missing or stale of a matrix, then write its page.

    Raises:
        UserError: a mistake in the matrix, a folder that is in use or holds another matrix.
    """
    from bertopt_bench.dispatch.progress import open_display
    from bertopt_bench.dispatch.sessions import run_session
    from bertopt_bench.matrix.spec import load
    from bertopt_bench.results.store import ResultsFolder, next_free

    matrix = load(Path(matrix_file), overrides)
    folder = Path(results or Path("results") / matrix.name)
    folder = next_free(folder) if new else folder
    page = Path(page or Path("reports") / f"{folder.name}.html")
    again = _command(matrix_file, folder, page, overrides)
    with open_display() as display, ResultsFolder.open(folder, matrix.digest) as store:
        try:
            counts = run_session(matrix, store, display)
        except KeyboardInterrupt:
            display.say(f"\nStopped. What is done is kept in {folder}. Continue with\n  {again}")
            sys.exit(130)
    return RunSummary(folder, _finish(folder, page, counts), counts)
