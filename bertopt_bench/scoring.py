"""The command `score`: read training curves from a file or a results folder, and score them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from pandas import DataFrame

    from bertopt_bench.stats.scoring import Asked

READABLE = (".parquet", ".csv")


def score(
    frame: Annotated[
        Path,
        typer.Argument(
            help="A .parquet or .csv of curves (columns run, workload, submission, step, seconds, "
            "metric), or a results folder.",
            show_default=False,
        ),
    ],
    target: Annotated[
        list[str],
        typer.Option(
            metavar="[WORKLOAD=]VALUE",
            help="A value of the metric that was fixed before the runs.  [default: what three "
            "quarters of the baseline's seeds reach, and its median after three quarters of the "
            "steps]",
        ),
    ] = [],  # noqa: B006 - typer copies it
    baseline: Annotated[
        str | None,
        typer.Option(
            help="A submission, or the first word of one.  [default: adamw, tuned where it was, "
            "else the first by name]"
        ),
    ] = None,
    workload: Annotated[list[str], typer.Option(help="Only this workload.  [default: all]")] = [],  # noqa: B006
    metric: Annotated[
        str, typer.Option(help="Its name; of a results folder the column of evaluations.")
    ] = "loss",
    better: Annotated[
        str | None,
        typer.Option(help="lower or higher.  [default: lower for losses, errors, perplexities]"),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            help="What does not matter, in the metric's unit.  [default: a quarter of the "
            "baseline's spread over seeds]"
        ),
    ] = None,
    tau_max: Annotated[
        float, typer.Option(help="The largest ratio to the fastest that scores.")
    ] = 4.0,
    table: Annotated[
        str | None,
        typer.Option(
            help="One table as data: runs, finals, targets, reached, to_target, speed_ups, scores, "
            "profile, ranks, fronts, sensitivity or variance."
        ),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help="text, markdown, json, csv or parquet.")
    ] = "text",
    output: Annotated[Path | None, typer.Option(help="A file.  [default: standard output]")] = None,
) -> None:
    """Score training curves: time to target, performance profile, ranks, effects, fronts."""
    from bertopt_bench.report.scored import check_form
    from bertopt_bench.stats.curves import Aim
    from bertopt_bench.stats.scoring import Asked

    check_form(format_, table)
    aim = Aim.of(metric, better)
    asked = Asked(aim, baseline, tuple(target), tuple(workload), tau_max, margin)
    write_scores(frame, asked, table, format_, output)


def write_scores(
    frame: Path | str, asked: Asked, table: str | None, form: str, output: Path | None
) -> None:
    """Score a file or folder and write what came out.

    Raises:
        UserError: nothing that can be read, a frame that is none, an unknown name.
    """
    from bertopt_bench.report.scored import render
    from bertopt_bench.results.exporting import export, write_out
    from bertopt_bench.stats import scoring

    scored = scoring.score(*read_curves(Path(frame), asked))
    if table is None:
        write_out(render(scored, form), output)
    else:
        export(scored.tables[table], "markdown" if form == "text" else form, output)


def read_curves(path: Path, asked: Asked) -> tuple[DataFrame, Asked]:
    """Read curves from a file, or take them from a results folder with what its matrix declared.

    Raises:
        UserError: there is no such file, it is of another kind or damaged, a package is missing.
    """
    import pandas as pd

    if path.suffix not in READABLE:
        return _recorded(path, asked)
    if not path.is_file():
        raise UserError(f"{path} is no file. Name a .parquet or .csv, or a results folder.")
    try:
        made = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except ImportError as error:
        raise UserError("parquet needs pyarrow: pip install 'bertopt-bench[parquet]'.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}.") from error
    return made, asked


def _recorded(path: Path, asked: Asked) -> tuple[DataFrame, Asked]:
    from bertopt_bench.matrix.convergence import declared
    from bertopt_bench.report.convergence import with_baseline
    from bertopt_bench.report.frame import plain_session
    from bertopt_bench.report.sentences import source_of
    from bertopt_bench.results.tables import load_results
    from bertopt_bench.stats.training_curves import training_curves

    results = load_results(path)
    curves = training_curves(results.trials, results.evaluations, asked.aim.name)
    if not len(curves):
        raise UserError(f"{path} has no training run: there is nothing to score.")
    sources = [source_of(plain_session(session)) for session in results.sessions]
    targets, baseline = declared(sources)
    if asked.aim.name != "loss":
        targets = ()
    told = replace(asked, targets=asked.targets or targets)
    return curves, told if asked.baseline else with_baseline(told, curves, baseline)
