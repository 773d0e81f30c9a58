"""Re-derive what must hold in a result set, from the records alone."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from bertopt_bench.matrix.cells import evaluation_steps
from bertopt_bench.matrix.identity import canonical_json, cell_id
from bertopt_bench.matrix.labels import drawn_from, workload_choices
from bertopt_bench.matrix.modes import is_inference
from bertopt_bench.results import classification_rows
from bertopt_bench.results.findings import Finding, error, place
from bertopt_bench.results.verify_limits import check_compiling, check_limits, check_operations
from bertopt_bench.workload import formulas
from bertopt_bench.workload.classifier_formulas import is_classification

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bertopt_bench.results.record import Record
    from bertopt_bench.results.tables import Results

PHASE_TOLERANCE = 0.02
PHASE_FLOOR_SECONDS = 50e-6  # reading the clock between phases takes its own time, step or no step
PHASES = ("data", "forward", "backward", "optimizer")
MEMORY_TOLERANCE = 0.02
FIRST_LOSS_BELOW = 0.15
FIRST_LOSS_ABOVE = 0.35
INITIAL_DEVIATION = 0.02  # of the initial weights; logits vary by hidden * deviation ** 2
RELATIVE_ERROR = 1e-9


def verify(results: Results) -> list[Finding]:
    """Check every record on disk, then what must agree between those that count.

    Stale ones may differ from what replaced them: other code may draw other weights.
    """
    found = [Finding("warning", str(results.path), text) for text in results.warnings]
    sessions = {session.session: session for session in results.sessions}
    for record in results.records:
        if record.session not in sessions:
            found.append(error(record, f"its session {record.session} is not in the folder"))
        for check in CHECKS:
            found += check(record)
        found += check_limits(record, sessions.get(record.session))
    found += _repeated(results.records)
    for name in ("batches_sha256", "evaluation_sha256", "initial_weights_sha256"):
        found += _unequal_hashes(results.counted, name)
    found += _unequal_tokens(results.counted)
    return found


def check_identity(record: Record) -> Iterator[Finding]:
    """A record is named by the hash of its cell."""
    named = cell_id(record.cell)
    if named != record.cell_id:
        yield error(record, f"cell_id is {record.cell_id}, but its cell hashes to {named}")


def check_status(record: Record) -> Iterator[Finding]:
    """A finished trial has all its samples, finite; any other status has its reason."""
    if record.status != "ok":
        if not record.reason:
            yield error(record, f"is {record.status} without a reason")
        if record.status == "diverged" and record.diverged_at_step is None:
            yield error(record, "is diverged without a step")
        return
    counts = {
        "losses": len(record.losses),
        "step_seconds": len(record.step_seconds),
        "timed_steps": record.timed_steps,
        "real_tokens": len(record.real_tokens),
        "masked_tokens": len(record.masked_tokens),
    }
    for name, count in counts.items():
        due = 0 if name == "losses" and is_inference(record.cell) else record.steps
        if count != due:
            yield error(record, f"is ok with {record.steps} steps, but has {count} {name}")
    if not all(map(math.isfinite, record.losses)):
        yield error(record, "is ok, but a loss is not finite")
    if not all(math.isfinite(one.loss) for one in record.evaluations):
        yield error(record, "is ok, but a held-out loss is not finite")
    if not all(math.isfinite(value) and value > 0 for value in record.step_seconds):
        yield error(record, "a step took no positive, finite time")
    if record.graphs_compiled:
        yield error(record, f"{record.graphs_compiled} graphs were compiled in the timed loop")


def check_evaluations(record: Record) -> Iterator[Finding]:
    """Evaluations stand at the declared steps (inference: the start); perplexity is exp(loss)."""
    due = evaluation_steps(record.steps, record.cell["workload"]["evaluate_every"])
    due = due[:1] if is_inference(record.cell) else due
    seen = [one.step for one in record.evaluations]
    if record.status == "ok" and seen != due:
        yield error(record, f"was evaluated at steps {_few(seen)}, declared were {_few(due)}")
    for one in record.evaluations:
        expected = math.exp(min(one.loss, 700.0)) if math.isfinite(one.loss) else one.perplexity
        if one.loss < 700 and not _close(one.perplexity, expected):  # exp overflows above
            yield error(
                record,
                f"at step {one.step} perplexity is {one.perplexity:g}, but exp(loss) {expected:g}",
            )


def check_first_loss(record: Record) -> Iterator[Finding]:
    """Random weights guess: the first held-out loss is near ln(vocabulary).

    Logits of deviation s add about s * s / 2 (the mean of a log-normal).
    """
    workload = record.cell["workload"]
    first = next((one.loss for one in record.evaluations if one.step == 0), None)
    if first is None or record.vocabulary_size is None or workload["name"] != "mlm":
        return
    guess = math.log(record.vocabulary_size)
    hidden = formulas.model_size(workload["model"]).hidden
    most = guess + hidden * INITIAL_DEVIATION**2 / 2 + FIRST_LOSS_ABOVE
    if not guess - FIRST_LOSS_BELOW <= first <= most:
        yield error(
            record,
            f"the held-out loss before training is {first:.4f}; random weights give ln("
            f"{record.vocabulary_size}) = {guess:.4f} to {most:.4f}",
        )


def check_tokens(record: Record) -> Iterator[Finding]:
    """Slots are batch by length; real tokens fit in them, and masked ones among the real."""
    workload = record.cell["workload"]
    slots = workload["batch_size"] * workload["seq_len"]
    if record.ragged is None and record.slot_tokens_per_step not in {None, slots}:
        yield error(
            record,
            f"slot_tokens_per_step is {record.slot_tokens_per_step}; batch by length is {slots}",
        )
    if any(not 0 < real <= slots for real in record.real_tokens):
        yield error(record, f"a step has no real tokens, or more than its {slots} slots")
    pairs = zip(record.masked_tokens, record.real_tokens, strict=False)
    if any(real > 0 and not 0 < masked < real for masked, real in pairs):
        yield error(record, "a step has no masked tokens, or as many as real ones")


def check_ragged(record: Record) -> Iterator[Finding]:
    """Steps of no fixed rows hold their real tokens, and squared lengths that lengths can have.

    For b sequences of S tokens at most, r together, these sum to r * r / b (all alike) to r * S.
    """
    workload, steps = workload_choices(record.cell["workload"]), record.ragged
    if (workload["layout"] == "padded") is not (steps is None) and record.status == "ok":
        yield error(record, f"its layout is {workload['layout']}, but ragged is {steps}")
    if steps is None:
        return
    rows = [record.real_tokens, record.masked_tokens]
    rows += [steps.slot_tokens, steps.head_slots, steps.attended_pairs]
    if len({len(row) for row in rows}) > 1 or not record.real_tokens:
        yield error(record, f"its ragged steps and tokens are {[len(row) for row in rows]}")
        return
    mean = formulas.rounded_mean(sum(steps.slot_tokens), len(steps.slot_tokens))
    if record.slot_tokens_per_step != mean:
        text = f"slot_tokens_per_step is {record.slot_tokens_per_step}; its steps' mean is {mean}"
        yield error(record, text)
    count, longest = workload["batch_size"], workload["seq_len"]
    for real, masked, slots, head, pairs in zip(*rows, strict=True):
        if slots < real or head < masked:
            yield error(record, f"{slots} slots hold {real} tokens, {head} of the head {masked}")
        if not real * real <= pairs * count <= real * longest * count:
            yield error(record, f"no {count} lengths sum to {real} and, squared, to {pairs}")


def check_phases(record: Record) -> Iterator[Finding]:
    """The four phases sum to their own pass' step; the rest is what that leaves, by definition."""
    phases = record.phases
    if phases is None:
        return
    named = sum(getattr(phases, f"{name}_seconds") for name in PHASES)
    whole, rest = phases.step_seconds, phases.rest_seconds
    allowed = max(PHASE_TOLERANCE * whole, PHASE_FLOOR_SECONDS)
    if not (abs(whole - named) <= allowed and abs(rest) <= allowed):  # NaN is not allowed either
        yield error(
            record,
            f"the phases sum to {named:.6f} s and leave {rest:.6f} s, but their step took "
            f"{whole:.6f} s: at most {allowed:.6f} s may lie in none of them",
        )


def check_formulas(record: Record) -> Iterator[Finding]:
    """Parameters and FLOPs equal their formulas; memory holds weights, gradients and state."""
    if record.parameter_count is None or record.vocabulary_size is None:
        return
    if is_classification(record.cell):
        return
    workload = record.cell["workload"]
    size = formulas.model_size(workload["model"])
    parameters = formulas.parameter_count(
        size,
        vocabulary=record.vocabulary_size,
        position_embedding=workload["position_embedding"],
    )
    if record.parameter_count != parameters:
        yield error(
            record, f"has {record.parameter_count:,} parameters; the formula gives {parameters:,}"
        )
    flops = _flops(record, size, record.vocabulary_size)
    if record.flops_per_step not in {None, flops}:
        yield error(
            record, f"flops_per_step is {record.flops_per_step:,}; the formula gives {flops:,}"
        )
    yield from _least_memory(record, parameters)


def _flops(record: Record, size: formulas.ModelSize, vocabulary: int) -> int:
    """Count a step; of a layout without fixed rows, the mean one."""
    workload, steps = record.cell["workload"], record.ragged
    factor = 1 if is_inference(record.cell) else formulas.TRAIN_FACTOR
    if steps is not None and steps.slot_tokens:
        return formulas.mean_flops(
            size,
            vocabulary=vocabulary,
            slots=steps.slot_tokens,
            pairs=steps.attended_pairs,
            masked=steps.head_slots,
            factor=factor,
        )
    batch, length = workload["batch_size"], workload["seq_len"]
    masked = batch * formulas.masked_slots(length, workload["mask_rate"])
    return factor * formulas.forward_flops(
        size, vocabulary=vocabulary, batch=batch, seq_len=length, masked=masked
    )


def _least_memory(record: Record, parameters: int) -> Iterator[Finding]:
    """The peak lies in the optimizer's step at the least, where all of these are alive.

    Of inference it holds the weights.
    """
    optimizer = record.cell["optimizer"]["name"]
    forward = is_inference(record.cell)
    if record.peak_memory_bytes is None or (":" in optimizer and not forward):
        return
    width = 2 if record.cell["precision"]["name"] == "fp64" else 1
    state = formulas.state_bytes_per_parameter(optimizer)
    least = parameters * (4 if forward else 8 + state) * width
    held = "weights" if forward else "weights, gradients and state"
    if record.peak_memory_bytes < 0.99 * least:
        yield error(
            record,
            f"peak_memory_bytes is {record.peak_memory_bytes:,}; {held} of "
            f"{parameters:,} parameters alone take {least:,.0f}",
        )


def check_memory(record: Record) -> Iterator[Finding]:
    """The parts sum to the attributed peak, which another pass confirms within 2 %."""
    memory = record.memory
    if memory is None:
        return
    parts = memory.measured.peak.total()
    if parts != memory.peak_bytes:
        yield error(
            record, f"its memory's parts sum to {parts:,}, but their peak is {memory.peak_bytes:,}"
        )
    if abs(memory.difference()) > MEMORY_TOLERANCE:
        yield Finding(
            "warning",
            place(record),
            f"the attributed peak is {memory.peak_bytes:,} bytes, but another pass measured "
            f"{memory.independent_peak_bytes:,}: the parts are to be read with care",
        )


def check_classification(record: Record) -> Iterator[Finding]:
    """A classifier's measures, parameters and FLOPs follow from what its record counts."""
    for text in classification_rows.faults(record):
        yield error(record, text)
    if is_classification(record.cell) and record.parameter_count is not None:
        yield from _least_memory(record, record.parameter_count)


CHECKS: tuple[Callable[[Record], Iterable[Finding]], ...] = (
    check_identity,
    check_status,
    check_evaluations,
    check_first_loss,
    check_tokens,
    check_ragged,
    check_phases,
    check_formulas,
    check_memory,
    check_operations,
    check_compiling,
    check_classification,
)


def _repeated(records: Sequence[Record]) -> Iterator[Finding]:
    """A session runs a trial once."""
    seen = set()
    for record in records:
        key = (record.cell_id, record.seed, record.replicate, record.session)
        if key in seen:
            yield error(record, "is recorded twice in one session")
        seen.add(key)


def _same_data(record: Record) -> tuple[Any, ...]:
    """Name what decides the batches: workload fields but for layout and mode, seed and text."""
    return canonical_json(drawn_from(record.cell["workload"])), record.seed, record.text_sha256


def _unequal_hashes(records: Sequence[Record], name: str) -> Iterator[Finding]:
    """Trials of equal workload fields, seed and text saw the same; silent ones are left out."""
    groups: dict[Any, dict[str, Record]] = defaultdict(dict)
    for record in records:
        value = getattr(record, name)
        if value is not None:
            groups[_same_data(record)].setdefault(value, record)
    for values in groups.values():
        (first, one), *others = values.items()
        for value, record in others:
            yield error(record, f"{name} is {value[:12]}, but {first[:12]} in {place(one)}")


def _unequal_tokens(records: Sequence[Record]) -> Iterator[Finding]:
    """The same batches have the same tokens, as far as both trials went."""
    first: dict[str, Record] = {}
    for record in records:
        if record.batches_sha256 is None or not record.real_tokens:
            continue
        other = first.setdefault(record.batches_sha256, record)
        for name in ("real_tokens", "masked_tokens"):
            pairs = zip(getattr(record, name), getattr(other, name), strict=False)
            if any(ours != theirs for ours, theirs in pairs):
                yield error(
                    record, f"{name} differ from {place(other)}, whose batches hash the same"
                )


def _close(value: float, expected: float) -> bool:
    if math.isnan(value) or math.isnan(expected):
        return math.isnan(value) and math.isnan(expected)
    return math.isclose(value, expected, rel_tol=RELATIVE_ERROR)


def _few(steps: Sequence[int]) -> str:
    shown = ", ".join(map(str, steps[:6]))
    return f"{shown}, ... ({len(steps)})" if len(steps) > 6 else shown or "none"
