"""What a duel refuses before anything runs, because it cannot answer it rightly yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bertopt_bench.duelling import CALIBRATION, Asked, foresee
from bertopt_bench.errors import UserError
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


@pytest.mark.parametrize("metric", ["loss", "time_to_target"])
@pytest.mark.parametrize("own", ["revision=v1", "python=other/python", "checkout=."])
def test_training_of_foreign_code_is_refused_and_step_time_is_not(metric: str, own: str) -> None:
    """Oracle: training runs prove no import; timed arms do."""
    with pytest.raises(UserError, match="step_time"):
        ask(own, metrics=(metric,))

    assert ask(own, metrics=("step_time",))


@pytest.mark.parametrize("setting", [{"until": 0.01}, {"budget_seconds": 60.0}])
def test_training_takes_no_looks_and_no_budget(setting: dict[str, Any]) -> None:
    """Oracle: both choose replicates of blocks, of which a loss has none."""
    with pytest.raises(UserError, match="neither until nor budget"):
        ask("optimizer=sgd", metrics=("loss",), **setting)

    assert ask("optimizer=sgd", metrics=("loss",))
