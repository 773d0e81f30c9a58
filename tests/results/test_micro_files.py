"""pytest-benchmark's files: told by their content, read, and kept away from verdicts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from made_micro import document, row, written

from bertopt_bench.errors import UserError
from bertopt_bench.pipeline import compare_results, gate_policy, write_report
from bertopt_bench.results.micro import only_micro, read_micro, refuse_exploratory

if TYPE_CHECKING:
    from pathlib import Path


def test_a_row_says_what_was_called_and_how_long_a_call_took(tmp_path: Path) -> None:
    """Oracle: what was written."""
    file = read_micro(written(tmp_path / "a.json", row("flash", 2e-3, seq_len=128, host_us=5.0)))
    found = file.rows[0]

    assert (found.operation, found.implementation, found.n) == ("attention", "flash", 20)
    assert (found.median, found.q1, found.q3) == (2e-3, 2e-3 * 0.95, 2e-3 * 1.1)
    assert found.options["seq_len"] == 128
    assert found.numbers["host_us"] == 5.0
    assert found.numbers["share_of_ceiling"] == 0.25
    assert found.notes["kept"] == "the same buffers"
    assert not found.host_bound
    assert file.ceilings[0]["bandwidth_bytes_per_second"] == 2e10


def test_any_file_of_pytest_benchmarks_is_read(tmp_path: Path) -> None:
    """Oracle: a benchmark of another project has no extra_info, and a group or none."""
    plain = row("x", 1.0)
    plain |= {"extra_info": {}, "group": None, "params": None}
    found = read_micro(written(tmp_path / "a.json", plain)).rows[0]

    assert (found.operation, found.implementation) == ("other", plain["name"])
    assert found.options == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not json", "is no JSON"),
        ("[]", "none of pytest-benchmark's"),
        ('{"benchmarks": {}}', "none of pytest-benchmark's"),
        ('{"context": {}, "benchmarks": [{"name": "BM_x"}]}', "none of pytest-benchmark's"),
        (json.dumps(document()), "holds no benchmark"),
        (json.dumps(document({"name": "x"})), "benchmark 0 is damaged"),
        (json.dumps(document(row("x", 1.0, seq_len="long"))), "seq_len is 'long'"),
        (json.dumps(document(row("x", 1.0, seq_len=[1, 2]))), "benchmark 0 is damaged"),
        (json.dumps(document(row("x", 1.0, padding=-1))), "padding is -1"),
        (json.dumps(document(row("x", 1.0, dtype=16))), "dtype is 16"),
        (
            json.dumps({**document(row("x", 1.0)), "ceilings": [{"matmul_flops_per_second": 5}]}),
            "its ceilings are damaged",
        ),
    ],
)
def test_what_is_no_such_file_is_told(tmp_path: Path, text: str, said: str) -> None:
    """Oracle: the text names the file and what it should be."""
    file = tmp_path / "a.json"
    file.write_text(text)

    with pytest.raises(UserError, match=said) as caught:
        read_micro(file)
    assert "a.json" in str(caught.value)


@pytest.mark.parametrize("key", ["median", "q1"])
@pytest.mark.parametrize("value", ["fast", None, float("nan"), -1.0])
def test_a_row_without_seconds_is_damaged(tmp_path: Path, key: str, value: Any) -> None:
    """Oracle: seconds are finite and not negative."""
    bad = row("flash", 1.0)
    bad["stats"][key] = value
    file = tmp_path / "a.json"
    file.write_text(json.dumps(document(bad)))

    with pytest.raises(UserError, match="is damaged"):
        read_micro(file)


@pytest.mark.parametrize(("key", "value"), [("rounds", 0), ("q1", 2.0), ("q3", 0.5)])
def test_a_row_whose_numbers_cannot_be_is_damaged(tmp_path: Path, key: str, value: Any) -> None:
    """Oracle: a median of one lies between its quartiles, and is one of something."""
    bad = row("flash", 1.0)
    bad["stats"][key] = value

    with pytest.raises(UserError, match="is damaged"):
        read_micro(written(tmp_path / "a.json", bad))


def test_a_file_that_was_joined_from_two_sessions_is_refused(tmp_path: Path) -> None:
    """Oracle: by hand: the same case twice, whatever it took; other caches are another case."""
    rows = [row("flash", 1.0), row("math", 2.0), row("flash", 1.0, cache="cold")]
    assert len(read_micro(written(tmp_path / "a.json", *rows)).rows) == 3

    with pytest.raises(UserError, match=r"attention 'flash' twice .*joined from several sessions"):
        read_micro(written(tmp_path / "a.json", *rows, row("flash", 3.0)))


def test_another_suites_parameters_are_options_where_they_mean_the_same(tmp_path: Path) -> None:
    """Oracle: by hand: a number of slots is one, a word for it is not; rates are finite."""
    plain = [{**row("x", 1.0), "extra_info": {"error": float("nan")}} for _ in range(2)]
    plain[0] |= {"name": "short", "params": {"seq_len": 64, "dtype": "float32", "case": [1]}}
    plain[1] |= {"name": "long", "params": {"seq_len": "long", "cache": True}}
    first, second = read_micro(written(tmp_path / "a.json", *plain)).rows

    assert first.options == {"seq_len": 64, "dtype": "float32"}
    assert second.options == {}
    assert first.numbers == {}


def test_a_page_is_of_files_or_of_folders_and_never_of_both(tmp_path: Path) -> None:
    """Oracle: the text names one of each."""
    file, folder = written(tmp_path / "a.json", row("flash", 1.0)), tmp_path / "folder"
    folder.mkdir()

    assert only_micro([file, file])
    assert not only_micro([folder])
    with pytest.raises(UserError, match="one page shows either"):
        only_micro([folder, file])
    assert not only_micro([tmp_path / "nothing"])  # a folder that is missing is told as such


def test_a_missing_file_is_told_as_missing(tmp_path: Path) -> None:
    """Oracle: the name that came and the nearest; alone and beside a file that is there."""
    file = written(tmp_path / "micro.json", row("flash", 1.0))
    told = r"there is no file or folder \S+micra\.json\. Did you mean '\S+micro\.json'"

    for asked in ([tmp_path / "micra.json"], [file, tmp_path / "micra.json"]):
        with pytest.raises(UserError, match=told):
            write_report(asked, tmp_path / "page.html")
    with pytest.raises(UserError, match=r"folder \S+nope\.json\.$"):
        write_report([tmp_path / "nope.json"], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_file_named_twice_is_refused_as_a_folder_is(tmp_path: Path) -> None:
    """Oracle: one path written in two ways; a folder by itself and by its records."""
    file, folder = written(tmp_path / "micro.json", row("flash", 1.0)), tmp_path / "folder"
    folder.mkdir()

    for asked in (
        [file, tmp_path / "folder" / ".." / "micro.json"],
        [folder, folder / "records.jsonl"],
    ):
        with pytest.raises(UserError, match=r"named twice.*Name it once"):
            write_report(asked, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_neither_gate_nor_compare_takes_such_a_file(tmp_path: Path) -> None:
    """Oracle: exploratory, and the command that gives a verdict is named."""
    file = written(tmp_path / "a.json", row("flash", 1.0))
    (tmp_path / "policy.toml").write_text('matrix = "m.toml"\nmetric = "step_time"\n')

    for refused in (
        lambda: refuse_exploratory([file]),
        lambda: gate_policy(tmp_path / "policy.toml", (file, file)),
        lambda: gate_policy(file),
        lambda: compare_results(file, file),
    ):
        with pytest.raises(UserError, match="duel --micro"):
            refused()
    refuse_exploratory([tmp_path])
