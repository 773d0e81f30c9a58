"""Joining a newcomer to published runs: hand-computed cases."""

from __future__ import annotations

import math
import statistics

import pytest

from bertopt_bench.stats.challenge import Run, baseline_targets, reproduction, standings

INF = math.inf


def run(final: float, *, lost: bool = False, start: float = 10.0) -> Run:
    """Give a curve that falls in a straight line over 100 steps, looked at in the middle."""
    return Run((0, 50, 100), (start, (start + final) / 2, final), 100, lost=lost)


def test_a_run_has_no_final_loss_before_its_end() -> None:
    """Oracle: by hand."""
    assert run(4.0).final == 4.0
    assert Run((0, 50), (10.0, 7.0), 100).final == INF
    assert run(4.0, lost=True).final == INF
    assert run(math.nan).final == INF


def test_targets_are_what_most_seeds_reach_at_the_end_and_medians_before() -> None:
    """Oracle: by hand: finals 2, 4, 6 and 8, middles 6, 7, 8 and 9; lost ones count as infinite."""
    base = {seed: run(final) for seed, final in enumerate((2.0, 4.0, 6.0, 8.0))}

    assert baseline_targets(base, (1.0, 0.5)) == (6.0, 7.5)
    assert baseline_targets({**base, 3: run(8.0, lost=True)}, (1.0,)) == (6.0,)
    with pytest.raises(ValueError, match="after 100 steps"):
        baseline_targets({**base, 1: run(4.0, lost=True), 3: run(8.0, lost=True)}, (1.0,))
    with pytest.raises(ValueError, match="after 75 steps"):
        baseline_targets(base, (0.75,))


def test_the_band_is_the_prediction_interval_of_one_more_seed() -> None:
    """Oracle: t at 0.995 with 3 degrees of freedom is 5.8409 (Student's table); sd of 1 to 4."""
    published = {seed: run(float(seed)) for seed in (1, 2, 3, 4)}
    reach = 5.840909 * math.sqrt(5 / 3) * math.sqrt(1.25)
    found = reproduction(published, 1, run(2.5), identical=False)

    assert found.low == pytest.approx(2.5 - reach, abs=1e-5)
    assert found.high == pytest.approx(2.5 + reach, abs=1e-5)
    assert found.holds
    assert not reproduction(published, 1, run(2.6 + reach), identical=False).holds
    assert not reproduction(published, 1, run(2.5, lost=True), identical=False).holds
    assert reproduction(published, 1, run(2.6 + reach), identical=True).holds


def test_arms_are_judged_against_the_baseline_by_seed() -> None:
    """Oracle: ten seeds, all lower by about 1: the exact two-sided p is 2/1024, alone or of two."""
    base = {seed: run(4.0 + seed / 10) for seed in range(10)}
    mine = {seed: run(3.0 + seed / 9) for seed in range(10)}
    arms = {"base": base, "mine": mine}
    first, second = standings(arms, "base", (4.0,))

    assert (first.arm, second.arm) == ("mine", "base")
    assert second.finding is None
    assert first.finding is not None
    assert first.finding.verdict == "lower"
    assert first.finding.estimate == pytest.approx(-0.95)
    assert first.finding.p_any == pytest.approx(2 / 1024)
    assert first.finding.margin == pytest.approx(0.25 * statistics.stdev(range(10)) / 10)
    assert (first.reached[0].share.reached, second.reached[0].share.reached) == (10, 1)
    assert second.reached[0].median_steps == INF
    assert first.reached[0].median_steps < 100
    more = {one.arm: one.finding for one in standings({**arms, "same": base}, "base", ())}
    assert more["mine"].corrected_p_less == pytest.approx(2 * first.finding.p_less)
    assert more["same"].verdict == "equivalent"


def test_few_seeds_and_none_in_common_give_no_verdict() -> None:
    """Oracle: of six seeds the smallest exact p is 2/64, above .01."""
    base = {seed: run(4.0 + seed / 10) for seed in range(6)}
    mine = {seed: run(3.0 + seed / 9) for seed in range(6)}
    other = {seed + 6: run(3.0) for seed in range(6)}
    arms = {"base": base, "mine": mine, "other": other}
    found = {one.arm: one.finding for one in standings(arms, "base", ())}

    assert found["mine"].verdict == "inconclusive"
    assert found["mine"].high < 0
    assert "no seed is common" in found["other"].reason


def test_lost_runs_stay_in_as_infinite() -> None:
    """Oracle: four of six lost: the median is infinite, and so is the centre of the differences."""
    base = {seed: run(4.0) for seed in range(6)}
    mine = {seed: run(3.0, lost=seed > 1) for seed in range(6)}
    last = standings({"base": base, "mine": mine}, "base", (3.5,))[-1]

    assert last.arm == "mine"
    assert last.median == INF
    assert last.finding.estimate == INF


def test_arms_of_lost_runs_alone_have_no_difference() -> None:
    """Oracle: nothing was seen that could differ; one pair that finished is enough to differ."""
    lost = {seed: run(4.0, lost=True) for seed in range(6)}
    found = {one.arm: one.finding for one in standings({"base": lost, "mine": lost}, "base", ())}
    assert (found["mine"].estimate, found["mine"].verdict) == (None, "refused")

    some = {**lost, 0: run(3.0)}
    found = {one.arm: one.finding for one in standings({"base": lost, "mine": some}, "base", ())}
    assert found["mine"].estimate == 0.0


def test_a_lost_run_never_reached_a_target_that_it_had_passed() -> None:
    """Oracle: the page's own words; of three curves from 10 to 4 two are at 7 after 50 steps."""
    runs = {seed: run(4.0, lost=seed == 0) for seed in range(3)}
    reached = standings({"base": runs}, "base", (7.0,))[0].reached[0]

    assert (reached.share.reached, reached.share.n) == (2, 3)
    assert reached.median_steps == 50.0
    both = standings({"base": {**runs, 1: run(4.0, lost=True)}}, "base", (7.0,))[0].reached[0]
    assert both.median_steps == INF
