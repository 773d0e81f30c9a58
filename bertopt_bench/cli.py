"""The command line: one short function a command, each body one call."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bertopt_bench.errors import UserError

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
Settings = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a key of the matrix, as workload.steps=50."
    ),
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
    from bertopt_bench.pipeline import plan_matrix

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
def duel(
    matrix: Annotated[
        Path | None, typer.Argument(help="The matrix, a TOML file; none of --micro.")
    ] = None,
    base: Annotated[
        list[str], typer.Option(metavar="KEY=VALUE", help="Narrow the matrix to the baseline.")
    ] = [],  # noqa: B006 - typer copies it
    arm: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE ...",
            help="An arm: what differs from the baseline; also label=, python=, revision=, "
            "checkout=, build=, inject=.",
        ),
    ] = [],  # noqa: B006 - typer copies it
    metric: Annotated[
        list[str], typer.Option(help="step_time, peak_memory, loss or time_to_target.")
    ] = [],  # noqa: B006 - typer copies it
    margin: Annotated[str | None, typer.Option(help="What does not matter.  [default: 2%]")] = None,
    alpha: Annotated[float | None, typer.Option(help="Per comparison.  [default: 0.01]")] = None,
    replicates: Annotated[int | None, typer.Option(help="Fixed.  [default: 12]")] = None,
    until: Annotated[
        str | None, typer.Option(help="Look after 10, 20, 30 until this half-width, as 1%.")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Time for all of it, as 5m.")] = None,
    target: Annotated[float | None, typer.Option(help="Loss for time_to_target.")] = None,
    inject: Annotated[str, typer.Option(help="Add the baseline slowed by this, as 5%.")] = "0",
    alternate: Annotated[
        bool, typer.Option("--alternate", help="One process at a time (ABBA).")
    ] = False,
    micro: Annotated[
        str,
        typer.Option(
            metavar="OPERATION",
            help="Duel implementations of an operation: attention, layer_norm, gelu, mlm_loss, "
            "optimizer_step; an --arm is one, as --arm flash or --arm my_module:my_gelu.",
        ),
    ] = "",
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Say what can be found and at what cost; run nothing.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 4 where the answer is not clear.")
    ] = False,
    results: Annotated[
        Path | None, typer.Option(help="Where results go.  [default: results/<matrix name>-duel]")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="The page to write.")] = None,
    set_: Settings = [],  # noqa: B006 - typer copies it
    new: Annotated[bool, typer.Option("--new", help="Start another results folder.")] = False,
) -> None:
    """Compare arms live: fresh processes in pairs, blocks in random order, an A/A arm always."""
    from bertopt_bench import pipeline

    declared = {
        "metric": metric or None,
        "margin": margin,
        "alpha": alpha,
        "replicates": replicates,
        "until": until,
        "budget": budget,
        "target": target,
        "alternate": alternate or None,
    }
    raise typer.Exit(
        pipeline.duel(
            matrix,
            micro=micro,
            base=base,
            arms=arm,
            inject=inject,
            declared=declared,
            overrides=set_,
            results=results,
            page=page,
            new=new,
            plan_only=plan_only,
            strict=strict,
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
    steps: Annotated[int, typer.Option(help="How many steps are profiled.")] = 3,
    nsys: Annotated[
        bool, typer.Option("--nsys", help="Also under NVIDIA Nsight Systems, with NVTX ranges.")
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


@app.command()
def gate(
    policy: Annotated[Path, typer.Argument(help="The policy, a TOML file.", show_default=False)],
    sets: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="A B", help="Two recorded sets, the old one first; none to run duels."
        ),
    ] = None,
    checkout: Annotated[
        Path | None, typer.Option(help="The gated repository.  [default: the one you are in]")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The revision to compare with.  [default: the policy's]")
    ] = None,
    anchor: Annotated[
        str | None,
        typer.Option(help="The last release, compared with too; of recorded sets the pinned arm."),
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Time for all sessions, as 20m.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 4 where the answer is not clear.")
    ] = False,
    results: Annotated[
        Path | None, typer.Option(help="Where results go.  [default: results/gate-<policy name>]")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="The page.  [default: reports/gate-<policy name>.html]")
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(help="Add the summary to it.  [default: GITHUB_STEP_SUMMARY's]")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write JSON.")] = None,
) -> None:
    """Gate a checkout by a policy: exit 1 only where two independent sessions find a regression."""
    from bertopt_bench.pipeline import gate_policy

    raise typer.Exit(
        gate_policy(
            policy,
            tuple(sets or ()),
            checkout=checkout,
            base=base,
            anchor=anchor,
            budget=budget,
            strict=strict,
            results=results,
            page=page,
            summary=summary,
            junit=junit,
            json=json,
        )
    )


@app.command()
def calibrate(
    matrix: Annotated[
        Path | None, typer.Argument(help="A matrix of one cell.  [default: a tiny one, built in]")
    ] = None,
    duels: Annotated[int, typer.Option(help="A/A duels in all.")] = 12,
    injected: Annotated[int, typer.Option(help="Duels with a slowed arm in all.")] = 6,
    inject: Annotated[str, typer.Option(help="By how much it is slowed.")] = "5%",
    margin: Annotated[str, typer.Option(help="What a slow-down must exceed.")] = "1%",
    replicates: Annotated[int | None, typer.Option(help="A duel.  [default: 12]")] = None,
    results: Annotated[
        Path | None, typer.Option(help="Where results go.  [default: results/<matrix name>]")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="The page to write.")] = None,
) -> None:
    """Measure this machine's false alarms and power: A/A duels, and duels with a slowed arm."""
    from bertopt_bench import pipeline

    raise typer.Exit(
        pipeline.calibrate(
            duels=duels,
            injected=injected,
            inject=inject,
            declared={"margin": margin, "replicates": replicates},
            matrix_file=matrix,
            results=results,
            page=page,
        )
    )


@app.command()
def compare(
    a: Annotated[
        Path,
        typer.Argument(metavar="A", help="A results folder: the baseline.", show_default=False),
    ],
    b: Annotated[
        Path, typer.Argument(metavar="B", help="What is compared with it.", show_default=False)
    ],
    metric: Annotated[
        list[str],
        typer.Option(
            help="step_time, peak_memory, loss or time_to_target.  [default: all that can be had]"
        ),
    ] = [],  # noqa: B006 - typer copies it
    differs: Annotated[
        list[str],
        typer.Option(
            metavar="FIELD",
            help="What may differ: torch, python, packages, version, commit, outside, machine, "
            "threads, workload, weights, matrix, or one recorded key, as numpy.",
        ),
    ] = [],  # noqa: B006 - typer copies it
    anchor: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL",
            help="The arm of two duels that times are ratios to.  [default: their baseline]",
        ),
    ] = None,
    margin: Annotated[
        list[str],
        typer.Option(
            metavar="METRIC=VALUE",
            help="What does not matter.  [default: step_time=2%, peak_memory=1%]",
        ),
    ] = [],  # noqa: B006 - typer copies it
    cell: Annotated[list[str], typer.Option(help="A cell's label or id.  [default: all]")] = [],  # noqa: B006 - typer copies it
    format_: Annotated[str, typer.Option("--format", help="text, markdown or json.")] = "text",
) -> None:
    """Compare two recorded result sets: memory and losses, and times by an anchor."""
    from bertopt_bench.pipeline import compare_results

    raise typer.Exit(
        compare_results(
            a,
            b,
            metrics=metric,
            margins=margin,
            differs=differs,
            anchor=anchor,
            cells=cell,
            form=format_,
        )
    )


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Describe this machine, measure its limits and noise, and say what to change."""
    from bertopt_bench.pipeline import examine_machine

    examine_machine(as_json=as_json)


@app.command()
def tables(
    results: ResultsPath,
    table: Annotated[str, typer.Option(help="trials, steps or evaluations.")] = "trials",
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
