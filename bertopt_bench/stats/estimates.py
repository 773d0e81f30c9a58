"""Summaries of cells and effects of axes, each with its n and spread; no verdicts.

A cell's loss is summarised over seeds (replicates of one seed train alike), its times over the
trials of one session, since times are never pooled over sessions. An axis' effect is the
distribution of paired differences over all settings of the other axes: a full factorial says how
much an effect depends on its context, which a marginal mean hides.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from bertopt_bench.matrix.labels import DRAWN_ALIKE
from bertopt_bench.stats.levels import CHOICE_AXES, USUAL_LEVELS, WORKLOAD_AXES
from bertopt_bench.workload.classification_metrics import MEASURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pandas import DataFrame

UNFINISHED = ("diverged", "out_of_memory", "timed_out", "failed")

Trial: TypeAlias = dict[str, Any]
Run: TypeAlias = tuple[object, ...]
Contexts: TypeAlias = dict[tuple[str, ...], dict[str, dict[Run, list[Trial]]]]


@dataclass(frozen=True)
class Metric:
    """A measured column: a ratio or a difference, and whether time enters it."""

    column: str
    title: str
    unit: str
    is_ratio: bool
    is_timed: bool
    higher_is_better: bool = False
    resolution: float = 0.001
    """Differences below it are rounding: written as 0, drawn as none. A ratio's is a logarithm."""

    def is_none(self, difference: float) -> bool:
        """Say whether a difference would be written as 0.

        >>> LOSS.is_none(-0.0004), LOSS.is_none(0.0006)
        (True, False)
        """
        return abs(difference) < self.resolution / 2


LOSS = Metric("final_loss", "held-out loss", "nats per masked token", False, False)
THROUGHPUT = Metric("tokens_per_second", "throughput", "tokens/s", True, True, True)
MEMORY = Metric("peak_memory_bytes", "peak memory", "bytes", True, False)
EFFECT_METRICS = (LOSS, THROUGHPUT, MEMORY)
TIMED_COLUMNS = (
    "tokens_per_second",
    "step_seconds",
    "time_to_first_step_seconds",
    "ceiling_share",
    "model_flops_per_second",
    "peak_resident_bytes",
    "latency_seconds",
    "latency_seconds_p99",
    "latency_samples",
    "sequences_per_second",
)
SEEDED_COLUMNS = (
    "final_loss",
    "best_loss",
    "final_masked_accuracy",
    "final_perplexity",
    *(f"test_{name}" for name in MEASURES),
    "test_loss",
    "test_calibration_error",
    "final_next_sentence_accuracy",
    "final_next_sentence_loss",
    "final_train_loss",
    "generalisation_gap",
    "epochs_seen",
)


@dataclass(frozen=True)
class Spread:
    """Five numbers and their n."""

    n: int
    low: float
    q1: float
    median: float
    q3: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """Summarise the finite values (quartiles by linear interpolation), or None."""
        kept = sorted(v for v in values if v is not None and math.isfinite(v))
        if not kept:
            return None
        quarters = statistics.quantiles(kept, n=4, method="inclusive") if kept[1:] else kept * 3
        return cls(len(kept), kept[0], quarters[0], quarters[1], quarters[2], kept[-1])


@dataclass(frozen=True)
class Axis:
    """An axis that varies in the set, its levels in order, and the one compared with."""

    name: str
    levels: tuple[str, ...]
    reference: str


@dataclass(frozen=True)
class Cell:
    """What the trials of one cell say together."""

    id: str
    label: str
    levels: Mapping[str, str]
    statuses: Mapping[str, int]
    reasons: tuple[str, ...]
    trials: tuple[int, ...]
    runs: int
    session: str
    spreads: Mapping[str, Spread]
    comparable: str
    is_tuned: bool
    tuned_points: int | None = None
    edge_optimum: str = ""

    @property
    def is_ranked(self) -> bool:
        """Say whether its loss may be ranked: two seeds or more, and none that did not finish."""
        loss = self.spreads.get("final_loss")
        unfinished = any(status in self.statuses for status in UNFINISHED)
        return loss is not None and loss.n > 1 and not unfinished


@dataclass(frozen=True)
class Effect:
    """A level against its axis' reference: one paired difference, or log ratio, a context.

    `unfinished` counts contexts tried in both arms without one finished pair, `unlike` those where
    the arms saw other batches, weights or held-out text, so that a difference means nothing.
    """

    axis: str
    level: str
    reference: str
    metric: Metric
    differences: tuple[float, ...]
    spread: Spread | None
    unfinished: int
    unlike: int


def trial_rows(trials: DataFrame) -> list[Trial]:
    """List the trials as dictionaries; `steps` is the cell's, not a timing replicate's."""
    rows: list[Trial] = [{str(k): v for k, v in row.items()} for row in trials.to_dict("records")]
    planned: dict[str, int] = defaultdict(int)
    for row in rows:
        planned[row["cell_id"]] = max(planned[row["cell_id"]], int(number(row.get("steps")) or 0))
    for row in rows:
        row["steps"] = planned[row["cell_id"]]
    return rows


def number(value: object) -> float | None:
    """Read a finite number, or None for what is missing, NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        as_float = getattr(value, "item", None)  # NumPy scalars
        value = as_float() if as_float else None
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    return None


def words(value: object) -> str:
    """Write a level or a reason as text; what is missing is empty."""
    if value is None or value != value:  # noqa: PLR0124 - NaN is what differs from itself
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def natural_order(level: str) -> list[tuple[int, float, str]]:
    """Sort `lr=3e-4` before `lr=1e-3`, and 64 before 128."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)", level)
    return [(0, float(p), "") if i % 2 else (1, 0.0, p) for i, p in enumerate(parts)]


def axis_columns(rows: Sequence[Trial]) -> list[str]:
    """Name the columns that are axes, in the order in which people read a cell.

    An entry's options have columns of their own, `kernel.attention.reduced` say: those that vary
    are in the axis' level.
    """
    present = {key for row in rows for key in row}
    kernels = sorted(key for key in present if key.startswith("kernel.") and key.count(".") == 1)
    return [a for a in (*WORKLOAD_AXES, *CHOICE_AXES, *kernels) if a in present]


def varying_axes(rows: Sequence[Trial]) -> tuple[Axis, ...]:
    """Find the axes with two levels or more; the usual level comes first and is the reference.

    Where there is none, or it finished nothing while another did, the one that finished most is.
    """
    axes = []
    for name in axis_columns(rows):
        counts = Counter(words(row.get(name)) for row in rows)
        counts.pop("", None)
        if len(counts) < 2:
            continue
        levels = sorted(counts, key=natural_order)
        usual = USUAL_LEVELS.get(name, "")
        known = [x for x in levels if x == usual or x.startswith(f"{usual} ")] if usual else []
        finished = Counter(words(row.get(name)) for row in rows if row["status"] == "ok")
        if not any(finished[level] for level in known):
            known = levels if any(finished.values()) else known or levels
        reference = max(known, key=lambda level: (finished[level], counts[level]))
        levels.remove(reference)
        axes.append(Axis(name, (reference, *levels), reference))
    return tuple(axes)


def comparable_key(row: Trial) -> str:
    """Name the held-out text and the budget: losses compare only where this agrees."""
    seen = words(row.get("evaluation_sha256")) or words(row.get("text_sha256"))
    return f"{seen[:12]} · {row['steps']} steps"


def summarise_cells(rows: Sequence[Trial]) -> list[Cell]:
    """Summarise each cell in the order of its label."""
    grouped: dict[str, list[Trial]] = defaultdict(list)
    for row in rows:
        grouped[row["cell_id"]].append(row)
    cells = [summarise_cell(cell_id, group) for cell_id, group in grouped.items()]
    return sorted(cells, key=lambda cell: natural_order(cell.label))


def summarise_cell(cell_id: str, group: Sequence[Trial]) -> Cell:
    """Summarise the trials of one cell: losses over seeds, times within its best-filled session."""
    finished = [row for row in group if row["status"] == "ok"]
    sessions = Counter(words(row.get("session")) for row in finished)
    session = max(sessions, key=lambda s: (sessions[s], s), default="")
    timed = [row for row in finished if words(row.get("session")) == session]
    summaries = {c: Spread.of(number(row.get(c)) for row in timed) for c in TIMED_COLUMNS}
    summaries |= {c: Spread.of(one_per_seed(finished, c)) for c in SEEDED_COLUMNS}
    summaries[MEMORY.column] = Spread.of(number(row.get(MEMORY.column)) for row in finished)
    first = group[0]
    hashed = [row for row in group if words(row.get("evaluation_sha256"))] or [first]
    return Cell(
        id=cell_id,
        label=words(first.get("label")) or cell_id,
        levels={name: words(first.get(name)) for name in axis_columns(group)},
        statuses=dict(Counter(words(row["status"]) for row in group)),
        reasons=tuple(dict.fromkeys(filter(None, (words(row.get("reason")) for row in group)))),
        trials=tuple(int(row["trial"]) for row in group),
        runs=len(finished),
        session=session,
        spreads={c: spread for c, spread in summaries.items() if spread},
        comparable=comparable_key(hashed[0]),
        is_tuned=any(words(row.get("tuning_ledger")) for row in group),
        tuned_points=next((int(n) for r in group if (n := number(r.get("tuned_points")))), None),
        edge_optimum=next(filter(None, (words(row.get("edge_optimum")) for row in group)), ""),
    )


def one_per_seed(rows: Sequence[Trial], column: str) -> list[float]:
    """Take one value a seed: replicates of a seed repeat the timing, not the training."""
    by_seed: dict[Any, list[float]] = defaultdict(list)
    for row in rows:
        value = number(row.get(column))
        if value is not None:
            by_seed[row.get("seed")].append(value)
    return [statistics.median(values) for values in by_seed.values()]


def rank_cells(cells: Sequence[Cell]) -> dict[str, int]:
    """Order the cells that may be ranked by median held-out loss, within one text and budget."""
    ranks: dict[str, int] = {}
    groups: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.is_ranked:
            groups[cell.comparable].append(cell)
    for group in groups.values():
        group.sort(key=lambda cell: cell.spreads["final_loss"].median)
        ranks |= {cell.id: place for place, cell in enumerate(group, start=1)}
    return ranks


def axis_effects(rows: Sequence[Trial], axis: Axis, metric: Metric) -> list[Effect]:
    """Compare each level of an axis with its reference over all settings of the other axes."""
    contexts = index_by_context(rows, axis.name, metric)
    levels = [level for level in axis.levels if level != axis.reference]
    return [compare_level(contexts, axis, level, metric) for level in levels]


def level_spread(cells: Sequence[Cell], axis: str, level: str, metric: Metric) -> Spread | None:
    """Summarise the medians of a level's cells: its margin, in which other axes are mixed."""
    return Spread.of(
        cell.spreads[metric.column].median
        for cell in cells
        if cell.levels.get(axis) == level and metric.column in cell.spreads
    )


def index_by_context(rows: Sequence[Trial], axis: str, metric: Metric) -> Contexts:
    """Index trials by the levels of all other axes, then by level, then by what pairs them."""
    others = [name for name in axis_columns(rows) if name != axis]
    contexts: Contexts = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in rows:
        context = tuple(words(row.get(name)) for name in others)
        run: Run = (row.get("seed"), row.get("replicate"))
        if metric.is_timed:
            run = (*run, row.get("session"))
        contexts[context][words(row.get(axis))][run].append(row)
    return contexts


def compare_level(contexts: Contexts, axis: Axis, level: str, metric: Metric) -> Effect:
    """Pair one level with the reference in each context; a context gives one median difference."""
    differences: list[float] = []
    unfinished = unlike = 0
    for by_level in contexts.values():
        if level not in by_level or axis.reference not in by_level:
            continue
        arms, reference = by_level[level], by_level[axis.reference]
        pairs = [
            (row, other)
            for run, trials in arms.items()
            for row in trials
            for other in reference.get(run, ())
            if has_value(row, metric) and has_value(other, metric)
        ]
        like = [pair for pair in pairs if same_data(*pair, axis.name, metric)]
        if like:
            differences.append(statistics.median(difference(*pair, metric) for pair in like))
        elif pairs:
            unlike += 1
        elif not (only_skipped(arms) or only_skipped(reference)):
            unfinished += 1
    kept = tuple(sorted(differences))
    spread = Spread.of(kept)
    return Effect(axis.name, level, axis.reference, metric, kept, spread, unfinished, unlike)


def has_value(row: Trial, metric: Metric) -> bool:
    """Say whether a finished trial measured this."""
    value = number(row.get(metric.column))
    return row["status"] == "ok" and value is not None and not (metric.is_ratio and value <= 0)


def difference(row: Trial, other: Trial, metric: Metric) -> float:
    """Give level minus reference, or the log of their ratio."""
    ours, theirs = number(row[metric.column]), number(other[metric.column])
    assert ours is not None
    assert theirs is not None
    return math.log(ours / theirs) if metric.is_ratio else ours - theirs


def same_data(row: Trial, other: Trial, axis: str, metric: Metric) -> bool:
    """Say whether two trials saw the same data, as far as this axis lets them."""
    hashes = ["evaluation_sha256", "text_sha256"] if metric == LOSS else []
    if axis not in WORKLOAD_AXES or axis in DRAWN_ALIKE:
        hashes += ["batches_sha256", "initial_weights_sha256"]
    known = [(words(row.get(h)), words(other.get(h))) for h in hashes]
    return all(a == b for a, b in known if a and b)


def only_skipped(arm: Mapping[Run, Sequence[Trial]]) -> bool:
    """Say whether an arm was never tried, which is a hole in the plan and no failure."""
    return all(row["status"] == "skipped" for trials in arm.values() for row in trials)
