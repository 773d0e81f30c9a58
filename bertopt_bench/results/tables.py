"""Tables of results: a row a trial, a row a step, a row an evaluation; and their exports.

A trial that ran several times (its record went stale) is shown by its latest record.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.labels import cell_labels
from bertopt_bench.results.exporting import export
from bertopt_bench.results.inside_rows import inside_rows
from bertopt_bench.results.pending import latest
from bertopt_bench.results.reading import RECORDS, SESSIONS, read_folder
from bertopt_bench.results.rows import evaluation_rows, step_rows, trial_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas import DataFrame

    from bertopt_bench.results.duels import Replicate
    from bertopt_bench.results.record import Record, Session

__all__ = ["TABLES", "Results", "export", "load_results"]

TABLES = ("trials", "steps", "evaluations", "inside")


@dataclass(frozen=True)
class Results:
    """What a folder holds, as models and as frames.

    ``records`` are all that are on disk; ``counted`` are the latest of each trial, in the order of
    the integer trial codes that join the frames. ``replicates`` are those of duels.
    """

    path: Path
    sessions: tuple[Session, ...]
    records: tuple[Record, ...]
    warnings: tuple[str, ...]
    replicates: tuple[Replicate, ...] = ()

    @cached_property
    def counted(self) -> tuple[Record, ...]:
        """Give the record that counts for each trial, sorted by label, seed and replicate."""
        records = [record for _, record in sorted(latest(self.records).items())]
        labels = cell_labels([record.cell for record in records])
        order = sorted(range(len(records)), key=labels.__getitem__)  # stable: then as before
        return tuple(records[index] for index in order)

    @cached_property
    def trials(self) -> DataFrame:
        """Make the frame with a row a trial."""
        return _frame(trial_rows(self.counted, self.sessions))

    @cached_property
    def steps(self) -> DataFrame:
        """Make the frame with a row a training step; steps count from 1."""
        return _frame(step_rows(self.counted), ("trial", "step", "loss", "step_seconds"))

    @cached_property
    def evaluations(self) -> DataFrame:
        """Make the frame with a row an evaluation; ``step`` counts the updates before it."""
        return _frame(evaluation_rows(self.counted), ("trial", "step", "loss"))

    @cached_property
    def inside(self) -> DataFrame:
        """Make the frame with a row a looked-at step and module of the network."""
        return _frame(inside_rows(self.counted), ("trial", "step", "module"))


def load_results(path: Path | str) -> Results:
    """Read a results folder, or the records file in it.

    Raises:
        UserError: there is none, or it is damaged; the text names file and line.
    """
    folder = Path(path)
    folder = folder.parent if folder.name in {RECORDS, SESSIONS} else folder
    contents = read_folder(folder)
    return Results(
        folder, contents.sessions, contents.records, contents.warnings, contents.replicates
    )


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> DataFrame:
    import pandas as pd

    if not rows:
        return pd.DataFrame(columns=list(columns or ("trial", "cell_id", "status")))
    return pd.DataFrame([dict(row) for row in rows])
