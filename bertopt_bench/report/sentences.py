"""Say in three sentences what was run and what came out, and in a paragraph how."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from bertopt_bench.report import classification, inference, wording
from bertopt_bench.stats.estimates import LOSS, MEMORY, THROUGHPUT
from bertopt_bench.stats.levels import CHOICE_AXES
from bertopt_bench.workload.classifier_formulas import CLASSIFICATION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertopt_bench.stats.estimates import Axis, Cell, Metric
    from bertopt_bench.stats.facts import Facts


def summary(facts: Facts) -> list[str]:
    """Write the three sentences: what was run, how it trained, what it cost.

    Where cells ran forward only, their latency is said as well, or instead of how they trained;
    of classifiers, what they got right.
    """
    trained = [how_it_trained(facts)] if inference.trains(facts) else []
    other = [*classification.sentences(facts, models(facts)), *inference.sentences(facts)]
    return [what_was_run(facts), *trained, *other, what_it_cost(facts)]


def what_was_run(facts: Facts) -> str:
    """Count cells, trials and what became of them."""
    product = " × ".join(level_count(axis) for axis in facts.axes)  # noqa: RUF001 - times
    corpora = facts.levels("corpus") + facts.levels("dataset")
    subject = models(facts) or "the workload"
    subject += f" on {wording.listed(corpora)}" if corpora else ""
    return (
        f"{wording.plural(len(facts.cells), 'cell')}{f' ({product})' if product else ''} of "
        f"{subject} were planned as {wording.plural(len(facts.rows), 'trial')} over "
        f"{wording.plural(len(facts.seeds), 'seed')}: {fates(facts)}."
    )


def models(facts: Facts) -> str:
    """Name the models, which every sentence about training does; empty where none is told."""
    named = facts.levels("model")
    return f"BERT {wording.listed(named)}" if named else ""


def fates(facts: Facts) -> str:
    """Count the ends that trials came to."""
    return wording.listed(
        [
            f"{count:,} {wording.STATUS_WORDS.get(status, status)}"
            for status, count in facts.statuses.items()
        ]
    )


def level_count(axis: Axis) -> str:
    """Count an axis' levels: `3 optimizers`, `2 levels of seq_len`."""
    count = len(axis.levels)
    if axis.name in CHOICE_AXES and axis.name != "parallelism":
        return wording.plural(count, axis.name)
    return f"{count} levels of {axis.name}"


def how_it_trained(facts: Facts) -> str:
    """Give the range of held-out losses and the comparison that moved them most."""
    cells = facts.measured(LOSS.column)
    if not cells:
        return "No trial reached its last step, so there is no held-out loss to report."
    if len(facts.texts) > 1:
        return (
            f"The cells stand on {len(facts.texts)} different held-out texts or step budgets, so "
            f"their losses are not compared across these{strongest(facts, LOSS)}."
        )
    low, high = cells[0], cells[-1]
    steps = wording.listed(facts.levels("steps"))
    of = f" of {models(facts)}" if models(facts) else ""
    reached = f"Held-out loss{of}" + (f" after {steps} steps" if steps else "")
    if low is high:
        return f"{reached} was {of_cell(low)}."
    return (
        f"{reached} lay between {of_cell(low)} and {of_cell(high)} "
        f"over {population(cells, LOSS)}{strongest(facts, LOSS)}."
    )


def of_cell(cell: Cell) -> str:
    """Write a cell's loss with its n and spread, and its name."""
    spread = cell.spreads[LOSS.column]
    told = (
        "one run"
        if spread.n == 1
        else f"{wording.loss(spread.low)} to {wording.loss(spread.high)}, n = {spread.n} seeds"
    )
    return f"{wording.loss(spread.median)} nats ({cell.label}; {told})"


def loss_of(facts: Facts) -> str:
    """Say what a held-out loss is a mean over."""
    kinds = facts.levels("workload") or ["mlm"]
    known = {CLASSIFICATION: "text of the validation part"}
    return " or ".join(sorted({known.get(kind, "masked token") for kind in kinds}))


def what_it_cost(facts: Facts) -> str:
    """Give the range of throughput and of peak memory, and what moved them most."""
    of = f" of {models(facts)}" if models(facts) else ""
    parts = [
        range_of(facts, THROUGHPUT, wording.rate, f"Throughput{of}"),
        range_of(facts, MEMORY, wording.memory, "peak memory"),
    ]
    kept = [part for part in parts if part]
    if not kept:
        return "Neither throughput nor memory was measured."
    sentence = "; ".join(kept) + "."
    return sentence[0].upper() + sentence[1:]


def range_of(facts: Facts, metric: Metric, write: Any, subject: str) -> str:
    """Write the lowest and highest cell of a metric."""
    cells = facts.measured(metric.column)
    if not cells:
        return ""
    low, high = (cell.spreads[metric.column].median for cell in (cells[0], cells[-1]))
    if len(cells) == 1 or write(low) == write(high):
        return f"{subject} was {write(low)} over {population(cells, metric)}"
    return (
        f"{subject} ranged from {write(low)} to {write(high)} over "
        f"{population(cells, metric)}{strongest(facts, metric)}"
    )


def population(cells: Sequence[Cell], metric: Metric) -> str:
    """Count the cells that a range spans, and say what stands for each."""
    single = all(cell.spreads[metric.column].n == 1 for cell in cells)
    return f"{wording.plural(len(cells), 'cell')} ({'one run each' if single else 'medians'})"


def strongest(facts: Facts, metric: Metric) -> str:
    """Name the comparison that moved a metric most, with its spread; empty without one."""
    effect = facts.strongest(metric.column)
    if effect is None or effect.spread is None:
        return ""
    if metric.is_none(effect.spread.median):
        half = metric.resolution / 2
        least = f"{half * 100:g}{wording.NBSP}%" if metric.is_ratio else f"{half:g} nats"
        return f", and no comparison moved it by {least} or more (medians)"
    median = "median; " if effect.spread.n > 1 else ""
    return (
        f", and the {effect.axis} moved it most: {effect.level} against {effect.reference} by "
        f"{wording.change(effect, effect.spread.median)} ({median}"
        f"{wording.spread_of_changes(effect, effect.spread)})"
    )


def source_of(session: Mapping[str, Any]) -> str:
    """Find the text of the matrix file in a session."""
    matrix = session.get("matrix")
    if not isinstance(matrix, dict):
        return ""
    return str(matrix.get("source") or matrix.get("text") or "")


def matrix_tables(session: Mapping[str, Any]) -> dict[str, Any]:
    """Parse the matrix that a session kept; a text that is no TOML gives nothing."""
    try:
        return tomllib.loads(source_of(session))
    except tomllib.TOMLDecodeError:
        return {}


def methods(facts: Facts, sessions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write the methods from the plans that were carried out."""
    trained = [timing_paragraph(facts, sessions)] if inference.trains(facts) else []
    return [
        plan_paragraph(facts, sessions),
        *trained,
        *classification.methods(facts),
        *inference.methods(facts),
        analysis_paragraph(facts),
    ]


def plan_of(session: Mapping[str, Any]) -> dict[str, Any]:
    """Give a session's timing, allowed rules and reasons to exclude as it declared them.

    Where it did not, they are read in the matrix file, which knows nothing of ``--set``.
    """
    tables = matrix_tables(session)
    reasons = [str(e.get("reason", "")) for e in tables.get("exclude", []) if isinstance(e, dict)]
    written = {
        "timing": tables.get("timing", {}),
        "allow": tables.get("allow", []),
        "exclusions": reasons,
    }
    declared = session.get("declared") or {}
    return {key: declared.get(key, value) for key, value in written.items()}


def distinct(sessions: Sequence[Mapping[str, Any]], key: str) -> list[tuple[Any, str]]:
    """List the different values of a plan's key, each with its sessions; one needs no naming."""
    found: list[tuple[Any, list[str]]] = []
    for session in sessions:
        value, name = plan_of(session)[key], str(session.get("session", ""))
        same = next((names for other, names in found if other == value), None)
        if same is None:
            found.append((value, [name]))
        else:
            same.append(name)
    if len(found) == 1:
        return [(found[0][0], "")]
    return [
        (value, f"{'session' if len(names) == 1 else 'sessions'} {wording.listed(names)}")
        for value, names in found
    ]


def plan_paragraph(facts: Facts, sessions: Sequence[Mapping[str, Any]]) -> str:
    """Say what was planned, in which order, and what was left out."""
    design = (
        "over " + wording.listed([f"{a.name} ({', '.join(a.levels)})" for a in facts.axes])
        if facts.axes
        else "of one cell"
    )
    orders = [str(s["order_seed"]) for s in sessions if s.get("order_seed") is not None]
    drawn = f" from order seed {wording.listed(list(dict.fromkeys(orders)))}" if orders else ""
    text = (
        f"The matrix {design} was run with {wording.plural(len(facts.seeds), 'seed')} "
        f"({', '.join(facts.seeds)}) and {wording.plural(facts.replicates, 'replicate')} in "
        f"randomised complete blocks: every replicate and seed ran all cells in an order "
        f"drawn{drawn}, one timed trial at a time, each in a process of its own."
    )
    told = (
        ("exclusions", "Excluded by the matrix", "; "),
        ("allow", "Allowed in spite of a skip rule", ", "),
    )
    for key, opening, separator in told:
        for values, where in distinct(sessions, key):
            if values:
                written = separator.join(dict.fromkeys(map(str, values)))
                text += f" {opening}{f' ({where})' if where else ''}: {written}."
    return text


def timing_paragraph(facts: Facts, sessions: Sequence[Mapping[str, Any]]) -> str:
    """Say what was timed and what was kept out of the timed loop."""
    steps = wording.listed(facts.levels("steps"))
    budgets = [
        budget(facts, timing, where) for timing, where in distinct(sessions, "timing") or [({}, "")]
    ]
    return (
        f"{' '.join(budgets)} After the burn-in a trial was restored to its initial state and "
        f"trained {steps or 'all planned'} steps, all of them timed; evaluations on held-out text "
        f"stood outside the timing, and phases and memory were measured in passes of their own. "
        f"Seeds fix initial weights, data order and masks, so that cells of one workload saw the "
        f"same batches.{limit_sentence(facts, sessions)}"
    )


def budget(facts: Facts, timing: Mapping[str, Any], where: str) -> str:
    """Say what a trial was given besides its own steps, in which sessions."""
    subject = f"In {where} a trial" if where else "A trial"
    repeats = (
        f", and replicates after the first trained {timing['steps']} steps"
        if timing.get("steps") and facts.replicates > 1
        else ""
    )
    return (
        f"{subject} ran {timing.get('burn_in_steps', 3)} untimed burn-in steps and was stopped "
        f"after {timing.get('timeout_seconds', 3600):g} s{repeats}."
    )


def limit_sentence(facts: Facts, sessions: Sequence[Mapping[str, Any]]) -> str:
    """Say how the limit was measured that cells show their share of; empty without a share."""
    if not facts.measured("ceiling_share"):
        return ""
    values = [c.get("values", {}) for s in sessions for c in s.get("ceilings") or ()]
    edges = sorted({v["matmul_size"] for v in values if v.get("matmul_size")})
    size = f" (edge {wording.listed([f'{edge:,}' for edge in edges])})" if edges else ""
    return (
        " The share of limit, a cell's MFU against the measured peak, is its model FLOPs a second, "
        f"counted by formula, over the fastest square matrix product{size} in its precision's data "
        "type, which its own session measured on the same device several times between the trials."
    )


def analysis_paragraph(facts: Facts) -> str:
    """Say how the numbers on the page were made."""
    sessions = (
        f" Times come from {len(facts.sessions)} sessions and are never pooled over them: each "
        f"cell shows the session with most of its runs."
        if len(facts.sessions) > 1
        else ""
    )
    return (
        "A cell shows its median with the lowest and highest value and n: n counts seeds for "
        "losses and trials of one session for times and process memory. The effect of a level is "
        "its paired difference from the axis' reference (same seed, replicate and all other axes; "
        "for times also the same session; same batches, weights and held-out text by hash), one "
        "median a context; strips show every context, the middle half and the median. Trials that "
        "did not finish enter no difference and are counted instead. Cells are ranked by median "
        "held-out loss only with two seeds or more, all finished, and within one held-out text and "
        f"step budget. No verdict is drawn on times, memory or "
        f"effects; losses at the end and steps to a target get one from 6 seeds on.{sessions}"
    )
