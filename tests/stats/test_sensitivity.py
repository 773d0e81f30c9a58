"""Learning-rate curves, against values by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from bertopt_bench.errors import UserError
from bertopt_bench.stats.sensitivity import sensitivity


def made(*rows: tuple[str, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["submission", "lr", "metric"])


def test_a_point_is_the_median_with_its_range_and_n() -> None:
    """Oracle: by hand."""
    curve = sensitivity(made(("a", 0.1, 3.0), ("a", 0.1, 1.0), ("a", 0.1, 2.5), ("a", 0.2, 4.0)))
    first = curve.iloc[0]
    assert (first["n"], first["low"], first["median"], first["high"]) == (3, 1.0, 2.5, 3.0)
    assert curve["is_best"].tolist() == [True, False]
    assert curve["on_edge"].tolist() == [True, False]


def test_a_best_rate_between_others_is_on_no_edge() -> None:
    curve = sensitivity(made(("a", 0.4, 3.0), ("a", 0.1, 3.0), ("a", 0.2, 1.0)))
    assert curve["lr"].tolist() == [0.1, 0.2, 0.4]
    assert curve["is_best"].tolist() == [False, True, False]
    assert not curve["on_edge"].any()


def test_a_diverged_run_is_infinite_in_either_direction() -> None:
    """Two of three infinite runs make the median infinite; no rate of only such runs is best."""
    rows = (("a", 0.1, math.nan), ("a", 0.1, math.inf), ("a", 0.1, 0.5))
    low, high = sensitivity(made(*rows)), sensitivity(made(*rows), higher_is_better=True)
    assert low["median"].item() == math.inf
    assert high["median"].item() == -math.inf
    assert low["infinite"].item() == high["infinite"].item() == 2
    assert not low["is_best"].any()
    assert not high["is_best"].any()


def test_higher_may_be_better() -> None:
    curve = sensitivity(
        made(("a", 0.1, 0.5), ("a", 0.2, 0.9), ("a", 0.4, 0.7)), higher_is_better=True
    )
    assert curve["is_best"].tolist() == [False, True, False]


def test_a_wrong_column_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no column 'lr'.*Did you mean 'lrs'"):
        sensitivity(pd.DataFrame({"submission": ["a"], "lrs": [0.1], "metric": [1.0]}))
    with pytest.raises(UserError, match="learning rate of a is nan"):
        sensitivity(made(("a", math.nan, 1.0)))
