"""The bank of A/A arms: what counts, what does not, and the bounds that follow."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from made_duels import QUIET, cell, declare, replicate, replicates, slowed

from bertopt_bench.results.duels import (
    CONTROL,
    Declaration,
    DeclaredArm,
    Replicate,
    Verdicts,
)
from bertopt_bench.results.tables import load_results
from bertopt_bench.stats.calibration import entry, realised_share, summarise
from bertopt_bench.stats.duels import analyse

RESULTS = Path(__file__).parents[2] / "results"


def banked(made: list[Replicate], declared: Any = None) -> dict[str, Any] | None:
    declared = declared or declare("arm")
    verdicts = analyse(declared, made, look=1, session="s", at_utc="t")
    return entry(declared, made, verdicts)


def alarming(n: int = 12) -> list[Replicate]:
    """Make identical arms that differ by 1 % in every replicate."""
    return [
        replicate(i, {"base": 0.0, "arm": 0.001 * i, CONTROL: 0.01 + 1e-4 * i}) for i in range(n)
    ]


def test_a_quiet_duel_is_a_trial_without_an_alarm() -> None:
    """Oracle: the control's own figures."""
    found = banked(replicates({"arm": 0.0}))

    assert found is not None
    assert (found["refused"], found["false_alarm"]) == (False, False)
    assert found["replicates"] == 12
    assert found["low"] < 0 < found["high"]
    assert found["spread"] == pytest.approx(0.004, rel=0.6)
    json.dumps(found, allow_nan=False)


def test_a_control_that_differs_is_the_false_alarm_and_not_left_out() -> None:
    """Oracle: all twelve differences on one side: p = 2/2^12; to refuse it would hide the rate."""
    found = banked(alarming())

    assert found is not None
    assert (found["refused"], found["false_alarm"]) == (False, True)
    assert found["p_any"] == pytest.approx(2 / 2**12)


def test_a_duel_that_a_busy_machine_spoilt_is_counted_beside() -> None:
    """Oracle: measurement.md 4.3: refused duels are counted beside false alarms."""
    block = {"disturbance": {**QUIET, "steal_share": 0.5}}
    found = banked(replicates({"arm": 0.0}, block=block))

    assert found is not None
    assert found["refused"]


@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.05, 0.2])
def test_alarms_are_counted_at_one_rate_whatever_a_duel_declared(alpha: float) -> None:
    """Oracle: by hand at .01: 2/2^12 is an alarm, the p of a scattered control none, six too few.

    At the declared rates each would have been counted by another rule.
    """
    declared = declare("arm", alpha=alpha)
    loud, short = banked(alarming(), declared), banked(alarming(6), declared)
    scattered = [
        replicate(i, {"base": 0.0, "arm": 0.001 * i, CONTROL: d})
        for i, d in enumerate([0.011, 0.009, 0.012, 0.008, 0.0125, 0.0075, 0.01, -0.0102])
    ]
    close = banked(scattered, declared)

    assert loud is not None
    assert short is not None
    assert close is not None
    assert (loud["refused"], loud["false_alarm"]) == (False, True)
    assert (short["refused"], short["false_alarm"]) == (True, False)
    assert 0.01 < close["p_any"] < 0.2
    assert (close["refused"], close["false_alarm"]) == (False, False)
    assert loud["alpha"] == alpha
    counted = summarise([loud, short, close])
    assert (counted["duels"], counted["false_alarms"], counted["refused"]) == (2, 1, 1)
    assert counted["alpha"] == 0.01


def test_too_few_replicates_to_alarm_are_no_clean_trial() -> None:
    """Oracle: 2/2^7 > .01 >= 2/2^8: an instrument that cannot cry has not been silent."""
    seven, eight = (banked(alarming(n), declare("arm", looks=(n,))) for n in (7, 8))

    assert seven is not None
    assert eight is not None
    assert (seven["refused"], eight["refused"]) == (True, False)
    assert eight["false_alarm"]


@pytest.mark.parametrize("kinds_are_told", [True, False])
@pytest.mark.parametrize("busy", [True, False])
@pytest.mark.parametrize("alarm", [True, False])
def test_only_the_machine_refuses_and_not_the_alarm_of_an_a_a_arm(
    kinds_are_told: bool, busy: bool, alarm: bool
) -> None:
    """Oracle: by hand, in lines of today and in those from before reasons had kinds."""
    steal = {"disturbance": {**QUIET, "steal_share": 0.5 if busy else 0.0}}
    shift = 0.01 if alarm else -0.0006
    made = [
        replicate(i, {"base": 0.0, "arm": 0.001 * i, CONTROL: shift + 1e-4 * i}, block=steal)
        for i in range(12)
    ]
    declared = declare("arm", metrics=("step_time", "peak_memory"))
    verdicts = analyse(declared, made, look=1, session="s", at_utc="t")
    assert verdicts.reason_kinds == ("control",) * alarm + ("machine",) * busy
    if not kinds_are_told:
        line = {k: v for k, v in verdicts.model_dump(mode="json").items() if k != "reason_kinds"}
        verdicts = Verdicts.model_validate(line)
        assert verdicts.reason_kinds == ()
    found = entry(declared, made, verdicts)

    assert found is not None
    assert (found["refused"], found["false_alarm"]) == (busy, alarm)


@pytest.mark.parametrize("name", ["calibration-first", "calibration-second"])
def test_published_series_count_as_their_own_words_say(name: str) -> None:
    """Oracle: the reasons' texts as they were written: of the A/A arm, or of anything else."""
    loaded = load_results(RESULTS / name)
    for session in loaded.sessions:
        for line in session.verdicts[-1:]:
            verdicts = Verdicts.model_validate(line)
            declared = Declaration.model_validate(session.declared["duel"])
            made = [one for one in loaded.replicates if one.session == session.session]
            found = entry(declared, made, verdicts)

            assert found is not None
            others = [why for why in verdicts.reasons if "A/A" not in why]
            assert found["refused"] == bool(others)
            assert found["false_alarm"] == bool(verdicts.reasons and not others)
            assert {finding.shown_confidence for finding in verdicts.findings} <= {0.95}


@pytest.mark.parametrize("declared", [declare("arm"), declare(slowed())])
def test_a_duel_whose_first_replicate_fell_adds_nothing(declared: Any) -> None:
    """Oracle: nothing was timed whole."""
    made = [replicate(0, {"base": 0.0}, status="failed", reason="'arm' fell")]

    assert banked(made, declared) is None


def test_a_duel_that_did_not_time_steps_adds_nothing() -> None:
    """Oracle: the calibration is of step times."""
    declared = declare("arm", metrics=("peak_memory",))

    assert banked(replicates({"arm": 0.0}), declared) is None


def test_a_crash_of_the_statistics_adds_nothing() -> None:
    """Oracle: without a control there is no trial."""
    declared = declare("arm")
    verdicts = analyse(declared, replicates({"arm": 0.0}), look=1, session="s", at_utc="t")

    assert entry(declared, [], verdicts.model_copy(update={"controls": ()})) is None


# --- injected arms ---


def injected(effect: float, share: float = 0.05, **more: Any) -> dict[str, Any]:
    made = replicates({"slowed": effect}, injected={"slowed": share}, spread=0.002, **more)
    found = banked(made, declare(slowed(share), margins={"step_time": 0.01}))
    assert found is not None
    told: dict[str, Any] = found["injected"]
    return told


def test_an_injected_arm_is_found_by_its_realised_share() -> None:
    """Oracle: by hand: what was put in over what was left without it."""
    told = injected(math.log1p(0.05))

    assert told["realised_share"] == pytest.approx(0.05)
    assert (told["asked_share"], told["verdict"], told["found"]) == (0.05, "slower", True)
    assert not told["edge_false_alarm"]


def test_an_arm_slower_than_its_delay_is_a_false_alarm_at_the_edge() -> None:
    """Oracle: 8 % where 5 % were put in."""
    assert injected(math.log(1.08))["edge_false_alarm"]
    assert not injected(math.log(1.02))["edge_false_alarm"]


def test_the_realised_share_counts_whole_replicates_of_that_arm_only() -> None:
    """Oracle: by hand."""
    made = [
        replicate(0, {"base": 0.0, "slowed": 0.1}, injected={"slowed": 0.04}),
        replicate(1, {"base": 0.0, "slowed": 0.1}, injected={"slowed": 0.9}, status="failed"),
    ]

    assert realised_share(made, "slowed") == pytest.approx(0.04)
    assert realised_share(made, "base") == 0.0


@pytest.mark.parametrize(
    "other",
    [
        {"cell_id": "x", "cell": cell("lion")},
        {"revision": "v1.0"},
        {"python": "3.12.1"},
    ],
)
def test_a_slowed_arm_of_other_code_is_no_positive_control(other: dict[str, Any]) -> None:
    """Oracle: its difference from the baseline is not the delay alone."""
    declared = declare(slowed(**other))
    made = replicates({"slowed": 0.3}, injected={"slowed": 0.05})
    found = banked(made, declared)

    assert found is not None
    assert "injected" not in found


def test_a_slowed_baseline_or_one_that_nobody_compares_is_no_positive_control() -> None:
    """Oracle: there is no comparison that shows the delay."""
    made = replicates({"slowed": 0.05}, injected={"slowed": 0.05})
    unasked = banked(made, declare(slowed(), comparisons=()))
    base = DeclaredArm(label="base", role="baseline", cell_id="c", cell=cell(), injected_share=0.05)
    arms = (base, *declare(slowed()).arms[1:])
    both = banked(made, declare(slowed()).model_copy(update={"arms": arms}))

    for found in (unasked, both):
        assert found is not None
        assert "injected" not in found


# --- the summary ---


def trial(**fields: Any) -> dict[str, Any]:
    clean = {"refused": False, "p_any": 0.5, "replicates": 12, "spread": 0.01}
    return {"alpha": 0.01, **clean, **fields}


def test_an_empty_bank_says_nothing() -> None:
    """Oracle: no trial, no bound."""
    assert summarise([]) == {}
    assert summarise([trial(refused=True)]) == {"duels": 0, "refused": 1, "false_alarms": 0}


def test_clean_trials_bound_the_rate_and_the_gates() -> None:
    """Oracle: Clopper and Pearson without a success: 1 - 0.025^(1/n); squared for two sessions."""
    found = summarise([trial() for _ in range(12)] + [trial(refused=True, p_any=0.001)])

    bound = 1 - 0.025 ** (1 / 12)
    assert (found["duels"], found["refused"], found["false_alarms"]) == (12, 1, 0)
    assert found["false_alarm_bound"] == pytest.approx(bound)
    assert found["expected_per_1000_gate_runs"] == pytest.approx(1000 * (bound / 2) ** 2)
    assert found["spread"] == pytest.approx(0.01)


def test_what_older_entries_call_an_alarm_is_counted_anew() -> None:
    """Oracle: by hand: at .05 p .02 was one, at .001 p .005 was none; .01 says the reverse.

    Six replicates, fine at .05, are too few; an arm without a p gave no answer.
    """
    older = [
        trial(alpha=0.05, p_any=0.02, false_alarm=True),
        trial(alpha=0.001, p_any=0.005, false_alarm=False),
        trial(alpha=0.05, p_any=0.04, replicates=6, false_alarm=True),
        trial(alpha=0.05, p_any=None, false_alarm=False),
    ]
    found = summarise(older)

    assert (found["duels"], found["false_alarms"], found["refused"]) == (2, 1, 2)
    assert found["alpha"] == 0.01


def test_power_and_edge_are_counted_over_the_slowed_duels() -> None:
    """Oracle: R's binom.test(5, 6)$conf.int: 0.3587654 to 0.9957893."""
    one = {"asked_share": 0.05, "found": True, "edge_p": 0.4}
    slow = [trial(injected=one) for _ in range(5)] + [trial(injected={**one, "found": False})]
    found = summarise([*slow, trial(), trial(refused=True, injected=one)])

    assert (found["power_trials"], found["power_found"]) == (6, 5)
    assert (found["power_low"], found["power_high"]) == pytest.approx((0.3587654, 0.9957893))
    assert (found["edge_trials"], found["edge_false_alarms"]) == (6, 0)
    assert found["injected_share"] == 0.05
    json.dumps(found, allow_nan=False)


def test_edges_are_counted_anew_and_power_only_where_it_was_declared() -> None:
    """Oracle: by hand: an edge's p of .004 is an alarm at .01, one of .02 none, whoever asked."""
    one = {"asked_share": 0.05, "found": True}
    found = summarise(
        [
            trial(alpha=0.05, injected={**one, "edge_p": 0.02, "edge_false_alarm": True}),
            trial(alpha=0.001, injected={**one, "edge_p": 0.004, "edge_false_alarm": False}),
            trial(injected={**one, "edge_p": None}),
        ]
    )

    assert (found["edge_trials"], found["edge_false_alarms"]) == (3, 1)
    assert (found["power_trials"], found["power_found"]) == (1, 1)
    loose = summarise([trial(alpha=0.05, injected={**one, "edge_p": 0.5})])
    assert loose["edge_trials"] == 1
    assert "power_trials" not in loose
