"""The generalisation gap on the page: figures over seeds, one scale, the cost in step time."""

from __future__ import annotations

import re

import pytest
from parsed_pages import parsed
from simulated_results import SimulatedResults, simulated

from bertopt_bench.report import gap, page, wording
from bertopt_bench.stats.facts import gather


@pytest.fixture(scope="module")
def results() -> SimulatedResults:
    """Give every trial a train loss: a nat below held-out, of weight decay a half."""
    made = simulated()
    made.trials, made.evaluations = made.trials.copy(), made.evaluations.copy()
    closing = made.trials["regularizer"] == "weight_decay"
    made.trials["generalisation_gap"] = closing.map({True: 0.5, False: 1.0})
    made.trials["final_train_loss"] = made.trials["final_loss"] - made.trials["generalisation_gap"]
    made.evaluations["train_loss"] = made.evaluations["loss"] - 1.0
    return made


def test_a_row_has_both_losses_the_gap_and_its_n(results: SimulatedResults) -> None:
    """Oracle: the gaps made above: 1 and 0.5, the same in every seed."""
    section = gap.gap_section(gather(results.trials), results.evaluations)
    assert section is not None
    by_label = {row["label"]: row for row in section["rows"]}
    gaps = {label: row["numbers"][2] for label, row in by_label.items()}

    finished = {row["label"]: row["runs"] for row in section["rows"]}
    assert sum(finished.values()) == (results.trials["status"] == "ok").sum()
    for label, number in gaps.items():
        assert number is not None
        n = finished[label]
        assert number[1].endswith(f"n {n}" if n > 1 else "one run")
        assert float(number[0]) == (0.5 if "weight_decay" in label else 1.0)
    assert any(row["cost"].endswith("%") for row in section["rows"])


def test_what_a_regularizer_changes_is_paired_by_seed(results: SimulatedResults) -> None:
    """Oracle: made gaps: half a nat less with weight decay in every seed, held-out by the frame."""
    section = gap.gap_section(gather(results.trials), results.evaluations)
    assert section is not None
    by_label = {row["label"]: row for row in section["rows"]}
    decayed, half = by_label["adamw · linear · weight_decay · fp32"], f"{wording.MINUS}0.500"
    ended = results.trials[results.trials["status"] == "ok"].set_index(["label", "seed"])
    losses = ended["final_loss"]
    apart = (
        losses["adamw · linear · weight_decay · fp32"] - losses["adamw · linear · none · fp32"]
    ).dropna()

    assert decayed["changes"][0] == (half, f"{half} to {half} · n 3")
    assert decayed["changes"][1][0] == wording.nats(apart.median())
    assert by_label["adamw · linear · none · fp32"]["changes"] == [None, None]
    assert section["told"] == ""  # several cells without a regularizer: one sentence would mix them


def test_a_sentence_says_what_closed_the_gap_in_every_seed() -> None:
    """Oracle: made losses of one optimizer: decay closes the gap by half and raises the loss."""
    made = simulated(("adamw",), ("linear",), ("none", "weight_decay"), (1, 2, 3), 2)
    trials = made.trials[made.trials["precision"] == "fp32"].reset_index(drop=True)
    closing = trials["regularizer"] == "weight_decay"
    trials["final_loss"] = closing.map({True: 5.25, False: 5.0})
    trials["generalisation_gap"] = closing.map({True: 0.5, False: 1.0})
    trials["final_train_loss"] = trials["final_loss"] - trials["generalisation_gap"]
    evaluations = made.evaluations.assign(train_loss=made.evaluations["loss"] - 1.0)
    section = gap.gap_section(gather(trials), evaluations)

    assert section is not None
    half = f"{wording.MINUS}0.500"
    label = next(row["label"] for row in section["rows"] if "weight_decay" in row["label"])
    assert section["told"] == (
        f"In each of 3 seeds of BERT tiny, against none: the gap is smaller with {label} "
        f"({half}, {half} to {half}). An observation, no verdict."
    )


def test_both_curves_are_drawn_on_one_scale() -> None:
    """Oracle: by hand: the highest loss lies at the top, the lowest at the bottom."""
    lines = {"train": [(0, 3.0), (10, 1.0)], "held-out": [(0, 3.0), (10, 2.0)]}
    drawn = gap.draw(lines, (1.0, 3.0, 10))
    bottom = gap.HEIGHT - gap.BOTTOM
    middle = (gap.TOP + bottom) / 2

    train = re.search(r'class="gap-train" d="M([^"]*)"', drawn)
    held = re.search(r'class="gap-held" d="M([^"]*)"', drawn)
    assert train is not None
    assert held is not None
    assert train[1] == f"{gap.LEFT}.0 {gap.TOP}.0L{gap.WIDTH - 6}.0 {bottom}.0"
    assert held[1].endswith(f" {middle:.1f}")


def test_the_page_has_it_only_where_train_text_was_evaluated(results: SimulatedResults) -> None:
    """Oracle: the parsed page, with and without the columns."""
    shown, without = page.render([results]), page.render([simulated()])

    finished = results.trials[results.trials["status"] == "ok"]
    assert shown.count('<svg class="gap"') == finished["label"].nunique()
    assert "Generalisation gap" in " ".join(parsed(shown).text)
    assert 'id="gap"' not in without
