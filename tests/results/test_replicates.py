"""Replicates of duels on disk: whole lines, a torn last one, newer versions, arms' records."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from made_records import DIGEST, content, plan, record, session, write

from bertopt_bench.errors import UserError
from bertopt_bench.results.duels import REPLICATES, ArmRun, Block, Finding, Replicate, Verdicts
from bertopt_bench.results.pending import latest
from bertopt_bench.results.reading import read_folder
from bertopt_bench.results.store import ResultsFolder
from bertopt_bench.results.tables import load_results


def replicate(number: int = 0, **fields: Any) -> Replicate:
    block = Block(
        round=0,
        position=0,
        arm="base",
        clock_seconds=1.5,
        steps=3,
        wall_seconds=0.6,
        step_seconds=(0.2, math.inf, 0.2),
        disturbance={"load1": 0.5},
    )
    values = {
        "session": "s",
        "replicate": number,
        "seed": 1,
        "status": "ok",
        "started_utc": "2026-11-24T02:10:00+00:00",
        "elapsed_seconds": 9.5,
        "start_order": ("base", "A/A"),
        "arms": (ArmRun(arm="base", status="ok", steady=True), ArmRun(arm="A/A", status="ok")),
        "blocks": (block,),
        **fields,
    }
    return Replicate(**values)


def folder(path: Path, *replicates: Replicate) -> Path:
    with ResultsFolder.open(path, DIGEST) as store:
        store.start_session(session())
        for one in replicates:
            store.append_replicate(one)
    return path


def test_replicates_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    """Oracle: equality of the models, infinite samples included; JSON that every parser takes."""
    given = [replicate(0), replicate(1, status="failed", reason="'A/A' fell", blocks=())]
    path = folder(tmp_path / "duel", *given)

    assert read_folder(path).replicates == tuple(given)
    assert load_results(path).replicates == tuple(given)
    for line in (path / REPLICATES).read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_a_folder_of_run_has_no_replicates_and_no_file_for_them(tmp_path: Path) -> None:
    """Oracle: the folder's listing."""
    path = write(tmp_path / "made", record())

    assert load_results(path).replicates == ()
    assert not (path / REPLICATES).exists()


def test_each_replicate_is_on_disk_before_the_next_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: os.fsync is called on a file that holds the whole line already."""
    seen: list[bytes] = []
    real = os.fsync

    def spy(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").resolve()
        if name.name == REPLICATES:
            seen.append(name.read_bytes())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    path = folder(tmp_path / "duel", replicate(0), replicate(1))

    whole = (path / REPLICATES).read_bytes()
    assert seen[-1] == whole
    assert [one for one in seen if one] == [whole[: whole.index(b"\n") + 1], whole]


def test_a_torn_last_replicate_is_lost_alone_and_said(tmp_path: Path) -> None:
    """Oracle: a file cut at some bytes of its second line; the third is whole again."""
    path = folder(tmp_path / "duel", replicate(0), replicate(1))
    whole = (path / REPLICATES).read_bytes()
    first = whole.index(b"\n") + 1
    for cut in (first + 1, first + 100, len(whole) - 2):
        (path / REPLICATES).write_bytes(whole[:cut])
        contents = read_folder(path)
        assert [one.replicate for one in contents.replicates] == [0]
        assert "torn" in contents.warnings[0]
        assert REPLICATES in contents.warnings[0]

        with ResultsFolder.open(path, DIGEST) as store:
            assert store.warnings == list(contents.warnings)
            store.append_replicate(replicate(2))
        assert [one.replicate for one in read_folder(path).replicates] == [0, 2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 99}, "schema version 99.*Install a newer one"),
        ({"schema_version": None}, "schema version None"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"design": "sideways"}, "design"),
        ({"blocks": [{"round": 0}]}, r"blocks\.0\."),
    ],
)
def test_a_replicate_of_another_form_is_refused_by_line_and_field(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    """Oracle: the field that was changed; a newer version's lines are never guessed at."""
    file = folder(tmp_path / "duel", replicate(0), replicate(1)) / REPLICATES
    first, second = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(one) + "\n" for one in (first, {**second, **change})))

    with pytest.raises(UserError, match=rf"replicates\.jsonl, line 2.*{words}"):
        read_folder(tmp_path / "duel")


def test_a_damaged_replicate_stops_a_new_session_before_it_runs(tmp_path: Path) -> None:
    """Oracle: the line's number, told when the folder is opened and not after a replicate."""
    file = folder(tmp_path / "duel", replicate(0), replicate(1)) / REPLICATES
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"\0\0\n" + lines[1])

    with pytest.raises(UserError, match=r"replicates\.jsonl, line 1"):
        ResultsFolder.open(tmp_path / "duel", DIGEST)


def test_verdicts_of_every_look_fold_into_their_session_in_order(tmp_path: Path) -> None:
    """Oracle: the models as they were given: the last one counts."""
    found = Finding(metric="loss", baseline="b", arm="a", n=0, estimate=math.inf, verdict="higher")
    looks = [
        Verdicts(
            session="s", at_utc="t", look=n, replicates=10 * n, state="valid", findings=(found,)
        )
        for n in (1, 2)
    ]
    with ResultsFolder.open(tmp_path / "duel", DIGEST) as store:
        name = store.start_session({**session(), "session": "s"})
        for one in looks:
            store.append_session_event({"kind": "verdicts", **one.model_dump()})
        store.append_session_event({"kind": "end", "session": name})
    (read,) = read_folder(tmp_path / "duel").sessions

    assert [Verdicts.model_validate(one) for one in read.verdicts] == looks
    assert read.end is not None


def test_arms_of_one_cell_keep_a_record_each(tmp_path: Path) -> None:
    """Oracle: the A/A arm is the baseline's cell with another label; neither replaces the other."""
    given = [record(arm=arm) for arm in ("base", "A/A", None)]
    path = write(tmp_path / "duel", *given)
    loaded = load_results(path)

    assert {key[3] for key in latest(loaded.records)} == {"base", "A/A", ""}
    assert sorted(str(one.arm) for one in loaded.counted) == ["A/A", "None", "base"]
    assert len(loaded.trials) == 3


def test_an_arms_record_is_no_trial_of_the_matrix(tmp_path: Path) -> None:
    """Oracle: a plan names no arm: its own trial is still missing."""
    path = write(tmp_path / "duel", record(arm="base"))
    with ResultsFolder.open(path, DIGEST) as store:
        pending = store.pending([plan(content())], record()["code"])

    assert len(pending.missing) == 1
    assert pending.stale == ()
