"""Numbers as people read them, at hand-written points."""

from __future__ import annotations

import math

import pytest

from bertopt_bench.report import strips, wording
from bertopt_bench.stats.estimates import LOSS, THROUGHPUT, Effect, Spread

MINUS = wording.MINUS


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234567, "1,230,000"), (12.345, "12.3"), (0.00123456, "0.00123"),
     (-5.5, f"{MINUS}5.50"), (999.6, "1,000"), (math.inf, "inf")],
)  # fmt: skip
def test_significant(value, text) -> None:
    assert wording.significant(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(512, "512 B"), (2048, "2.00 KiB"), (3 << 20, "3.00 MiB"), (5 << 30, "5.00 GiB")],
)
def test_memory_counts_in_powers_of_1024(value, text) -> None:
    assert wording.memory(value) == text


def effect(metric, *differences: float) -> Effect:
    spread = Spread.of(differences)
    return Effect("optimizer", "lion", "adamw", metric, differences, spread, 0, 0)


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [(LOSS, 0.25, "+0.250 nats"), (LOSS, -0.25, f"{MINUS}0.250 nats"),
     (THROUGHPUT, math.log(1.1), f"+10.0{wording.NBSP}%"),
     (THROUGHPUT, math.log(0.5), f"{MINUS}50.0{wording.NBSP}%"),
     (THROUGHPUT, math.log(30), f"×{wording.NBSP}30.0"),  # noqa: RUF001 - a multiplication sign
     (THROUGHPUT, 0.0, f"0.0{wording.NBSP}%")],
)  # fmt: skip
def test_changes(metric, value, text) -> None:
    assert wording.change(effect(metric, value), value) == text


def test_all_numbers_of_an_effect_are_written_alike() -> None:
    """Oracle: by hand: a factor where one of them is threefold, else per cent throughout."""
    wide = effect(THROUGHPUT, 0.0, math.log(1.5), math.log(4))

    told = wording.spread_of_changes(wide, wide.spread)

    assert told == f"middle half ×{wording.NBSP}1.22 to ×{wording.NBSP}2.45, n = 3 contexts"  # noqa: RUF001
    assert wording.change(wide, 0.0) == f"×{wording.NBSP}1.00"  # noqa: RUF001 - a multiplication sign
    narrow = effect(THROUGHPUT, 0.0, math.log(1.5))
    assert wording.change(narrow, 0.0) == f"0.0{wording.NBSP}%"


def test_a_single_context_claims_no_spread() -> None:
    single = effect(LOSS, 0.1)

    assert wording.spread_of_changes(single, single.spread) == "one context"


def test_lists_read_as_sentences() -> None:
    assert wording.listed(["a"]) == "a"
    assert wording.listed(["a", "b", "c"]) == "a, b and c"
    assert wording.listed([]) == ""


def test_rounding_is_neither_blown_up_nor_coloured() -> None:
    """Oracle: the metric's resolution, a thousandth of a nat: what is far below it is none."""
    rounding = effect(LOSS, -2e-7, 1e-7, 3e-7)
    scale = strips.Scale.of(LOSS, [rounding])

    assert [scale.x(value) for value in rounding.differences] == [scale.x(0.0)] * 3
    drawn = "".join(strips.dots(rounding, scale))
    assert drawn.count("same") == 1
    assert "worse" not in drawn
    assert "worse" in "".join(strips.dots(effect(LOSS, 0.001), scale))


def test_strips_share_a_scale_that_spans_all_and_zero() -> None:
    """Places are linear in the difference and inside the drawing."""
    near, far = effect(LOSS, 0.1, 0.2), effect(LOSS, 1.0, 2.0)
    scale = strips.Scale.of(LOSS, [near, far])

    places = [scale.x(v) for v in (0.0, 1.0, 2.0)]
    assert places[2] - places[1] == pytest.approx(places[1] - places[0], abs=0.2)
    assert min(places) >= strips.MARGIN
    assert max(places) <= strips.WIDTH - strips.MARGIN
    assert "0" in {text for _, text in scale.ticks()}


def test_dots_tell_better_from_worse_by_the_metrics_direction() -> None:
    """More loss is worse, more throughput is better; nothing moved is neither."""
    scale = strips.Scale.of(LOSS, [effect(LOSS, 0.5, -0.5)])
    assert 'class="dot worse"' in strips.dots(effect(LOSS, 0.5), scale)[0]
    assert 'class="dot better"' in strips.dots(effect(THROUGHPUT, 0.5), scale)[0]
    assert 'class="dot same"' in strips.dots(effect(LOSS, 0.0), scale)[0]


@pytest.mark.parametrize(
    ("written", "text"),
    [(wording.ratio(math.log(1.0534)), "1.053"), (wording.ratio(math.log(12.345)), "12.3"),
     (wording.ratio(math.inf), "∞"), (wording.ratio(-math.inf), "0.000"),
     (wording.nats(0.2941), "+0.294"), (wording.nats(-0.0042), f"{MINUS}0.0042"),
     (wording.nats(-math.inf), f"{MINUS}∞"), (wording.nats(0.0), "0.0000"),
     (wording.p_value(0.00048828), "0.00049"), (wording.p_value(1e-9), "< 0.0001"),
     (wording.p_value(1.0), "1"), (wording.p_value(0.05), "0.05"), (wording.p_value(0.999), "1"),
     (wording.percent(0.02), f"2{wording.NBSP}%"), (wording.percent(1.0), f"100{wording.NBSP}%"),
     (wording.percent(0.0), f"0{wording.NBSP}%"), (wording.percent(0.0125), f"1.25{wording.NBSP}%"),
     (wording.confidence(0.99072), f"99.1{wording.NBSP}%"),
     (wording.confidence(0.95), f"95{wording.NBSP}%")],
)  # fmt: skip
def test_numbers_of_verdicts(written, text) -> None:
    assert written == text
