"""Forecast what a plan will take: seconds from counted FLOPs and an assumed rate, bytes by formula.

The rate is a guess until a session has measured one: a forecast is for deciding whether to start,
and, where memory is limited, with which cells.
How much of a text is padding, and how many pieces it yields, is known once it was prepared on this
machine; before that, which planning never does, `unpadded` and `packed` are forecast as if nothing
were padding, and the vocabulary as large as was asked for: at most that.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.cells import evaluation_steps, plan_trials
from bertopt_bench.matrix.content import is_on, kernel_name
from bertopt_bench.matrix.modes import is_inference
from bertopt_bench.measure.machine import allowed_cores
from bertopt_bench.workload import classifier_formulas, formulas, inference_formulas
from bertopt_bench.workload.activation_memory import is_ragged
from bertopt_bench.workload.cache import cache_root
from bertopt_bench.workload.classifier_formulas import EVALUATION_BATCHES, is_classification
from bertopt_bench.workload.filling import WHOLE, Filled
from bertopt_bench.workload.known_text import KnownText, known_text
from bertopt_bench.workload.memory_formulas import memory_forecast_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.matrix.cells import Cell, TrialPlan
    from bertopt_bench.matrix.spec import Matrix

    Texts = Mapping[str, KnownText]

CPU_FLOPS_PER_SECOND_A_CORE = 5e10
CUDA_FLOPS_PER_SECOND = 3e13
STEP_OVERHEAD_SECONDS = 0.004  # launching a small model's operations, whatever their size
TRIAL_OVERHEAD_SECONDS = 1.0  # fork, assembly, hashes, the traced step
ASSEMBLE_SECONDS_A_PARAMETER = 2e-8  # making, drawing, hashing, copying weights: 1.4e-8 measured
CUDA_START_SECONDS = 3.0  # context, libraries, the profiler: assumed
COMPILE_SECONDS = 40.0
STEPS_APART = 6  # two traced, two attributed, one with its syncs counted, and a forward pass
UNKNOWN = "how much is padding is not known before the text is prepared"
_MOST_LISTED = 200


@dataclass(frozen=True, slots=True)
class CellForecast:
    """What one whole trial of a cell is expected to take."""

    flops_per_step: int
    step_seconds: float
    trial_seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a plan is expected to take: all its trials, and one of each cell by id."""

    seconds: float
    cells: Mapping[str, CellForecast]

    @property
    def peak_memory_bytes(self) -> int:
        """Give what the largest cell needs; 0 where nothing runs."""
        return max((cell.peak_memory_bytes for cell in self.cells.values()), default=0)


def assumed_rate(device: str) -> float:
    """Give FLOPs a second that a device of this kind is assumed to do on this machine."""
    if device == "cuda":
        return CUDA_FLOPS_PER_SECOND
    return CPU_FLOPS_PER_SECOND_A_CORE * allowed_cores()


def forecast(
    plans: Sequence[TrialPlan],
    matrix: Matrix,
    rates: Mapping[str, float] | None = None,
    texts: Texts | None = None,
) -> Forecast:
    """Forecast a plan.

    Args:
        plans: the trials; skipped ones take nothing.
        matrix: its timing says how many steps run besides the timed ones.
        rates: measured FLOPs a second by device name; assumed ones fill what is missing.
        texts: what is known of the cells' texts, by cell id; where nothing is, nothing is padding,
            and the vocabulary is the one that was asked for.
    """
    devices = {plan.cell.content["device"]["name"] for plan in plans}
    rates = {name: assumed_rate(name) for name in devices} | dict(rates or {})
    cells: dict[str, CellForecast] = {}
    seconds = 0.0
    for plan in plans:
        if plan.cell.skip is not None:
            continue
        whole = plan.cell.content["workload"]["steps"]
        if plan.cell.id not in cells:
            known = (texts or {}).get(plan.cell.id, KnownText())
            prepared = _as_prepared(plan.cell, known)
            cells[plan.cell.id] = _cell(prepared, whole, matrix, rates, known.filled or WHOLE)
        one = cells[plan.cell.id]
        seconds += one.trial_seconds
        if plan.steps != whole:
            seconds += _trial_seconds(plan.cell, plan.steps, one.step_seconds, matrix)
            seconds -= one.trial_seconds
    return Forecast(seconds, cells)


def _as_prepared(cell: Cell, known: KnownText) -> Cell:
    """Give a cell the vocabulary that its text yields, where that is known."""
    if known.vocabulary_size is None:
        return cell
    workload = {**cell.content["workload"], "vocabulary_size": known.vocabulary_size}
    return replace(cell, content={**cell.content, "workload": workload})


def _cell(
    cell: Cell, steps: int, matrix: Matrix, rates: Mapping[str, float], filled: Filled
) -> CellForecast:
    if is_inference(cell.content):
        return _forward_cell(cell, steps, matrix, rates, filled)
    flops, computed = _step_flops(cell.content)
    step_seconds = computed / rates[cell.content["device"]["name"]] + STEP_OVERHEAD_SECONDS
    return CellForecast(
        flops,
        step_seconds,
        _trial_seconds(cell, steps, step_seconds, matrix),
        memory_forecast_bytes(cell.content, filled),
    )


def _step_flops(content: Mapping[str, Any]) -> tuple[int, int]:
    """Count a step's model FLOPs, and what it computes: more where layers are run again."""
    if is_classification(content):
        return classifier_formulas.step_flops(content)
    workload = content["workload"]
    flops = formulas.train_flops(
        formulas.model_size(workload["model"]),
        vocabulary=workload["vocabulary_size"],
        batch=workload["batch_size"],
        seq_len=workload["seq_len"],
        masked=workload["batch_size"]
        * formulas.masked_slots(workload["seq_len"], workload["mask_rate"]),
        pooled=formulas.pooled_pairs(workload),
    )
    return flops, formulas.computed_flops(content)


def _trial_seconds(cell: Cell, steps: int, step_seconds: float, matrix: Matrix) -> float:
    """Count the timed steps, those of the other passes, evaluations (a third of a step a batch).

    To look inside, all steps are trained once more.
    """
    if is_inference(cell.content):
        return _forward_seconds(cell, steps, step_seconds, matrix)
    workload = cell.content["workload"]
    evaluations = evaluation_steps(steps, workload["evaluate_every"])
    batches = len(evaluations) * workload.get("evaluation_batches", EVALUATION_BATCHES)
    apart: int = matrix.timing["burn_in_steps"] + matrix.timing["phase_steps"] + STEPS_APART
    compiled_step = kernel_name(cell.content, "optimizer_step") == "compiled"
    compiling = compiled_step or is_on(cell.content, "compile")
    again = steps if matrix.measure.get("inside_steps") else 0
    steps_worth: float = steps + again + apart + batches / formulas.TRAIN_FACTOR
    return _overhead_seconds(cell, compiling=compiling) + steps_worth * step_seconds


def _overhead_seconds(cell: Cell, *, compiling: bool) -> float:
    """Count what a trial takes besides its steps: large weights take seconds to draw and hash."""
    workload = cell.content["workload"]
    parameters = formulas.parameter_count(
        formulas.model_size(workload["model"]),
        vocabulary=classifier_formulas.vocabulary_size(workload),
        position_embedding=workload["position_embedding"],
        mlm=not is_classification(cell.content),
        next_sentence=workload.get("next_sentence", False),
    )
    seconds = TRIAL_OVERHEAD_SECONDS + ASSEMBLE_SECONDS_A_PARAMETER * parameters
    seconds += COMPILE_SECONDS if compiling else 0.0
    return seconds + (CUDA_START_SECONDS if cell.content["device"]["name"] == "cuda" else 0.0)


def _forward_cell(
    cell: Cell, steps: int, matrix: Matrix, rates: Mapping[str, float], filled: Filled
) -> CellForecast:
    """Forecast an inference cell: a third of the FLOPs, no gradients, state or activations kept."""
    flops = inference_formulas.forward_flops(cell.content)
    pass_seconds = flops / rates[cell.content["device"]["name"]]
    pass_seconds += STEP_OVERHEAD_SECONDS / formulas.TRAIN_FACTOR
    return CellForecast(
        flops,
        pass_seconds,
        _forward_seconds(cell, steps, pass_seconds, matrix),
        memory_forecast_bytes(cell.content, filled),
    )


def _forward_seconds(cell: Cell, steps: int, pass_seconds: float, matrix: Matrix) -> float:
    """Count the timed passes, burn-in, the traced and the counted ones, and two evaluations."""
    compiling = is_on(cell.content, "compile")
    batches: int = 2 * cell.content["workload"]["evaluation_batches"]
    passes: int = steps + matrix.timing["burn_in_steps"] + 3 + batches
    return _overhead_seconds(cell, compiling=compiling) + passes * pass_seconds


def fitting(
    cells: Sequence[Cell], most_bytes: int | None, texts: Texts | None = None
) -> list[Cell]:
    """Skip the cells whose forecast of allocated bytes is above a limit, each saying both sizes.

    Cells that are skipped for what this machine lacks say so besides. None is no limit;
    ``texts`` as in ``forecast``.
    """
    if most_bytes is None:
        return list(cells)
    kept = []
    for cell in cells:
        known = (texts or {}).get(cell.id, KnownText())
        asked = cell.skip is None or cell.elsewhere
        content = _as_prepared(cell, known).content
        need = memory_forecast_bytes(content, known.filled or WHOLE) if asked else 0
        needed, most = as_size(need), as_size(most_bytes)
        if needed == most:  # else it would read as if it fitted
            needed, most = f"{need:,} B", f"{most_bytes:,} B"
        reason = f"needs {needed} by forecast, and --max-memory is {most}"
        if _is_bound(cell, texts):
            reason = f"{reason.replace('needs', 'needs at most', 1)}: {UNKNOWN}"
        reason = f"{cell.skip}; {reason}" if cell.elsewhere else reason
        kept.append(replace(cell, skip=reason, elsewhere=False) if need > most_bytes else cell)
    return kept


def _is_bound(cell: Cell, texts: Texts | None) -> bool:
    """Say whether a cell's bytes are the most that it can need."""
    known = (texts or {}).get(cell.id, KnownText())
    return is_ragged(cell.content["workload"]) and known.filled is None


def known_texts(cells: Sequence[Cell]) -> dict[str, KnownText]:
    """Give what is known of the cells' texts, by cell id."""
    cache = cache_root()
    return {cell.id: known_text(cell.content["workload"], cache) for cell in cells}


def describe_plan(matrix: Matrix, cells: Sequence[Cell], texts: Texts | None = None) -> str:
    """Write what a matrix would run: its cells, what is skipped and why, time and memory.

    Cells that are skipped for what this machine lacks are forecast too, as another would run them.
    """
    plans = plan_trials(cells, matrix, order_seed=0)
    there = [replace(cell, skip=None) for cell in cells if cell.elsewhere]
    here = forecast(plans, matrix, texts=texts)
    elsewhere = forecast(plan_trials(there, matrix, 0), matrix, texts=texts)
    skipped = Counter(cell.skip for cell in cells if cell.skip is not None)
    live = sum(plan.cell.skip is None for plan in plans)
    head = (
        f"{matrix.name}: {_count(len(cells), 'cell')}, {sum(skipped.values())} of them skipped; "
        f"{_count(len(matrix.seeds), 'seed')} x {_count(matrix.replicates, 'replicate')}; "
        f"{_count(live, 'trial')} to run"
    )
    reasons = [f"skipped {count}: {reason}" for reason, count in skipped.most_common()]
    rows = _rows(cells, {**elsewhere.cells, **here.cells}, texts)
    parts = [[head], rows, reasons, _foot(here, elsewhere)]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _foot(here: Forecast, elsewhere: Forecast) -> list[str]:
    """Write what is expected of all that runs here, and of what only another machine can run."""
    told = [
        f"{where}: {duration(one.seconds)}, at most {as_size(one.peak_memory_bytes)} at once"
        for where, one in (
            ("forecast", here),
            ("forecast for a machine that has what is missing here", elsewhere),
        )
        if one.cells
    ]
    if not told:
        return ["forecast: nothing runs here"]
    rates = (
        f"assuming {assumed_rate('cpu') / 1e9:,.0f} GFLOP/s on the CPU and "
        f"{assumed_rate('cuda') / 1e9:,.0f} on CUDA"
    )
    lines = [*told[:-1], f"{told[-1]}, {rates}"]
    return lines if here.cells else ["forecast: nothing runs here", *lines]


def _rows(
    cells: Sequence[Cell],
    expected: Mapping[str, CellForecast],
    texts: Texts | None,
) -> list[str]:
    width = max((len(cell.label) for cell in cells), default=0)
    rows = []
    for cell in cells[:_MOST_LISTED]:
        known = expected.get(cell.id)
        told = [] if cell.skip is None else [f"skipped: {cell.skip}"]
        if known is not None:
            told.append(_told(cell, known, bound=_is_bound(cell, texts)))
        rows.append(f"{cell.id}  {cell.label.ljust(width)}  {'; by forecast '.join(told)}")
    more = len(cells) - len(rows)
    rows += [f"and {more} more"] if more else []
    if any(cell.id in expected and _is_bound(cell, texts) for cell in cells):
        rows.append(f"at most: {UNKNOWN}")
    return rows


def _told(cell: Cell, known: CellForecast, *, bound: bool) -> str:
    """Write a cell's forecast; figures stand under each other where nothing is before them."""
    unit = "pass" if is_inference(cell.content) else "step"
    work = f"{known.flops_per_step / 1e9:,.2f}".rjust(9 if cell.skip is None else 0)
    size = f"{'at most ' if bound else ''}{as_size(known.peak_memory_bytes)}"
    return f"{work} GFLOP a {unit}, {duration(known.trial_seconds)} a trial, {size}"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun if count == 1 else noun + 's'}"


def duration(seconds: float) -> str:
    """Write a forecast of time: seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def as_size(count: int) -> str:
    """Write bytes: whole ones, KiB, MiB or GiB."""
    if count < 2**10:
        return f"{count} B"
    if count < 2**20:
        return f"{count / 2**10:,.1f} KiB"
    return f"{count / 2**20:,.1f} MiB" if count < 2**30 else f"{count / 2**30:,.2f} GiB"
