"""When a process has warmed up, and how long a block is."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertopt_bench.measure.steadiness import clocks_agree, steps_for, windows_agree

WINDOW = [0.040, 0.041, 0.042, 0.043, 0.044]


def times(factor: float) -> list[float]:
    return [value * factor for value in WINDOW]


@pytest.mark.parametrize(
    ("after", "agree"),
    [
        (WINDOW, True),
        (times(1.029), True),
        (times(0.971), True),
        (times(1.031), False),
        (times(0.969), False),
        # The median stays; a quartile moves by 6 %, by 4 %.
        ([0.038, 0.041 * 0.94, 0.042, 0.043, 0.044], False),
        ([0.038, 0.041 * 0.96, 0.042, 0.043, 0.044], True),
        ([0.040, 0.041, 0.042, 0.043 * 1.06, 0.05], False),
        # One step that something held up moves neither.
        ([*WINDOW[:4], 0.4], True),
    ],
)
def test_windows_agree_by_median_and_quartiles(after: list[float], agree: bool) -> None:
    """Oracle: pyperf's rule by hand: medians within 3 %, quartiles within 5 %."""
    assert windows_agree(WINDOW, after) is agree


@given(st.lists(st.floats(1e-5, 10.0), min_size=5, max_size=30), st.randoms())
def test_a_window_agrees_with_itself_in_any_order(window: list[float], draw: object) -> None:
    """Oracle: quartiles know no order."""
    shuffled = sorted(window)

    assert windows_agree(window, shuffled)


@pytest.mark.parametrize(
    ("seconds", "step", "least", "steps"),
    [(0.5, 0.01, 3, 50), (0.5, 0.1, 3, 5), (0.5, 1.0, 3, 3), (0.5, 0.047, 3, 11), (0.5, 0.2, 5, 5)],
)
def test_a_block_is_long_enough(seconds: float, step: float, least: int, steps: int) -> None:
    """Oracle: measurement.md 4.1 by hand: 10 ms: 50; 1000 ms: 3."""
    assert steps_for(seconds, step, least) == steps


@given(st.floats(0.01, 60.0), st.floats(1e-5, 100.0), st.integers(1, 10))
def test_a_block_is_never_shorter_and_at_most_a_step_longer(
    seconds: float, step: float, least: int
) -> None:
    """Oracle: the definition."""
    steps = steps_for(seconds, step, least)

    assert steps >= least
    assert steps * step >= seconds * (1 - 1e-9)
    assert steps == least or (steps - 1) * step < seconds * (1 + 1e-9)


@pytest.mark.parametrize(
    ("before", "after", "agree"),
    [(None, None, True), (1500.0, None, True), (1500.0, 1544.0, True), (1500.0, 1546.0, False)],
)
def test_clocks_agree_within_three_per_cent_or_where_nobody_knows(
    before: float | None, after: float | None, agree: bool
) -> None:
    """Oracle: measurement.md 4.1."""
    assert clocks_agree(before, after) is agree
    assert math.isclose(1500.0 * 1.03, 1545.0)
