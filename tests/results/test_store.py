"""Results folders: what is written is whole and safe, whatever happens in between."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from made_records import DIGEST, ceiling, record, session, write

from bertopt_bench.errors import UserError
from bertopt_bench.results import store as store_module
from bertopt_bench.results.reading import read_folder
from bertopt_bench.results.store import ResultsFolder, next_free


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_what_is_appended_is_read_back_in_order(tmp_path: Path) -> None:
    """Oracle: the fields as they were given."""
    given = [record(seed=seed) for seed in (3, 1, 2)]
    contents = read_folder(write(tmp_path / "made", *given))

    assert [one.seed for one in contents.records] == [3, 1, 2]
    assert contents.records[0].losses == tuple(given[0]["losses"])
    assert contents.records[0].cell == given[0]["cell"]
    assert contents.sessions[0].ceilings[0]["values"] == ceiling()["values"]
    assert contents.warnings == ()


def test_each_line_is_on_disk_before_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: os.fsync is called on a file that holds the whole line already."""
    seen: list[bytes] = []
    real = os.fsync

    def spy(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").resolve()
        if name.name == "records.jsonl":
            seen.append(name.read_bytes())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    folder = write(tmp_path / "made", record())

    assert seen == [(folder / "records.jsonl").read_bytes()]
    assert seen[0].endswith(b"}\n")


def test_a_torn_last_line_is_dropped_and_said_and_the_next_append_is_whole(
    tmp_path: Path,
) -> None:
    """Oracle: a record cut at each of some bytes: one record is left, then two again."""
    whole = (write(tmp_path / "made", record(), record(seed=2)) / "records.jsonl").read_bytes()
    first = whole.index(b"\n") + 1
    for cut in (first + 1, first + 100, len(whole) - 2):
        (tmp_path / "made/records.jsonl").write_bytes(whole[:cut])

        contents = read_folder(tmp_path / "made")
        assert [one.seed for one in contents.records] == [1]
        assert "torn" in contents.warnings[0]
        assert "records.jsonl" in contents.warnings[0]
        assert (tmp_path / "made/records.jsonl").stat().st_size == cut  # reading mends nothing

        with ResultsFolder.open(tmp_path / "made", DIGEST) as store:
            assert store.warnings == list(contents.warnings)
            store.append(record(seed=2))
        assert [one.seed for one in read_folder(tmp_path / "made").records] == [1, 2]


def test_a_last_line_that_only_lost_its_newline_is_no_torn_one(tmp_path: Path) -> None:
    """Oracle: the same records with and without the file's last byte."""
    file = write(tmp_path / "made", record()) / "records.jsonl"
    file.write_bytes(file.read_bytes()[:-1])

    assert len(read_folder(tmp_path / "made").records) == 1
    with ResultsFolder.open(tmp_path / "made", DIGEST) as store:
        assert store.warnings == []
        store.append(record(seed=2))
    assert [one.seed for one in read_folder(tmp_path / "made").records] == [1, 2]


@pytest.mark.parametrize("damage", [b"\0\0\0\0", b'{"schema_version": 1,', b"[]", b""])
def test_a_damaged_middle_line_is_an_error_that_names_it(tmp_path: Path, damage: bytes) -> None:
    """Oracle: the number of the line that was damaged; nothing is dropped silently."""
    file = write(tmp_path / "made", *(record(seed=seed) for seed in (1, 2, 3))) / "records.jsonl"
    whole = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([whole[0], damage, whole[2], b""]))

    with pytest.raises(UserError, match=r"records\.jsonl, line 2: "):
        read_folder(tmp_path / "made")
    with pytest.raises(UserError, match=r"records\.jsonl, line 2: "):
        ResultsFolder.open(tmp_path / "made", DIGEST)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 99}, "schema version 99"),
        ({"schema_version": None}, "schema version None"),
        ({"status": "fine"}, "status"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"steps": "many"}, "steps"),
    ],
)
def test_a_record_of_another_form_is_refused_by_field(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    """Oracle: the field that was changed; unknown fields and newer versions are refused."""
    file = write(tmp_path / "made", record(), record(seed=2)) / "records.jsonl"
    first, second = lines(file)
    file.write_text("".join(json.dumps(one) + "\n" for one in (first, {**second, **change})))

    with pytest.raises(UserError, match=r"records\.jsonl, line 2") as caught:
        read_folder(tmp_path / "made")
    assert words in str(caught.value)


def test_a_wrong_field_of_ours_is_never_written(tmp_path: Path) -> None:
    """Oracle: a programming error, told as such; the file stays as it was."""
    with ResultsFolder.open(tmp_path / "made", DIGEST) as store:
        store.start_session(session())
        with pytest.raises(ValueError, match="step_secs"):
            store.append(record(step_secs=[1.0]))
        with pytest.raises(ValueError, match="kind"):
            store.append_session_event({"kind": "weather", "session": "x"})

    assert read_folder(tmp_path / "made").records == ()


def test_a_second_run_on_the_folder_is_refused_and_named(tmp_path: Path) -> None:
    """Oracle: the pid of the process that holds the lock; free again once that is closed."""
    with ResultsFolder.open(tmp_path / "made", DIGEST):
        with pytest.raises(UserError, match=f"in use by another run .process {os.getpid()}"):
            ResultsFolder.open(tmp_path / "made", DIGEST)
        code = (
            "import sys; from pathlib import Path; "
            "from bertopt_bench.results.store import ResultsFolder; "
            f"ResultsFolder.open(Path(sys.argv[1]), {DIGEST!r})"
        )
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "made")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert other.returncode == 1
        assert f"process {os.getpid()}" in other.stderr

    ResultsFolder.open(tmp_path / "made", DIGEST).close()


def test_the_lock_of_a_killed_run_is_free(tmp_path: Path) -> None:
    """Oracle: a child that is killed by SIGKILL while it holds the folder."""
    code = (
        "import os, sys; from pathlib import Path; "
        "from bertopt_bench.results.store import ResultsFolder; "
        f"ResultsFolder.open(Path(sys.argv[1]), {DIGEST!r}); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "made")], check=False)

    assert killed.returncode == -9
    ResultsFolder.open(tmp_path / "made", DIGEST).close()


def test_a_folder_of_another_matrix_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """Oracle: the two digests and --new in the text; the folder is free afterwards."""
    write(tmp_path / "made", record())

    with pytest.raises(UserError, match="another matrix") as caught:
        ResultsFolder.open(tmp_path / "made", "f" * 16)
    assert DIGEST in str(caught.value)
    assert "f" * 16 in str(caught.value)
    assert "--new" in str(caught.value)
    ResultsFolder.open(tmp_path / "made", DIGEST).close()


def test_new_folders_count_up(tmp_path: Path) -> None:
    """Oracle: by hand."""
    base = tmp_path / "made"
    assert next_free(base) == base
    base.mkdir()
    assert next_free(base) == tmp_path / "made-2"
    (tmp_path / "made-2").mkdir()
    assert next_free(base) == tmp_path / "made-3"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """Oracle: a regular file stands where the folder's parent should be."""
    (tmp_path / "file").write_text("")

    with pytest.raises(UserError, match="cannot be written: Not a directory"):
        ResultsFolder.open(tmp_path / "file" / "made", DIGEST)


def test_a_read_only_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the error that open(2) gives on a read-only file system."""
    write(tmp_path / "made", record())
    real = os.open

    def read_only(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(store_module.os, "open", read_only)
    with pytest.raises(UserError, match="Read-only file system") as caught:
        ResultsFolder.open(tmp_path / "made", DIGEST)
    assert "--results" in str(caught.value)
    monkeypatch.undo()
    assert len(read_folder(tmp_path / "made").records) == 1


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from made_records import DIGEST, record
from bertopt_bench.errors import UserError
from bertopt_bench.results.store import ResultsFolder
with ResultsFolder.open(Path(sys.argv[1]), DIGEST) as store:
    room = (Path(sys.argv[1]) / "records.jsonl").stat().st_size + 500
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    for seed in (2, 3):
        try:
            store.append(record(seed=seed))
        except UserError as error:
            print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.append(record(seed=4))
"""


def test_a_full_disk_takes_back_the_torn_line_and_loses_nothing(tmp_path: Path) -> None:
    """Oracle: a real short write: the kernel lets a file grow by 500 bytes only."""
    folder = write(tmp_path / "made", record())
    before = (folder / "records.jsonl").read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(folder), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("records.jsonl cannot be written: File too large") == 2
    assert "What was written before is kept" in done.stdout
    assert (folder / "records.jsonl").read_bytes().startswith(before)
    assert [one.seed for one in read_folder(folder).records] == [1, 4]


def test_a_line_that_cannot_even_be_taken_back_is_dropped_on_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a disk that takes ten bytes, then nothing, not even a truncation."""
    store = ResultsFolder.open(write(tmp_path / "made", record()), DIGEST)
    real = os.write
    taken: list[int] = []

    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def ten_bytes(descriptor: int, data: bytes) -> int:
        if taken:
            fail()
        taken.append(1)
        return real(descriptor, data[:10])

    monkeypatch.setattr(store_module.os, "write", ten_bytes)
    monkeypatch.setattr(store_module.os, "ftruncate", fail)
    with pytest.raises(UserError, match="Input/output error"):
        store.append(record(seed=2))
    monkeypatch.undo()
    store.close()

    contents = read_folder(tmp_path / "made")
    assert [one.seed for one in contents.records] == [1]
    assert "torn (10 bytes)" in contents.warnings[0]


def test_a_killed_trial_keeps_its_curve(tmp_path: Path) -> None:
    """Oracle: two evaluations written before the kill, a third one torn."""
    path = write(tmp_path / "made", record())
    store = ResultsFolder.open(path, DIGEST)
    for step in (0, 3):
        store.append_partial("abcdefabcdef", 5, 2, {"step": step, "loss": math.nan, "losses": []})
    (curve,) = (path / "partial").iterdir()
    curve.write_bytes(curve.read_bytes() + b'{"step": 6, "lo')
    store.close()

    with ResultsFolder.open(path, DIGEST) as again:
        assert "abcdefabcdef-5-2" in again.warnings[0]
        assert "2 evaluations" in again.warnings[0]
    (kept,) = lines(path / "interrupted.jsonl")
    assert (kept["cell_id"], kept["seed"], kept["replicate"]) == ("abcdefabcdef", 5, 2)
    assert [line["step"] for line in kept["lines"]] == [0, 3]
    assert kept["lines"][0]["loss"] == "NaN"
    with ResultsFolder.open(path, DIGEST) as third:
        assert third.warnings == []


def test_a_finished_trial_leaves_no_partial_curve(tmp_path: Path) -> None:
    """Oracle: the folder's listing before and after the record."""
    done = record()
    with ResultsFolder.open(tmp_path / "made", DIGEST) as store:
        store.start_session(session())
        store.append_partial(done["cell_id"], 1, 0, {"step": 0})
        assert len(list((tmp_path / "made/partial").iterdir())) == 1
        store.append(done)

    names = sorted(path.name for path in (tmp_path / "made").iterdir())
    assert names == ["lock", "records.jsonl", "sessions.jsonl"]


def test_a_session_gets_a_name_of_its_own_and_its_later_lines_fold_into_it(
    tmp_path: Path,
) -> None:
    """Oracle: two sessions of one second differ; ceilings stay in order; the end stands."""
    given = session()
    del given["session"]
    with ResultsFolder.open(tmp_path / "made", DIGEST) as store:
        names = [store.start_session(given), store.start_session(given)]
        for rate in (1e9, math.inf):
            store.append_session_event(ceiling(rate, name=names[0]))
        store.append_session_event({"kind": "end", "session": names[1], "counts": {"ok": 1}})
    first, second = read_folder(tmp_path / "made").sessions

    assert [first.session, second.session] == names
    assert len(set(names)) == 2
    rates = [one["values"]["matmul_flops_per_second"]["float32"] for one in first.ceilings]
    assert rates == [1e9, "inf"]
    assert (first.end, second.ceilings) == (None, ())
    assert second.end is not None
    assert second.end["counts"] == {"ok": 1}


def test_an_event_of_no_session_is_refused_on_reading(tmp_path: Path) -> None:
    """Oracle: the number of the line and the kinds that may stand there."""
    file = write(tmp_path / "made") / "sessions.jsonl"
    with file.open("a") as stream:
        stream.write(json.dumps(ceiling(name="nobody")) + "\n")

    with pytest.raises(UserError, match=r"sessions\.jsonl, line 3"):
        read_folder(tmp_path / "made")


def test_no_results_folder_is_told_with_the_nearest(tmp_path: Path) -> None:
    """Oracle: the folder beside it, one letter away; an empty folder, and one that is not there."""
    write(tmp_path / "made")
    (tmp_path / "made2").mkdir()

    with pytest.raises(UserError, match=r"made2 is no results folder.*made'\?"):
        read_folder(tmp_path / "made2")
    with pytest.raises(UserError, match=r"there is no file or folder \S+mode\. .*made'\?"):
        read_folder(tmp_path / "mode")
