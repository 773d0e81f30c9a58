"""Drawings of duels: places are linear, nothing is left out untold, texts keep apart."""

from __future__ import annotations

import itertools
import math
import re

import pytest
from simulated_duels import duel, finding, only, plain

from bertopt_bench.report import duel_figures, duel_forests, duel_wording
from bertopt_bench.report.duel_scales import Scale, round_values
from bertopt_bench.report.wording import MINUS
from bertopt_bench.results.tables import Results


def test_a_forest_places_all_of_a_metric_on_one_scale() -> None:
    """Oracle: places are linear in the log ratio, by arithmetic on the drawing's own numbers."""
    one = finding(verdict="slower", margin_in_force=0.02, noise_floor=0.014)
    scale = duel_forests.forest_scale("step_time", [one, finding(estimate=-0.05, low=-0.06)])

    svg = duel_forests.forest_row(
        one, scale, margin=0.02, floor=0.014, ends=(one.low, one.high), target=0.05
    )

    zero = float(re.search(r'class="zero" x1="([\d.]+)%', svg).group(1))
    spread = re.search(r'class="span worse" x1="([\d.]+)%" x2="([\d.]+)%', svg)
    estimate = float(re.search(r'<svg x="([\d.]+)%"', svg).group(1))
    target = float(re.search(r'class="target" x1="([\d.]+)%', svg).group(1))
    margin = re.search(r'class="margin" x="([\d.]+)%" width="([\d.]+)%', svg)
    floor = re.search(r'class="floor" x="([\d.]+)%" width="([\d.]+)%', svg)
    unit = (target - zero) / 0.05
    assert estimate - zero == pytest.approx(one.estimate * unit, abs=0.02)
    assert float(spread[1]) - zero == pytest.approx(one.low * unit, abs=0.02)
    assert float(spread[2]) - zero == pytest.approx(one.high * unit, abs=0.02)
    assert float(margin[2]) == pytest.approx(0.04 * unit, abs=0.03)
    assert float(floor[2]) == pytest.approx(0.028 * unit, abs=0.03)
    assert float(margin[1]) + float(margin[2]) / 2 == pytest.approx(zero, abs=0.02)


def test_infinite_ends_stay_inside_the_drawing() -> None:
    """A run that never reached its target differs without bound: it is drawn at the edge."""
    endless = finding(metric="time_to_target", estimate=math.inf, high=math.inf, verdict="slower")
    scale = duel_forests.forest_scale("time_to_target", [endless])

    svg = duel_forests.forest_row(
        endless, scale, margin=None, floor=None, ends=(endless.low, math.inf)
    )

    places = [float(x) for x in re.findall(r'x[12]?="([\d.]+)%"', svg)]
    assert max(places) == 100.0
    assert "∞ times the time to the target loss" in duel_wording.sentence(endless)[1]


@pytest.mark.parametrize(
    ("low", "high"), [(-0.02, 0.03), (-1e-4, 5e-4), (-0.6, 0.4), (-3.0, 4.0), (0.041, 0.052)]
)
@pytest.mark.parametrize("metric", ["step_time", "loss"])
def test_ticks_are_round_few_and_apart(low, high, metric) -> None:
    scale = Scale(low, high, metric)

    ticks = scale.ticks()

    assert 1 <= len(ticks) <= 9
    places = [place for place, _ in ticks]
    assert places == sorted(places)
    assert all(b - a >= 13 for a, b in itertools.pairwise(places))
    if low < 0 < high:
        assert scale.at(0.0) in places


def test_round_values_are_multiples_of_one_two_or_five() -> None:
    """Oracle: by hand."""
    assert round_values(0.0413, 0.0521, 4) == [0.045, 0.05]
    assert round_values(0, 420, 5) == [0, 100, 200, 300, 400]


def test_each_replicate_is_a_dot_with_its_number() -> None:
    """Oracle: the stored differences, as per cent of the ratio."""
    one = only(plain())
    lion = one.finding("step_time", "lion")

    svg = duel_figures.pair_figure(one, lion, 1000).svg

    titles = re.findall(r"<circle [^>]*><title>([^<]*)</title>", svg)
    expected = [
        f"replicate {number}: {math.expm1(value) * 100:+.2f} %".replace("-", MINUS)
        for number, value in enumerate(lion.differences)
    ]
    assert titles == expected
    assert svg.count('class="between"') == 11


def test_every_block_of_both_arms_is_drawn_until_there_are_too_many() -> None:
    """Oracle: 12 replicates of 6 rounds; a cap of 30 keeps the first and the last, and is told."""
    one = only(plain())
    lion = one.finding("step_time", "lion")

    whole = duel_figures.pair_figure(one, lion, 1000)
    for name in ("base", "arm"):
        marks = "".join(re.findall(rf'class="(?:dots|above) {name}"[^>]* d="([^"]*)"', whole.svg))
        assert marks.count("M") == 72
    thin = duel_figures.pair_figure(one, lion, 30)

    assert "60 of 144 blocks are drawn" in thin.note
    blocks = [b for b in one.blocks if b.arm == "lion"]
    kept = duel_figures.thinned(blocks, 30)
    assert (len(kept), kept[0], kept[-1]) == (30, blocks[0], blocks[-1])


def test_a_block_far_above_the_others_does_not_flatten_them_and_is_told() -> None:
    results = duel({"lion": 0.05}, seed=3)
    replicates = list(results.replicates)
    first = replicates[0]
    slow = first.blocks[0].model_copy(update={"arm": "lion", "wall_seconds": 30.0})
    replicates[0] = first.model_copy(update={"blocks": (slow, *first.blocks[1:])})
    one = only(Results(results.path, results.sessions, (), (), tuple(replicates)))

    figure = duel_figures.pair_figure(one, one.finding("step_time", "lion"), 1000)

    assert "above the drawing, up to 2.50 s a step" in figure.note
    assert 'class="above arm"' in figure.svg
