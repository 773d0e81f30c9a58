"""Count what an optimizer's step must do at least: numbers read and written, FLOPs. Without torch.

The least is one pass in place: each tensor is read once, each that changes is written once. LAMB
needs two, since its trust ratio is known after a pass over all weights: the second reads weight and
moments again. What an implementation moves besides counts against it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class StepCount:
    """Numbers read and written, and FLOPs, of one parameter's update."""

    reads: int
    writes: int
    flops: int

    @property
    def words(self) -> int:
        """Numbers moved."""
        return self.reads + self.writes

    @property
    def states(self) -> int:
        """Number of state tensors, which are written as the weight is."""
        return self.writes - 1


OPTIMIZER_STEPS = {
    "sgd": StepCount(2, 1, 2),
    "momentum": StepCount(3, 2, 4),
    "nesterov": StepCount(3, 2, 6),
    "adagrad": StepCount(3, 2, 7),
    "rmsprop": StepCount(3, 2, 9),
    "adam": StepCount(4, 3, 13),
    "adamw": StepCount(4, 3, 14),
    "nadam": StepCount(4, 3, 17),
    "radam": StepCount(4, 3, 14),
    "lion": StepCount(3, 2, 10),
    "lamb": StepCount(4 + 3, 2 + 1, 19),
    "ademamix": StepCount(5, 4, 20),
}
"""By optimizer. FLOPs are those of the update as it is written down, a root or sign one as well.

AdamW's 14: weight by decay (1), first moment (3), second (4), root, correction, eps (3), quotient,
rate, difference (3). A mean by weights takes 3, a mean of squares 4.
"""

UNCOUNTED = {
    "adafactor": "how often it passes over gradient and update is its implementation's choice",
    "muon": "its matrices' step is matrix products, which no bandwidth limits",
}
"""Why an optimizer of ours has no count."""


def step_count(choice: Mapping[str, Any]) -> StepCount | None:
    """Count an update by the cell's choice of optimizer; None where no count is known.

    >>> step_count({"name": "adamw"}).words
    7
    """
    count = OPTIMIZER_STEPS.get(choice["name"])
    if count is None:
        return None
    kept = sum(map(bool, (choice.get("momentum"), choice.get("centered"))))
    if choice["name"] == "rmsprop" and kept:  # each keeps one more mean
        return replace(
            count,
            reads=count.reads + kept,
            writes=count.writes + kept,
            flops=count.flops + 3 * kept,
        )
    if choice["name"] == "lamb" and choice.get("pre_norm"):  # the gradients' norm comes first
        return replace(count, reads=count.reads + 1, flops=count.flops + 3)
    return count


def step_bytes(choice: Mapping[str, Any], parameters: int, number_bytes: int = 4) -> int | None:
    """Give the bytes that a step over so many parameters must move; None where not known."""
    count = step_count(choice)
    return None if count is None else number_bytes * count.words * parameters


def why_uncounted(choice: Mapping[str, Any]) -> str:
    """Say why a choice has no count; empty where it has one."""
    if step_count(choice) is not None:
        return ""
    name = choice["name"]
    return f"{name}: {UNCOUNTED.get(name, 'no count of what its update moves is known')}"
