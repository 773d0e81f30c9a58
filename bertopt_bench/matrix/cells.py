"""Make cells of a matrix, say which cannot run, and put their trials in order."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from bertopt_bench import catalogue
from bertopt_bench.errors import MatrixError
from bertopt_bench.matrix.identity import cell_id
from bertopt_bench.matrix.keys import CORPUS_PREFIXES
from bertopt_bench.matrix.labels import UNSAID, UNSAID_WORKLOAD, cell_labels, choices
from bertopt_bench.matrix.modes import forward_cell, is_inference, repeated
from bertopt_bench.matrix.spec import combinations
from bertopt_bench.matrix.tasks import shape_workload
from bertopt_bench.workload.classifier_formulas import is_classification

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bertopt_bench.catalogue import Entry
    from bertopt_bench.matrix.spec import Matrix


@dataclass(frozen=True, slots=True)
class Cell:
    """One value for every axis: plain JSON, named by its hash.

    ``skip`` is the reason why it does not run, or None, and ``elsewhere`` says that it is only what
    this machine lacks, a device or a package; ``outside`` maps the source files of entries from
    outside this package to their SHA-256.
    """

    id: str
    content: Mapping[str, Any]
    skip: str | None
    label: str
    outside: Mapping[str, str] = field(default_factory=dict)
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """A cell to be run with a seed and a replicate number, for so many steps."""

    cell: Cell
    seed: int
    replicate: int
    steps: int


def expand(matrix: Matrix, capabilities: Mapping[str, Any] | None = None) -> list[Cell]:
    """Make the cells in the order of the file; one that cannot run says why.

    Args:
        matrix: what to expand.
        capabilities: what this machine can do (``measure.capabilities``); without it no skip rule
            is asked.

    Raises:
        MatrixError: an entry refuses its options' values, or an include repeats a cell.
    """
    found = _contents(matrix)
    labels = cell_labels([content for content, _ in found.values()])
    known = _known(matrix, capabilities) if capabilities else None
    repeats = repeated((key, one) for key, (one, excluded) in found.items() if excluded is None)
    find = cache(catalogue.find)  # of an entry from outside each look hashes its files
    cells = []
    for (identity, (content, excluded)), label in zip(found.items(), labels, strict=True):
        skip, elsewhere = excluded or repeats.get(identity), False
        if skip is None:
            _validate(matrix, content, label)
            skip, elsewhere = _skip_reason(matrix, content, known) if known else (None, False)
        cells.append(Cell(identity, content, skip, label, _outside(content, find), elsewhere))
    return cells


def expand_one(
    matrix: Matrix,
    capabilities: Mapping[str, Any] | None,
    who: str,
    wanted: str,
    example: str,
) -> Cell:
    """Expand a matrix that is to stand for one cell.

    Raises:
        MatrixError: it stands for several; the text says what is still open, as in ``example``.
    """
    cells = expand(matrix, capabilities)
    if len(cells) == 1:
        return cells[0]
    wide = [name for name, levels in matrix.levels.items() if len(levels) > 1]
    first = wide[0].rpartition(".")[2] if wide else "KEY"
    raise MatrixError(
        matrix.file,
        "",
        f"{who} {len(cells)} cells; {wanted}. Fix {', '.join(wide) or 'what [[include]] adds'}, "
        f"as in {example.format(first)}.",
    )


def plan_trials(cells: Sequence[Cell], matrix: Matrix, order_seed: int) -> list[TrialPlan]:
    """Order the trials in randomised complete blocks, so that drift hits all cells alike.

    A block is a replicate with a seed: every cell once, in an order drawn for the block alone.
    Replicate 0 trains to the end, later ones for ``timing.steps`` where that is given.
    """
    by_id = sorted(cells, key=lambda cell: cell.id)
    plans = []
    for replicate in range(matrix.replicates):
        for seed in matrix.seeds:
            order = list(by_id)
            random.Random(f"{order_seed}/{replicate}/{seed}").shuffle(order)
            plans += [
                TrialPlan(cell, seed, replicate, _steps(cell, matrix, replicate)) for cell in order
            ]
    return plans


def evaluation_steps(steps: int, every: int) -> list[int]:
    """Give the numbers of updates after which a trial is evaluated: 0, each multiple, the last.

    >>> evaluation_steps(10, 4)
    [0, 4, 8, 10]
    """
    return sorted({*range(0, steps, every), steps})


def _steps(cell: Cell, matrix: Matrix, replicate: int) -> int:
    whole: int = cell.content["workload"]["steps"]
    return whole if replicate == 0 else matrix.timing["steps"] or whole


def _contents(matrix: Matrix) -> dict[str, tuple[dict[str, Any], str | None]]:
    """Give content and reason to exclude by cell id; an include lifts an exclusion."""
    found: dict[str, tuple[dict[str, Any], str | None]] = {}
    for choice in combinations(matrix.levels):
        reasons = [rule.reason for rule in matrix.exclusions if rule.covers(choice)]
        content = _content(choice)
        found[cell_id(content)] = (content, f"excluded: {reasons[0]}" if reasons else None)
    for index, levels in enumerate(matrix.includes):
        for choice in combinations(levels):
            content = _content(choice)
            identity = cell_id(content)
            if identity in found and found[identity][1] is None:
                raise MatrixError(
                    matrix.file, f"include[{index}]", "repeats a cell that the matrix has anyway."
                )
            found[identity] = (content, None)
    return found


def _content(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Nest a combination of dimensions into a cell; what goes without saying is left out."""
    content: dict[str, Any] = {"workload": {}}
    for name, value in choice.items():
        table, _, key = name.partition(".")
        unsaid = UNSAID_WORKLOAD.get(key) if table == "workload" else UNSAID.get(name)
        if unsaid is not None and value == unsaid:
            continue
        if key:
            content.setdefault(table, {})[key] = value
        else:
            content[name] = value
    content["workload"] = shape_workload(content["workload"])
    return content


def _validate(matrix: Matrix, content: Mapping[str, Any], label: str) -> None:
    try:
        catalogue.validate(content)
    except ValueError as error:
        raise MatrixError(matrix.file, "axes", f"{error} (cell '{label}')") from error


def _known(matrix: Matrix, capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """Add to what the machine can do what the matrix asks for, and what its optimizers take."""
    names = {
        choice["name"]
        for levels in (matrix.levels, *matrix.includes)
        for choice in levels["optimizer"]
    }
    optimizers = {name: catalogue.find("optimizer", name) for name in names}
    return {
        **capabilities,
        "accepts": {name: sorted(entry.accepts) for name, entry in optimizers.items()},
        "initial": [name for name, entry in optimizers.items() if "Initial" in entry.notes],
        "skip_slower_precisions": matrix.skip_slower_precisions,
    }


def _skip_reason(
    matrix: Matrix, content: Mapping[str, Any], capabilities: Mapping[str, Any]
) -> tuple[str | None, bool]:
    """Give the first reason, and whether all that skips the cell is what this machine lacks."""
    cell = forward_cell(content) if is_inference(content) else content
    first: str | None = None
    for rule in catalogue.skip_rules().values():
        reason = None if rule.name in matrix.allow else rule.check(cell, capabilities)
        if reason is not None:
            hint = f' (allow = ["{rule.name}"] runs it)' if rule.allowable else ""
            first = first or reason + hint
            if not rule.elsewhere:
                return first, False
    return first, first is not None


def _outside(content: Mapping[str, Any], find: Callable[[str, str], Entry]) -> dict[str, str]:
    """Give the source files, by their SHA-256, of the entries that are not ours."""
    named = [
        (axis, part["name"])
        for axis, choice in choices(content).items()
        for part in (choice if isinstance(choice, list) else [choice])
    ]
    text = "dataset" if is_classification(content) else "corpus"
    if not content["workload"][text].startswith(CORPUS_PREFIXES):
        named.append((text, content["workload"][text]))
    sources: dict[str, str] = {}
    for axis, name in named:
        sources.update(find(axis, name).sources)
    return dict(sorted(sources.items()))
