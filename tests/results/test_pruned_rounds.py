"""Which points of a tuning go no further, judged round after round from ledger and records."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from made_ledgers import point

from bertopt_bench.results.tuning import Ledger
from bertopt_bench.tuning import _dropped, _outcomes


def record(loss: float) -> Any:
    """Give what a finished trial of 10 steps leaves of its loss."""
    return SimpleNamespace(
        cell={"workload": {"steps": 10}},
        status="ok",
        steps=10,
        evaluations=[SimpleNamespace(step=10, loss=loss)],
        losses=[loss] * 10,
        elapsed_seconds=1.0,
    )


def run(records: dict[tuple[str, int], Any]) -> Any:
    tuning = SimpleNamespace(prune="worse_half", seeds=(101, 102))
    rows = {key: [record(loss)] for key, loss in records.items()}
    return SimpleNamespace(tuning=tuning, records=lambda: rows)


def test_points_keep_what_an_earlier_round_decided_of_them() -> None:
    """Oracle: by hand: 2 of 1 and 2 is dropped; then 0.5 comes and 9, and neither changes it."""
    one, two, three, four = (point("AdamW", n, 0.1 * n) for n in (1, 2, 3, 4))
    first = {(one.cell_id, 101): 1.0, (two.cell_id, 101): 2.0}
    assert _dropped(run(first), Ledger((one, two))) == {("AdamW", 2)}

    first[one.cell_id, 102] = 1.1
    outcomes = tuple(_outcomes(run(first), Ledger((one, two))))
    assert [outcome.pruned for outcome in outcomes] == [False, True]
    better = first | {(three.cell_id, 101): 0.5, (four.cell_id, 101): 0.4}
    later = Ledger((one, two, three, four), outcomes)
    assert _dropped(run(better), later) == {("AdamW", 2)}
    assert _outcomes(run(better), later)[0].loss == 1.05
    worse = first | {(three.cell_id, 101): 8.0, (four.cell_id, 101): 9.0}
    assert ("AdamW", 2) in _dropped(run(worse), later)


def test_a_point_whose_first_trial_ran_again_is_judged_again() -> None:
    """Oracle: 2 was dropped at a loss of 2; its new record says 0.9, the lowest."""
    one, two = (point("AdamW", n, 0.1 * n) for n in (1, 2))
    first = {(one.cell_id, 101): 1.0, (two.cell_id, 101): 2.0}
    ledger = Ledger((one, two), tuple(_outcomes(run(first), Ledger((one, two)))))

    assert _dropped(run(first | {(two.cell_id, 101): 0.9}), ledger) == {("AdamW", 1)}
