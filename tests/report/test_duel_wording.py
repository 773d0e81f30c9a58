"""What is said of duels: sentences, lines for a terminal, calibration."""

from __future__ import annotations

import math
import re
import subprocess
import sys

import pytest
from simulated_duels import finding

from bertopt_bench.report import duel_wording
from bertopt_bench.report.duels import calibration_lines, verdict_lines
from bertopt_bench.report.wording import MINUS
from bertopt_bench.results.duels import CONTROL

RATIO = {"estimate": math.log(1.012), "low": math.log(0.998), "high": math.log(1.03)}

WIDE = {"margin_in_force": math.log1p(0.034), "noise_floor": math.log1p(0.034)}

EXACT = dict.fromkeys(("estimate", "low", "high"), math.log(0.876))

NATS = {"estimate": -0.0715, "low": -0.0759, "high": -0.0649, "margin_in_force": 0.012}

RANGE = "(95 % interval 0.998 to 1.030, n = 12 replicates)"

UNSETTLED = (
    "+1.20 % (95 % interval -0.20 % to +3.00 %, n = 12) does not settle it against the margin of "
    "2.00 %"
)


@pytest.mark.parametrize(
    ("fields", "head", "rest"),
    [
        (
            {},
            "lion is slower than adamw",
            (
                "1.053 times the step time (95 % interval 1.041 to 1.066, n = 12 replicates), "
                "beyond the margin of 2 %."
            ),
        ),
        (
            WIDE,
            "lion is slower than adamw",
            (
                "1.053 times the step time (95 % interval 1.041 to 1.066, n = 12 replicates), "
                "beyond the margin of 3.4 % (declared 2 %, widened to the noise floor)."
            ),
        ),
        (
            {**RATIO, "verdict": "inconclusive", "needed_replicates": 40, "reason": UNSETTLED},
            "Cannot tell whether lion is slower or faster than adamw",
            (
                f"1.012 times the step time {RANGE} does not settle it against the margin of 2 %. "
                "Needs n = 40 replicates for 80 % power."
            ),
        ),
        (
            {**RATIO, "verdict": "inconclusive", "reason": "too noisy: the machine was busy"},
            "Cannot tell whether lion is slower or faster than adamw",
            f"1.012 times the step time {RANGE}. Too noisy: the machine was busy.",
        ),
        (
            {**EXACT, "metric": "peak_memory", "verdict": "smaller"},
            "lion needs less memory than adamw",
            (
                "0.876 times the peak memory, the same in each of 12 replicates, beyond the "
                "margin of 2 %."
            ),
        ),
        (
            {**NATS, "metric": "loss", "n": 8, "margin": 0.012, "verdict": "lower"},
            "lion ends at a lower loss than adamw",
            (
                "-0.0715 nats of held-out loss (95 % interval -0.0759 to -0.0649, n = 8 seeds), "
                "beyond the margin of 0.012 nats."
            ),
        ),
        (
            {**RATIO, "verdict": "equivalent"},
            "lion is as fast as adamw, to within 2 %",
            f"1.012 times the step time {RANGE}, inside the margin of 2 %.",
        ),
        (
            {"verdict": "refused", "estimate": None, "reason": "it broke"},
            "No answer on lion against adamw in step time",
            "refused, because it broke.",
        ),
    ],
)
def test_the_sentences_say_the_answer_in_plain_words(fields, head, rest) -> None:
    """Oracle: the issue's own example, and the words of each verdict written by hand."""
    told = duel_wording.sentence(finding(**fields))

    plain_text = "".join(told).replace("\N{NO-BREAK SPACE}", " ").replace(MINUS, "-")
    assert plain_text == f"{head}: {rest}"


def test_the_terminal_gets_aligned_lines_in_plain_characters() -> None:
    """Oracle: the line that the issue's contract writes out."""
    control = finding(
        arm=CONTROL,
        verdict="agrees",
        estimate=0.0,
        gate_low=math.log(0.99),
        gate_high=math.log(1.014),
        confidence=0.9907,
        p_any=0.68,
    )
    other = finding(arm="a much longer name", verdict="inconclusive", needed_replicates=30)

    first, second, third = verdict_lines([finding(), other], [control])

    assert re.sub(" {3,}", " | ", first) == (
        "lion by adamw | slower | step time x 1.053 [1.041, 1.066] 95 % | p 0.0005 | n 12 | "
        "noise floor 1.4 %"
    )
    assert second.endswith("needs n = 30 replicates for 80 % power")
    assert "x 1.000 [0.990, 1.014] 99.1 %" in third
    assert all(line.isascii() for line in (first, second, third))
    places = {line.index("n 12") for line in (first, second, third)}
    assert len(places) == 1
    assert verdict_lines([]) == []


def test_lines_for_a_terminal_need_no_table_template_or_training_library() -> None:
    """Oracle: the modules that the interpreter has loaded."""
    code = (
        "import sys; from bertopt_bench.report.duels import calibration_lines, verdict_lines; "
        "verdict_lines([]); calibration_lines({}); "
        "print([m for m in ('torch', 'pandas', 'jinja2', 'plotly') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )

    assert run.stdout.strip() == "[]"


def test_the_calibration_says_its_bound_and_the_false_alarms_to_expect() -> None:
    """Oracle: by hand; what is not known is not said."""
    told = " ".join(
        calibration_lines(
            {
                "duels": 31, "refused": 2, "false_alarms": 0, "alpha": 0.01,
                "false_alarm_bound": 0.1122, "expected_per_1000_gate_runs": 3.15,
                "edge_trials": 6, "edge_false_alarms": 0, "edge_bound": 0.459,
                "power_trials": 6, "power_found": 5, "power_low": 0.359, "power_high": 0.996,
                "injected_share": 0.05,
            }
        )
    )  # fmt: skip

    for stated in (
        "0 of 31 A/A duels gave a false alarm at alpha 1 % (2 refused, counted beside)",
        "at most 11.2 % (95 % interval)",
        "of 1,000 gate runs on unchanged code at most 3.1",
        "0 of 6 slowed arms were called slower than the delay really put in",
        "An injected 5 % was found in 5 of 6 duels: power 35.9 % to 99.6 %",
    ):
        assert stated in told
    assert calibration_lines({"duels": 3}) == [
        "0 of 3 A/A duels gave a false alarm (0 refused, counted beside)."
    ]
    assert "No A/A duel is banked" in calibration_lines({})[0]


def test_remarks_name_what_could_be_found_only_where_nothing_was() -> None:
    """Oracle: by hand; a flag without words of its own is written out."""
    flags = ("margin_below_noise_floor", "detectable_above_twice_margin", "not_steady", "a_new_one")
    open_one = finding(verdict="inconclusive", detectable=math.log1p(0.048), flags=flags)

    assert [n.replace("\N{NO-BREAK SPACE}", " ") for n in duel_wording.notes(open_one)] == [
        "only 4.8 % or more is found with 80 % power here",
        "most processes had not warmed up in time",
        "a new one",
    ]
    assert duel_wording.notes(finding(flags=flags[:2])) == []
