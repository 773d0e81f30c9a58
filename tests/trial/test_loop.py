"""The loop around a scripted trial: what happens between two clock marks, and in what order."""

from __future__ import annotations

import math
from array import array

import pytest

from bertopt_bench.matrix.cells import evaluation_steps
from bertopt_bench.trial.live import Evaluation
from bertopt_bench.trial.loop import Checkpoint, find_divergence, train


class Script:
    """A trial and a clock in one, which write down every call."""

    diverged_factor = 2.0

    def __init__(self, losses: list[float]) -> None:
        self.calls: list[str] = []
        self.script = losses
        self.pending: list[float] = []

    def step(self, index: int) -> None:
        self.calls.append(f"step {index}")
        self.pending.append(self.script[index])

    def mark(self) -> None:
        self.calls.append("mark")

    def begin_segment(self) -> None:
        self.calls.append("begin")

    def synchronize(self) -> None:
        self.calls.append("synchronize")

    def drain(self) -> list[float]:
        self.calls.append("drain")
        drained, self.pending = self.pending, []
        return drained

    def evaluate(self) -> Evaluation:
        self.calls.append("evaluate")
        return Evaluation(loss=1.0, masked_accuracy=0.5)


def run(losses: list[float], evaluate_at: list[int]) -> tuple[Script, list[Checkpoint], int | None]:
    script, seen = Script(losses), list[Checkpoint]()
    counter = array("q", [0])
    diverged = train(script, script, evaluate_at=evaluate_at, counter=counter, report=seen.append)
    return script, seen, diverged


def test_between_two_evaluations_there_are_only_steps_and_marks() -> None:
    """Oracle: the order written out by hand from the design's section "A trial", points 4 and 5."""
    script, _, _ = run([2.0, 1.9], [0, 2])

    assert script.calls == [
        "begin", "synchronize", "drain", "evaluate",
        "begin", "step 0", "mark", "step 1", "mark", "synchronize", "drain", "evaluate",
    ]  # fmt: skip


def test_each_checkpoint_carries_the_losses_since_the_one_before() -> None:
    """Oracle: the scripted losses, cut at the evaluation steps."""
    _, seen, _ = run([4.0, 3.0, 2.0, 1.0, 0.5], [0, 2, 4, 5])

    assert [(c.step, c.losses) for c in seen] == [
        (0, []),
        (2, [4.0, 3.0]),
        (4, [2.0, 1.0]),
        (5, [0.5]),
    ]


@pytest.mark.parametrize("bad", [math.nan, math.inf, 8.1])
def test_a_diverged_trial_ends_at_the_next_evaluation_with_its_step(bad: float) -> None:
    """Oracle: a loss that is not finite, or above twice the first (4.0), planted as update 3."""
    script, seen, diverged = run([4.0, 4.0, bad, 4.0, 4.0, 4.0], [0, 4, 6])

    assert diverged == 3
    assert seen[-1].step == 4
    assert "step 4" not in script.calls


def test_evaluations_lie_at_the_start_each_multiple_and_the_end() -> None:
    """Oracle: hand-written lists."""
    assert evaluation_steps(10, 5) == [0, 5, 10]
    assert evaluation_steps(7, 3) == [0, 3, 6, 7]
    assert evaluation_steps(2, 50) == [0, 2]


def test_a_first_loss_of_exactly_twice_has_not_diverged() -> None:
    """Oracle: the rule's boundary, `above`, not `at`."""
    assert find_divergence([4.0, 8.0], 4.0, 0) is None
    assert find_divergence([4.0, 8.0001], 4.0, 10) == 12


def test_weights_that_the_last_update_broke_are_a_divergence() -> None:
    """Oracle: a held-out loss of NaN after losses that were all finite."""
    script = Script([4.0, 3.0])
    script.evaluate = lambda: Evaluation(math.nan, 0.0)  # type: ignore[method-assign]
    seen: list[Checkpoint] = []
    diverged = train(script, script, evaluate_at=[2], counter=array("q", [0]), report=seen.append)

    assert diverged == 2
    assert seen[0].diverged_at_step == 2


def test_a_trial_says_what_loss_has_diverged() -> None:
    """A classifier's batch of few texts may cost ten times the first; oracle: not finite alone."""
    script = Script([0.7, 9.0, 0.1])
    script.diverged_factor = math.inf
    counter = array("q", [0])

    assert train(script, script, evaluate_at=[0, 3], counter=counter, report=lambda _: None) is None
