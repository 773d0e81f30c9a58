"""Verdicts on families of comparisons: what may be said, and what never is."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertopt_bench.errors import UserError
from bertopt_bench.stats import comparisons as comparisons_module
from bertopt_bench.stats.families import benjamini_hochberg, holm
from bertopt_bench.stats.paired import hodges_lehmann, walsh_interval
from bertopt_bench.stats.verdicts import (
    WORDS,
    Comparison,
    Rule,
    control_finding,
    exploratory,
    judge,
)

if TYPE_CHECKING:
    from bertopt_bench.results.duels import Finding

DIRECTED = {word for words in WORDS.values() for word in words}
METRICS = sorted(WORDS)
GENERATOR = np.random.default_rng(7)
QUIET = tuple(GENERATOR.normal(0.0, 0.002, 12).tolist())
SLOW = tuple(GENERATOR.normal(0.05, 0.004, 12).tolist())
NOISY = tuple(GENERATOR.normal(0.01, 0.05, 12).tolist())

finite = st.floats(-0.2, 0.2)
any_float = st.one_of(finite, st.sampled_from([0.0, 0.05, math.nan, math.inf, -math.inf]))
rules = st.builds(
    Rule,
    metric=st.sampled_from(METRICS),
    alpha=st.sampled_from([0.01, 0.05]),
    family_error=st.just(0.05),
    margin=st.sampled_from([0.0, 0.02]),
    looks=st.sampled_from([1, 3]),
    sides=st.sampled_from([1, 2]),
    noise_floor=st.sampled_from([None, 0.0, 0.03]),
)


def rule(metric="step_time", margin=0.02, alpha=0.01, **other: Any) -> Rule:
    return Rule(metric=metric, alpha=alpha, family_error=0.05, margin=margin, **other)


def verdict(differences, **other: Any) -> Finding:
    (finding,) = judge([Comparison("base", "arm", tuple(differences))], rule(**other))
    return finding


def mirrored(word) -> str:
    pairs = dict(WORDS.values()) | {less: more for more, less in WORDS.values()}
    return pairs.get(word, word)


def test_each_verdict_where_it_belongs() -> None:
    """Oracle: by hand: 5 % and 0.4 % spread, nothing and 0.2 %, 1 % and 5 %, margin 2 %."""
    assert verdict(SLOW).verdict == "slower"
    assert verdict([-d for d in SLOW]).verdict == "faster"
    assert verdict(QUIET).verdict == "equivalent"
    assert verdict(NOISY).verdict == "inconclusive"


@pytest.mark.parametrize("metric", METRICS)
def test_each_metric_has_its_own_words(metric) -> None:
    assert verdict(SLOW, metric=metric).verdict == WORDS[metric][0]
    assert verdict([-d for d in SLOW], metric=metric).verdict == WORDS[metric][1]


def test_a_finding_holds_what_the_statistics_say() -> None:
    """Oracle: the functions that have tests of their own; all twelve beyond the margin: 2^-12."""
    finding = verdict(SLOW)
    shown, gate = walsh_interval(SLOW, 0.95), walsh_interval(SLOW, 0.99)

    assert finding.estimate == hodges_lehmann(SLOW)
    assert (finding.low, finding.high) == (shown.low, shown.high)
    assert (finding.gate_low, finding.gate_high) == (gate.low, gate.high)
    assert finding.confidence == gate.confidence
    assert (finding.p_more, finding.p_any) == (2 / 2**12, 2 / 2**12)
    assert (finding.margin, finding.margin_in_force, finding.noise_floor) == (0.02, 0.02, None)
    assert "n = 12" in finding.reason
    assert "margin of 2.02 %" in finding.reason


def test_one_side_is_not_doubled_and_its_interval_still_inverts_the_test() -> None:
    """Oracle: one-sided tests at .01 make an interval of 98 %."""
    finding = verdict(SLOW, sides=1)

    assert finding.p_more == 1 / 2**12
    assert (finding.gate_low, finding.gate_high) == (
        walsh_interval(SLOW, 0.98).low,
        walsh_interval(SLOW, 0.98).high,
    )


def test_looks_divide_alpha() -> None:
    """Oracle: by hand: at n = 8 the smallest p is .0078, above .01 / 3."""
    assert verdict(SLOW[:8]).verdict == "slower"
    finding = verdict(SLOW[:8], looks=3)
    assert finding.verdict == "inconclusive"
    assert "level_out_of_reach" in finding.flags
    assert "smallest p-value" in finding.reason


def test_looks_widen_the_interval_that_is_shown_and_it_says_so() -> None:
    """Oracle: Bonferroni: walsh_interval at 1 - .05 / 3 for one look of three."""
    one, three = verdict(NOISY), verdict(NOISY, looks=3)
    wide = walsh_interval(NOISY, 1 - 0.05 / 3)

    assert one.shown_confidence == 0.95
    assert three.shown_confidence == pytest.approx(1 - 0.05 / 3)
    assert (three.low, three.high) == (wide.low, wide.high)
    assert three.high - three.low > one.high - one.low
    assert "(95 % interval" in one.reason
    assert "(98.3 % interval" in three.reason


def test_equivalence_at_one_look_of_three_takes_the_wider_interval() -> None:
    """Oracle: a margin between the ends of the intervals at 95 % and at 1 - .05 / 3."""
    ends = [max(map(abs, (one.low, one.high))) for one in (verdict(QUIET), verdict(QUIET, looks=3))]
    margin = sum(ends) / 2

    assert verdict(QUIET, margin=margin).verdict == "equivalent"
    assert verdict(QUIET, margin=margin, looks=3).verdict == "inconclusive"


def test_the_family_is_corrected_by_holm_and_the_refused_keep_their_place() -> None:
    """Oracle: holm() over the p-values, 1 for what has none; n = 8 cannot reach .05 / 20."""
    family = [Comparison("base", f"arm {i}", SLOW[:8]) for i in range(19)]
    family.append(Comparison("base", "broken", (math.nan,) * 8))
    findings = judge(family, rule())

    assert {f.verdict for f in findings} == {"inconclusive", "refused"}
    expected = holm([2 / 2**8] * 19 + [1.0])
    assert [f.corrected_p_more for f in findings[:-1]] == expected[:-1]
    assert judge(family[:1], rule())[0].verdict == "slower"


def test_raw_p_must_pass_too() -> None:
    """Claim: a generous family-wise rate does not loosen a comparison's own alpha."""
    generous = Rule("step_time", alpha=0.0001, family_error=0.2, margin=0.0)

    assert judge([Comparison("a", "b", SLOW)], generous)[0].verdict == "inconclusive"


def test_the_noise_floor_widens_the_margin_and_is_said() -> None:
    finding = verdict(SLOW, noise_floor=0.06)

    assert finding.verdict == "equivalent"
    assert finding.margin_in_force == 0.06
    assert "margin_below_noise_floor" in finding.flags
    assert verdict(SLOW, noise_floor=0.01).flags == ()
    for broken in (math.nan, math.inf, -1.0):
        assert verdict(SLOW, noise_floor=broken).verdict == "refused"


def test_nothing_is_equivalent_without_a_margin_but_what_never_differs() -> None:
    assert verdict(QUIET, margin=0.0).verdict == "inconclusive"
    same = verdict([0.0] * 12, margin=0.0)
    assert same.verdict == "equivalent"
    assert (same.estimate, same.low, same.high) == (0, 0, 0)


def test_constant_bytes_are_judged_exactly() -> None:
    """Oracle: by hand: memory is counted, not timed."""
    assert verdict([0.03] * 6, metric="peak_memory").verdict == "larger"
    assert verdict([-0.03] * 6, metric="peak_memory").verdict == "smaller"
    within = verdict([0.01] * 6, metric="peak_memory")
    assert within.verdict == "equivalent"
    assert "no test is needed" in within.reason
    assert verdict(SLOW, metric="peak_memory").verdict == "larger"


@pytest.mark.parametrize("metric", ["step_time", "loss", "time_to_target"])
def test_other_constant_differences_are_no_measurement(metric) -> None:
    copied = [math.log(b * 1.05) - math.log(b) for b in (0.1, 0.11, 0.13, 0.17, 0.19, 0.23, 0.29)]

    assert verdict([0.05] * 12, metric=metric).verdict == "refused"
    assert verdict(copied, metric=metric).verdict == "refused"


def test_runs_that_never_got_there_rank_last() -> None:
    """Oracle: by hand: nine of ten arms' runs never reached it, the tenth was slower too."""
    endless = [math.inf] * 9 + [0.4]

    finding = verdict(endless, metric="time_to_target")

    assert finding.verdict == "slower"
    assert finding.estimate == math.inf
    assert "infinite_differences" in finding.flags
    assert verdict(endless, metric="step_time").verdict == "refused"
    assert verdict([math.inf] * 10, metric="loss").verdict == "higher"


@pytest.mark.parametrize("n", range(6))
@pytest.mark.parametrize("metric", METRICS)
def test_fewer_than_six_have_neither_interval_nor_verdict(n, metric) -> None:
    finding = verdict([0.5] * n, metric=metric)

    assert finding.verdict == "inconclusive"
    assert f"{n} of at least 6" in finding.reason
    assert finding.low is finding.gate_low is finding.p_more is None


@settings(deadline=None, max_examples=300)
@given(
    rules, st.lists(any_float, max_size=9), st.sampled_from(["few", "nan", "constant", "unequal"])
)
def test_input_that_is_broken_never_gets_a_direction(given_rule, values, how) -> None:
    """Claim: too few, NaN, constant, and unequal input yields no slower, faster or the like."""
    if how == "unequal":
        made = Comparison.paired(given_rule.metric, "a", "b", [1.0] * len(values), [2.0] * 12)
    else:
        broken = {
            "few": values[:5],
            "nan": [*values, math.nan],
            "constant": [0.05 if given_rule.metric != "peak_memory" else 0.0] * 12,
        }
        made = Comparison("a", "b", tuple(broken[how]))

    healthy = Comparison("a", "c", SLOW)
    finding, other = judge([made, healthy], given_rule)

    assert finding.verdict in {"refused", "inconclusive", "equivalent"}
    assert finding.reason
    assert other.verdict not in {"refused", ""}


@settings(deadline=None, max_examples=150)
@given(rules, st.lists(any_float, max_size=14))
def test_a_direction_has_a_test_and_an_interval_behind_it(given_rule, values) -> None:
    """Claim: whatever comes in, a directed verdict is backed by p, estimate and both intervals."""
    (finding,) = judge([Comparison("a", "b", tuple(values))], given_rule)

    assert finding.verdict in {*WORDS[given_rule.metric], "equivalent", "inconclusive", "refused"}
    if finding.verdict in DIRECTED:
        assert finding.n >= 6
        margin, more = finding.margin_in_force, finding.verdict == WORDS[given_rule.metric][0]
        assert (finding.estimate > margin) if more else (finding.estimate < -margin)
        if finding.p_more is not None:
            assert (finding.gate_low > margin) if more else (finding.gate_high < -margin)
            assert (finding.p_more if more else finding.p_less) <= given_rule.level


@settings(deadline=None, max_examples=150)
@given(rules, st.lists(st.lists(any_float, min_size=6, max_size=9), min_size=1, max_size=4))
def test_swapping_arm_and_baseline_mirrors_everything(given_rule, family) -> None:
    forward = [Comparison("a", f"b{i}", tuple(values)) for i, values in enumerate(family)]
    backward = [Comparison(f"b{i}", "a", tuple(-v for v in vs)) for i, vs in enumerate(family)]

    pairs = zip(judge(forward, given_rule), judge(backward, given_rule), strict=True)
    for one, other in pairs:
        assert mirrored(one.verdict) == other.verdict
        assert one.flags == other.flags
        assert (one.p_more, one.p_any, one.corrected_p_more, one.sign_flip_p) == (
            other.p_less,
            other.p_any,
            other.corrected_p_less,
            other.sign_flip_p,
        )
        assert (one.needed_replicates, one.detectable) == (
            other.needed_replicates,
            other.detectable,
        )
        for field, opposite in (
            ("estimate", "estimate"),
            ("low", "high"),
            ("gate_low", "gate_high"),
        ):
            a, b = getattr(one, field), getattr(other, opposite)
            assert (a is b is None) or a == -b


@settings(deadline=None, max_examples=60)
@given(
    rules,
    st.lists(st.lists(any_float, min_size=6, max_size=9), min_size=2, max_size=4),
    st.randoms(use_true_random=False),
)
def test_reordering_and_renaming_change_nothing(given_rule, family, random) -> None:
    """Claim: neither the order of replicates, nor of comparisons, nor any name enters a verdict."""
    order = list(range(len(family)))
    random.shuffle(order)
    shuffled = [random.sample(family[i], len(family[i])) for i in order]

    before = judge([Comparison("a", str(i), tuple(v)) for i, v in enumerate(family)], given_rule)
    after = judge([Comparison("z", f"q{i}", tuple(v)) for i, v in enumerate(shuffled)], given_rule)

    unnamed = {"baseline": "", "arm": "", "differences": ()}
    for i, finding in zip(order, after, strict=True):
        assert finding.model_copy(update=unnamed) == before[i].model_copy(update=unnamed)


def test_a_refusal_from_outside_names_its_reason_and_leaves_the_others() -> None:
    family = [Comparison("base", "one", SLOW), Comparison("base", "two", SLOW)]

    findings = judge(family, rule(), {("base", "one"): "another commit was imported"})

    assert (findings[0].verdict, findings[0].reason) == ("refused", "another commit was imported")
    assert findings[0].estimate is None
    assert findings[1].verdict == "slower"


def test_whatever_fails_in_the_statistics_is_refused_with_its_reason(monkeypatch) -> None:
    """Claim: an exception never ends as a verdict, in the one place through which all pass."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("by hand")

    monkeypatch.setattr(comparisons_module.paired, "walsh_interval", broken)

    findings = [
        verdict(SLOW),
        control_finding(QUIET, "step_time"),
        *exploratory([Comparison("a", "b", SLOW)], "loss"),
    ]
    for finding in findings:
        assert finding.verdict == "refused"
        assert "ZeroDivisionError: by hand" in finding.reason


def test_what_is_no_number_is_refused() -> None:
    assert verdict([*SLOW, "0.1 s"]).verdict == "refused"


def test_pairs_become_log_ratios_or_differences() -> None:
    """Oracle: by hand."""
    ratios = Comparison.paired("step_time", "a", "b", [1.0, 2.0], [2.0, 1.0])
    losses = Comparison.paired("loss", "a", "b", [5.0, math.inf, 4.0], [4.5, math.inf, math.inf])
    times = Comparison.paired("time_to_target", "a", "b", [math.inf, 3.0], [3.0, 3.0])

    assert ratios.differences == pytest.approx((math.log(2), -math.log(2)))
    assert losses.differences == (-0.5, 0.0, math.inf)
    assert times.differences == (-math.inf, 0.0)


@pytest.mark.parametrize(
    ("metric", "before", "after", "why"),
    [
        ("loss", [1.0] * 6, [1.0] * 7, "cannot pair"),
        ("step_time", [1.0] * 6, [0.0] * 6, "no ratio"),
        ("time_to_target", [math.inf] * 6, [math.inf] * 6, "neither|no run"),
        ("loss", [1.0] * 6, [math.nan] * 6, "not a number"),
    ],
)
def test_pairs_that_are_none_are_refused(metric, before, after, why) -> None:
    made = Comparison.paired(metric, "a", "b", before, after)
    (finding,) = judge([made], rule(metric))

    assert finding.verdict == "refused"
    assert any(part in finding.reason for part in why.split("|"))


def test_an_inconclusive_finding_says_what_it_would_take() -> None:
    """Claim: beyond the margin, replicates to find it; inside, replicates to show equivalence."""
    even = [NormalDist().inv_cdf((i + 0.5) / 12) for i in range(12)]
    beyond = verdict([0.045 + 0.05 * z for z in even])
    inside = verdict([0.005 + 0.025 * z for z in even])

    assert beyond.verdict == inside.verdict == "inconclusive"
    assert beyond.needed_replicates > 12
    assert inside.needed_replicates > 12
    assert beyond.detectable > 0.02
    assert "detectable_above_twice_margin" in beyond.flags


def test_an_arm_with_fewer_replicates_is_flagged() -> None:
    full, short = judge([Comparison("a", "b", SLOW), Comparison("a", "c", SLOW[:9])], rule())

    assert "fewer_replicates" not in full.flags
    assert "fewer_replicates" in short.flags


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": 0.0},
        {"alpha": 0.7},
        {"margin": -0.1},
        {"margin": math.nan},
        {"sides": 3},
        {"looks": 0},
    ],
)
def test_a_rule_that_is_none_is_refused_to_the_user(wrong) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        rule(**wrong)


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'step_time'"):
        rule("step_times")


def test_the_noise_floor_is_half_the_width_of_the_controls_interval() -> None:
    """Oracle: walsh_interval at 99 %."""
    interval = walsh_interval(NOISY, 0.99)
    finding = control_finding(NOISY, "step_time")

    assert finding.noise_floor == (interval.high - interval.low) / 2
    assert (finding.gate_low, finding.gate_high) == (interval.low, interval.high)
    assert (finding.verdict, finding.arm) == ("agrees", "A/A")


def test_a_control_off_zero_disagrees() -> None:
    finding = control_finding(SLOW, "step_time")

    assert finding.verdict == "disagrees"
    assert "interval_excludes_zero" in finding.flags
    assert "excludes 0" in finding.reason


def test_a_short_control_gives_the_widest_exact_interval_and_says_so() -> None:
    """Oracle: 1 - 2 / 2^6 = 96.9 %, between the smallest and the largest difference."""
    finding = control_finding(NOISY[:6], "step_time")

    assert (finding.gate_low, finding.gate_high) == (min(NOISY[:6]), max(NOISY[:6]))
    assert finding.confidence == 1 - 2 / 2**6
    assert "confidence_out_of_reach" in finding.flags
    assert "96.9 %" in finding.reason


@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_control_too_short_for_its_alpha_raises_no_alarm_and_keeps_its_floor(n, sign) -> None:
    """Oracle: 2 / 2^7 > .01, so no outcome of seven is an alarm at .01; 2 / 2^8 < .01 is one."""
    short = [sign * value for value in SLOW[:n]]
    finding = control_finding(short, "step_time")

    assert finding.verdict == "inconclusive"
    assert finding.noise_floor == pytest.approx((max(short) - min(short)) / 2)
    assert {"interval_excludes_zero", "confidence_out_of_reach"} == set(finding.flags)
    assert "at alpha 0.01 takes n = 8" in finding.reason
    assert control_finding(SLOW[:8], "step_time").verdict == "disagrees"
    assert control_finding(short, "step_time", alpha=0.05).verdict == "disagrees"


def test_bytes_that_repeat_exactly_need_no_replicates_to_disagree() -> None:
    """Oracle: memory is counted: identical arms that differ by the same bytes are not alike."""
    apart, alike = (control_finding([d] * 6, "peak_memory") for d in (0.01, 0.0))

    assert (apart.verdict, apart.flags) == ("disagrees", ("interval_excludes_zero",))
    assert (alike.verdict, alike.flags, alike.noise_floor) == ("agrees", (), 0.0)


def test_controls_without_a_noise_floor() -> None:
    assert control_finding(NOISY[:5], "step_time").verdict == "inconclusive"
    assert control_finding([math.nan] * 9, "step_time").verdict == "refused"
    endless = control_finding([math.inf] * 9, "time_to_target")
    assert (endless.verdict, endless.noise_floor) == ("refused", None)
    assert control_finding([0.0] * 9, "loss").noise_floor == 0


def test_exploratory_tables_have_q_values_and_no_verdict() -> None:
    """Oracle: benjamini_hochberg over the two-sided p-values."""
    family = [Comparison("a", str(i), v) for i, v in enumerate((SLOW, QUIET, NOISY))]
    findings = exploratory([*family, Comparison("a", "short", SLOW[:3])], "step_time")

    expected = benjamini_hochberg([f.p_any for f in findings[:3]] + [1.0])
    assert [f.q_value for f in findings] == [*expected[:3], None]
    assert all("exploratory" in f.flags for f in findings)
    assert [f.verdict for f in findings] == ["exploratory"] * 3 + ["inconclusive"]
    assert not DIRECTED & set(itertools.chain.from_iterable(f.reason.split() for f in findings))
