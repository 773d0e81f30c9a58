"""The page's part on convergence: what it shows of simulated curves, and when it is not there."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace

import pandas as pd
import pytest
from simulated_results import SimulatedResults, simulated

from bertopt_bench.report.convergence import convergence_section
from bertopt_bench.report.convergence_figures import (
    NAME_HEIGHT,
    PLANE_HEIGHT,
    Panel,
    Span,
    Spot,
    front,
    lines,
    panels,
    strip,
)
from bertopt_bench.report.frame import joined, template
from bertopt_bench.report.rows import DASH
from bertopt_bench.report.score_cells import times
from bertopt_bench.report.score_wording import verdict_sentences
from bertopt_bench.stats.curves import Aim
from bertopt_bench.stats.scoring import Asked, score


def section(results: SimulatedResults) -> dict:
    found = convergence_section(joined([results]))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def three() -> SimulatedResults:
    return simulated(("adamw", "lion", "sgd"), ("linear",), ("none",), (1, 2, 3), 8)


def rendered(found: dict) -> str:
    return template("convergence.html").render(convergence=found)


def test_every_seed_of_every_submission_is_drawn(three) -> None:
    """Oracle: the trials that ran: a panel a submission, a stroke a seed."""
    ran = three.trials[three.trials["status"] != "skipped"]
    labels = ran["optimizer"] + ran["precision"]
    found = section(three)["workloads"][0]["panels"]
    assert len(found) == labels.nunique()
    seeds = ran[ran["status"] == "ok"].groupby(labels)["seed"].nunique()
    assert (
        sum(str(svg).split('class="own"')[1].split("/>")[0].count("M") for _, svg in found)
        >= seeds.sum()
    )


def test_untuned_submissions_stay_marked_and_the_targets_are_called_exploratory(three) -> None:
    html = rendered(section(three))
    assert "untuned" in html
    assert "exploratory" in html
    assert "n 3" in html


def test_a_run_that_diverged_does_not_stretch_the_scale_of_the_others() -> None:
    """Oracle: the levels drawn lie among the losses of runs that ended; alone, it spans its own."""
    good = ((10.0, 6.0), (20.0, 5.2), (30.0, 5.0))
    bad = ((10.0, 6.0), (20.0, 9.0), (30.0, 17.0))
    write = "level {:g}".format

    both = panels([Panel("a", (good,)), Panel("b", (bad,), (bad[-1],))], "k", write, None)
    alone = panels([Panel("b", (bad,), (bad[-1],))], "k", write, None)

    assert "level 5.1" in both[0]
    assert not any(f"level {value}" in drawn for drawn in both for value in (6, 8, 10, 15))
    assert "level 15" in alone[0] or "level 16" in alone[0]
    assert "×" in both[1]  # noqa: RUF001


def test_a_sentence_says_what_was_judged_and_where_the_data_cannot_tell() -> None:
    """Oracle: made losses: one arm 0.5 below in every seed, one above, one on both sides."""
    near = [(seed - 3.5) / 1000 for seed in range(8)]
    shifts = {"adamw": [0.0] * 8, "even": [0.1, -0.1] * 4}
    shifts |= {"low": [-0.5 + by for by in near], "high": [0.5 + by for by in near]}
    rows = [
        {"run": f"{name}{seed}", "workload": "w", "submission": name, "seed": seed, "step": step,
         "seconds": float(step), "metric": 6.0 - step / 10 + seed / 100 + shift}
        for name, by_seed in shifts.items()
        for seed, shift in enumerate(by_seed)
        for step in (0, 10)
    ]  # fmt: skip
    scored = score(pd.DataFrame(rows), Asked(Aim(), "adamw"))

    assert verdict_sentences(scored, "w", "BERT tiny") == (
        "Against adamw, the loss of BERT tiny at the end is "
        "lower with low (−0.500 nats [−0.502, −0.497], n 8); "  # noqa: RUF001
        "higher with high (+0.500 nats [+0.497, +0.502], n 8). "
        "For even (0.0000 nats [−0.100, +0.100], n 8) the data cannot tell, "  # noqa: RUF001
        "in the loss of BERT tiny at the end."
    )
    empty = replace(scored, finals=pd.DataFrame())
    assert verdict_sentences(empty, "w") == ""  # no workload that two submissions share


def test_below_six_seeds_nothing_is_said(three) -> None:
    """Oracle: three seeds allow no verdict."""
    assert section(three)["workloads"][0]["told"] == ""


def test_names_of_neighbours_stand_above_and_below() -> None:
    """Oracle: two marks at one place must not have their names at one height; a far one may."""
    made = [
        Spot("a", (1.0, 1.0, 1.0), (2.0, 2.0, 2.0), on_front=True, named=True),
        Spot("b", (1.0, 1.01, 1.1), (2.0, 2.001, 2.1), on_front=True, named=True),
        Spot("c", (1.0, 1.02, 1.1), (2.0, 2.002, 2.1), on_front=True, named=True),
        Spot("d", (5.0, 5.0, 5.0), (3.0, 3.0, 3.0), on_front=False, named=True),
        Spot("e", (5.0, 5.0, 5.0), (1.0, 1.0, 1.0), on_front=False, named=False),
    ]

    drawn = front(made, "told", "s", str)

    assert re.findall(r'dy="(-?[0-9]+)"', drawn) == ["-6", "16", "-22", "-6"]


def test_a_name_never_leaves_the_figure() -> None:
    """Oracle: by hand: of three marks at the foot none may be named below it."""
    made = [
        Spot(name, (1.0, 1.0, 1.0), (2.0, 2.0, 2.0), on_front=True, named=True)
        for name in ("a", "b", "c")
    ] + [Spot("far", (5.0, 5.0, 5.0), (9.0, 9.0, 9.0), on_front=False, named=True)]

    drawn = front(made, "told", "s", str)

    places = zip(
        re.findall(r'class="name[^"]*" x="[^"]*" y="([0-9.]+)"', drawn),
        re.findall(r'dy="(-?[0-9]+)"', drawn),
        strict=True,
    )
    heights = [float(y) + int(down) for y, down in places]
    assert all(0 < height <= PLANE_HEIGHT for height in heights)
    assert min(abs(a - b) for a, b in itertools.combinations(heights, 2)) >= NAME_HEIGHT


def test_one_submission_or_no_curve_has_no_section(three) -> None:
    alone = simulated(("adamw",), ("linear",), ("none",), (1, 2), 4)
    kept = alone.trials[alone.trials["precision"] == "fp32"]
    frames = joined([alone]) | {"trials": kept.reset_index(drop=True)}
    assert convergence_section(frames) is None
    bare = joined([three]) | {"evaluations": pd.DataFrame(columns=["trial", "step", "loss"])}
    assert convergence_section(bare) is None


def test_one_run_says_so_and_is_not_ranked() -> None:
    single = simulated(("adamw", "lion"), ("linear",), ("none",), (1,), 4)
    ends = next(t for t in section(single)["tables"] if t["key"] == "ends")
    ranked = [row[1] for row in ends["rows"] if "one run" in row[0].marks]
    assert ranked
    assert all((cell.text, cell.under) == (DASH, "one run") for cell in ranked)


def test_a_name_from_results_never_becomes_markup() -> None:
    attack = "<script>alert(1)</script>"
    html = rendered(section(simulated(("adamw", attack), points=4)))
    assert attack not in html
    assert "&lt;script&gt;" in html


def test_runs_that_never_got_there_are_written_at_the_edge() -> None:
    """Oracle: by hand: of a span 0 to 100 a run at 50 stands at half of 90 per cent."""
    drawn = strip([50.0, math.inf, math.inf], Span(0.0, 100.0), "told", 100.0)
    assert 'cx="45.0%"' in drawn
    assert "never: 2" in drawn
    assert 'x1="90.0%"' in drawn  # the baseline


def test_a_front_is_joined_and_infinite_spots_are_not_drawn() -> None:
    spots = [
        Spot("a", (1.0, 1.0, 1.0), (5.0, 5.0, 5.0), on_front=True, named=True),
        Spot("b", (2.0, 2.0, 2.0), (4.0, 4.0, 4.0), on_front=True, named=True),
        Spot("c", (2.0, 3.0, 4.0), (5.0, math.inf, math.inf), on_front=False, named=False),
    ]
    drawn = front(spots, "told", "s", str)
    assert drawn.count('class="spot on"') == 2
    assert drawn.count("<circle") == 2


def test_seven_lines_are_drawn_and_profiles_are_stairs() -> None:
    series = {f"s{i}": [(1.0, 0.0), (2.0, 0.5), (4.0, 1.0)] for i in range(9)}
    svg, names = lines(series, "told", str, steps=True)
    assert names == [f"s{i}" for i in range(7)]
    path = svg.split('class="series s0"')[1].split('d="')[1].split('"')[0]
    assert path.count("L") == 4  # a corner before each rise


def test_a_speed_up_is_written_as_a_factor() -> None:
    assert times(math.inf) == "∞"
    assert times(1.5).endswith("1.50")


def test_a_set_too_large_for_a_page_names_the_command() -> None:
    many = tuple(f"optimizer_{i}" for i in range(33))
    found = section(simulated(many, ("linear",), ("none",), (1,), 2))
    assert "bertopt-bench score" in found["notes"][0]
    assert not found["tables"]


def test_an_optimizer_at_several_rates_has_a_curve_of_them(three) -> None:
    """Its cells are named with their rates, its curve without; oracle: the rates that were run."""
    trials = three.trials.copy()
    rate = trials["optimizer"].map({"adamw": 0.001, "lion": 0.002, "sgd": 0.1})
    trials["optimizer"] = trials["optimizer"].replace({"lion": "adamw"})
    trials["optimizer.lr"] = rate
    made = SimulatedResults(three.sessions, trials, three.steps, three.evaluations)
    found = section(made)

    (table,) = [one for one in found["tables"] if one["title"].startswith("Sensitivity")]
    assert "0.001" in str(table)
    assert "0.002" in str(table)
