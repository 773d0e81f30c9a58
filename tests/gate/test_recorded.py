"""A gate over two recorded sets: a second pair of sessions confirms, or nothing does."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from recorded_sets import POLICY, write_policy, write_set
from scripted_duels import CELLS

from bertopt_bench.errors import UserError
from bertopt_bench.gate.running import Means, Request, run_gate
from bertopt_bench.stats.sets import compare_sets

if TYPE_CHECKING:
    from pathlib import Path


def gate(
    folder: Path,
    a: Path,
    b: Path,
    policy: str = POLICY,
    compare: Any = compare_sets,
    **request: Any,
) -> tuple[int, dict[str, Any]]:
    """Run the gate over two sets with the real comparison; no duel may be asked for."""
    written = folder / "gate.json"
    written.unlink(missing_ok=True)
    file = write_policy(folder, policy)
    means = Means(
        run_duel=None,  # type: ignore[arg-type]  # whoever asks for a duel fails
        compare=compare,
        write_page=lambda folders, page: page.write_text(str(folders)),
        environ={},
    )
    code = run_gate(Request(file, (a, b), json=written, **request), means)
    return code, json.loads(written.read_text()) if written.exists() else {}


@pytest.mark.parametrize(
    ("b", "outcome", "code", "strict"),
    [
        ((1.0, 1.0), "passed", 0, 0),
        ((1.05, 1.05), "regression", 1, 1),
        ((1.05, 1.0), "not_confirmed", 0, 0),
        ((1.05,), "unconfirmed", 0, 4),
        ((1.0, 1.05), "passed", 0, 0),
        ((0.95, 0.95), "passed", 0, 0),
        ((1.005, 1.005), "passed", 0, 0),
    ],
)
def test_two_pairs_of_sessions_confirm(
    tmp_path: Path, b: tuple[float, ...], outcome: str, code: int, strict: int
) -> None:
    """Bytes by a margin of 1 %. Oracle: by hand; pairs go by the order of the sessions."""
    old, new = write_set(tmp_path / "old", 1.0, 1.0), write_set(tmp_path / "new", *b)
    found, result = gate(tmp_path, old, new)

    assert found == code
    assert [row["outcome"] for row in result["rows"]] == [outcome]
    assert result["mode"] == "recorded"
    assert (result["subject"]["base"], result["subject"]["head"]) == ("old", "new")
    assert gate(tmp_path, old, new, strict=True)[0] == strict


@pytest.mark.parametrize("metric", ["peak_memory", "loss", "step_time"])
def test_equal_bytes_are_never_a_regression(tmp_path: Path, metric: str) -> None:
    """Oracle: a copy of the folder differs in nothing, in either order."""
    old = write_set(tmp_path / "old", 1.0, 1.0)
    new = shutil.copytree(old, tmp_path / "new")
    margin = "{ loss = 0.01 }" if metric == "loss" else '"1%"'
    policy = POLICY.replace('"peak_memory"', f'"{metric}"').replace('"1%"', margin)

    for a, b in ((old, new), (new, old)):
        code, result = gate(tmp_path, a, b, policy)
        assert code == 0
        assert {row["outcome"] for row in result["rows"]} <= {"passed", "inconclusive"}


def test_times_that_were_not_interleaved_are_refused(tmp_path: Path) -> None:
    """Oracle: the protocol's false-alarm machine: no verdict on absolute times of two sets."""
    old, new = write_set(tmp_path / "old", 1.0), write_set(tmp_path / "new", 1.0)
    code, result = gate(tmp_path, old, new, POLICY.replace('"peak_memory"', '"step_time"'))

    assert code == 3
    assert "same rounds" in result["rows"][0]["reason"]


@pytest.mark.parametrize(("differs", "code"), [("[]", 3), ('["torch"]', 0)])
def test_an_undeclared_difference_is_refused(tmp_path: Path, differs: str, code: int) -> None:
    """Oracle: torch differs, and the policy says so or does not."""
    old = write_set(tmp_path / "old", 1.0)
    new = write_set(tmp_path / "new", 1.0, versions={"torch": "2.14.0+cpu"})
    found, result = gate(tmp_path, old, new, POLICY.replace("[]", differs))

    assert found == code
    assert code == 0 or "torch" in result["rows"][0]["reason"]


def test_a_crash_in_the_second_pair_is_refused_and_in_the_first_never_a_regression(
    tmp_path: Path,
) -> None:
    """Oracle: an exception is 3, wherever it is raised."""
    old, new = write_set(tmp_path / "old", 1.0, 1.0), write_set(tmp_path / "new", 1.05, 1.05)
    calls = []

    def crashing(*sets: Any, **options: Any) -> Any:
        calls.append(sets)
        if len(calls) == worst:
            raise ZeroDivisionError("in the statistics")
        return compare_sets(*sets, **options)

    worst = 2
    code, result = gate(tmp_path, old, new, compare=crashing)
    assert code == 3
    assert "in the statistics" in result["rows"][0]["reason"]

    worst = 3
    assert gate(tmp_path, old, new, compare=crashing) == (3, {})


def test_what_asks_for_duels_and_what_cannot_be_compared_are_mistakes(tmp_path: Path) -> None:
    """Oracle: exit 2, with what to do."""
    old, new = write_set(tmp_path / "old", 1.0), write_set(tmp_path / "new", 1.0)
    other = write_set(tmp_path / "other", 1.0, cell=CELLS[1])

    with pytest.raises(UserError, match="--base asks for duels"):
        gate(tmp_path, old, new, base="main")
    with pytest.raises(UserError, match="no cell in common"):
        gate(tmp_path, old, other)
    with pytest.raises(UserError, match="is no results folder"):
        gate(tmp_path, old, tmp_path)


def test_a_page_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    """Oracle: the two sets' names in it."""
    old, new = write_set(tmp_path / "old", 1.0), write_set(tmp_path / "new", 1.0)

    assert gate(tmp_path, old, new)[1]["page"] is None
    gate(tmp_path, old, new, page=tmp_path / "page.html")
    assert "old" in (tmp_path / "page.html").read_text()
