"""From a duel's replicates to its verdicts: pairing, controls, refusals, noise."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

import pytest
from made_duels import QUIET, cell, declare, record, replicate, replicates, slowed, trained

from bertopt_bench.results.duels import CONTROL, DeclaredArm
from bertopt_bench.stats import duels
from bertopt_bench.stats.duels import analyse, differences, step_time_differences
from bertopt_bench.stats.verdicts import WORDS

if TYPE_CHECKING:
    from bertopt_bench.results.duels import Declaration, Finding, Replicate, Verdicts

DIRECTED = {word for pair in WORDS.values() for word in pair}


def judged(declaration: Declaration, made: list[Replicate], *rest: Any, **more: Any) -> Verdicts:
    return analyse(declaration, made, *rest, look=1, session="s", at_utc="t", **more)


def finding(declaration: Declaration, made: list[Replicate], *rest: Any, **more: Any) -> Finding:
    return judged(declaration, made, *rest, **more).findings[0]


# --- pairing ---


def test_a_replicates_difference_is_its_mean_log_ratio_over_rounds() -> None:
    """Oracle: by hand: two rounds of 4 % and 2 % at other speeds; drift between rounds cancels."""
    made = replicate(0, {"base": 0.0, "arm": 0.0})
    walls = {(0, "base"): 1.0, (0, "arm"): 1.04, (1, "base"): 3.0, (1, "arm"): 3.06}
    blocks = [
        block.model_copy(update={"wall_seconds": walls[block.round, block.arm]})
        for block in made.blocks
        if block.round < 2
    ]
    made = made.model_copy(update={"blocks": tuple(blocks)})

    (found,) = step_time_differences([made], "base", "arm")
    assert found == pytest.approx((math.log(1.04) + math.log(1.02)) / 2)


def test_blocks_of_unlike_length_compare_by_the_step() -> None:
    """Oracle: twice the steps in twice the time is the same speed."""
    made = replicate(0, {"base": 0.0, "arm": 0.0})
    blocks = [
        block.model_copy(update={"steps": 20, "wall_seconds": 2 * block.wall_seconds})
        if block.arm == "arm"
        else block
        for block in made.blocks
    ]

    (found,) = step_time_differences(
        [made.model_copy(update={"blocks": tuple(blocks)})], "base", "arm"
    )
    assert found == pytest.approx(0.0, abs=1e-12)


def test_only_whole_replicates_count() -> None:
    """Oracle: the one replicate whose arms all ran to the end."""
    made = [
        replicate(0, {"base": 0.0, "arm": 0.03}),
        replicate(1, {"base": 0.0}, status="failed", reason="'arm' fell"),
    ]

    assert step_time_differences(made, "base", "arm") == pytest.approx([0.03])


def test_swapped_arms_negate_every_difference() -> None:
    """Oracle: a log ratio's own symmetry, for every metric."""
    declared = declare("lion", metrics=("step_time", "peak_memory", "loss", "time_to_target"))
    made = replicates({"lion": 0.05}, peaks={"base": 1_000, "lion": 1_100, CONTROL: 1_000})
    ends = {"base": [5.0 + i / 50 for i in range(8)], "lion": [4.9 + i / 40 for i in range(8)]}
    records = trained(ends)
    for metric in declared.metrics:
        one = differences(metric, made, records, "base", "lion", declared)
        other = differences(metric, made, records, "lion", "base", declared)
        assert other == pytest.approx([-value for value in one])
        assert len(one) == (12 if metric in {"step_time", "peak_memory"} else 8)


def test_losses_pair_by_seed_and_average_the_last_five_evaluations() -> None:
    """Oracle: by hand; measurement.md 4.4: K = 5."""
    declared = declare("lion", metrics=("loss",), seeds=(1, 2))
    curve = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0]
    records = [
        record("lion", 2, [loss + 2.0 for loss in curve]),
        record("base", 1, curve),
        record("base", 2, curve),
        record("lion", 1, [loss + 1.0 for loss in curve]),
    ]

    assert differences("loss", [], records, "base", "lion", declared) == pytest.approx([1.0, 2.0])
    ours = statistics.fmean(curve[2:])
    assert duels._final_loss(records[1]) == pytest.approx(ours)


def test_a_seed_that_only_one_arm_has_makes_no_pair() -> None:
    """Oracle: by hand."""
    declared = declare("lion", metrics=("loss",), seeds=(1, 2, 3))
    records = trained({"base": [5.0, 5.0, 5.0], "lion": [4.0, 4.5]})

    assert differences("loss", [], records, "base", "lion", declared) == pytest.approx([-1.0, -0.5])


# --- verdicts ---


@pytest.mark.parametrize(
    ("effect", "verdict"),
    [(0.06, "slower"), (-0.06, "faster"), (0.0, "equivalent"), (0.019, "inconclusive")],
)
def test_an_arm_is_judged_against_the_margin(effect: float, verdict: str) -> None:
    """Oracle: the true effect beside a margin of 2 % at 0.4 % spread between 12 replicates."""
    verdicts = judged(declare("arm"), replicates({"arm": effect}))

    assert verdicts.state == "valid"
    assert verdicts.findings[0].verdict == verdict
    assert verdicts.findings[0].margin == pytest.approx(math.log1p(0.02))
    assert (verdicts.replicates, verdicts.look) == (12, 1)


def test_what_the_control_differs_by_widens_the_margin_in_force() -> None:
    """Oracle: the design: the half-width of the A/A arm's interval is the noise floor."""
    made = replicates({"arm": 0.06}, spread=0.05, seed=3)
    verdicts = judged(declare("arm"), made)
    (control,) = verdicts.controls

    assert control.arm == CONTROL
    half_width = ((control.gate_high or 0) - (control.gate_low or 0)) / 2
    assert control.noise_floor == pytest.approx(half_width)
    assert verdicts.findings[0].margin_in_force == control.noise_floor
    assert verdicts.findings[0].verdict == "inconclusive"


def test_a_family_of_arms_is_corrected_together() -> None:
    """Oracle: Holm: the smallest of m p-values times m."""
    one = finding(declare("a"), replicates({"a": 0.06}))
    three = judged(
        declare("a", "b", "c"), replicates({"a": 0.06, "b": 0.0, "c": 0.0}, seed=1)
    ).findings

    assert one.corrected_p_more == one.p_more
    assert three[0].corrected_p_more == pytest.approx(3 * (three[0].p_more or 0))


@pytest.mark.parametrize(
    ("bytes_", "verdict"), [(1_100, "larger"), (900, "smaller"), (1_005, "equivalent")]
)
def test_memory_that_never_varies_is_judged_without_a_test(bytes_: int, verdict: str) -> None:
    """Oracle: by hand against a margin of 1 %."""
    peaks = {"base": 1_000, "arm": bytes_, CONTROL: 1_000}
    found = finding(declare("arm", metrics=("peak_memory",)), replicates({"arm": 0.0}, peaks=peaks))

    assert found.verdict == verdict


def test_memory_that_nobody_measured_is_refused() -> None:
    """Oracle: no byte, no ratio."""
    made = replicates({"arm": 0.0}, run={"peak_memory_bytes": None})

    assert finding(declare("arm", metrics=("peak_memory",)), made).verdict == "refused"


@pytest.mark.parametrize("n", [0, 1, 5])
def test_fewer_than_six_replicates_give_no_verdict(n: int) -> None:
    """Oracle: the protocol's least number."""
    found = finding(declare("arm"), replicates({"arm": 0.5}, n=n))

    assert found.verdict == "inconclusive"
    assert (found.low, found.high) == (None, None)


def test_three_looks_cost_a_third_of_alpha_each() -> None:
    """Oracle: at 8 replicates 2/2^8 passes .01 and not .01 / 3."""
    made = replicates({"arm": 0.2}, n=8)

    assert finding(declare("arm"), made).verdict == "slower"
    assert finding(declare("arm", looks=(10, 20, 30)), made).verdict == "inconclusive"


def test_three_looks_widen_the_interval_and_the_finding_says_its_confidence() -> None:
    """Oracle: Bonferroni over the declared looks: 1 - .05 / 3; a half-width that grows with it."""
    made = replicates({"arm": 0.01}, spread=0.02)
    one, three = (finding(declare("arm", looks=looks), made) for looks in ((12,), (12, 20, 30)))

    assert (one.shown_confidence, three.shown_confidence) == (0.95, pytest.approx(1 - 0.05 / 3))
    assert (three.high or 0) - (three.low or 0) > (one.high or 0) - (one.low or 0)
    assert "98.3 % interval" in three.reason


# --- losses and targets ---


def ends(shift: float, n: int = 8) -> dict[str, list[float]]:
    base = [5.0 + 0.03 * ((7 * i) % 5) for i in range(n)]
    arm = [value + shift + 0.0005 * ((3 * i) % 7) for i, value in enumerate(base)]
    return {"base": base, "lion": arm, CONTROL: base}


def test_a_loss_without_a_declared_margin_has_a_quarter_of_the_baselines_spread() -> None:
    """Oracle: measurement.md 4.4: 0.25 standard deviations of the baseline over seeds."""
    declared = declare("lion", metrics=("loss",), margins={"loss": None})
    made = ends(0.2)
    found = finding(declared, [], trained(made))

    assert found.margin == pytest.approx(0.25 * statistics.stdev(made["base"]))
    assert found.verdict == "higher"
    assert finding(declared, [], trained(ends(-0.2))).verdict == "lower"


def test_a_run_that_diverged_is_worse_than_any_that_did_not() -> None:
    """Oracle: measurement.md 4.4: divergence is an outcome, kept as +inf, never left out."""
    made = trained({**ends(0.0), "lion": []})
    made += [record("lion", seed, [8.0, 9e9], status="diverged", steps=80) for seed in range(1, 9)]
    found = finding(declare("lion", metrics=("loss",)), [], made)

    assert found.verdict == "higher"
    assert set(found.differences) == {math.inf}


def test_arms_that_all_diverged_are_no_equals() -> None:
    """Oracle: to fail alike is no equivalence: there is no finite value on either side."""
    made = [
        record(arm, seed, [8.0, math.nan], status="diverged", steps=80)
        for arm in ("base", "lion", CONTROL)
        for seed in range(1, 9)
    ]
    found = finding(declare("lion", metrics=("loss",)), [], made)

    assert found.verdict == "refused"
    assert "no run of either arm got there" in found.reason


def test_time_to_target_adds_steps_and_seconds_a_step() -> None:
    """Oracle: by hand: half the steps at 5 % more a step; targets by linear interpolation."""
    declared = declare("lion", metrics=("time_to_target",), target_loss=6.0)
    straight = [8.0 - 0.25 * i for i in range(17)]  # reaches 6.0 after 80 steps
    steep = [8.0 - 0.5 * i for i in range(17)]  # after 40
    records = [
        record(arm, seed, curve)
        for arm, curve in (("base", straight), ("lion", steep), (CONTROL, straight))
        for seed in range(1, 9)
    ]
    found = finding(declared, replicates({"lion": math.log(1.05)}, spread=0.001), records)

    assert found.verdict == "faster"
    assert found.estimate == pytest.approx(math.log(1.05 / 2), abs=0.003)
    assert found.n == 8


def test_a_target_that_nobody_reached_is_no_tie() -> None:
    """Oracle: no time was measured; only a target that both reach can be compared."""
    declared = declare("lion", metrics=("time_to_target",), target_loss=0.5)
    found = finding(declared, replicates({"lion": 0.0}), trained(ends(0.0)))

    assert found.verdict == "refused"
    assert "no run of either arm got there" in found.reason


def test_without_a_target_the_baselines_median_end_is_it() -> None:
    """Oracle: the target that is declared gives the same differences."""
    made, records = replicates({"lion": 0.01}), trained(ends(-0.3))
    median = statistics.median(ends(0.0)["base"])
    silent, stated = (
        finding(declare("lion", metrics=("time_to_target",), target_loss=t), made, records)
        for t in (None, median)
    )

    assert silent.differences == pytest.approx(stated.differences)


def test_a_baseline_that_diverged_is_no_target() -> None:
    """Oracle: an infinite target is reached at step 0 by everybody: that is no measurement."""
    records = trained({"lion": ends(0.0)["lion"]})
    records += [
        record(arm, seed, [8.0, math.nan], status="diverged", steps=80)
        for arm in ("base", CONTROL)
        for seed in range(1, 9)
    ]
    declared = declare("lion", metrics=("time_to_target",))
    verdicts = judged(declared, replicates({"lion": 0.0}), records)

    assert {one.verdict for one in verdicts.findings} == {"refused"}
    assert "--target" in verdicts.reasons[0]


# --- what makes it invalid ---


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"finite": False}, "not finite"),
        ({"initial_loss": 8.4}, "numerics are wrong"),
        ({"initial_loss": math.nan}, "numerics are wrong"),
        ({"initial_weights_sha256": "other"}, "initial_weights_sha256"),
        ({"batches_sha256": "other"}, "batches_sha256"),
        ({"evaluation_sha256": "other"}, "evaluation_sha256"),
    ],
)
@pytest.mark.parametrize("fallen", ["arm", CONTROL])
def test_unlike_work_or_wrong_numerics_refuse_everything(
    run: dict[str, Any], words: str, fallen: str
) -> None:
    """Oracle: measurement.md 4.6: numerics are checked in the run that is timed."""
    made = replicates({"arm": 0.06})
    runs = [one.model_copy(update=run) if one.arm == fallen else one for one in made[5].arms]
    made[5] = made[5].model_copy(update={"arms": tuple(runs)})
    verdicts = judged(declare("arm"), made)

    assert verdicts.state == "invalid"
    assert words in verdicts.reasons[0]
    assert "replicate 5" in verdicts.reasons[0]
    assert [one.verdict for one in verdicts.findings] == ["refused"]
    assert verdicts.findings[0].estimate is None


@pytest.mark.parametrize(
    ("precision", "apart", "valid"),
    [("fp32", 1e-4, True), ("fp32", 0.05, False), ("bf16", 0.05, True), ("bf16", 0.5, False)],
)
def test_the_tolerance_of_the_first_loss_is_the_looser_arms(
    precision: str, apart: float, valid: bool
) -> None:
    """Oracle: eight bits of mantissa are good for 2 %, twenty-four for 0.1 % of a loss of 8.3."""
    arm = DeclaredArm(label="arm", role="arm", cell_id="x", cell=cell(precision=precision))
    made = replicates({"arm": 0.06})
    for number, one in enumerate(made):
        runs = [
            run.model_copy(update={"initial_loss": 8.3 + apart}) if run.arm == "arm" else run
            for run in one.arms
        ]
        made[number] = one.model_copy(update={"arms": tuple(runs)})

    assert (judged(declare(arm), made).state == "valid") is valid


def test_arms_of_other_work_need_not_start_alike() -> None:
    """Oracle: two workloads have other weights and other text by definition."""
    arm = DeclaredArm(label="arm", role="arm", cell_id="x", cell=cell(steps=80))
    made = replicates({"arm": 0.06})
    runs = [
        run.model_copy(update={"initial_weights_sha256": "o", "initial_loss": 2.0})
        if run.arm == "arm"
        else run
        for run in made[0].arms
    ]
    made[0] = made[0].model_copy(update={"arms": tuple(runs)})

    assert judged(declare(arm), made).findings[0].verdict == "slower"


def test_a_fallen_replicate_refuses_and_its_reason_is_kept() -> None:
    """Oracle: the replicate's own words."""
    made = replicates({"arm": 0.06})
    made.append(replicate(12, {"base": 0.0}, status="out_of_memory", reason="'arm' had no room"))
    verdicts = judged(declare("arm"), made)

    assert (verdicts.state, verdicts.replicates) == ("invalid", 12)
    assert verdicts.reasons == ("replicate 12: 'arm' had no room",)


def test_a_failed_training_run_refuses_and_a_diverged_one_does_not() -> None:
    """Oracle: the design: divergence is an outcome, a failure is a surprise."""
    declared = declare("lion", metrics=("loss",))
    fallen = [*trained(ends(0.2)), record("lion", 8, [8.0], status="failed", reason="a bug")]
    diverged = trained(ends(0.2))
    diverged[8] = record("lion", 1, [8.0, 9.0], status="diverged", steps=80)

    assert judged(declared, [], fallen).state == "invalid"
    assert "a bug" in judged(declared, [], fallen).reasons[0]
    assert judged(declared, [], diverged).findings[0].verdict == "higher"


def test_what_the_run_saw_comes_first() -> None:
    """Oracle: the reason as it was handed over."""
    verdicts = judged(declare("arm"), replicates({"arm": 0.06}), also=["the boot changed"])

    assert (verdicts.state, verdicts.reasons) == ("invalid", ("the boot changed",))
    assert verdicts.findings[0].reason == "the boot changed"


@pytest.mark.parametrize("broken", ["control_finding", "judge", "noise_reasons", "_unlike"])
def test_whatever_breaks_in_the_statistics_refuses(
    monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Oracle: the issue: an exception never yields slower or faster, nor ends the command."""

    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(duels, broken, fail)
    verdicts = judged(declare("arm"), replicates({"arm": 0.06}))

    assert verdicts.state == "invalid"
    assert [one.verdict for one in verdicts.findings] == ["refused"]
    assert "a bug" in verdicts.findings[0].reason


@pytest.mark.parametrize("wall", [0.0, -1.0, math.nan, math.inf])
def test_impossible_times_never_give_a_direction(wall: float) -> None:
    """Oracle: no clock shows nothing, less, or no number."""
    made = replicates({"arm": 0.06})
    blocks = [
        block.model_copy(update={"wall_seconds": wall}) if block.arm == "arm" else block
        for block in made[3].blocks
    ]
    made[3] = made[3].model_copy(update={"blocks": tuple(blocks)})

    assert finding(declare("arm"), made).verdict not in DIRECTED


# --- noise ---


def disturbed(share: str, value: float, effect: float = 0.06, **declared: Any) -> Verdicts:
    made = replicates(
        {"arm": effect},
        block={"disturbance": {**QUIET, share: value}},
        peaks={"base": 1_000, "arm": 1_100, CONTROL: 1_000},
    )
    return judged(declare("arm", **declared), made)


@pytest.mark.parametrize("share", ["steal_share", "foreign_pressure_share"])
def test_a_disturbed_session_takes_differences_back(share: str) -> None:
    """Oracle: the design: too noisy is inconclusive, never red, with what disturbed it."""
    verdicts = disturbed(share, 0.5)

    assert verdicts.state == "too_noisy"
    assert verdicts.findings[0].verdict == "inconclusive"
    assert verdicts.reasons[0] in verdicts.findings[0].reason
    assert disturbed(share, 0.001).state == "valid"


def test_a_busy_machine_says_nothing_against_memory() -> None:
    """Oracle: time and memory are separate families; an allocator's peak knows no other process."""
    verdicts = disturbed("steal_share", 0.5, metrics=("step_time", "peak_memory"))

    assert [one.verdict for one in verdicts.findings] == ["inconclusive", "larger"]


def test_a_control_that_excludes_zero_is_too_noisy_and_said() -> None:
    """Oracle: measurement.md 4.3: the A/A arm's 99 % interval must contain 0."""
    made = replicates({"arm": 0.06})
    shifted = [
        replicate(
            number, {"base": 0.0, "arm": 0.06 + 0.001 * number, CONTROL: 0.01 + 1e-4 * number}
        )
        for number in range(len(made))
    ]
    verdicts = judged(declare("arm"), shifted)

    assert verdicts.state == "too_noisy"
    assert "A/A" in verdicts.reasons[0]
    assert verdicts.findings[0].verdict == "inconclusive"
    assert verdicts.controls[0].verdict == "disagrees"


@pytest.mark.parametrize("n", [6, 7])
def test_a_short_control_off_zero_spoils_no_duel(n: int) -> None:
    """Oracle: 2/2^7 > .01: of seven identical pairs all fall on one side in 1.6 % of duels."""
    made = [
        replicate(
            number, {"base": 0.0, "arm": 0.06 + 0.001 * number, CONTROL: 0.01 + 1e-4 * number}
        )
        for number in range(n)
    ]
    verdicts = judged(declare("arm", alpha=0.05), made)

    assert (verdicts.state, verdicts.reasons) == ("valid", ())
    assert verdicts.findings[0].verdict == "slower"
    assert verdicts.controls[0].verdict == "inconclusive"
    assert verdicts.findings[0].noise_floor == pytest.approx(1e-4 * (n - 1) / 2)


def test_each_reason_says_where_it_lies() -> None:
    """Oracle: by hand: an A/A arm off zero on a busy machine; a fallen replicate."""
    made = [
        replicate(
            number,
            {"base": 0.0, "arm": 0.06 + 0.001 * number, CONTROL: 0.01 + 1e-4 * number},
            block={"disturbance": {**QUIET, "steal_share": 0.5}},
        )
        for number in range(12)
    ]
    noisy = judged(declare("arm"), made)
    fallen = [*made, replicate(12, {"base": 0.0}, status="failed", reason="'arm' fell")]
    invalid = judged(declare("arm"), fallen, also=["the boot changed"])

    assert noisy.reason_kinds == ("control", "machine")
    assert "A/A" in noisy.reasons[0]
    assert "hypervisor" in noisy.reasons[1]
    assert invalid.reason_kinds == ("invalid",) * len(invalid.reasons) == ("invalid", "invalid")
    assert judged(declare("arm"), replicates({"arm": 0.0})).reason_kinds == ()


def test_times_that_repeat_exactly_are_no_measurement() -> None:
    """Oracle: the contract: all differences equal and not 0 is refused for times."""
    made = [replicate(n, {"base": 0.0, "arm": 0.06, CONTROL: 0.0}) for n in range(12)]

    assert finding(declare("arm"), made).verdict == "refused"


def test_flags_name_what_should_not_be_leant_on() -> None:
    """Oracle: measurement.md 4.6: not steady; a step beyond five medians in more than a fifth."""
    clean = finding(declare("arm"), replicates({"arm": 0.06}))
    shaky = finding(
        declare("arm"),
        replicates(
            {"arm": 0.06},
            run={"steady": False},
            block={"step_seconds": (0.05,) * 9 + (0.3,)},
        ),
    )

    assert not {"not_steady", "disturbed"} & set(clean.flags)
    assert {"not_steady", "disturbed"} <= set(shaky.flags)


@pytest.mark.parametrize("shaky", ["base", "arm", CONTROL])
def test_a_shaky_baseline_makes_its_comparison_suspect_as_a_shaky_arm_does(shaky: str) -> None:
    """Oracle: a difference has two ends; the A/A arm is no end of this one."""
    made = []
    for one in replicates({"arm": 0.06}):
        runs = [r.model_copy(update={"steady": r.arm != shaky}) for r in one.arms]
        blocks = [
            b.model_copy(update={"step_seconds": (0.05,) * 9 + (0.3,)}) if b.arm == shaky else b
            for b in one.blocks
        ]
        made.append(one.model_copy(update={"arms": tuple(runs), "blocks": tuple(blocks)}))
    flags = {"not_steady", "disturbed"} & set(finding(declare("arm"), made).flags)

    assert flags == (set() if shaky == CONTROL else {"not_steady", "disturbed"})


def test_a_slowed_copy_is_judged_as_any_arm() -> None:
    """Oracle: 5 % put in, a margin of 1 %: the issue's positive control."""
    declared = declare(slowed(), margins={"step_time": 0.01})
    found = finding(declared, replicates({"slowed": math.log1p(0.05)}, spread=0.01, seed=4))

    assert found.verdict == "slower"
