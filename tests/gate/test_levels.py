"""Error rates follow from the false alarms that are bearable."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_duels import CELLS, MATRIX

from bertopt_bench.errors import UserError
from bertopt_bench.gate.levels import Levels, derive, refuse_out_of_reach
from bertopt_bench.gate.policy import read_policy

if TYPE_CHECKING:
    from pathlib import Path

    from bertopt_bench.gate.policy import Policy


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    (tmp_path / "gated.toml").write_text(MATRIX)
    file = tmp_path / "policy.toml"
    cells = '", "'.join(CELLS)
    file.write_text(f'matrix = "gated.toml"\ncells = ["{cells}"]\ngate_runs_per_month = 60\n')
    return read_policy(file)


def test_sixty_runs_a_month_and_one_false_alarm_a_year(policy: Policy) -> None:
    """Oracle: by hand: 720 runs a year, a = sqrt(1 / 720) = 0.03727; a squared is 1.39 in 1,000."""
    levels = derive(policy, 2)

    assert levels.session_error == pytest.approx(0.0372678)
    assert levels.family_error == pytest.approx(0.0186339)  # two cells
    assert levels.per_comparison == pytest.approx(0.00931695)  # base and anchor
    assert levels.false_alarms_per_1000_runs == pytest.approx(1.3888889)
    assert levels.needed_replicates() == 7  # 1 / 128 = 0.0078


def test_a_rare_gate_keeps_to_five_per_cent(policy: Policy) -> None:
    """Oracle: the protocol's family-wise rate; 2.5 in 1,000 runs is its square."""
    levels = derive(replace(policy, gate_runs_per_month=1, false_alarms_per_year=12.0), 1)

    assert levels.session_error == 0.05
    assert levels.false_alarms_per_1000_runs == pytest.approx(2.5)


@given(
    runs=st.integers(1, 10_000),
    alarms=st.floats(0.01, 100),
    families=st.integers(1, 40),
    comparisons=st.integers(1, 2),
)
def test_alarms_a_year_never_exceed_what_is_bearable(
    runs: int, alarms: float, families: int, comparisons: int
) -> None:
    """Oracle: the bound a squared times the runs of a year; and 2 to the minus n by hand."""
    rate = min(0.05, math.sqrt(alarms / (12 * runs)))
    levels = Levels(rate, families, comparisons)
    needed = levels.needed_replicates()

    assert levels.false_alarms_per_1000_runs * 12 * runs / 1000 <= alarms * (1 + 1e-9)
    assert 0.5**needed <= rate / families / comparisons
    assert needed == 6 or 0.5 ** (needed - 1) > rate / families / comparisons


def test_a_rate_out_of_reach_is_refused_with_the_replicates_needed(policy: Policy) -> None:
    """Oracle: by hand: a = 0.000913, over 2 x 2 comparisons 0.000228; 2 to the -13 is 0.000122."""
    busy = replace(policy, gate_runs_per_month=100_000)

    with pytest.raises(UserError, match="At least 13 replicates are needed: replicates = 13"):
        refuse_out_of_reach(busy, derive(busy, 2))
    refuse_out_of_reach(replace(busy, replicates=13), derive(busy, 2))


def test_a_loss_needs_seeds(policy: Policy) -> None:
    """Oracle: the loss is paired by seed: three of them cannot reject at any rate in use."""
    of_loss = replace(policy, metrics=("loss",), margins={"loss": None})

    with pytest.raises(UserError, match=r"3 seeds cannot find a regression of loss.*6 seeds"):
        refuse_out_of_reach(of_loss, derive(of_loss, 1))
    refuse_out_of_reach(replace(of_loss, seeds=6), derive(of_loss, 1))
