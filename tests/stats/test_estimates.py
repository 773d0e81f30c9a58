"""Estimates of cells and effects, against hand-computed values and NumPy."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertopt_bench.stats.estimates import (
    LOSS,
    MEMORY,
    THROUGHPUT,
    Effect,
    Spread,
    axis_effects,
    level_spread,
    natural_order,
    rank_cells,
    summarise_cells,
    trial_rows,
    varying_axes,
    words,
)
from bertopt_bench.stats.facts import gather


def trial(optimizer="adamw", schedule="linear", seed=1, loss=5.0, **other: Any) -> dict[str, Any]:
    """One trial with what the estimates read; `other` overrides."""
    return {
        "trial": 0,
        "cell_id": f"{optimizer}-{schedule}-{other.get('seq_len', 64)}",
        "label": f"{optimizer} · {schedule}",
        "seed": seed,
        "replicate": 0,
        "session": "one",
        "status": "ok",
        "reason": None,
        "steps": 100,
        "seq_len": 64,
        "optimizer": optimizer,
        "schedule": schedule,
        "final_loss": loss,
        "tokens_per_second": 1000.0,
        "peak_memory_bytes": 1 << 20,
        "evaluation_sha256": "e",
        "batches_sha256": f"b{seed}",
        "initial_weights_sha256": f"w{seed}",
        **other,
    }


def effects_of(trials, axis="optimizer", metric=LOSS) -> list[Effect]:
    rows = trial_rows(pd.DataFrame(trials))
    found = next(a for a in varying_axes(rows) if a.name == axis)
    return axis_effects(rows, found, metric)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_spread_equals_numpys_percentiles(values) -> None:
    """Oracle: numpy.percentile with linear interpolation."""
    spread = Spread.of(values)

    expected = np.percentile(values, [0, 25, 50, 75, 100])
    actual = [spread.low, spread.q1, spread.median, spread.q3, spread.high]
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)
    assert spread.n == len(values)


def test_spread_leaves_out_what_was_not_measured() -> None:
    assert Spread.of([math.nan, None, math.inf]) is None
    assert Spread.of([math.nan, 2.0]).n == 1


def test_an_additive_effect_is_found_in_every_context_whatever_the_other_axes_add() -> None:
    """Oracle: the injected difference; the contexts' own levels must cancel in the pairs."""
    shift = {"linear": 0.0, "cosine": -1.5, "wsd": 4.0}
    trials = [
        trial(o, s, seed, 5 + shift[s] + seed / 7 + (0.25 if o == "sgd" else 0))
        for o, s, seed in itertools.product(("adamw", "sgd"), shift, (1, 2, 3))
    ]

    (effect,) = effects_of(trials)

    assert effect.spread.n == 3
    np.testing.assert_allclose(effect.differences, 0.25)
    assert (effect.level, effect.reference) == ("sgd", "adamw")


def test_a_context_gives_the_median_of_its_paired_seeds() -> None:
    """Oracle: by hand; differences by seed are 0.1, 0.2 and 0.9, seed 4 has no partner."""
    trials = [trial("adamw", seed=s, loss=5.0) for s in (1, 2, 3)]
    trials += [trial("lion", seed=s, loss=5 + d) for s, d in ((1, 0.1), (2, 0.2), (3, 0.9), (4, 9))]

    (effect,) = effects_of(trials)

    assert effect.differences == pytest.approx((0.2,))


def test_a_levels_margin_is_over_the_medians_of_its_cells() -> None:
    """Oracle: by hand; the cells' medians are 5 and 7, whatever their numbers of seeds."""
    trials = [trial(schedule="linear", seed=s, loss=loss) for s, loss in ((1, 4), (2, 5), (3, 9))]
    trials += [trial(schedule="cosine", loss=7.0), trial("lion", loss=1.0)]

    margin = level_spread(
        summarise_cells(trial_rows(pd.DataFrame(trials))), "optimizer", "adamw", LOSS
    )

    assert (margin.n, margin.low, margin.median, margin.high) == (2, 5.0, 6.0, 7.0)


def test_ratios_are_logs_of_level_over_reference() -> None:
    trials = [trial("adamw"), trial("lion", tokens_per_second=2000.0, peak_memory_bytes=1 << 19)]

    (speed,) = effects_of(trials, metric=THROUGHPUT)
    (memory,) = effects_of(trials, metric=MEMORY)

    assert speed.differences == pytest.approx((math.log(2),))
    assert memory.differences == pytest.approx((-math.log(2),))


def test_times_of_different_sessions_are_never_paired_but_losses_are() -> None:
    trials = [trial("adamw", session="one"), trial("lion", session="two", loss=4.0)]

    assert effects_of(trials, metric=THROUGHPUT)[0].spread is None
    assert effects_of(trials, metric=LOSS)[0].differences == (-1.0,)


@pytest.mark.parametrize("field", ["batches_sha256", "initial_weights_sha256", "evaluation_sha256"])
def test_trials_on_other_data_are_counted_not_compared(field) -> None:
    trials = [trial("adamw"), trial("lion", **{field: "other"})]

    (effect,) = effects_of(trials)

    assert effect.spread is None
    assert effect.unlike == 1


def test_a_workload_axis_changes_batches_but_not_what_loss_is_measured_on() -> None:
    """Sequence length changes the batches; throughput compares, losses on other text do not."""
    trials = [trial(), trial(seq_len=128, batches_sha256="x", evaluation_sha256="x")]

    (loss,) = effects_of(trials, "seq_len", LOSS)
    (speed,) = effects_of(trials, "seq_len", THROUGHPUT)

    assert (loss.spread, loss.unlike) == (None, 1)
    assert speed.spread.n == 1


def test_what_did_not_finish_is_counted_and_a_skip_is_a_hole() -> None:
    trials = [
        trial("adamw", "linear"),
        trial("adamw", "cosine"),
        trial("adamw", "wsd"),
        trial("lion", "linear", loss=4.5),
        trial("lion", "cosine", status="diverged", loss=math.nan),
        trial("lion", "wsd", status="skipped", loss=math.nan),
    ]

    (effect,) = effects_of(trials)

    assert effect.spread.n == 1
    assert effect.unfinished == 1


def test_replicates_of_a_seed_are_one_seed_and_a_short_one_keeps_the_cells_budget() -> None:
    """A timing replicate trains fewer steps and has no final loss; it is the same cell."""
    trials = [trial(), trial(replicate=1, steps=20, loss=math.nan), trial(seed=2, loss=6.0)]

    rows = trial_rows(pd.DataFrame(trials))
    (cell,) = summarise_cells(rows)

    assert cell.spreads["final_loss"].n == 2
    assert cell.spreads["tokens_per_second"].n == 3
    assert {row["steps"] for row in rows} == {100}


def test_times_come_from_the_session_with_most_runs() -> None:
    trials = [trial(seed=s, session="b", tokens_per_second=2.0) for s in (1, 2)]
    trials += [trial(seed=3, session="a", tokens_per_second=900.0)]

    (cell,) = summarise_cells(trial_rows(pd.DataFrame(trials)))

    assert (cell.session, cell.spreads["tokens_per_second"].high) == ("b", 2.0)
    assert cell.spreads["final_loss"].n == 3


def test_only_repeated_and_finished_cells_are_ranked_within_one_text_and_budget() -> None:
    trials = [trial("adamw", seed=s, loss=5.0) for s in (1, 2)]
    trials += [trial("lion", seed=s, loss=4.0) for s in (1, 2)]
    trials += [trial("sgd", seed=1, loss=1.0)]
    trials += [trial("muon", seed=s, loss=2.0) for s in (1, 2)]
    trials += [trial("muon", seed=3, status="diverged", loss=math.nan)]
    trials += [trial("lamb", seed=s, loss=9.0, evaluation_sha256="other") for s in (1, 2)]

    ranks = rank_cells(summarise_cells(trial_rows(pd.DataFrame(trials))))

    assert ranks == {"lion-linear-64": 1, "adamw-linear-64": 2, "lamb-linear-64": 1}


def test_the_usual_level_is_the_reference_else_the_most_frequent() -> None:
    trials = [trial(o, s) for o in ("lamb", "adamw lr=0.001", "sgd") for s in ("a", "b", "b2")]

    axes = {axis.name: axis for axis in varying_axes(trial_rows(pd.DataFrame(trials)))}

    assert axes["optimizer"].levels == ("adamw lr=0.001", "lamb", "sgd")
    assert axes["schedule"].reference == "a"
    assert set(axes) == {"optimizer", "schedule"}


def test_a_level_that_finished_nothing_is_no_reference_where_another_did() -> None:
    """Oracle: by hand: cudnn comes first and is skipped; a usual level that was skipped is none."""
    trials = [
        trial(
            optimizer, status="skipped" if {attention, optimizer} & {"cudnn", "adamw"} else "ok",
            **{"kernel.attention": attention},
        )
        for attention in ("cudnn", "flash", "math")
        for optimizer in ("adamw", "lion")
    ]  # fmt: skip
    rows = trial_rows(pd.DataFrame(trials))
    none = trial_rows(pd.DataFrame([{**one, "status": "skipped"} for one in trials]))

    assert {axis.name: axis.reference for axis in varying_axes(rows)} == {
        "optimizer": "lion", "kernel.attention": "flash",
    }  # fmt: skip
    assert {axis.name: axis.reference for axis in varying_axes(none)} == {
        "optimizer": "adamw", "kernel.attention": "cudnn",
    }  # fmt: skip


def test_an_option_that_one_implementation_has_does_not_keep_it_apart() -> None:
    """Oracle: by hand: math has an option `reduced` in a column of its own, flash has none."""
    trials = [
        trial(seq_len=n, **{"kernel.attention": name, **more}, tokens_per_second=rate)
        for n in (64, 128)
        for name, more, rate in (
            ("flash", {}, 100.0),
            ("math", {"kernel.attention.reduced": "False"}, 50.0),
        )
    ]

    (effect,) = effects_of(trials, "kernel.attention", THROUGHPUT)

    assert effect.differences == pytest.approx((math.log(0.5),) * 2)
    assert {axis.name for axis in varying_axes(trial_rows(pd.DataFrame(trials)))} == {
        "seq_len", "kernel.attention",
    }  # fmt: skip


def test_levels_sort_by_number() -> None:
    levels = ["128", "64", "adamw lr=0.001", "adamw lr=0.0003", "adamw lr=2e-05"]

    expected = ["64", "128", "adamw lr=2e-05", "adamw lr=0.0003", "adamw lr=0.001"]
    assert sorted(levels, key=natural_order) == expected


def test_words_for_missing_values() -> None:
    assert [words(v) for v in (None, math.nan, 0.0003, "x", 3)] == ["", "", "0.0003", "x", "3"]


def test_gathering_nothing_says_nothing() -> None:
    facts = gather(pd.DataFrame(columns=["trial", "cell_id", "status"]))

    assert (facts.cells, facts.axes, facts.strongest("final_loss")) == ([], (), None)
