"""What is left to run: the plan against the records that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from made_records import CODE, DIGEST, content, plan, record, session, write

from bertopt_bench.results.reading import read_folder
from bertopt_bench.results.store import ResultsFolder

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_missing_runs_in_the_plans_order(tmp_path: Path) -> None:
    """Oracle: by hand: of four planned trials two have records."""
    sgd = content(optimizer="sgd")
    path = write(tmp_path / "made", record(), record(sgd, seed=2))
    plans = [plan(sgd, seed=1), plan(), plan(sgd, seed=2), plan(seed=2)]
    with ResultsFolder.open(path, DIGEST) as store:
        pending = store.pending(plans, CODE)

    assert pending.plans == pending.missing == (plans[0], plans[3])
    assert pending.stale == ()


def test_everything_is_missing_in_a_new_folder(tmp_path: Path) -> None:
    """Oracle: a folder without a session has no record."""
    with ResultsFolder.open(tmp_path / "made", DIGEST) as store:
        assert store.pending([plan()], CODE).missing == (plan(),)


OUTSIDE = {"mine.py": "a" * 64}


@pytest.mark.parametrize(
    ("recorded", "planned", "code", "words"),
    [
        ({}, {}, {}, None),
        ({}, {}, {"version": "0.2.0"}, "0.1.0 to 0.2.0"),
        ({}, {}, {"commit": "b" * 40}, "aaaaaaaaaa to bbbbbbbbbb"),
        ({}, {}, {"commit": None}, "aaaaaaaaaa to none"),
        ({}, {}, {"dirty_hash": "1234"}, "without a commit"),
        ({"code": {**CODE, "dirty_hash": None}}, {}, {}, None),
        ({"code": {**CODE, "outside": OUTSIDE}}, {"outside": OUTSIDE}, {}, None),
        ({"code": {**CODE, "outside": OUTSIDE}}, {"outside": {"mine.py": "b" * 64}}, {}, "mine.py"),
        ({"code": {**CODE, "outside": OUTSIDE}}, {}, {}, "mine.py"),
        ({}, {"steps": 5}, {}, "6 steps and is planned with 5"),
        ({"status": "failed", "reason": "r"}, {}, {}, None),
        ({"status": "skipped", "reason": "r"}, {}, {}, "can run now"),
        ({"status": "skipped", "reason": "1.3"}, {"skip": "1.4"}, {"version": "9"}, None),
        ({}, {"skip": "no GPU today"}, {"version": "9"}, None),
    ],
)
def test_a_record_is_stale_when_what_made_it_changed(
    tmp_path: Path,
    recorded: dict[str, Any],
    planned: dict[str, Any],
    code: dict[str, Any],
    words: str | None,
) -> None:
    """Oracle: the design: version, commit, dirty hash, and every outside source file's hash."""
    path = write(tmp_path / "made", record(**recorded))
    with ResultsFolder.open(path, DIGEST) as store:
        pending = store.pending([plan(**planned)], {**CODE, **code})

    assert pending.missing == ()
    assert pending.plans == tuple(one for one, _ in pending.stale)
    assert len(pending.stale) == (words is not None)
    assert all(str(words) in reason for reason in pending.reasons())


PREPARED = {
    "text_sha256": "4" * 64,
    "tokenizer_sha256": "5" * 64,
    "batches": {"1": {"sha256": "2" * 64}, "9": {"sha256": "8" * 64}},
    "evaluation": {"sha256": "3" * 64},
    "vocabulary_size": 512,
}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, None),
        ({"text_sha256": "6" * 64}, "the text changed (444444444444 to 666666666666)"),
        ({"text_sha256": "6" * 64, "tokenizer_sha256": "6" * 64}, "the text changed"),
        ({"tokenizer_sha256": "6" * 64}, "the tokenizer changed (555555555555 to"),
        ({"evaluation": {"sha256": "6" * 64}}, "the held-out batches changed"),
        ({"batches": {"1": {"sha256": "6" * 64}}}, "the training batches changed"),
        ({"batches": {"9": {"sha256": "6" * 64}}}, None),
        ({"text_sha256": None, "tokenizer_sha256": None, "batches": None, "evaluation": {}}, None),
    ],
)
def test_other_data_make_a_record_stale(
    tmp_path: Path, changed: dict[str, Any], words: str | None
) -> None:
    """Oracle: the design: results on different data are never compared; what is not known is not.

    Seed 9's batches are another trial's.
    """
    one = plan()
    with ResultsFolder.open(write(tmp_path / "made", record()), DIGEST) as store:
        found = store.pending([one], CODE, {one.cell.id: {**PREPARED, **changed}})

    assert len(found.stale) == (words is not None)
    assert all(str(words) in reason for reason in found.reasons())


def test_unknown_data_make_no_record_stale(tmp_path: Path) -> None:
    """Oracle: neither a cell without prepared text nor a record without hashes can tell."""
    one = plan()
    silent = record(**dict.fromkeys(
        ("text_sha256", "tokenizer_sha256", "batches_sha256", "evaluation_sha256")
    ))  # fmt: skip
    for number, (made, texts) in enumerate(
        ((record(), {}), (record(), {one.cell.id: None}), (silent, {one.cell.id: PREPARED}))
    ):
        with ResultsFolder.open(write(tmp_path / str(number), made), DIGEST) as store:
            assert store.pending([one], CODE, texts).plans == ()


def test_a_rerun_replaces_a_stale_record_and_keeps_it(tmp_path: Path) -> None:
    """Oracle: both lines on disk; nothing is pending after the rerun."""
    old = record(code={**CODE, "version": "0.0.9"})
    new = record(started_utc="2026-11-25T00:00:00+00:00")
    path = write(tmp_path / "made", old)
    with ResultsFolder.open(path, DIGEST) as store:
        assert len(store.pending([plan()], CODE).stale) == 1
        store.append({**new, "session": store.start_session({**session(), "session": "z"})})
        assert store.pending([plan()], CODE).plans == ()

    assert [one.code.version for one in read_folder(path).records] == ["0.0.9", "0.1.0"]
