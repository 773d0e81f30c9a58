"""What the command ``tune`` does: rounds of points until the budget is spent, then the choice.

Each round's points follow from the ledger and the records alone, so that an invocation goes on
where the one before ended, however it ended.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bertopt_bench.dispatch.preparing import ask_capabilities
from bertopt_bench.dispatch.sessions import utc_now
from bertopt_bench.matrix import proposing
from bertopt_bench.matrix.forecast import duration
from bertopt_bench.matrix.identity import cell_id
from bertopt_bench.matrix.labels import number
from bertopt_bench.matrix.protocols import hold_declared, protocol_hash
from bertopt_bench.matrix.tuned import write_matrix
from bertopt_bench.matrix.tuning import REPORT_PART, is_possible, read_tuning
from bertopt_bench.planning import plan_tuning
from bertopt_bench.results.tuning import (
    Choice,
    Ledger,
    LedgerFile,
    Outcome,
    Point,
    final_loss,
    ledger_sha256,
)
from bertopt_bench.stats.tuning import choose_best, find_edges, mean_loss, pruned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.dispatch.progress import Display
    from bertopt_bench.dispatch.tuning import TuningRun
    from bertopt_bench.matrix.cells import Cell
    from bertopt_bench.matrix.tuning import TunedArm, Tuning
    from bertopt_bench.results.record import Record
    from bertopt_bench.results.store import ResultsFolder

TUNED = "tuned.toml"


@dataclass(frozen=True, slots=True)
class Search:
    """A tuning with its ledger: what is proposed next, what came of it, what is chosen."""

    tuning: Tuning
    ledger: Ledger

    def next_points(self) -> list[Point]:
        """Propose each arm's next points; none where its budget is spent."""
        return [point for arm in self.tuning.arms for point in self._next(arm)]

    def _next(self, arm: TunedArm) -> list[Point]:
        if arm.cell.skip is not None:
            return []
        tried = self.ledger.of(arm.name)
        values = self.values(tried)
        planned = sum(point.origin != EXTENSION for point in tried)
        if planned < self.tuning.points:
            told = list(zip([dict(point.options) for point in tried], values, strict=True))
            found = proposing.propose(arm.dimensions, self.tuning, told)
        else:
            found = [(EXTENSION, options) for options in self._beyond(arm, tried, values)]
        return [
            Point(
                arm=arm.name,
                number=len(tried) + place,
                origin=origin,
                options=options,
                cell_id=arm.at(options).id,
                at_utc=utc_now(),
            )
            for place, (origin, options) in enumerate(found, start=1)
        ]

    def _beyond(
        self, arm: TunedArm, tried: Sequence[Point], values: Sequence[float]
    ) -> list[dict[str, float]]:
        """Step over each edge that the best lies on, as far as the budget of extensions allows."""
        left = self.tuning.extensions - sum(point.origin == EXTENSION for point in tried)
        best = choose_best(values)
        if best is None or left < 1:
            return []
        options = tried[best].options
        dimensions = {one.key: one for one in arm.dimensions}
        found = []
        for edge in find_edges([point.options for point in tried], values, best):
            value = dimensions[edge.option].beyond(options[edge.option], edge.side)
            further = {**options, edge.option: value} if value is not None else None
            if further is not None and is_possible(arm, further):
                found.append(further)
        return found[:left]

    def values(self, points: Sequence[Point]) -> list[float]:
        """Give each point's mean loss, +inf where it has none."""
        outcomes = [self.ledger.outcome(point) for point in points]
        return [float("inf") if one is None else one.loss for one in outcomes]

    def choose(self, arm: TunedArm) -> Choice:
        """Choose an arm's best point and add up what its points cost."""
        points = self.ledger.of(arm.name)
        values = self.values(points)
        best = choose_best(values)
        outcomes = [one for point in points if (one := self.ledger.outcome(point))]
        costs: dict[str, Any] = {
            "arm": arm.name,
            "points": len(points),
            "extensions": sum(point.origin == EXTENSION for point in points),
            "trials": sum(one.trials for one in outcomes),
            "steps": sum(one.steps for one in outcomes),
            "seconds": sum(one.seconds for one in outcomes),
        }
        if best is None:
            return Choice(number=None, options={}, loss=float("inf"), **costs)
        edges = find_edges([point.options for point in points], values, best)
        return Choice(
            number=points[best].number,
            options=points[best].options,
            cell_id=points[best].cell_id,
            loss=values[best],
            edges=tuple(edge.option for edge in edges),
            **costs,
        )


EXTENSION = "extension"


def tune(
    matrix_file: Path | str,
    *,
    results: Path | str | None = None,
    page: Path | str | None = None,
    overrides: Sequence[str] = (),
    new: bool = False,
    plan_only: bool = False,
    whole: str = "",
) -> None:
    """Tune every arm under one budget, write the matrix of what was chosen, and the page.

    ``whole`` is the command line that this is a part of: it is named after Ctrl-C, and runs what
    was chosen by itself.

    Raises:
        UserError: a mistake in the matrix; a folder that is in use or holds another tuning.
        SystemExit: 130 on Ctrl-C, after what is done was made safe.
    """
    from bertopt_bench.dispatch.progress import open_display
    from bertopt_bench.pipeline import results_folder, write_page
    from bertopt_bench.results.store import ResultsFolder

    if plan_only:
        plan_tuning(matrix_file, overrides)
        return
    _refuse_mistakes(matrix_file, overrides)
    capabilities = ask_capabilities()
    tuning = read_tuning(matrix_file, overrides, capabilities)
    folder = results_folder(results, f"{tuning.matrix.name}-tuning", new=new)
    page = Path(page or Path("reports") / f"{folder.name}.html")
    with open_display() as display, ResultsFolder.open(folder, tuning.digest) as store:
        try:
            search = _search(tuning, store, display, capabilities)
        except KeyboardInterrupt:
            _stop(display, whole or _again(matrix_file, folder, page, overrides), folder)
        _write_tuned(search, folder, matrix_file)
    _tell(search)
    sys.stdout.write(f"results: {folder}\n")
    write_page(folder, page)
    if not whole and (folder / TUNED).is_file():
        _tell_next(folder / TUNED)


def _refuse_mistakes(matrix_file: Path | str, overrides: Sequence[str]) -> None:
    """Tell mistakes at once, before the machine is asked; hold a protocol to its lock."""
    stated = read_tuning(matrix_file, overrides)
    hold_declared(Path(matrix_file), stated.document, stated.declared())


def _tell_next(tuned: Path) -> None:
    command = shlex.join(["bertopt-bench", "run", str(tuned)])
    sys.stdout.write(f"next, what was chosen on seeds and text of its own:\n  {command}\n")


def _stop(display: Display, again: str, folder: Path) -> NoReturn:
    display.say(f"stopped; what is done is in {folder}. Continue with:\n  {again}")
    sys.exit(130)


def _again(file: Path | str, folder: Path, page: Path, overrides: Sequence[str]) -> str:
    words = ["bertopt-bench", "tune", str(file), "--results", str(folder), "--page", str(page)]
    return shlex.join(words + [word for override in overrides for word in ("--set", override)])


def _search(
    tuning: Tuning, store: ResultsFolder, display: Display, capabilities: Mapping[str, Any]
) -> Search:
    """Run rounds until no arm has anything left to propose."""
    from bertopt_bench.dispatch.tuning import TuningRun

    run = TuningRun(tuning, store, display, capabilities)
    run.prepare()
    with LedgerFile(store.path) as file:
        ledger, number_of_round = file.ledger, 0
        for warning in ledger.warnings:
            display.say(f"warning: {warning}")
        while True:
            _run_points(run, ledger, number_of_round)
            ledger = file.write(_outcomes(run, ledger))
            search = Search(tuning, ledger)
            proposed = search.next_points()
            if not proposed:
                break
            number_of_round += 1
            ledger = file.write(proposed)
        choices = [search.choose(arm) for arm in tuning.arms if ledger.of(arm.name)]
        ledger = file.write(choices)
    run.end()
    return Search(tuning, ledger)


def _cells(tuning: Tuning, points: Sequence[Point]) -> list[tuple[str, Cell]]:
    arms = {arm.name: arm for arm in tuning.arms}
    return [(point.arm, arms[point.arm].at(point.options)) for point in points]


def _run_points(run: TuningRun, ledger: Ledger, round_number: int) -> None:
    """Run all points on all seeds; with a rule to prune, seed by seed."""
    tuning, points = run.tuning, ledger.points
    if not points:
        return
    what = f"round {round_number}" if round_number else "what an earlier run left"
    first, rest = tuning.seeds[:1], tuning.seeds[1:]
    if tuning.prune == "none":
        first, rest = tuning.seeds, ()
    run.run(_cells(tuning, points), first, what)
    if rest:
        dropped = _dropped(run, ledger)
        kept = [point for point in points if (point.arm, point.number) not in dropped]
        run.run(_cells(tuning, kept), rest, f"{what}, further seeds")


def _dropped(run: TuningRun, ledger: Ledger) -> set[tuple[str, int]]:
    """Name the points that go no further after the first seed: arm and number.

    A judgement of the ledger stands as long as the loss that it was made by.
    """
    tuning = run.tuning
    if tuning.prune == "none":
        return set()
    records, seed = run.records(), tuning.seeds[0]
    dropped: set[tuple[str, int]] = set()
    for arm in ledger.arms():
        points = ledger.of(arm)
        values = [mean_loss([_last_loss(records, point.cell_id, seed)]) for point in points]
        told = [ledger.outcome(point) for point in points]
        before = [
            place
            for place, one in enumerate(told)
            if one is not None and one.pruned and one.losses.get(str(seed)) == values[place]
        ]
        complete = [
            place
            for place, point in enumerate(points)
            if all(records.get((point.cell_id, one)) for one in tuning.seeds)
        ]
        places = pruned(values, tuning.prune, before, complete)
        dropped |= {(arm, points[place].number) for place in places}
    return dropped


def _last_loss(
    records: Mapping[tuple[str, int], Sequence[Record]], cell: str, seed: int
) -> float | None:
    row = records.get((cell, seed), ())
    return final_loss(row[-1]) if row else None


def _outcomes(run: TuningRun, ledger: Ledger) -> list[Outcome]:
    """Say what came of each point, from the records alone."""
    records, dropped = run.records(), _dropped(run, ledger)
    seeds = run.tuning.seeds
    found = []
    for point in ledger.points:
        rows = {seed: records.get((point.cell_id, seed), []) for seed in seeds}
        every = [record for row in rows.values() for record in row]
        counted = {str(seed): row[-1] for seed, row in rows.items() if row}
        gone = (point.arm, point.number) in dropped
        losses = {seed: final_loss(record) for seed, record in counted.items()}
        given = [*losses.values(), *([None] * (len(seeds) - len(losses)))]
        found.append(
            Outcome(
                arm=point.arm,
                number=point.number,
                cell_id=point.cell_id,
                loss=float("inf") if gone else mean_loss(given),
                losses={s: float("inf") if loss is None else loss for s, loss in losses.items()},
                statuses={seed: record.status for seed, record in counted.items()},
                pruned=gone,
                trials=len(every),
                steps=sum(len(record.losses) for record in every),
                seconds=sum(record.elapsed_seconds or 0.0 for record in every),
            )
        )
    return found


def _write_tuned(search: Search, folder: Path, matrix_file: Path | str) -> None:
    """Write the matrix that reports: tuned cells, and the defaults beside them where asked for."""
    from bertopt_bench.results.store import told, write_whole

    tuning = search.tuning
    arms = {arm.name: arm for arm in tuning.arms}
    contents: dict[str, Mapping[str, Any]] = {}
    tables = []
    for choice in search.ledger.choices:
        arm = arms[choice.arm]
        if choice.number is not None:
            content = _reported(arm.at(choice.options))
            contents[cell_id(content)] = content
            tables.append(_table(choice, cell_id(content), tuning, ledger_sha256(folder)))
        if arm.name in tuning.report_defaults:
            content = _reported(arm.cell)
            contents.setdefault(cell_id(content), content)
    if not contents:
        return
    kept = ("name", "description", "seeds", "replicates", "allow", "timing", "measure")
    document = {
        key: tuning.document[key] for key in (*kept, "convergence") if key in tuning.document
    }
    document["name"] = tuning.matrix.name
    if "protocol" in tuning.document:
        document["protocol"] = _identity(tuning)
    workload = {**tuning.document.get("workload", {}), "held_out_part": REPORT_PART}
    text = write_matrix({**document, "workload": workload}, list(contents.values()), tables)
    head = f"# Written by `bertopt-bench tune` from {Path(matrix_file).name}; do not edit.\n"
    with told(folder / TUNED):
        write_whole(folder / TUNED, head + text)


def _identity(tuning: Tuning) -> dict[str, str]:
    """Name the protocol by its hash; a challenge's matrix names that of the protocol it follows."""
    given = tuning.document["protocol"]
    if "sha256" in given:
        return {key: given[key] for key in ("name", "sha256") if key in given}
    return {"name": tuning.matrix.name, "sha256": protocol_hash(tuning.document)}


def _reported(cell: Cell) -> dict[str, Any]:
    workload = {**cell.content["workload"], "held_out_part": REPORT_PART}
    return {**cell.content, "workload": workload}


def _table(choice: Choice, cell: str, tuning: Tuning, ledger: str) -> dict[str, Any]:
    return {
        "cell": cell,
        "arm": choice.arm,
        "points": choice.points,
        "extensions": choice.extensions,
        "seeds": len(tuning.seeds),
        "edge_optimum": list(choice.edges),
        "ledger": ledger,
    }


def _tell(search: Search) -> None:
    """Print a line an arm: what was chosen, out of how many points, at what cost."""
    width = max((len(choice.arm) for choice in search.ledger.choices), default=0)
    for choice in search.ledger.choices:
        told = ", ".join(f"{k.partition('.')[2]} {number(v)}" for k, v in choice.options.items())
        best = f"{told}: held-out loss {choice.loss:.4f}" if told else "no point finished"
        edge = f"; EDGE OPTIMUM in {', '.join(choice.edges)}" if choice.edges else ""
        cost = (
            f"{choice.points} points ({choice.extensions} beyond the edge), {choice.trials} "
            f"trials, {choice.steps:,} steps, {duration(choice.seconds)}"
        )
        sys.stdout.write(f"{choice.arm.ljust(width)}  {best}; {cost}{edge}\n")
