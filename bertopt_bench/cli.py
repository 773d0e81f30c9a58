"""The command line: one short function a command, each body one call."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bertopt_bench.errors import UserError
from bertopt_bench.judging import Settings, calibrate, compare, doctor, duel, gate
from bertopt_bench.scoring import score

app = typer.Typer(
    name="bertopt-bench",
    help="Benchmark and profile BERT training: optimizers, precisions, kernels, on real text.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

MatrixFile = Annotated[Path, typer.Argument(help="The matrix, a TOML file.", show_default=False)]
ResultsPath = Annotated[
    Path, typer.Argument(help="A results folder, as `run` names it.", show_default=False)
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Skip cells whose forecast of allocated bytes is above it, as 16GiB or 800MiB.",
        show_default=False,
    ),
]


@app.command("list")
def list_(
    axis: Annotated[str, typer.Argument(help="An axis, as optimizer.")] = "",
    entry: Annotated[str, typer.Argument(help="An entry of the axis, as adamw.")] = "",
) -> None:
    """List the axes, the entries of one, or all about one entry."""
    from bertopt_bench.listing import show

    show(axis, entry)


@app.command()
def plan(
    matrix: MatrixFile,
    max_memory: MaxMemory = None,
    set_: Settings = [],  # noqa: B006 - typer copies it
) -> None:
    """Show what a matrix would run: cells, skips with reasons, forecast of time and memory."""
    from bertopt_bench.planning import plan_matrix

    plan_matrix(matrix, overrides=set_, max_memory=max_memory)


@app.command()
def run(
    matrix: MatrixFile,
    results: Annotated[
        Path | None, typer.Option(help="Where results go.  [default: results/<matrix name>]")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="The page to write.  [default: reports/<matrix name>.html]")
    ] = None,
    set_: Settings = [],  # noqa: B006 - typer copies it
    max_memory: MaxMemory = None,
    new: Annotated[bool, typer.Option("--new", help="Start another results folder.")] = False,
) -> None:
    """Run a matrix: what is missing or stale, then the page."""
    from bertopt_bench.pipeline import run_matrix

    run_matrix(matrix, results=results, page=page, overrides=set_, new=new, max_memory=max_memory)


@app.command()
def tune(
    matrix: MatrixFile,
    results: Annotated[
        Path | None, typer.Option(help="A folder.  [default: results/<matrix name>-tuning]")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="The page.  [default: reports/<folder's name>.html]")
    ] = None,
    set_: Settings = [],  # noqa: B006 - typer copies it
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Show points, trials and time, and run nothing.")
    ] = False,
    new: Annotated[bool, typer.Option("--new", help="Start another results folder.")] = False,
) -> None:
    """Tune the arms of a matrix under one budget; write the matrix of what was chosen."""
    from bertopt_bench import tuning

    tuning.tune(matrix, results=results, page=page, overrides=set_, new=new, plan_only=plan_only)


@app.command()
def challenge(
    optimizer: Annotated[
        str, typer.Argument(help="Your optimizer, module:Name.", show_default=False)
    ],
    protocol: Annotated[str, typer.Option(help="A protocol, as tiny-v1, or its file.")] = "tiny-v1",
    records: Annotated[
        Path | None, typer.Option(help="Published records.  [default: results/protocols/<name>]")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="A folder.  [default: results/challenge-<protocol>-<name>]")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="The page to write.")] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Show points, trials and time, and run nothing.")
    ] = False,
) -> None:
    """Tune and run your optimizer under a protocol and join it to the published records."""
    from bertopt_bench import challenging

    raise typer.Exit(
        challenging.challenge(
            optimizer, protocol, records=records, results=results, page=page, plan_only=plan_only
        )
    )


@app.command()
def profile(
    matrix: MatrixFile,
    cell: Annotated[
        list[str],
        typer.Option(
            metavar="CELL",
            help="'KEY=VALUE ...', a label or the start of an id; two are compared.",
        ),
    ] = [],  # noqa: B006 - typer copies it
    steps: Annotated[
        str, typer.Option(help="How many steps are profiled, or which, as in 50-52.")
    ] = "3",
    nsys: Annotated[
        bool,
        typer.Option("--nsys", help="Also under NVIDIA Nsight Systems; on a GPU with NVTX ranges."),
    ] = False,
    ncu: Annotated[
        bool, typer.Option("--ncu", help="Also under Nsight Compute, which counts bytes and FLOPs.")
    ] = False,
    ncu_csv: Annotated[
        list[Path], typer.Option(help="What `ncu --csv` wrote; one a cell, in their order.")
    ] = [],  # noqa: B006 - typer copies it
    results: Annotated[
        Path | None, typer.Option(help="A folder.  [default: results/<matrix name>-profile]")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="The page to write.")] = None,
    set_: Settings = [],  # noqa: B006 - typer copies it
    new: Annotated[bool, typer.Option("--new", help="Start another results folder.")] = False,
) -> None:
    """Trace a few steps of one cell or two: operators, modules, memory, gaps; no verdict."""
    from bertopt_bench import pipeline

    raise typer.Exit(
        pipeline.profile(
            matrix,
            cells=cell,
            steps=steps,
            tools=[name for name, asked in (("nsys", nsys), ("ncu", ncu)) if asked],
            ncu_csv=ncu_csv,
            overrides=set_,
            results=results,
            page=page,
            new=new,
        )
    )


for judging in (duel, gate, calibrate, compare, score, doctor):
    app.command()(judging)


@app.command()
def tables(
    results: ResultsPath,
    table: Annotated[str, typer.Option(help="trials, steps, evaluations or inside.")] = "trials",
    format_: Annotated[
        str, typer.Option("--format", help="markdown, csv, parquet or json.")
    ] = "markdown",
    output: Annotated[Path | None, typer.Option(help="A file.  [default: standard output]")] = None,
) -> None:
    """Write a table of a results folder."""
    from bertopt_bench.pipeline import write_table

    write_table(results, table, format_, output)


@app.command()
def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Results folders, as `run` names them; or JSON files of pytest-benchmark.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(help="The page.  [default: reports/<first folder's name>.html]")
    ] = None,
) -> None:
    """Write the HTML page of results folders, or of pytest-benchmark's files."""
    from bertopt_bench.pipeline import write_report

    write_report(results, output)


@app.command()
def verify(results: ResultsPath) -> None:
    """Re-derive what must hold in a results folder; exit code 3 where something does not."""
    from bertopt_bench.pipeline import verify_results

    raise typer.Exit(verify_results(results))


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Benchmark and profile BERT training: optimizers, precisions, kernels, on real text."""
    if show:
        from importlib.metadata import version as installed

        typer.echo(installed("bertopt-bench"))
        raise typer.Exit


def main() -> None:
    """Run the command line; a user's mistake is text and exit code 2, never a traceback."""
    try:
        app()
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except BrokenPipeError:  # the reader of a pipe (head, less) has gone
        sys.stderr.close()
        sys.exit(0)
