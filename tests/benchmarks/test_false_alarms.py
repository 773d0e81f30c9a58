"""False alarms of other tools: that their own code is asked, and what it answers to drift."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING

import false_alarms as peers
import pytest
from drifting_machine import write_duels
from scipy.stats import mannwhitneyu, ttest_ind

from bertopt_bench.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

needs_peers = pytest.mark.skipif(
    not all(tool.is_here for tool in peers.TOOLS), reason=f"a tool is missing: {peers.INSTALL}"
)


def drawn(seed: int, mean: float = 0.05, processes: int = 3, steps: int = 20) -> peers.Steps:
    """Draw an arm's independent step times, 3 % spread."""
    draw = random.Random(seed)
    return tuple(
        tuple(draw.gauss(mean, 0.03 * mean) for _ in range(steps)) for _ in range(processes)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_duels(
        tmp_path_factory.mktemp("duels") / "calibration", seed=7, sessions=16, steps=6, rounds=4
    )


@pytest.mark.parametrize("tool", peers.TOOLS, ids=lambda tool: tool.title)
def test_a_tool_sees_what_is_there_and_nothing_else(tool: peers.Tool) -> None:
    """Oracle: the same numbers twice differ by nothing; half as much again is no matter of luck."""
    if not tool.is_here:
        pytest.skip(peers.INSTALL)
    same, slower = drawn(1), drawn(2, mean=0.075)

    assert not tool.alarms(peers.Sides(same, same))
    assert tool.alarms(peers.Sides(same, slower))
    assert tool.alarms(peers.Sides(slower, same)) == (tool.package != "pytest-benchmark")


SHIFTS = (0.05, 0.0505, 0.051, 0.0515, 0.052, 0.053, 0.054, 0.055, 0.056, 0.058)


@pytest.mark.parametrize("mean", SHIFTS)
def test_asv_is_asked_as_it_is(mean: float) -> None:
    """Oracle: scipy's Mann-Whitney at asv's 0.002, and the ratio of medians."""
    pytest.importorskip("asv", reason=peers.INSTALL)
    sides = peers.Sides(drawn(3), drawn(4, mean))
    baseline, control = map(peers.pooled, (sides.baseline, sides.control))
    differs = mannwhitneyu(baseline, control, use_continuity=False).pvalue < 0.002
    ratio = statistics.median(control) / statistics.median(baseline)

    assert peers.asv_without_factor(sides) == differs
    assert peers.asv(sides) == (differs and not 1 / 1.1 <= ratio <= 1.1)


@pytest.mark.parametrize("mean", SHIFTS)
def test_pytest_benchmark_is_asked_as_it_is(mean: float) -> None:
    """Oracle: the ratio of means, by hand."""
    sides = peers.Sides(drawn(3), drawn(4, mean))
    means = [statistics.fmean(peers.pooled(side)) for side in (sides.baseline, sides.control)]

    assert peers.pytest_benchmark(sides) == (means[1] / means[0] > 1.05)


@pytest.mark.parametrize("mean", SHIFTS[:5])
def test_pyperf_is_asked_as_it_is(mean: float) -> None:
    """Oracle: Student's t-test at 0.05 by scipy."""
    pytest.importorskip("pyperf", reason=peers.INSTALL)
    sides = peers.Sides(drawn(3), drawn(4, mean))
    samples = [peers.pooled(side) for side in (sides.baseline, sides.control)]

    assert peers.pyperf(sides) == (ttest_ind(*samples).pvalue < 0.05)


@pytest.mark.parametrize("mean", [SHIFTS[0], SHIFTS[4]])
def test_pyperf_says_what_its_command_says(tmp_path: Path, mean: float) -> None:
    """Oracle: ``pyperf compare_to`` on two files of the same values."""
    pytest.importorskip("pyperf", reason=peers.INSTALL)
    sides = peers.Sides(drawn(3), drawn(4, mean))
    files = [str(tmp_path / name) for name in ("baseline.json", "control.json")]
    for file, side in zip(files, (sides.baseline, sides.control), strict=True):
        peers.pyperf_benchmark(side).dump(file)
    command = [sys.executable, "-m", "pyperf", "compare_to", "--verbose", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert ("Significant" in done.stdout) == peers.pyperf(sides)
    assert ("Not significant!" in done.stdout) != peers.pyperf(sides)


def test_pyperf_is_given_equal_numbers() -> None:
    """Oracle: with one step more on a side its test raises and it says significant unasked."""
    pyperf = pytest.importorskip("pyperf._compare", reason=peers.INSTALL)
    same = drawn(1)
    longer = (*same[:-1], (*same[-1], 0.05))
    benchmarks = [peers.pyperf_benchmark(side) for side in (same, longer)]

    assert pyperf.is_significant_benchs(*benchmarks) == (True, None)
    assert not peers.pyperf(peers.Sides(same, longer))
    assert peers.cut_to_equal(peers.Sides(same, longer)).control == same


def test_one_then_the_other_takes_each_half_once() -> None:
    """Oracle: five processes numbered by hand; the middle one of an odd number is left out."""
    baseline, control = (tuple((float(n + side),) for n in range(5)) for side in (0, 100))
    sides = peers.Pair("s", peers.Sides(baseline, control), ()).one_then_the_other()

    assert peers.pooled(sides.baseline) == [0.0, 1.0]
    assert peers.pooled(sides.control) == [103.0, 104.0]


def test_pairs_are_read_in_the_order_of_time(folder: Path) -> None:
    """Oracle: the lines of the file, read by json."""
    lines = [json.loads(line) for line in (folder / "replicates.jsonl").read_text().splitlines()]
    (first, *_), read = lines, peers.read_pairs(str(folder))
    expected = [
        seconds
        for block in first["blocks"]
        if block["arm"] == "A/A"
        for seconds in block["step_seconds"]
    ]

    assert len(read) == 16
    assert list(read[0].sides.control[0]) == expected
    assert {len(pair.differences) for pair in read} == {12}


@needs_peers
def test_drift_makes_others_cry_wolf_and_not_us(folder: Path) -> None:
    """Both arms are the same code, so each alarm is false.

    Oracle: the binomial law. More than 2 alarms of 16 have a chance below 0.001 at the 0.01 that is
    stated (asv states 0.002), more than 5 at pyperf's 0.05. pytest-benchmark states none.
    """
    pairs = peers.read_pairs(str(folder))
    apart = [pair.one_then_the_other() for pair in pairs]
    alarms = {tool.title: sum(map(tool.alarms, apart)) for tool in peers.TOOLS}

    assert sum(peers.judged(pair) in {"slower", "faster"} for pair in pairs) <= 2
    for title, count in alarms.items():
        if "asv" not in title or "--factor 1" in title:  # asv asks for 10 % by default
            assert count > 2, title
        if "asv" not in title and "pytest" not in title:
            assert count > 5, title


def test_the_table_counts_beside_each_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the rows asked for; a tool that is not installed is skipped with the command."""
    absent = peers.Tool("not-installed-here", "", "nothing", peers.welch)
    monkeypatch.setattr(peers, "TOOLS", (*peers.TOOLS[-2:], absent))
    pairs = peers.read_pairs(str(folder))
    table = peers.rows(pairs)
    text = peers.written(table, markdown=True).splitlines()

    assert [row[0].split()[0] for row in table] == [
        "bertopt-bench", "scipy", "scipy", "not-installed-here",
    ]  # fmt: skip
    assert table[0][3] == "refuses"
    assert all(" of 16 (" in row[2] for row in table[:3])
    assert table[3][2] == f"skipped: {peers.INSTALL}"
    assert len(text) == 6
    assert {line.count("|") for line in text} == {5}
    assert len({len(line) for line in text}) == 1
    assert "16 A/A pairs" in peers.described(pairs)


def test_a_real_difference_is_found_by_our_judge(tmp_path: Path) -> None:
    """Oracle: a control that is 5 % slower by construction, in every session."""
    path = write_duels(tmp_path / "slower", seed=3, sessions=4, slower=0.05, rounds=4, steps=6)

    assert {peers.judged(pair) for pair in peers.read_pairs(str(path))} == {"slower"}


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    """Oracle: what to do stands in the text."""
    path = write_duels(tmp_path / "one", seed=1, sessions=1, replicates=1)

    with pytest.raises(UserError, match="bertopt-bench calibrate"):
        peers.read_pairs(str(path))
