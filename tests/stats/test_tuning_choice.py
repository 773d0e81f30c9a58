"""Choosing a tuned point: hand-computed cases."""

from __future__ import annotations

import math

from bertopt_bench.stats.tuning import (
    Edge,
    choose_best,
    find_edges,
    mean_loss,
    pruned,
    worse_half,
)

INF = math.inf


def test_a_point_is_worth_the_mean_of_its_seeds_and_infinite_where_one_is_lost() -> None:
    """Oracle: means by hand."""
    assert mean_loss([2.0, 3.0, 7.0]) == 4.0
    assert mean_loss([2.0, None]) == INF
    assert mean_loss([2.0, INF]) == INF
    assert mean_loss([2.0, math.nan]) == INF
    assert mean_loss([]) == INF


def test_the_lowest_value_is_best_and_of_equal_ones_the_first() -> None:
    """Oracle: the order of the list."""
    assert choose_best([3.0, 1.0, 1.0, INF]) == 1
    assert choose_best([INF, INF]) is None
    assert choose_best([]) is None


def test_the_outermost_value_is_an_edge_in_either_direction() -> None:
    """Oracle: a grid of three rates and two decays, the best of which is chosen by hand."""
    points = [{"lr": lr, "decay": decay} for lr in (1.0, 2.0, 4.0) for decay in (0.0, 0.1)]
    values = [5.0, 5.1, 4.0, 4.1, 6.0, 3.0]

    assert find_edges(points, values, 5) == (Edge("lr", 1), Edge("decay", 1))
    assert find_edges(points, [1.0, *values[1:]], 0) == (Edge("lr", -1),)  # nothing below 0
    assert find_edges(points, [5.0, 5.1, 0.5, 4.1, 6.0, 3.0], 2) == ()


def test_an_option_that_makes_no_difference_has_no_edge() -> None:
    """Oracle: two decays with one loss; the first is taken, and neither end is better."""
    points = [{"decay": 0.01}, {"decay": 0.1}, {"decay": 1.0}]

    assert find_edges(points, [2.0, 2.0, 2.0], 0) == ()
    assert find_edges(points, [2.0, 2.1, 2.1], 0) == (Edge("decay", -1),)
    assert find_edges(points[:1], [2.0], 0) == ()


def test_pruning_drops_what_its_rule_states_and_nothing_else() -> None:
    """Oracle: medians by hand; an even number of values keeps the lower half."""
    values = [4.0, 1.0, INF, 2.0]

    assert pruned(values, "none") == frozenset()
    assert pruned(values, "diverged") == {2}
    assert pruned(values, "worse_half") == {0, 2}
    assert worse_half([3.0, 3.0, 3.0]) == ()
    assert worse_half([INF, INF, 1.0]) == (0, 1)
    assert worse_half([]) == ()


def test_a_later_round_neither_brings_back_nor_drops_what_ran_on_every_seed() -> None:
    """Oracle: by hand: of 1 and 2 the second goes; two better points put 1 above the median."""
    assert pruned([1.0, 2.0], "worse_half") == {1}
    assert pruned([1.0, 2.0, 0.5, 0.4], "worse_half", before={1}, complete={0}) == {1}
    assert pruned([1.0, 2.0, 8.0, 9.0], "worse_half", before={1}, complete={0}) == {1, 2, 3}
    assert pruned([1.0, 2.0], "diverged", before={1}) == frozenset()
