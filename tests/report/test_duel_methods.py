"""Methods are told from what was declared and what ran, never from a boilerplate."""

from __future__ import annotations

from simulated_duels import declaration, duel, only

from bertopt_bench.report import duel_methods
from bertopt_bench.report.duel_facts import Duel


def test_what_was_declared_and_how_it_was_done_are_told_from_the_declaration() -> None:
    """Oracle: by hand: a declaration in which every value is unusual."""
    declared = declaration(
        {"lion": 0.0},
        0.05,
        metrics=("step_time", "loss", "time_to_target"),
        alpha=0.003,
        family_error=0.03,
        margins={"step_time": 0.015, "loss": None, "time_to_target": 0.03},
        looks=(10, 20, 30),
        sides=1,
        rounds=8,
        block_seconds=0.75,
        least_block_steps=4,
        rewarm_steps=1,
        until=0.01,
        budget_seconds=300,
        target_loss=5.5,
        seeds=(4, 5),
        burst_seconds=0.125,
    )
    one = only(duel({"lion": 0.0}, judged=False))
    one = Duel(one.session, declared, one.replicates, (), None)
    rows = duel_methods.declared_rows(declared, 77)
    told = " ".join([*duel_methods.methods(one), *(f"{name}: {value}" for name, value in rows)])
    told = " ".join(told.replace("\N{NO-BREAK SPACE}", " ").split())

    for stated in (
        "alpha of a comparison: 0.3 %", "error rate of a family: 3 % (Holm)",
        "directions asked for: one", "step time 1.5 %", "a quarter of the baseline's standard",
        "looks after replicates: 10, 20, 30", "order seed: 77", "0.75 s and 4 steps or more",
        "in bursts of 0.125 s", "half-width asked for: 1 %", "budget: 300 s", "target loss: 5.500",
        "seeds of weights and data: 4, 5", "p ≤ 0.1 %", "p ≤ 1 % (both rates are divided by 3",
        "8 rounds", "1 step that were run and discarded", "p-values are one-sided",
        "slowed by 5 % is the baseline with a delay of 5 %", "order seed 20261131",
        "counts as infinite", "No replicate, block or step was dropped", "12 replicates started",
    ):  # fmt: skip
        assert stated in told, stated
    alternating = Duel(
        one.session, declared.model_copy(update={"design": "alternating"}), one.replicates, (), None
    )
    assert "forwards and then backwards (ABBA)" in duel_methods.design(alternating)
    sentence = duel_methods.declared_sentence(declared)
    assert "looks after 10, 20 and 30 replicates, each at a third of both" in sentence


def test_a_single_verdict_free_session_names_its_control() -> None:
    """A calibration's A/A session declares no comparison; it says what it compared."""
    one = only(duel({}))

    sentence = duel_methods.declared_sentence(one.declaration)
    told = " ".join(duel_methods.methods(one))

    assert "adamw with itself, the A/A arm" in sentence
    assert "Holm" not in told
    assert "The A/A arm is identical to adamw" in told
