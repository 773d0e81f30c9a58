"""Which submission the others are compared with, and what runs without an end do to its targets."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from made_curves import frame, run, set_of

from bertopt_bench.errors import UserError
from bertopt_bench.report.convergence import with_baseline
from bertopt_bench.stats.curves import Aim, checked, runs_of
from bertopt_bench.stats.reaching import baseline_targets, declared_targets, reach
from bertopt_bench.stats.scoring import Asked, named_submission, score

LOSS = Aim()
DEFAULT, TUNED, OTHER = "adamw lr=0.001 · wd=0.01", "adamw lr=0.002 · wd=1", "lion lr=0.001"


def tuned_set() -> pd.DataFrame:
    """Make a default and two tuned submissions, as the report of a tuning has."""
    parts = [
        set_of({name: [4.0, 4.1, 4.2]}, tuned=tuned)
        for name, tuned in ((DEFAULT, False), (TUNED, True), (OTHER, True))
    ]
    return pd.concat(parts)


def test_tuned_adamw_is_the_baseline_where_there_is_one() -> None:
    """Oracle: the issue: targets are the tuned baseline's; the default sorts first by name."""
    curves = tuned_set()

    assert score(curves).baseline == TUNED
    assert score(curves.drop(columns="tuned")).baseline == DEFAULT
    assert score(curves[curves["submission"] != TUNED]).baseline == DEFAULT


def test_what_has_no_regularizer_is_the_baseline_of_regularizers() -> None:
    """Oracle: by hand: names in order would begin with dropout; tuned AdamW goes before both."""
    losses = [4.0, 4.1, 4.2]
    alone = set_of({"dropout dropout=0.1": losses, "none": losses, "l2": losses})
    both = set_of({"adamw · dropout": losses, "adamw · none": losses, "lion · none": losses})

    assert score(alone).baseline == "none"
    assert score(both).baseline == "adamw · none"
    tuned = pd.concat([both.assign(tuned=False), tuned_set()])
    assert score(tuned).baseline == TUNED


def test_a_baseline_may_be_named_by_its_first_word_where_it_can_be_but_one() -> None:
    """Oracle: by hand."""
    curves = tuned_set()

    assert named_submission(curves, "lion") == OTHER
    assert named_submission(curves, "adamw") == TUNED
    assert named_submission(curves.drop(columns="tuned"), "adamw") is None
    assert named_submission(curves, "lio") is None
    assert score(curves, Asked(baseline="lion")).baseline == OTHER
    with pytest.raises(UserError, match="no submission 'lio' to be the baseline"):
        score(curves, Asked(baseline="lio"))


def test_a_declared_baseline_that_is_not_there_is_remarked_on() -> None:
    """Oracle: the first note of what comes out."""
    curves = tuned_set()
    found = score(curves, with_baseline(Asked(), curves, "sgd"))

    assert found.baseline == TUNED
    assert "'sgd' is no submission here" in found.notes[0]
    assert score(curves, with_baseline(Asked(), curves, "lion")).baseline == OTHER


def test_runs_without_an_end_count_as_infinite_in_the_baselines_targets() -> None:
    """Oracle: by hand: half of four runs have no end, so that no target is reached by most."""
    ended = set_of({"a": [4.0, 4.1]}, status="ok")
    cut = frame(*(run("a", (8.0, 7.0), seed=seed, status="unfinished") for seed in (3, 4, 5)))
    curves = checked(pd.concat([ended, cut]))

    assert baseline_targets(curves, runs_of(curves, LOSS), "a", LOSS) == []
    most = checked(pd.concat([set_of({"a": [4.0, 4.1, 4.2]}, status="ok"), cut.iloc[2:4]]))
    found = baseline_targets(most, runs_of(most, LOSS), "a", LOSS)
    assert [(one.name, one.value) for one in found] == [
        ("final of baseline", 4.2),
        ("looser", pytest.approx((5.075 + 5.15) / 2)),
    ]


def test_a_run_that_says_it_did_not_finish_never_got_there() -> None:
    """Oracle: by hand: at 6 after 20 steps; without a status a run may end where it got there."""
    for status, steps in (("unfinished", math.inf), ("diverged", math.inf), ("ok", 20.0)):
        curves = checked(frame(run("a", (8.0, 7.0, 6.0), status=status)))
        assert reach(curves, declared_targets(curves, ["6"]), LOSS)["steps"].item() == steps


def test_a_status_that_there_is_not_is_refused_and_an_empty_one_is_ok() -> None:
    """Oracle: the nearest name; the same runs without the column."""
    with pytest.raises(UserError, match="Did you mean 'diverged'"):
        checked(set_of({"a": [4.0]}, status="divergd"))
    blank = set_of({"a": [4.0, 5.0]}, status=None)

    assert runs_of(checked(blank), LOSS)["final"].tolist() == [4.0, 5.0]
