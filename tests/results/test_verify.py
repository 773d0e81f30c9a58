"""Verify: sound results pass, and each planted error is found and named."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from made_records import SIZES, VOCABULARY, content, evaluation, record, session

from bertopt_bench.results.record import Record, Session
from bertopt_bench.results.tables import Results
from bertopt_bench.results.verify import check_first_sentence_loss, verify
from bertopt_bench.workload import formulas

if TYPE_CHECKING:
    from bertopt_bench.results.findings import Finding


def findings(*records: dict[str, Any], warnings: tuple[str, ...] = ()) -> list[Finding]:
    made = tuple(Record.model_validate(one) for one in records)
    return verify(Results(Path("made"), (Session.model_validate(session()),), made, warnings))


def test_sound_results_pass() -> None:
    """Oracle: records that were made to hold together, of every status."""
    bare = {key: record()[key] for key in ("session", "code", "steps", "replicate")}
    skipped = content(optimizer="lion")
    from bertopt_bench.matrix.identity import cell_id

    found = findings(
        record(),
        record(content(optimizer="sgd")),
        record(seed=2, batches_sha256="7" * 64, initial_weights_sha256="8" * 64),
        record(replicate=1, steps=4, evaluations=[evaluation(step) for step in (0, 3, 4)]),
        {**bare, "cell": skipped, "cell_id": cell_id(skipped), "seed": 1, "status": "skipped",
         "reason": "no package"},
        record(content(optimizer="adam"), status="diverged", reason="r", diverged_at_step=2,
               losses=[6.2, math.nan], evaluations=[evaluation(0)]),
        record(content(optimizer="my:own"), peak_memory_bytes=1),
    )  # fmt: skip

    assert found == []


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        ({"cell_id": "0" * 12}, "its cell hashes to"),
        ({"session": "unknown"}, "session unknown"),
        ({"status": "failed"}, "failed without a reason"),
        ({"status": "diverged", "reason": "r"}, "without a step"),
        ({"losses": [1.0] * 5}, "has 5 losses"),
        ({"losses": [1.0] * 5 + [math.nan]}, "not finite"),
        ({"evaluations": [evaluation(0), evaluation(3, math.nan), evaluation(6)]},
         "held-out loss is not finite"),
        ({"evaluations": [evaluation(0), evaluation(3), evaluation(6, math.inf)]},
         "held-out loss is not finite"),
        ({"step_seconds": [0.1] * 7}, "has 7 step_seconds"),
        ({"step_seconds": [0.1] * 5 + [0.0]}, "no positive, finite time"),
        ({"timed_steps": 5}, "has 5 timed_steps"),
        ({"real_tokens": [60] * 5}, "has 5 real_tokens"),
        ({"masked_tokens": []}, "has 0 masked_tokens"),
        ({"graphs_compiled": 2}, "2 graphs"),
        ({"evaluations": [evaluation(0), evaluation(6)]}, "evaluated at steps 0, 6"),
        ({"evaluations": [evaluation(0), {**evaluation(3), "perplexity": 9.0}, evaluation(6)]},
         "perplexity is 9"),
        ({"evaluations": [evaluation(0, 4.0), evaluation(3), evaluation(6)]}, "ln(512) = 6.2383"),
        ({"evaluations": [evaluation(0, 7.0), evaluation(3), evaluation(6)]}, "ln(512) = 6.2383"),
        ({"slot_tokens_per_step": 65}, "batch by length is 64"),
        ({"real_tokens": [60] * 5 + [65]}, "more than its 64 slots"),
        ({"real_tokens": [60] * 5 + [0]}, "no real tokens"),
        ({"masked_tokens": [8] * 5 + [62]}, "as many as real ones"),
        ({"parameter_count": 1000}, "the formula gives"),
        ({"flops_per_step": 1000}, "flops_per_step is 1,000"),
        ({"peak_memory_bytes": 1000}, "weights, gradients and state"),
    ],
)  # fmt: skip
def test_a_planted_error_is_found(planted: dict[str, Any], words: str) -> None:
    """Oracle: a sound record in which one thing was made wrong; nothing else is reported."""
    found = findings(record(**planted))

    assert [finding.severity for finding in found] == ["error"]
    assert words in found[0].text
    assert "seed 1 replicate 0" in found[0].where


def ragged(**changed: Any) -> dict[str, Any]:
    """Give a sound packed record: 3 rows of 16 slots a step hold 40 tokens of 4 sequences."""
    steps = {"slot_tokens": [48] * 6, "head_slots": [6] * 6, "attended_pairs": [420] * 6}
    steps |= changed.pop("ragged", {})
    flops = formulas.mean_flops(
        formulas.model_size(SIZES),
        vocabulary=VOCABULARY,
        slots=steps["slot_tokens"],
        pairs=steps["attended_pairs"],
        masked=steps["head_slots"],
    )
    fields = {"real_tokens": [40] * 6, "masked_tokens": [6] * 6, "slot_tokens_per_step": 48}
    fields |= {"flops_per_step": flops, "ragged": steps, **changed}
    return record(content(workload={"layout": "packed"}), **fields)


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        ({"slot_tokens_per_step": 64}, "its steps' mean is 48"),
        ({"ragged": {"slot_tokens": [39] * 6}, "slot_tokens_per_step": 39}, "39 slots hold 40"),
        ({"ragged": {"head_slots": [5] * 6}}, "5 of the head 6"),
        ({"ragged": {"attended_pairs": [399] * 6}}, "no 4 lengths sum to 40 and, squared, to 399"),
        ({"ragged": {"attended_pairs": [641] * 6}}, "no 4 lengths sum to 40 and, squared, to 641"),
        ({"flops_per_step": 1000}, "flops_per_step is 1,000"),
        (
            {"ragged": {"slot_tokens": [], "head_slots": [], "attended_pairs": []}},
            "[6, 6, 0, 0, 0]",
        ),
    ],
)
def test_a_planted_error_of_a_layout_is_found(planted: dict[str, Any], words: str) -> None:
    """Oracle: by hand: 40 tokens of 4 sequences: 4 tens square to 400, 40 * 16 is the most."""
    assert findings(ragged()) == []
    if planted.get("ragged", {}).get("slot_tokens") == []:
        empty = {"ragged": planted["ragged"], "flops_per_step": None}
        (found, *_) = findings(record(content(workload={"layout": "packed"}), **empty))
    else:
        (found,) = {one.text: one for one in findings(ragged(**planted))}.values()
    assert words in found.text


def test_a_layout_says_what_its_steps_held_and_padded_does_not() -> None:
    """Oracle: the design of the record: `ragged` stands with the layouts that need it."""
    silent = record(content(workload={"layout": "unpadded"}), slot_tokens_per_step=None)
    talking = record(ragged=ragged()["ragged"], slot_tokens_per_step=48, flops_per_step=None)

    assert "layout is unpadded" in findings(silent)[0].text
    assert any("layout is padded" in found.text for found in findings(talking))


def test_layouts_train_on_the_same_batches() -> None:
    """Oracle: hashes by hand: the layout is no part of what decides a batch."""
    found = findings(record(), ragged(batches_sha256="9" * 64, real_tokens=[40] * 6))

    assert any("batches_sha256 is" in one.text for one in found)
    same = findings(record(), ragged())
    assert any("real_tokens differ" in one.text for one in same)


def test_phases_must_sum_to_their_own_step_within_two_per_cent() -> None:
    """Oracle: by hand: parts of 0.013 s and what they leave, 2 % off either way.

    The rest is the step less its parts, so it can hide no gap; 50 microseconds are always allowed.
    """
    phases = record()["phases"]

    def found(rest: float, step: float) -> list[str]:
        changed = {**phases, "rest_seconds": rest, "step_seconds": step}
        return [finding.severity for finding in findings(record(phases=changed))]

    def honest(step: float) -> list[str]:
        return found(step - 0.013, step)

    assert honest(0.013) == []
    assert honest(0.013 * 1.019) == []
    assert honest(0.013 * 1.021) == ["error"]
    assert honest(0.013 / 1.021) == ["error"]
    assert honest(0.015) == ["error"]
    assert found(0.0, 0.015) == found(0.002, 0.013) == found(math.nan, 0.013) == ["error"]
    tiny = {f"{name}_seconds": 1e-5 for name in ("data", "forward", "backward", "optimizer")}
    for rest, severities in ((4.9e-5, []), (5.1e-5, ["error"])):
        changed = {**phases, **tiny, "rest_seconds": rest, "step_seconds": 4e-5 + rest}
        assert [f.severity for f in findings(record(phases=changed))] == severities


@pytest.mark.parametrize("name", ["batches_sha256", "initial_weights_sha256", "evaluation_sha256"])
def test_hashes_must_agree_within_a_seed(name: str) -> None:
    """Oracle: two cells of one workload; with other seeds, texts or workloads all may differ."""
    other = content(optimizer="sgd")
    changed = {name: "9" * 64}

    found = findings(record(), record(other, **changed))
    assert [finding.severity for finding in found] == ["error"]
    assert f"{name} is 999999999999" in found[0].text
    assert findings(record(), record(other, seed=2, **changed)) == []
    assert findings(record(), record(other, text_sha256="6" * 64, **changed)) == []
    longer = content(workload={"evaluate_every": 6})
    due = [evaluation(step) for step in (0, 6)]
    assert findings(record(), record(longer, evaluations=due, **changed)) == []


def test_the_same_batches_have_the_same_tokens() -> None:
    """Oracle: a timing replicate sees the beginning of the same batches."""
    short = {"replicate": 1, "steps": 4, "evaluations": [evaluation(s) for s in (0, 3, 4)]}

    assert findings(record(), record(**short)) == []
    found = findings(record(), record(**short, real_tokens=[60, 61, 62, 59]))
    assert [finding.severity for finding in found] == ["error"]
    assert "whose batches hash the same" in found[0].text


def test_a_trial_is_recorded_once_a_session_but_may_run_again_in_another() -> None:
    """Oracle: a rerun of a stale trial is no error, even where new code drew other weights."""
    old = record(started_utc="2026-11-23T00:00:00+00:00", initial_weights_sha256="9" * 64)
    sessions = tuple(Session.model_validate(session(session=name)) for name in ("x", "y"))
    made = tuple(
        Record.model_validate({**one, "session": name})
        for one, name in ((old, "x"), (record(), "y"))
    )

    assert verify(Results(Path("made"), sessions, made, ())) == []
    assert any("recorded twice" in finding.text for finding in findings(old, record()))


def test_what_reading_said_is_a_warning() -> None:
    """Oracle: a torn line is no error: it was dropped, and the trial runs again."""
    (found,) = findings(record(), warnings=("the last line was torn",))

    assert (found.severity, found.text) == ("warning", "the last line was torn")


def test_the_first_next_sentence_loss_is_that_of_a_coin() -> None:
    """Oracle: ln 2 = 0.6931; a first loss of 1 is none of random weights; later ones may differ."""

    def check(first: float, later: float) -> list[str]:
        seen = [
            {**evaluation(step), "next_sentence_loss": loss, "next_sentence_accuracy": 0.5}
            for step, loss in ((0, first), (3, later), (6, later))
        ]
        made = Record.model_validate(record(evaluations=seen))
        return [finding.text for finding in check_first_sentence_loss(made)]

    assert check(0.70, 0.1) == []
    assert "0.6931" in check(1.0, 0.1)[0]
