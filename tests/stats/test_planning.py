"""The plan before a duel: what is in reach, what it would take, what it costs."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_duels import declare, replicate, replicates

from bertopt_bench.errors import OutOfBudget, UserError
from bertopt_bench.results.duels import CONTROL
from bertopt_bench.stats.duels import analyse
from bertopt_bench.stats.planning import (
    ASSUMED_SPREAD,
    Prospect,
    describe,
    prospects,
    refuse_short_budget,
    refuse_unreachable,
    replicate_seconds,
)


@pytest.mark.parametrize(
    ("alpha", "arms", "looks", "sides", "least"),
    [
        (0.05, 1, (12,), 2, 6),
        (0.01, 1, (12,), 2, 8),
        (0.05, 20, (12,), 2, 10),
        (0.01, 20, (12,), 2, 10),
        (0.01, 1, (10, 20, 30), 2, 10),
        (0.01, 1, (12,), 1, 7),
        (0.05, 1, (12,), 1, 6),
    ],
)
def test_the_replicates_needed_follow_from_the_smallest_p(
    alpha: float, arms: int, looks: tuple[int, ...], sides: int, least: int
) -> None:
    """Oracle: measurement.md 3.2 by hand: 2/2^n <= min(alpha, .05/m) / looks, and 6 at least."""
    names = [f"arm{i}" for i in range(arms)]
    (found,) = prospects(declare(*names, alpha=alpha, looks=looks, sides=sides))

    assert found.needed_units == least
    assert found.smallest_p == sides / 2 ** looks[-1]
    assert found.reachable


@pytest.mark.parametrize("alpha", [0.01, 0.05])
@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("arms", [1, 3])
def test_what_is_called_out_of_reach_is_and_what_is_called_needed_suffices(
    alpha: float, sides: int, arms: int
) -> None:
    """Oracle: the analysis itself on the clearest differences there are: all far on one side."""
    names = [f"arm{i}" for i in range(arms)]
    effects = {name: 0.5 + 0.01 * i for i, name in enumerate(names)}

    def verdict(n: int) -> str:
        declared = declare(*names, alpha=alpha, sides=sides, looks=(n,))
        made = replicates(effects, n=n)
        return analyse(declared, made, look=1, session="s", at_utc="t").findings[0].verdict

    least = prospects(declare(*names, alpha=alpha, sides=sides))[0].needed_units
    assert verdict(least) == "slower"
    assert verdict(least - 1) == "inconclusive"


def test_an_unreachable_verdict_is_refused_with_what_it_would_take() -> None:
    """Oracle: the issue: exit 2 before anything runs, naming what is in reach."""
    with pytest.raises(UserError) as caught:
        refuse_unreachable(prospects(declare("arm", looks=(7,))))
    text = str(caught.value)

    assert "step_time" in text
    assert "with 7 replicates" in text
    assert "Take 8 replicates" in text
    refuse_unreachable(prospects(declare("arm", looks=(8,))))
    refuse_unreachable(prospects(declare("arm", looks=(6,), alpha=0.05)))


def test_five_replicates_are_too_few_whatever_alpha_is() -> None:
    """Oracle: below six there is no interval at 95 %."""
    (found,) = prospects(declare("arm", looks=(5,), alpha=0.4, family_error=0.4))

    assert not found.reachable
    assert found.needed_units == 6


@pytest.mark.parametrize(("metric", "word"), [("loss", "seeds"), ("time_to_target", "seeds and")])
def test_convergence_needs_seeds_and_the_text_says_so(metric: str, word: str) -> None:
    """Oracle: the unit of convergence is the seed: more replicates would not help."""
    declared = declare("arm", metrics=(metric,), seeds=(1, 2, 3), looks=(12,))
    with pytest.raises(UserError, match=f"with 3 {word}.*Take 8 {word}"):
        refuse_unreachable(prospects(declared))


def test_one_metric_out_of_reach_refuses_the_others_too() -> None:
    """Oracle: everything declared must be answerable."""
    declared = declare("arm", metrics=("step_time", "loss"), seeds=(1, 2))
    with pytest.raises(UserError, match="loss"):
        refuse_unreachable(prospects(declared))


def test_a_calibration_without_comparisons_has_a_plan_too() -> None:
    """Oracle: the A/A arm alone is one comparison."""
    (found,) = prospects(declare())

    assert found.comparisons == 1
    refuse_unreachable([found])


def test_the_difference_in_reach_grows_with_the_spread_and_the_margin() -> None:
    """Oracle: detectable = margin + spread x a constant of n and alpha alone."""

    def found(spread: float | None, margin: float) -> float:
        declared = declare("arm", margins={"step_time": margin})
        value = prospects(declared, spread)[0].detectable
        assert value is not None
        return value

    assert found(0.02, 0.0) == pytest.approx(2 * found(0.01, 0.0))
    assert found(0.02, 0.05) - found(0.02, 0.0) == pytest.approx(math.log1p(0.05))
    assert found(None, 0.02) == found(ASSUMED_SPREAD, 0.02)


def test_twelve_replicates_find_five_per_cent() -> None:
    """Oracle: measurement.md 4.9: power .8 for 5 % at 12 replicates and 2 % spread."""
    found = prospects(declare("arm", margins={"step_time": 0.0}), 0.02)[0].detectable

    assert found is not None
    assert found < math.log1p(0.05)


@given(st.integers(2, 6), st.integers(2, 12), st.floats(0.5, 3.0))
def test_the_cost_of_a_replicate_covers_its_blocks(arms: int, rounds: int, block: float) -> None:
    """Oracle: blocks alone take rounds x arms x their length."""
    names = [f"arm{i}" for i in range(arms - 1)]
    declared = declare(*names, rounds=rounds, block_seconds=block)

    assert replicate_seconds(declared) > rounds * (arms + 1) * block


def test_the_text_has_a_line_a_metric_with_the_figures() -> None:
    """Oracle: the figures of the prospects themselves."""
    declared = declare("arm", metrics=("step_time", "peak_memory", "loss", "time_to_target"))
    found = prospects(declared)
    lines = describe(found).splitlines()

    assert len(lines) == 4
    for one, line in zip(found, lines, strict=True):
        assert one.metric in line
        assert f"{one.units} {one.unit}" in line
        assert f"smallest p {one.smallest_p:.2g}, needed {one.needed_p:.2g}" in line
    assert "standard deviations" in lines[2]
    assert "nan" not in describe(found)


@pytest.mark.parametrize(
    ("fields", "needed"),
    [
        ({}, 8),
        ({"looks": (9,)}, 8),
        ({"alpha": 0.05}, 6),
        ({"looks": (10, 20, 30)}, 10),
        ({"sides": 1}, 8),
        ({"metrics": ("step_time", "peak_memory")}, 8),
    ],
)
def test_a_budget_below_the_forecast_of_the_fewest_replicates_is_refused(
    fields: dict[str, Any], needed: int
) -> None:
    """Oracle: by hand: the preset at or above what a test takes, by the forecast of a replicate."""
    declared = declare("arm", **fields)
    seconds = needed * replicate_seconds(declared)

    with pytest.raises(OutOfBudget) as caught:
        refuse_short_budget(prospects(declared), seconds - 1)
    text = str(caught.value)
    assert f"budget of {seconds - 1:.0f} s" in text
    assert f"{needed} replicates are needed" in text
    assert f"about {seconds:.0f} s" in text
    assert f"--budget {seconds * 1.2:.0f}s" in text
    refuse_short_budget(prospects(declared), seconds + 1)
    refuse_short_budget(prospects(declared), None)


def test_training_alone_has_no_forecast_that_a_budget_could_be_short_of() -> None:
    """Oracle: no prospect of losses has seconds."""
    found = prospects(declare("arm", metrics=("loss",)))

    assert [one.seconds for one in found] == [None]
    refuse_short_budget(found, 1.0)  # and so nothing is refused


def test_what_cannot_be_found_at_all_is_said() -> None:
    """Oracle: at three replicates no difference of any size rejects."""
    values: dict[str, Any] = {"looks": (3,)}

    assert "no difference can be found" in describe(prospects(declare("arm", **values)))


# --- bytes ---


def memory(looks: int, **fields: Any) -> list[Prospect]:
    return prospects(declare("arm", metrics=("peak_memory",), looks=(looks,), **fields))


def test_bytes_are_not_refused_for_a_p_that_they_may_not_need() -> None:
    """Oracle: the analysis itself at alpha .01: six times the same bytes, and six that vary."""
    declared = declare("arm", metrics=("peak_memory",), looks=(6,))

    def verdict(varying: int) -> str:
        made = [
            replicate(
                number,
                {"base": 0.0, "arm": 0.0, CONTROL: 0.0},
                peaks={"base": 1_000_000, "arm": 1_100_000 + varying * number, CONTROL: 1_000_000},
            )
            for number in range(6)
        ]
        return analyse(declared, made, look=1, session="s", at_utc="t").findings[0].verdict

    assert (verdict(0), verdict(1_000)) == ("larger", "inconclusive")
    refuse_unreachable(memory(6))
    with pytest.raises(UserError, match="with 6 replicates the smallest p"):
        refuse_unreachable(
            prospects(declare("arm", metrics=("peak_memory", "step_time"), looks=(6,)))
        )


def test_bytes_too_are_refused_below_the_least_that_is_judged() -> None:
    """Oracle: the judge gives no verdict below six, however alike the bytes are."""
    with pytest.raises(UserError, match=r"peak_memory: 5 replicates are fewer than the 6 .*Take 6"):
        refuse_unreachable(memory(5))


def test_the_plan_says_when_bytes_need_a_test_and_what_it_takes() -> None:
    """Oracle: 2/2^8 <= .01 < 2/2^7; at eight replicates there is something to find as well."""
    short, long = describe(memory(6)), describe(memory(8))

    for text in (short, long):
        assert "the same in every replicate need no test, varying ones need 8 replicates" in text
        assert "nan" not in text
    assert "80 % power" not in short
    assert "80 % power" in long
