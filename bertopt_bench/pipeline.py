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
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bertopt_bench.results.duels import Verdicts

PAGE_PACKAGES = ("pandas", "plotly", "jinja2")
"""What a page needs and a run does not: a machine that only measures may lack them."""


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
    max_memory: str | int | None = None,
) -> RunSummary:
    """Run what is missing or stale of a matrix, then write its page.

    Cells whose forecast of allocated bytes is above `max_memory` (as 16GiB) are skipped.

    Raises:
        UserError: a mistake in the matrix; a folder that is in use or holds another matrix.
        SystemExit: 130 on Ctrl-C, after what is done was made safe.
    """
    from bertopt_bench.dispatch.progress import open_display
    from bertopt_bench.dispatch.running import run_session
    from bertopt_bench.matrix.quantities import read_limit
    from bertopt_bench.matrix.spec import load
    from bertopt_bench.results.store import ResultsFolder

    most_bytes = read_limit(max_memory)
    matrix = load(matrix_file, overrides)
    folder = results_folder(results, matrix.name, new=new)
    page = Path(page or Path("reports") / f"{folder.name}.html")
    with open_display() as display, ResultsFolder.open(folder, matrix.digest) as store:
        try:
            counts = run_session(matrix, store, display, most_bytes)
        except KeyboardInterrupt:
            again = ["bertopt-bench", "run", str(matrix_file), "--results", str(folder)]
            again += ["--page", str(page)]
            again += [] if max_memory is None else ["--max-memory", str(max_memory)]
            again += [word for override in overrides for word in ("--set", override)]
            display.say(f"stopped; what is done is in {folder}. Continue with:")
            display.say(f"  {shlex.join(again)}")
            sys.exit(130)
    return _finish(RunSummary(folder, page, counts))


def results_folder(results: Path | str | None, name: str, *, new: bool) -> Path:
    """Give the folder that is named, or the usual one of a name; with ``new`` one that is free."""
    from bertopt_bench.results.store import next_free

    folder = Path(results or Path("results") / name)
    return next_free(folder) if new else folder


def _finish(summary: RunSummary) -> RunSummary:
    """Write the page and name what was written; the records are safe already."""
    say = sys.stdout.write
    ends = ", ".join(f"{count} {status}" for status, count in sorted(summary.counts.items()))
    say(f"trials: {ends or 'nothing was missing'}\nresults: {summary.results}\n")
    assert summary.page is not None
    return RunSummary(summary.results, write_page(summary.results, summary.page), summary.counts)


def duel(
    matrix_file: Path | str | None,
    *,
    micro: str = "",
    base: Sequence[str] = (),
    arms: Sequence[str] = (),
    inject: str | float = 0.0,
    declared: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    results: Path | str | None = None,
    page: Path | str | None = None,
    new: bool = False,
    plan_only: bool = False,
    strict: bool = False,
) -> int:
    """Duel arms live and in pairs, then write the page; give the exit code.

    The arms are cells of a matrix, or implementations of the operation ``micro``.

    Raises:
        UserError: a mistake in the arms, or a declared verdict that no outcome could give.
    """
    from bertopt_bench import duelling
    from bertopt_bench.dispatch.progress import open_display
    from bertopt_bench.matrix.duels import read_settings
    from bertopt_bench.results.store import ResultsFolder

    settings = read_settings(matrix_file, declared or {})
    asked = duelling.read_either(
        matrix_file, micro, base=base, arms=arms, overrides=overrides, inject=inject
    ).require_arms()
    folder = results_folder(results, f"{asked.matrix.name}-duel", new=new)
    sys.stdout.write(duelling.foretell(asked, settings) + "\n")
    if plan_only:
        return 0
    with open_display() as display:
        plan, _ = duelling.plan_duel(asked, settings, display)
        with ResultsFolder.open(folder, plan.digest) as store:
            run = partial(duelling.fight_within_budget, plan, store, display)
            verdicts = _or_interrupted(run, folder)
    _finish_duels([verdicts], folder, page, unit="call" if micro else "step")
    return duelling.exit_code(verdicts, strict=strict)


def profile(
    matrix_file: Path | str,
    *,
    cells: Sequence[str] = (),
    steps: int | str = 3,
    tools: Sequence[str] = (),
    ncu_csv: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    results: Path | str | None = None,
    page: Path | str | None = None,
    new: bool = False,
) -> int:
    """Trace a few steps of one cell or two, then write the page; 3 where no cell was traced.

    Raises:
        UserError: no such cell, two alike, one that cannot run here, or no step.
    """
    from bertopt_bench.dispatch.progress import open_display
    from bertopt_bench.profiling import Asked, told
    from bertopt_bench.results.store import ResultsFolder

    asked = Asked.read(
        matrix_file, cells, steps=steps, tools=tools, ncu_csv=ncu_csv, overrides=overrides
    )
    matrix = asked.chosen.matrix
    folder = results_folder(results, f"{matrix.name}-profile", new=new)
    notes: list[str] = []
    with open_display() as display, ResultsFolder.open(folder, matrix.digest) as store:
        try:
            profiles = asked.run(store, display, notes.append)
        except KeyboardInterrupt:
            display.say(f"stopped; profiles that were finished are kept in {folder}")
            sys.exit(130)
    lines, traced = told(profiles, notes, folder)
    sys.stdout.write("".join(f"{line}\n" for line in (*lines, f"results: {folder}")))
    if not traced:
        return 3
    write_page(folder, Path(page or Path("reports") / f"{folder.name}.html"))
    return 0


def calibrate(
    *,
    duels: int = 12,
    injected: int = 6,
    inject: str | float = 0.05,
    declared: Mapping[str, Any] | None = None,
    matrix_file: Path | str | None = None,
    results: Path | str | None = None,
    page: Path | str | None = None,
) -> int:
    """Repeat A/A duels and duels of a slowed arm; continue a folder that has some already."""
    from bertopt_bench import duelling
    from bertopt_bench.calibrating import Series
    from bertopt_bench.dispatch.progress import open_display
    from bertopt_bench.matrix.duels import check_series
    from bertopt_bench.report.duel_wording import calibration_lines
    from bertopt_bench.results.store import ResultsFolder

    check_series(duels, injected)
    series = Series.read(matrix_file, declared or {}, inject)
    folder = Path(results or Path("results") / series.name)
    with open_display() as display, ResultsFolder.open(folder, series.digest) as store:
        for fight in series.fights(store, display, duels, injected):
            _tell(_or_interrupted(fight, folder))
    sys.stdout.write("".join(f"{line}\n" for line in calibration_lines(duelling.banked())))
    _finish_duels([], folder, page)
    return 0


def _say(line: str) -> None:
    """Tell a person what goes on, beside what is printed."""
    sys.stderr.write(line + "\n")


def _or_interrupted(run: Callable[[], Verdicts], folder: Path) -> Verdicts:
    """Run; on Ctrl-C say what is kept and end with 130."""
    try:
        return run()
    except KeyboardInterrupt:
        sys.stderr.write(
            f"\nstopped; whole replicates are kept in {folder}. The same command starts a session "
            "of its own: times are never pooled over sessions.\n"
        )
        sys.exit(130)


def _finish_duels(
    found: Sequence[Verdicts], folder: Path, page: Path | str | None, *, unit: str = "step"
) -> None:
    """Print what duels found and write their page; the replicates are safe already."""
    from bertopt_bench.report.duel_wording import speaking_of

    with speaking_of(unit):
        for verdicts in found:
            _tell(verdicts)
    sys.stdout.write(f"results: {folder}\n")
    write_page(folder, Path(page or Path("reports") / f"{folder.name}.html"))


def _tell(verdicts: Verdicts) -> None:
    """Print the verdicts, a line each, and why they are in doubt."""
    from bertopt_bench.report.duel_wording import verdict_lines

    lines = [f"{verdicts.state.replace('_', ' ')}: {reason}" for reason in verdicts.reasons]
    lines += verdict_lines(verdicts.findings, verdicts.controls)
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def write_page(folder: Path, page: Path) -> Path | None:
    """Write the page of what is safe already; None where a package for it is missing."""
    missing = [name for name in PAGE_PACKAGES if find_spec(name) is None]
    if not missing:
        return write_report([folder], page)
    told = f"{missing[0]} is" if len(missing) == 1 else f"{', '.join(missing)} are"
    sys.stdout.write(
        f"no page: {told} not installed. Here or on another machine, install and write it with:\n"
        f"  pip install {' '.join(missing)}\n"
        f"  {shlex.join(['bertopt-bench', 'report', str(folder), '--output', str(page)])}\n"
    )
    return None


def compare_results(
    a: Path | str,
    b: Path | str,
    *,
    metrics: Sequence[str] = (),
    margins: Sequence[str] = (),
    differs: Sequence[str] = (),
    anchor: str | None = None,
    cells: Sequence[str] = (),
    form: str = "text",
) -> int:
    """Compare recorded set B with A; give the exit code, 3 where what was asked for is refused.

    Raises:
        UserError: no such folder, field, metric, cell or format; sets without a common cell.
    """
    from bertopt_bench.report.comparison import check_format, render
    from bertopt_bench.results.micro import refuse_exploratory
    from bertopt_bench.results.tables import load_results
    from bertopt_bench.stats.sets import compare_sets, read_margins

    check_format(form)
    refuse_exploratory((a, b))
    old, new = load_results(a), load_results(b)
    compared = compare_sets(
        old,
        new,
        metrics=metrics,
        margins=read_margins(margins),
        differs=differs,
        anchor=anchor,
        cells=cells or None,
    )
    for name, one in (("A", old), ("B", new)):
        for warning in one.warnings:
            sys.stderr.write(f"warning: {name}: {warning}\n")
    sys.stdout.write(render(compared, (str(a), str(b)), form))
    return compared.exit_code


def gate_policy(policy: Path, sets: Sequence[Path] = (), **options: Any) -> int:
    """Gate a checkout by a policy, or two recorded sets; give the exit code.

    Raises:
        UserError: a mistake in the policy or in what was asked, found before a session ends.
    """
    from bertopt_bench.duelling import gate_duel
    from bertopt_bench.gate.running import Means, Request, run_gate
    from bertopt_bench.results.micro import refuse_as_policy, refuse_exploratory
    from bertopt_bench.stats.sets import compare_sets

    refuse_as_policy(policy)
    refuse_exploratory(sets)
    means = Means(run_duel=gate_duel, compare=compare_sets, write_page=write_report)
    return run_gate(Request(policy, tuple(sets), **options), means)


def examine_machine(*, as_json: bool = False) -> None:
    """Describe this machine, measure its ceilings and noise floor, and say what to change."""
    from bertopt_bench import doctor
    from bertopt_bench.doctor.measures import measures

    with measures() as means:
        diagnosis = doctor.examine(means, say=_say)
    doctor.show(diagnosis, as_json=as_json)


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
    """Write the HTML page of results folders, or of pytest-benchmark's files, and say where.

    Raises:
        UserError: no such folder, or a page that cannot be written.
    """
    from bertopt_bench.report.kinds import write_kind

    name = Path(results[0]).resolve().name.removesuffix(".json")
    page = output or Path("reports") / f"{name}.html"
    write_kind(results, page)
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
