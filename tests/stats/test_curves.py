"""Plain frames of curves: what is refused, what a run came to, what a target took. By hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from made_curves import falling, frame, run, set_of

from bertopt_bench.errors import UserError
from bertopt_bench.stats.curves import Aim, checked, runs_of
from bertopt_bench.stats.reaching import baseline_targets, declared_targets, reach, summarise

LOSS, ACCURACY = Aim(), Aim.of("accuracy")


def test_a_missing_column_names_what_is_needed_and_the_nearest() -> None:
    wrong = set_of({"a": [4.0]}).rename(columns={"submission": "submision"})
    with pytest.raises(UserError, match=r"no column 'submission'.*Did you mean 'submision'"):
        checked(wrong)


def test_what_is_no_curve_is_refused() -> None:
    good = set_of({"a": [4.0]})
    with pytest.raises(UserError, match="'metric' has 'low'"):
        checked(good.astype({"metric": object}).assign(metric="low"))
    with pytest.raises(UserError, match="step 0 twice"):
        checked(pd.concat([good, good]))
    with pytest.raises(UserError, match="no row"):
        checked(good[:0])
    with pytest.raises(UserError, match="negative"):
        checked(good.assign(step=-good["step"]))


def test_the_order_of_rows_changes_nothing() -> None:
    good = set_of({"a": [4.0, 5.0], "b": [3.0, 2.0]})
    pd.testing.assert_frame_equal(checked(good), checked(good[::-1]))


def test_the_end_is_at_the_planned_step_and_never_before() -> None:
    """A run that stopped early has no end; the best so far is its own."""
    curves = checked(frame(run("a", (8, 6, 3, 4, 5)), run("b", (8, 6, 2))))
    runs = runs_of(curves, LOSS).set_index("submission")
    assert runs.loc["a", "final"] == 5.0
    assert runs.loc["a", "best"] == 3.0
    assert math.isnan(runs.loc["b", "final"])
    assert runs.loc["b", "status"] == "unfinished"
    assert runs.loc["b", "best"] == 2.0


def test_a_diverged_run_is_infinitely_bad_in_either_direction() -> None:
    curves = checked(frame(run("a", (8, 2, math.nan))))
    assert runs_of(curves, LOSS)["final"].item() == math.inf
    assert runs_of(curves, ACCURACY)["final"].item() == -math.inf


def test_a_run_that_diverged_never_reached_a_target_it_had_passed() -> None:
    curves = checked(frame(run("a", (8, 2, math.nan)), run("b", (8, 2, 2))))
    reached = reach(curves, declared_targets(curves, ["5"]), LOSS).set_index("submission")
    assert reached.loc["a", "steps"] == math.inf
    assert reached.loc["b", "steps"] == 5.0


def test_everything_spent_is_interpolated_at_one_place() -> None:
    """Oracle: by hand: 6 lies half-way from 8 (step 0) to 4 (step 10)."""
    rows = run("a", (8, 4, 4, 4, 4))
    for row in rows:
        row |= {"tokens": 100.0 * row["step"], "flops": 7.0 * row["step"]}
    curves = checked(frame(rows))
    one = reach(curves, declared_targets(curves, ["6"]), LOSS).iloc[0]
    assert (one["steps"], one["seconds"], one["tokens"], one["flops"]) == (5.0, 2.5, 500.0, 35.0)


def test_a_metric_that_rises_reaches_its_target_from_below() -> None:
    curves = checked(frame(run("a", (0.0, 0.5, 0.9, 0.8, 0.9))))
    assert reach(curves, declared_targets(curves, ["0.75"]), ACCURACY)["steps"].item() == 16.25
    assert Aim.of("macro_f1").higher_is_better
    assert not Aim.of("masked_accuracy", "lower").higher_is_better
    with pytest.raises(UserError, match="Did you mean 'higher'"):
        Aim.of("loss", "hihger")


def test_targets_are_numbers_of_known_workloads() -> None:
    curves = checked(pd.concat([set_of({"a": [4.0]}), set_of({"a": [4.0]}, workload="v")]))
    found = declared_targets(curves, ["w=4", "5"])
    assert [(t.workload, t.name, t.value) for t in found] == [
        ("v", "declared 5", 5.0),
        ("w", "declared 5", 5.0),
        ("w", "declared", 4.0),
    ]
    own = declared_targets(curves, ["w=4", "w=3", "v=5"])
    assert [(one.workload, one.name, one.value) for one in own] == [
        ("v", "declared 1", 5.0),
        ("w", "declared 1", 4.0),
        ("w", "declared 2", 3.0),
    ]
    with pytest.raises(UserError, match="no workload 'x'"):
        declared_targets(curves, ["x=4"])
    with pytest.raises(UserError, match="is a number"):
        declared_targets(curves, ["low"])


def test_targets_are_what_most_of_the_baseline_reaches_and_its_median_at_three_quarters() -> None:
    """Oracle: by hand: falling to 4 over 40 steps is at 5 after 30; a looser target is looser."""
    curves = checked(set_of({"a": [4.0, 3.0, 4.2, 6.0], "b": [1.0] * 4}))
    runs = runs_of(curves, LOSS)
    found = baseline_targets(curves, runs, "a", LOSS)
    assert [(t.name, t.value, t.is_declared) for t in found] == [
        ("final of baseline", 4.2, False),
        ("looser", pytest.approx(5.075), False),
    ]
    rising = checked(frame(run("a", (8, 3, 3, 3, 4))))
    names = [t.name for t in baseline_targets(rising, runs_of(rising, LOSS), "a", LOSS)]
    assert names == ["final of baseline"]


def test_runs_that_never_got_there_stay_in_the_median() -> None:
    """Oracle: by hand; the share's interval is Clopper and Pearson's (tests of the families)."""
    curves = checked(set_of({"a": [4.0, 4.0, 7.0], "b": [4.0, 7.0, 7.0]}))
    made = summarise(reach(curves, declared_targets(curves, ["6"]), LOSS)).set_index("submission")
    assert made.loc["a", ["reached", "n"]].tolist() == [2, 3]
    assert made.loc["a", ["steps", "steps_low", "steps_high"]].tolist() == [20.0, 20.0, math.inf]
    assert made.loc["b", "steps"] == math.inf
    assert math.isnan(made.loc["a", "share_low"])
    many = checked(set_of({"a": [4.0] * 6}))
    whole = summarise(reach(many, declared_targets(many, ["6"]), LOSS)).iloc[0]
    assert whole["share_low"] == pytest.approx(0.025 ** (1 / 6))
    assert whole["share_high"] == 1.0


def test_a_straight_fall_is_what_the_makers_promise() -> None:
    assert falling(4.0) == (8.0, 7.0, 6.0, 5.0, 4.0)


def test_a_number_that_only_python_reads_is_told() -> None:
    """Oracle: the cell's own text; ``float`` takes 1_000, pandas does not."""
    curves = set_of({"a": [4.0]}).astype({"metric": object})
    curves.loc[1, "metric"] = "1_000"

    with pytest.raises(UserError, match="column 'metric' has '1_000'"):
        checked(curves)
