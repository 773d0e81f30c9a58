"""READ THIS FIRST: the program on one page.

    matrix.toml --load--> Matrix --expand--> Cells --forecast--> Plan --dispatch--> Trials
                                                                                      | record
          HTML page <--render-- Findings <--analyse-- Tables <--tabulate-- records.jsonl

Every public function is a command. Side effects live here, in ``dispatch`` and ``results.store``.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertopt_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Where a run left its results and page (None: a package is missing), and how trials ended."""

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
        UserError: a mistake in the matrix; a folder that is in use or holds another matrix.
        SystemExit: 130 on Ctrl-C, after what is done was made safe.
    """
    from bertopt_bench.dispatch.progress import open_display
    from bertopt_bench.dispatch.running import run_session
    from bertopt_bench.matrix.spec import load
    from bertopt_bench.results.store import ResultsFolder, next_free

    matrix = load(matrix_file, overrides)
    folder = Path(results or Path("results") / matrix.name)
    folder = next_free(folder) if new else folder
    page = Path(page or Path("reports") / f"{folder.name}.html")
    with open_display() as display, ResultsFolder.open(folder, matrix.digest) as store:
        try:
            counts = run_session(matrix, store, display)
        except KeyboardInterrupt:
            again = ["bertopt-bench", "run", str(matrix_file), "--results", str(folder)]
            again += ["--page", str(page)]
            again += [word for override in overrides for word in ("--set", override)]
            display.say(f"stopped; what is done is in {folder}. Continue with:")
            display.say(f"  {shlex.join(again)}")
            sys.exit(130)
    return _finish(RunSummary(folder, page, counts))


def _finish(summary: RunSummary) -> RunSummary:
    """Write the page and name what was written; the records are safe already."""
    say = sys.stdout.write
    ends = ", ".join(f"{count} {status}" for status, count in sorted(summary.counts.items()))
    say(f"trials: {ends or 'nothing was missing'}\nresults: {summary.results}\n")
    try:
        page = write_report([summary.results], summary.page)
    except ModuleNotFoundError as error:
        say(f"no page: {error.name} is not installed. Install it, then write the page with:\n")
        say(f"  bertopt-bench report {summary.results} --output {summary.page}\n")
        return RunSummary(summary.results, None, summary.counts)
    return RunSummary(summary.results, page, summary.counts)


def plan_matrix(matrix_file: Path | str, *, overrides: Sequence[str] = ()) -> None:
    """Print what a matrix would run on this machine: cells, skips, time and memory."""
    from bertopt_bench.dispatch.preparing import ask_capabilities
    from bertopt_bench.matrix.cells import expand
    from bertopt_bench.matrix.forecast import describe_plan
    from bertopt_bench.matrix.spec import load

    matrix = load(matrix_file, overrides)
    cells = expand(matrix, ask_capabilities())
    sys.stdout.write(describe_plan(matrix, cells) + "\n")


def write_table(results: Path | str, table: str, form: str, output: Path | None) -> None:
    """Write a table of a results folder to a file, or to standard output.

    Raises:
        UserError: no such folder, table or format.
    """
    from bertopt_bench.results.tables import TABLES, export, load_results

    if table not in TABLES:
        raise UserError(f"no table '{table}'. Tables: {', '.join(TABLES)}.{nearest(table, TABLES)}")
    loaded = load_results(results)
    export(getattr(loaded, table), form, output)


def write_report(results: Sequence[Path | str], output: Path | None = None) -> Path:
    """Write the HTML page of results folders and say where.

    Raises:
        UserError: no such folder, or a page that cannot be written.
    """
    from bertopt_bench.report.page import write
    from bertopt_bench.results.tables import load_results

    page = output or Path("reports") / f"{Path(results[0]).resolve().name}.html"
    write([load_results(folder) for folder in results], page)
    sys.stdout.write(f"page: {page}\n")
    return page


def verify_results(results: Path | str) -> int:
    """Re-derive what must hold in a results folder; give the exit code, 3 where something fails."""
    from bertopt_bench.results.tables import load_results
    from bertopt_bench.results.verify import verify

    findings = verify(load_results(results))
    for finding in findings:
        sys.stdout.write(f"{finding.severity}: {finding.where}: {finding.text}\n")
    failed = any(finding.severity == "error" for finding in findings)
    sys.stdout.write("something does not hold\n" if failed else "all that must hold, holds\n")
    return 3 if failed else 0
