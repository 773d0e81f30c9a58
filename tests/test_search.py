"""What a tuning proposes next: from its ledger alone, without running anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertopt_bench.matrix.tuning import read_tuning
from bertopt_bench.results.tuning import Ledger, Outcome
from bertopt_bench.tuning import Search

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bertopt_bench.matrix.tuning import Tuning

TEXT = """
seeds = [1]
[tuning]
points = 3
extensions = 2
seeds = [101]
[tuning.arms.AdamW]
optimizer = "adamw"
space.optimizer.lr = { below = 1, above = 1 }
"""


def tuning(folder: Path, text: str = TEXT) -> Tuning:
    (folder / "m.toml").write_text(text)
    return read_tuning(folder / "m.toml")


def play(asked: Tuning, loss: Callable[[Mapping[str, float]], float]) -> Search:
    """Run a tuning to its end on losses that a function gives."""
    ledger = Ledger()
    while found := Search(asked, ledger).next_points():
        outcomes = [
            Outcome(arm=p.arm, number=p.number, cell_id=p.cell_id, loss=loss(p.options),
                    losses={"101": loss(p.options)}, statuses={"101": "ok"}, trials=1, steps=10,
                    seconds=2.0)
            for p in found
        ]  # fmt: skip
        ledger = Ledger((*ledger.points, *found), (*ledger.outcomes, *outcomes))
    return Search(asked, ledger)


def test_a_best_point_inside_needs_no_extension(tmp_path: Path) -> None:
    """Oracle: the default is the best of three, two more were allowed and none was taken."""
    search = play(tuning(tmp_path), lambda options: abs(options["optimizer.lr"] - 0.001))
    choice = search.choose(search.tuning.arms[0])

    assert [p.options["optimizer.lr"] for p in search.ledger.points] == [0.001, 0.0005, 0.002]
    assert (choice.points, choice.extensions, choice.edges) == (3, 0, ())
    assert (choice.trials, choice.steps, choice.seconds) == (3, 30, 6.0)


def test_a_best_point_on_an_edge_is_gone_beyond_until_it_lies_inside(tmp_path: Path) -> None:
    """Oracle: the loss is least at 4e-3, one beyond the grid; the next one shows that."""
    search = play(tuning(tmp_path), lambda options: abs(options["optimizer.lr"] - 0.004))
    choice = search.choose(search.tuning.arms[0])

    assert [p.options["optimizer.lr"] for p in search.ledger.points][3:] == [0.004, 0.008]
    assert (choice.options["optimizer.lr"], choice.extensions, choice.edges) == (0.004, 2, ())


def test_an_edge_that_the_budget_cannot_leave_is_flagged(tmp_path: Path) -> None:
    """Oracle: the loss falls for ever, and two extensions are all there are."""
    search = play(tuning(tmp_path), lambda options: -options["optimizer.lr"])
    choice = search.choose(search.tuning.arms[0])

    assert choice.options["optimizer.lr"] == 0.008
    assert (choice.extensions, choice.edges) == (2, ("optimizer.lr",))


def test_an_arm_whose_every_point_diverged_has_no_choice(tmp_path: Path) -> None:
    """Oracle: nothing finite, so nothing to extend and nothing to choose."""
    search = play(tuning(tmp_path), lambda _: float("inf"))
    choice = search.choose(search.tuning.arms[0])

    assert choice.number is None
    assert choice.loss == float("inf")
    assert choice.points == 3


def test_a_value_that_the_optimizer_refuses_is_not_tried(tmp_path: Path) -> None:
    """Oracle: momentum must stay below 1; 0.9 on the edge is flagged, not gone beyond."""
    text = TEXT.replace('"adamw"', '"momentum"').replace(
        "space.optimizer.lr = { below = 1, above = 1 }",
        "space.optimizer.momentum = { values = [0.45, 0.6, 0.9], factor = 2 }",
    )
    search = play(tuning(tmp_path, text), lambda options: -options["optimizer.momentum"])

    assert search.choose(search.tuning.arms[0]).edges == ("optimizer.momentum",)
    assert len(search.ledger.points) == 3
