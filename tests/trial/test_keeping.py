"""A trial that is continued from what was kept of it trains as if nothing had happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from bertopt_bench.trial import loop, passes
from bertopt_bench.trial.assemble import assemble
from bertopt_bench.trial.keeping import Keeper, why_not

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bertopt_bench.trial.live import Trial

    MakeRequest = Callable[..., dict[str, Any]]

CODE = {"version": "0", "commit": None, "dirty_hash": ""}


class NoClock:
    """Keeps no time."""

    def begin_segment(self) -> None:
        """Do nothing."""

    def mark(self) -> None:
        """Do nothing."""


def train(trial: Trial, keeper: Keeper, until: int, start: loop.Start) -> list[float]:
    """Train to a step, kept at every evaluation; give all losses, those of before included."""
    losses = [loss for message in keeper.messages for loss in message["losses"]]

    def report(seen: loop.Checkpoint) -> None:
        losses.extend(seen.losses)
        keeper.messages.append({"losses": seen.losses})
        keeper.save(seen.step, [0.5] * seen.step)

    at = [step for step in (0, 2, 4, 6) if step <= until]
    loop.train(trial, NoClock(), evaluate_at=at, counter=[0], report=report, start=start)
    return losses


CELLS = [
    {"regularizer": ["dropout", "weight_decay", "ema"]},
    {"optimizer": "muon", "workload": {"micro_batches": 2}},
    {"precision": "fp16", "optimizer_step": "loop", "regularizer": ["grad_clip", "dropout"]},
    {"optimizer": "momentum", "optimizer_step": "fused", "schedule": "cosine"},
    {"optimizer": "nadam", "optimizer_step": "foreach", "workload": {"layout": "packed"}},
    {"optimizer": "nadam", "precision": "fp64"},  # one of its states is fp32 beside fp64 weights
]


@pytest.mark.parametrize("axes", CELLS)
def test_a_killed_trial_goes_on_bit_for_bit(
    make_request: MakeRequest, tmp_path: Path, axes: dict[str, Any]
) -> None:
    """Oracle: the same trial without interruption: all losses, final weights, held-out loss."""
    axes = dict(axes)
    request = make_request(axes.pop("workload", None), **axes)
    plain = assemble(request)
    losses = train(plain, Keeper(plain, request), 6, loop.Start())
    weights = {name: value.clone() for name, value in plain.model.state_dict().items()}
    held_out = plain.evaluate()

    kept = {**request, "checkpoint": {"file": str(tmp_path / "k" / "trial.pt"), "code": CODE}}
    killed = assemble(kept)
    keeper = Keeper(killed, kept)
    assert keeper.continue_from() == loop.Start()
    train(killed, keeper, 4, loop.Start())
    killed.step(4)  # lost with its process

    again = assemble(kept)
    passes.burn_in(again, 2)
    again.restore()
    keeper = Keeper(again, kept)
    start = keeper.continue_from()
    assert start.position == 4
    assert keeper.interrupted == [4]
    assert keeper.seconds == [0.5] * 4
    assert train(again, keeper, 6, start) == losses
    assert again.evaluate() == held_out
    for name, value in weights.items():
        assert torch.equal(again.model.state_dict()[name], value), name


def test_what_was_kept_of_another_trial_or_is_damaged_does_not_count(
    make_request: MakeRequest, tmp_path: Path
) -> None:
    """Oracle: a start at step 0: other code, another optimizer, a file cut in half."""
    file = tmp_path / "trial.pt"
    kept = {**make_request(), "checkpoint": {"file": str(file), "code": CODE}}
    trial = assemble(kept)
    train(trial, Keeper(trial, kept), 4, loop.Start())
    assert Keeper(assemble(kept), kept).continue_from().position == 4

    newer = {**kept, "checkpoint": {"file": str(file), "code": {**CODE, "version": "1"}}}
    other = {**make_request(optimizer="sgd"), "checkpoint": kept["checkpoint"]}
    for changed in (newer, other):
        assert Keeper(assemble(changed), changed).continue_from() == loop.Start()
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert Keeper(assemble(kept), kept).continue_from() == loop.Start()


def test_keeping_changes_nothing_and_is_off_by_default(
    make_request: MakeRequest, tmp_path: Path
) -> None:
    """Oracle: the losses of a trial that nobody keeps, dropout included; no file without asking."""
    request = make_request(regularizer=["dropout"])
    plain = assemble(request)
    losses = train(plain, Keeper(plain, request), 6, loop.Start())
    assert list(tmp_path.iterdir()) == []

    kept = {**request, "checkpoint": {"file": str(tmp_path / "t.pt"), "code": CODE}}
    watched = assemble(kept)
    assert train(watched, Keeper(watched, kept), 6, loop.Start()) == losses
    assert [file.name for file in tmp_path.iterdir()] == ["t.pt"]


def test_a_regularizer_that_cannot_be_saved_is_named(make_request: MakeRequest) -> None:
    """Oracle: a class of a user's own that holds a tensor and no more."""

    class Own:
        def __init__(self) -> None:
            self.average = torch.zeros(1)

    trial = assemble(make_request())
    assert why_not(trial) == ""
    trial.regularizers.parts = [Own()]
    assert "Own has no state_dict" in why_not(trial)
