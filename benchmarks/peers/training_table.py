"""What ``training_peers.py`` reckons, without torch: orders, corrected figures, ratios, the table.

optimum-benchmark's throughput is ``volume / latency.mean`` with ``volume = steps * batch size``,
the sequences of all steps together (0.6.0, scenarios/training/scenario.py, train_volume, and
Throughput.from_latency): all sequences by the time of one step. The corrected figure is that by
``latency.count``, the number of steps: the sequences of a step by the mean time of a step.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertopt_bench.errors import UserError
from bertopt_bench.stats.paired import hodges_lehmann, walsh_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Measured = Mapping[str, Any]
    Round = Mapping[str, Measured]

CONFIDENCE = 0.95
LOSS_TOLERANCE = 1e-4
NOT_TOLD = "not told"
MIB, MEGABYTE = 2**20, 10**6
NAMES = {
    "ours": "ours",
    "accelerate": "transformers + accelerate",
    "optimum": "optimum-benchmark",
    "optimum_our_batches": "optimum-benchmark, our sequences",
}


def balanced_orders(count: int) -> list[list[int]]:
    """Give orders in which each stands in each place, and right behind each other, equally often.

    Source: Williams 1949; of an odd number every order comes backwards too.

    >>> balanced_orders(4)
    [[0, 3, 1, 2], [1, 0, 2, 3], [2, 1, 3, 0], [3, 2, 0, 1]]
    """
    first = [k // 2 if k % 2 == 0 else count - (k + 1) // 2 for k in range(count)]
    orders = [[(place + shift) % count for place in first] for shift in range(count)]
    return orders + [order[::-1] for order in orders] if count % 2 else orders


def check_rounds(rounds: int, arms: int) -> None:
    """Refuse a number of rounds over which the orders would not be balanced."""
    whole = len(balanced_orders(arms))
    if rounds < 1 or rounds % whole:
        raise UserError(
            f"--rounds {rounds}: {arms} arms stand in each place equally often over multiples of "
            f"{whole} rounds. Take {max(1, -(-rounds // whole)) * whole}."
        )


@dataclass(frozen=True)
class OwnFigures:
    """What optimum-benchmark says of its timed steps, and what that should have been."""

    steps: int
    mean_seconds: float
    throughput: float
    corrected: float


def own_figures(report: Mapping[str, Any]) -> OwnFigures:
    """Read the timed part (``train``, without its warm-up) of optimum-benchmark's report.

    Raises:
        UserError: the report has no such part, or counts in other units.
    """
    try:
        latency, throughput = report["train"]["latency"], report["train"]["throughput"]
        units = latency["unit"], throughput["unit"]
        steps, mean, value = latency["count"], latency["mean"], throughput["value"]
    except (KeyError, TypeError) as fault:
        raise UserError(f"optimum-benchmark's report has no {fault}: not one of 0.6.0?") from None
    if units != ("s", "samples/s"):
        raise UserError(f"optimum-benchmark's report is in {units}, not in s and samples/s.")
    return OwnFigures(steps, mean, value, value / steps)


def own_memory_bytes(report: Mapping[str, Any]) -> int:
    """Read what its sampler saw of the process' memory at most; it writes millions of bytes."""
    memory = report["train"]["memory"]
    if memory["unit"] != "MB":
        raise UserError(f"optimum-benchmark's memory is in {memory['unit']}, not in MB.")
    return round(memory["max_ram"] * MEGABYTE)


def check_alike(rounds: Sequence[Round], threads: int) -> None:
    """Refuse arms that did not do the same: torch, threads, weights, first loss.

    Raises:
        UserError: what differs, of which arm.
    """
    for number, one in enumerate(rounds, start=1):
        told = {arm: _facts(measured) for arm, measured in one.items()}
        for arm, facts in told.items():
            if facts != told["ours"] or facts["threads"] != threads:
                raise UserError(f"round {number}: {arm} ran {facts}, ours {told['ours']}.")
        losses = {arm: m["first_loss"] for arm, m in one.items() if m["first_loss"] is not None}
        if max(losses.values()) - min(losses.values()) > LOSS_TOLERANCE:
            raise UserError(f"round {number}: the losses at the first weights differ: {losses}.")


def _facts(measured: Measured) -> dict[str, Any]:
    torch_version = measured["versions"]["torch"].partition("+")[0]
    return {
        "torch": torch_version,
        "threads": measured["threads"],
        "parameters": measured["parameters"],
    }


def ratio_to_ours(rounds: Sequence[Round], arm: str) -> str:
    """Give an arm's step time by ours, round by round: Hodges-Lehmann, with its exact interval."""
    logs = [math.log(_step(one[arm]) / _step(one["ours"])) for one in rounds]
    interval = walsh_interval(logs, CONFIDENCE)
    centre = f"{math.exp(hodges_lehmann(logs)):.2f}"
    if interval is None:
        return f"{centre} (n = {len(logs)}: too few for an interval)"
    return f"{centre} [{math.exp(interval.low):.2f}, {math.exp(interval.high):.2f}]"


def _step(measured: Measured) -> float:
    return statistics.median(measured["step_seconds"])


def render(
    rounds: Sequence[Round], batch_size: int, own_memory: Mapping[str, int] | None = None
) -> str:
    """Give the table in Markdown, and below it what each peer ran and was fed."""
    head = (
        "arm",
        "step, ms",
        "sequences a second",
        "step by ours",
        "allocator peak, MiB",
        "resident peak, MiB",
        "its own memory figure, MiB",
        "its own throughput",
        "corrected",
    )
    rows = [head, ("---",) * len(head)]
    rows += [_row(rounds, arm, batch_size, (own_memory or {}).get(arm)) for arm in _arms(rounds)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", *_notes(rounds)]
    return "\n".join(lines)


def _arms(rounds: Sequence[Round]) -> list[str]:
    return [arm for arm in NAMES if arm in rounds[0]]


def _row(
    rounds: Sequence[Round], arm: str, batch_size: int, own_memory: int | None
) -> tuple[str, ...]:
    ran = [one[arm] for one in rounds]
    steps = [_step(one) for one in ran]
    own = [own_figures(one["report"]) for one in ran if "report" in one]
    return (
        NAMES[arm],
        spread([1e3 * step for step in steps], 1),
        spread([batch_size / step for step in steps], 1),
        "1" if arm == "ours" else ratio_to_ours(rounds, arm),
        spread(_mebibytes(ran, "peak_memory_bytes"), 1),
        spread(_mebibytes(ran, "peak_resident_bytes"), 0),
        NOT_TOLD if own_memory is None else f"{own_memory / MIB:,.0f}",
        spread([one.throughput for one in own], 1),
        spread([one.corrected for one in own], 1),
    )


def _mebibytes(ran: Sequence[Measured], key: str) -> list[float]:
    return [one[key] / MIB for one in ran if one[key] is not None]


def spread(values: Sequence[float], digits: int) -> str:
    """Give the median with the lowest and the highest.

    >>> spread([3.0, 1.0, 2.0], 1)
    '2.0 (1.0 to 3.0)'
    """
    if not values:
        return NOT_TOLD
    low, high = min(values), max(values)
    centre = f"{statistics.median(values):,.{digits}f}"
    return centre if len(values) == 1 else f"{centre} ({low:,.{digits}f} to {high:,.{digits}f})"


def _notes(rounds: Sequence[Round]) -> list[str]:
    ours = rounds[0]["ours"]
    steps = len(ours["step_seconds"])
    lines = [
        (
            f"n = {len(rounds)} rounds, each arm once a round in its own process; of a process "
            f"the median of {steps} steps. Over processes medians, lowest and highest in "
            f"brackets; ratios with their {CONFIDENCE:.0%} interval. {ours['threads']} threads, "
            f"{ours['parameters']:,} parameters."
        )
    ]
    for arm in _arms(rounds):
        measured = rounds[0][arm]
        versions = ", ".join(f"{name} {v}" for name, v in measured["versions"].items() if v)
        lines.append(f"{NAMES[arm]}: {versions}.{_fed(measured.get('fed'))}")
    if any("report" in measured for measured in rounds[0].values()):
        lines.append(
            "optimum-benchmark divides the sequences of all its steps by the mean time of one; "
            f"corrected: that by its {steps} steps."
        )
    return lines


def _fed(fed: Mapping[str, Any] | None) -> str:
    if fed is None:
        return ""
    return (
        f" Fed {' by '.join(map(str, fed['shape']))} tokens, {fed['distinct_tokens']:,} distinct "
        f"ones; {fed['label_share']:.0%} of the slots with a label, {fed['attended_share']:.0%} "
        f"attended; columns {', '.join(fed['columns'])}."
    )


def without_places(value: Any) -> Any:
    """Leave out text that names a place on this machine: it goes into no published file.

    >>> without_places({"a": "/here/x", "b": [1, "fp32"]})
    {'a': '(a path)', 'b': [1, 'fp32']}
    """
    if isinstance(value, dict):
        return {key: without_places(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_places(one) for one in value]
    return "(a path)" if isinstance(value, str) and value.startswith("/") else value
