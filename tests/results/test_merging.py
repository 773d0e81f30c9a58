"""Merging results folders: one content, one sequence of bytes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from made_records import content, record, write

from bertopt_bench.errors import UserError
from bertopt_bench.results.merging import merge
from bertopt_bench.results.reading import read_folder
from bertopt_bench.results.store import ResultsFolder

if TYPE_CHECKING:
    from pathlib import Path


def three(tmp_path: Path) -> list[Path]:
    """Write three folders; the first two share a trial, the last is a copy of a part."""
    cells = [content(optimizer=name) for name in ("sgd", "adamw")]
    made = [
        write(tmp_path / "a", record(cells[0], seed=2), record(cells[0]), session="s1"),
        write(tmp_path / "b", record(cells[1]), record(cells[0]), session="s2"),
    ]
    (tmp_path / "c").mkdir()
    for name in ("records.jsonl", "sessions.jsonl"):
        (tmp_path / "c" / name).write_bytes((made[1] / name).read_bytes())
    return [*made, tmp_path / "c"]


def test_the_bytes_are_the_same_in_any_order(tmp_path: Path) -> None:
    """Oracle: all six orders of three folders, byte for byte."""
    outputs = []
    for index, order in enumerate(itertools.permutations(three(tmp_path))):
        merge(order, tmp_path / f"merged-{index}")
        outputs.append(
            tuple(
                (tmp_path / f"merged-{index}" / name).read_bytes()
                for name in ("sessions.jsonl", "records.jsonl")
            )
        )

    assert len(set(outputs)) == 1


def test_records_are_sorted_and_each_is_kept_once(tmp_path: Path) -> None:
    """Oracle: sorted() over cell, seed, replicate, session of the four different records."""
    merge(three(tmp_path), tmp_path / "merged")
    contents = read_folder(tmp_path / "merged")
    keys = [(r.cell_id, r.seed, r.replicate, r.session) for r in contents.records]

    assert keys == sorted(keys)
    assert len(keys) == len(set(keys)) == 4
    assert [one.session for one in contents.sessions] == ["s1", "s2"]
    assert all(len(one.ceilings) == 1 for one in contents.sessions)


def test_a_merged_folder_can_be_merged_and_continued(tmp_path: Path) -> None:
    """Oracle: merging a merged folder alone changes no byte; a run may open it."""
    merge(three(tmp_path), tmp_path / "merged")
    merge([tmp_path / "merged"], tmp_path / "again")

    for name in ("sessions.jsonl", "records.jsonl"):
        merged, again = ((tmp_path / f / name).read_bytes() for f in ("merged", "again"))
        assert merged == again
    digest = str(read_folder(tmp_path / "merged").sessions[0].matrix["digest"])
    ResultsFolder.open(tmp_path / "merged", digest).close()


def test_different_matrices_are_refused(tmp_path: Path) -> None:
    """Oracle: both digests stand in the text, and nothing is written."""
    one = write(tmp_path / "a", record())
    other = tmp_path / "b"
    with ResultsFolder.open(other, "f" * 16) as store:
        from made_records import session

        store.start_session(session(matrix={"name": "other", "digest": "f" * 16}))

    with pytest.raises(UserError, match="f" * 16):
        merge([one, other], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_one_name_for_two_sessions_is_refused(tmp_path: Path) -> None:
    """Oracle: two sessions of one name with different order seeds."""
    folders = [
        write(tmp_path / str(seed), record(), session="same", order_seed=seed) for seed in (1, 2)
    ]

    with pytest.raises(UserError, match="session same differs"):
        merge(folders, tmp_path / "merged")


def test_an_existing_output_and_a_missing_input_are_refused(tmp_path: Path) -> None:
    """Oracle: nothing of the user's is overwritten; the folder at fault is named."""
    folder = write(tmp_path / "a", record())

    with pytest.raises(UserError, match="exists already"):
        merge([folder], folder)
    with pytest.raises(UserError, match=r"no file or folder \S+absent"):
        merge([tmp_path / "absent"], tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
