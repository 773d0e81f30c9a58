"""The least that an optimizer's update moves, counted by hand."""

from __future__ import annotations

import pytest

from bertopt_bench import catalogue
from bertopt_bench.workload.formulas import state_bytes_per_parameter
from bertopt_bench.workload.optimizer_work import (
    OPTIMIZER_STEPS,
    UNCOUNTED,
    step_bytes,
    step_count,
    why_uncounted,
)


@pytest.mark.parametrize(
    ("choice", "reads", "writes"),
    [
        ({"name": "sgd"}, 2, 1),  # weight, gradient; weight
        ({"name": "momentum", "momentum": 0.9}, 3, 2),  # and the buffer
        ({"name": "adamw"}, 4, 3),  # weight, gradient, two moments; all but the gradient
        ({"name": "rmsprop", "momentum": 0.0, "centered": False}, 3, 2),
        ({"name": "rmsprop", "momentum": 0.9, "centered": True}, 5, 4),  # a buffer and a mean more
        ({"name": "lamb", "pre_norm": False}, 7, 3),  # weight and moments again, after the norms
        ({"name": "lamb", "pre_norm": True}, 8, 3),  # the gradient for its norm before all
    ],
)
def test_reads_and_writes_are_those_counted_by_hand(
    choice: dict[str, object], reads: int, writes: int
) -> None:
    """Oracle: tensors listed by hand from the update rules."""
    count = step_count(choice)

    assert count is not None
    assert (count.reads, count.writes) == (reads, writes)
    assert step_bytes(choice, 1000) == 4000 * (reads + writes)
    assert step_bytes(choice, 1000, 8) == 8000 * (reads + writes)
    assert why_uncounted(choice) == ""


def test_what_is_kept_is_read_and_written_once() -> None:
    """Oracle: the table of state bytes: each state tensor adds a read and a write (LAMB: two)."""
    for name, count in OPTIMIZER_STEPS.items():
        kept = int(state_bytes_per_parameter(name) / 4)
        again = 1 + kept if name == "lamb" else 0
        assert (count.reads, count.writes) == (2 + kept + again, 1 + kept), name


def test_every_entry_is_counted_or_says_why_not() -> None:
    """Oracle: the catalogue; an entry of the user's own has no count and a reason."""
    names = set(catalogue.entries("optimizer"))

    assert names >= OPTIMIZER_STEPS.keys() | UNCOUNTED.keys()
    assert all((step_count({"name": n}) is None) == bool(why_uncounted({"name": n})) for n in names)
    assert step_bytes({"name": "muon"}, 1000) is None
    assert "matrix products" in why_uncounted({"name": "muon"})
    assert why_uncounted({"name": "mine:Own"}).startswith("mine:Own: no count")
