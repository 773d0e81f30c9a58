"""What a duel refuses before anything runs, because it cannot answer it rightly yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bertopt_bench import duelling
from bertopt_bench.duelling import CALIBRATION, Asked, foresee, gate_duel
from bertopt_bench.errors import UserError
from bertopt_bench.gate.duels import ArmSpec, DuelSpec
from bertopt_bench.matrix.arms import read_arms
from bertopt_bench.matrix.duels import Settings

if TYPE_CHECKING:
    from pathlib import Path


def ask(arm: str, **settings: Any) -> list[Any]:
    matrix, arms = read_arms(
        CALIBRATION, arms=[arm], overrides=["seeds=[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"]
    )
    return foresee(Asked(matrix, tuple(arms)), Settings(**settings))


@pytest.fixture(autouse=True)
def no_bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTOPT_BENCH_CACHE", str(tmp_path))


@pytest.mark.parametrize("metric", ["loss", "time_to_target", "step_time"])
@pytest.mark.parametrize("own", ["revision=v1", "python=other/python", "checkout=."])
def test_foreign_code_may_be_compared_in_training_as_in_time(metric: str, own: str) -> None:
    """Oracle: workers prove their imports in both, so there is a prospect of the one comparison."""
    (prospect,) = ask(own, metrics=(metric,))

    assert prospect.metric == metric


class Prepared(Exception):  # noqa: N818 - no error: where the test ends
    """A session came as far as making its arms ready."""


def test_a_gate_may_ask_for_the_loss_of_two_revisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: what the gate asks for is what is made ready: a revision, and the working tree."""
    matrix = tmp_path / "gated.toml"
    matrix.write_text("name = 'gated'\nseeds = [1, 2, 3, 4, 5, 6, 7, 8]\n")
    asked: list[Any] = []

    def prepare(_: Any, arms: Any, *rest: Any) -> None:
        asked.extend(arms)
        raise Prepared

    monkeypatch.setattr(duelling, "prepare_duel", prepare)
    monkeypatch.setattr(duelling, "ask_capabilities", lambda: None)
    spec = DuelSpec(
        matrix=matrix,
        base=(),
        arms=(
            ArmSpec("base", revision="v1", checkout=tmp_path),
            ArmSpec("head", checkout=tmp_path),
        ),
        comparisons=(("base", "head"),),
        metrics=("loss",),
        margins={"loss": None},
        alpha=0.05,
        family_error=0.05,
        looks=(12,),
        results=tmp_path / "results",
    )

    with pytest.raises(Prepared):
        gate_duel(spec)
    assert [(arm.label, arm.revision, arm.checkout) for arm in asked] == [
        ("base", "v1", tmp_path),
        ("head", None, tmp_path),
    ]


@pytest.mark.parametrize("setting", [{"until": 0.01}, {"budget_seconds": 60.0}])
def test_training_takes_no_looks_and_no_budget(setting: dict[str, Any]) -> None:
    """Oracle: both choose replicates of blocks, of which a loss has none."""
    with pytest.raises(UserError, match="neither until nor budget"):
        ask("optimizer=sgd", metrics=("loss",), **setting)

    assert ask("optimizer=sgd", metrics=("loss",))
