"""Every way a child can end has a status and a reason."""

from __future__ import annotations

import math

import pytest

from bertopt_bench.dispatch.local import Outcome
from bertopt_bench.dispatch.outcomes import ending, evaluation_fields, record_fields

SEEN = {
    "kind": "evaluation",
    "step": 2,
    "losses": [3.0, 2.5],
    "loss": 2.0,
    "masked_accuracy": 0.25,
    "train_seconds": 1.5,
    "evaluation_seconds": 0.5,
    "elapsed_seconds": 2.0,
}


@pytest.mark.parametrize(
    ("outcome", "status", "words"),
    [
        (Outcome(timed_out=True, exit_code=-9), "timed_out", "timing.timeout_seconds = 5"),
        (
            Outcome(exit_code=-11, stderr_tail="boom"),
            "failed",
            "killed by SIGSEGV; it printed: boom",
        ),
        (Outcome(exit_code=-9, killed_for_memory=True), "out_of_memory", "want of memory"),
        (Outcome(exit_code=-9), "failed", "killed by SIGKILL"),
        (Outcome(exit_code=-35), "failed", "killed by signal 35"),
        (Outcome(exit_code=3), "failed", "exited with 3"),
        (Outcome(exit_code=None), "failed", "preloaded parent"),
        (
            Outcome(final={"kind": "failure", "status": "failed", "reason": "why"}, exit_code=0),
            "failed",
            "why",
        ),
    ],
)
def test_every_end_has_a_status_and_a_reason(outcome: Outcome, status: str, words: str) -> None:
    """Oracle: the design's list of statuses; a signal's number is its name."""
    end = ending(outcome, 5.0)

    assert end["status"] == status
    assert words in end["reason"]


def test_a_killed_child_keeps_its_curve() -> None:
    """Oracle: what the child had sent before it died."""
    known = {"parameter_count": 12, "initial_weights_sha256": "ab"}
    fields = record_fields(Outcome(evaluations=[SEEN], known=known, exit_code=-9), 5.0)

    assert fields["parameter_count"] == 12

    assert fields["losses"] == [3.0, 2.5]
    assert fields["evaluations"][0]["perplexity"] == pytest.approx(math.exp(2.0))
    assert fields["status"] == "failed"


@pytest.mark.parametrize(
    ("loss", "perplexity"), [(math.nan, math.nan), (math.inf, math.inf), (1e4, math.inf)]
)
def test_perplexity_of_a_lost_run_is_not_finite(loss: float, perplexity: float) -> None:
    """Oracle: exp, with overflow as infinity."""
    got = evaluation_fields({**SEEN, "loss": loss})["perplexity"]

    assert got == perplexity or (math.isnan(got) and math.isnan(perplexity))
