"""The stated error rates, measured on simulated machines (measurement.md 3.1 and 4.9).

Log step time = machine drift (Ornstein-Uhlenbeck, 10 %) + AR(1) noise (3 %) + spikes (2 % of the
steps, x 1.5) + an effect of each process (2 %). Seeds are fixed; a band is the binomial 99.9 %
one around the stated rate, so that a right program fails one test in a thousand machines.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from bertopt_bench.stats.paired import walsh_interval
from bertopt_bench.stats.verdicts import WORDS, Comparison, Rule, control_finding, judge

RUNS = 2000
REPLICATES, ROUNDS, BLOCK_STEPS = 12, 6, 5
ANY_DIFFERENCE = Rule("step_time", alpha=0.01, family_error=0.05, margin=0.0)


def band(rate, runs) -> tuple[float, float]:
    """Give the binomial 99.9 % band of a count."""
    return tuple(scipy.stats.binom.ppf((0.0005, 0.9995), runs, rate))


def machine(generator, runs, drift_steps, arms=2) -> np.ndarray:
    """Simulate log step times without any process effect: runs x replicates x slots x steps."""
    steps = REPLICATES * ROUNDS * arms * BLOCK_STEPS
    times = np.empty((runs, steps))
    keep, short = np.exp(-1 / drift_steps), 0.5
    drift, noise = 0.10 * generator.standard_normal(runs), 0.03 * generator.standard_normal(runs)
    for step in range(steps):
        drift = keep * drift + 0.10 * np.sqrt(1 - keep**2) * generator.standard_normal(runs)
        noise = short * noise + 0.03 * np.sqrt(1 - short**2) * generator.standard_normal(runs)
        times[:, step] = drift + noise
    times += np.log(1.5) * (generator.random(times.shape) < 0.02)
    return times.reshape(runs, REPLICATES, ROUNDS, arms, BLOCK_STEPS)


def interleaved(generator, times, effects) -> np.ndarray:
    """Run every arm once a round in a drawn order; give log(block seconds) by arm, round means."""
    runs, replicates, rounds, arms, _ = times.shape
    blocks = np.log(np.exp(times).mean(axis=-1))
    order = generator.random((runs, replicates, rounds, arms)).argsort(axis=-1)
    return np.take_along_axis(blocks, order, axis=-1).mean(axis=2) + effects


def one_after_the_other(times, effects) -> np.ndarray:
    """Run all processes of A, then all of B, on the same machine; give steps by arm."""
    runs = times.shape[0]
    halves = times.reshape(runs, 2, REPLICATES, ROUNDS * BLOCK_STEPS)
    return (halves + effects.transpose(0, 2, 1)[..., None]).reshape(runs, 2, -1)


@pytest.mark.slow
@pytest.mark.parametrize("drift_steps", [40, 400, 4000])
def test_false_alarms_of_identical_arms_keep_to_alpha_on_a_drifting_machine(drift_steps) -> None:
    """Oracle: the binomial 99.9 % band around .01; the same machine read A, then B fools Welch."""
    generator = np.random.default_rng(drift_steps)
    times = machine(generator, RUNS, drift_steps)
    effects = 0.02 * generator.standard_normal((RUNS, REPLICATES, 2))

    arms = interleaved(generator, times, effects)
    alarms = sum(
        judge([Comparison("A", "A", tuple(row))], ANY_DIFFERENCE)[0].verdict in WORDS["step_time"]
        for row in arms[..., 1] - arms[..., 0]
    )
    naive = one_after_the_other(times, effects)
    cries = scipy.stats.ttest_ind(naive[:, 0], naive[:, 1], axis=1, equal_var=False).pvalue < 0.05

    low, high = band(0.01, RUNS)
    assert low <= alarms <= high
    assert cries.mean() > 1 / 3


def test_the_control_excludes_zero_no_more_often_than_it_says() -> None:
    """Oracle: the binomial 99.9 % band around .01 for A/A intervals of 99 %."""
    data = np.random.default_rng(21).standard_t(3, (RUNS, 10))
    alarms = sum(control_finding(tuple(row), "step_time").verdict == "disagrees" for row in data)

    assert alarms <= band(0.01, RUNS)[1]


@pytest.mark.parametrize("replicates", [6, 7, 8])
def test_a_short_control_raises_no_more_alarms_than_its_alpha(replicates) -> None:
    """Oracle: the binomial 99.9 % band around 2 / 2^n for intervals that exclude 0.

    Up to seven replicates that is 3.1 and 1.6 %, above .01, so none of them is an alarm.
    """
    data = np.random.default_rng(22).standard_t(3, (RUNS, replicates))
    found = [control_finding(tuple(row), "step_time") for row in data]
    alarms = sum(finding.verdict == "disagrees" for finding in found)
    excluding = sum("interval_excludes_zero" in finding.flags for finding in found)

    low, high = band(2 / 2**replicates, RUNS)
    assert low <= excluding <= high
    assert alarms == (excluding if replicates == 8 else 0)
    assert all(finding.noise_floor for finding in found)


def test_the_intervals_of_three_looks_hold_the_centre_together() -> None:
    """Oracle: the binomial 99.9 % band above .05 for missing it at any look at 10, 20 or 30.

    At 95 % each, the looks together miss more often than that.
    """
    rule = Rule("step_time", alpha=0.01, family_error=0.05, margin=0.02, looks=3)
    data = np.random.default_rng(72).standard_normal((RUNS, 30))

    def missed(confidence: float) -> int:
        return sum(
            any(
                not interval.low <= 0 <= interval.high
                for interval in (walsh_interval(row[:n], confidence) for n in (10, 20, 30))
            )
            for row in data
        )

    limit = band(0.05, RUNS)[1]
    assert missed(rule.shown_confidence) <= limit < missed(0.95)


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["normal", "t3"])
def test_intervals_cover_at_least_what_they_promise_less_a_point(noise) -> None:
    """Oracle: nominal 95 % of 2,000 centres for every n from 6 to 20 (measurement.md 4.9)."""
    generator = np.random.default_rng(31)
    for n in range(6, 21):
        shape = (RUNS, n)
        data = (
            generator.standard_normal(shape)
            if noise == "normal"
            else generator.standard_t(3, shape)
        )
        found = [walsh_interval(row, 0.95) for row in data]
        covered = np.mean([interval.low <= 0 <= interval.high for interval in found])
        promised = found[0].confidence
        assert covered >= 0.94
        assert covered == pytest.approx(promised, abs=4 * np.sqrt(0.05 * 0.95 / RUNS))


@pytest.mark.slow
def test_a_family_of_twenty_identical_arms_cries_no_more_often_than_one_may() -> None:
    """Oracle: the binomial 99.9 % band above .05; the arms share the baseline's noise."""
    families = 300
    generator = np.random.default_rng(41)
    rule = Rule("step_time", alpha=0.05, family_error=0.05, margin=0.0)
    arms = 0.02 * generator.standard_normal((families, REPLICATES, 21))
    alarms = 0
    for family in arms:
        differences = (family[:, 1:] - family[:, :1]).T
        findings = judge(
            [Comparison("A", str(i), tuple(d)) for i, d in enumerate(differences)], rule
        )
        alarms += any(finding.verdict in WORDS["step_time"] for finding in findings)

    assert alarms <= band(0.05, families)[1]


@pytest.mark.parametrize("margin", [0.0, 0.01, 0.02])
def test_five_per_cent_is_found_at_twelve_replicates_and_two_per_cent_spread(margin) -> None:
    """Oracle: power of .8 or more (measurement.md 4.9), even beyond a margin of 2 %."""
    rule = Rule("step_time", alpha=0.01, family_error=0.05, margin=np.log1p(margin), sides=1)
    data = np.random.default_rng(51).normal(np.log(1.05), 0.02, (600, 12))
    found = [judge([Comparison("A", "B", tuple(row))], rule)[0].verdict for row in data]

    assert found.count("slower") / len(found) >= 0.8
    assert "faster" not in found


def test_at_the_margins_edge_false_alarms_keep_to_alpha() -> None:
    """Oracle: the binomial 99.9 % band above .01 for a true slow-down equal to the margin."""
    rule = Rule("step_time", alpha=0.01, family_error=0.05, margin=0.02, sides=1)
    data = np.random.default_rng(61).normal(0.02, 0.02, (RUNS, 12))
    found = [judge([Comparison("A", "B", tuple(row))], rule)[0].verdict for row in data]

    assert found.count("slower") <= band(0.01, RUNS)[1]


@pytest.mark.slow
def test_three_pre_set_looks_keep_to_alpha_together() -> None:
    """Oracle: the binomial 99.9 % band above .05 for looks at 10, 20, 30 (measurement.md 3.2)."""
    rule = Rule("step_time", alpha=0.05, family_error=0.05, margin=0.0, looks=3)
    data = np.random.default_rng(71).standard_normal((400, 30))
    alarms = sum(
        any(
            judge([Comparison("A", "A", tuple(row[:n]))], rule)[0].verdict in WORDS["step_time"]
            for n in (10, 20, 30)
        )
        for row in data
    )

    assert alarms <= band(0.05, 400)[1]
