"""A zygote and its children, with a worker that misbehaves on purpose."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bertopt_bench.dispatch.local import Zygote

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    before = Path.cwd()
    os.chdir(Path(__file__).parent)  # a user's module is found in the working directory
    try:
        with Zygote(threads=1, worker="scripted_worker") as started:
            yield started
    finally:
        os.chdir(before)


def test_a_request_reaches_the_child_and_its_answer_comes_back(zygote: Zygote) -> None:
    """Oracle: the request itself, also one far larger than a socket's buffer."""
    text = "x" * 3_000_000
    outcome = zygote.run("answer", {"text": text}, timeout_seconds=60)

    assert outcome.final is not None
    assert outcome.final["request"]["text"] == text
    assert outcome.exit_code == 0
    assert [seen["step"] for seen in outcome.evaluations] == [0]


def test_the_zygote_has_imported_torch_and_has_one_thread(zygote: Zygote) -> None:
    """Oracle: /proc's count of threads; a thread made before a fork would be lost in the child."""
    outcome = zygote.run("answer", {}, timeout_seconds=60)

    assert zygote.description["threads"] == 1
    assert outcome.final is not None
    assert outcome.final["threads"] == 1


def test_a_child_killed_by_a_signal_gives_the_signal_and_its_last_words(zygote: Zygote) -> None:
    """Oracle: the signal number that waitpid reports, and what was printed."""
    outcome = zygote.run("segfault", {}, timeout_seconds=60)

    assert outcome.exit_code == -11
    assert "last words" in outcome.stderr_tail


@pytest.mark.parametrize(("task", "code"), [("exit", 5), ("raise", 1)])
def test_a_child_that_leaves_without_a_result_gives_its_exit_code(
    zygote: Zygote, task: str, code: int
) -> None:
    """Oracle: the code that the worker exits with; 1 for an exception that escaped."""
    outcome = zygote.run(task, {}, timeout_seconds=60)

    assert (outcome.exit_code, outcome.final) == (code, None)


def test_a_child_over_its_limit_is_killed_and_the_next_one_runs(zygote: Zygote) -> None:
    """Oracle: the outcome's own flag, and a working zygote afterwards."""
    outcome = zygote.run("hang", {}, timeout_seconds=0.01)

    assert outcome.timed_out
    assert outcome.exit_code == -9
    assert zygote.run("answer", {}, timeout_seconds=60).exit_code == 0


def test_a_zygote_that_dies_takes_its_child_along_and_is_started_anew(zygote: Zygote) -> None:
    """Oracle: the channel's end; a child that lived on would hold it open until the limit."""
    outcome = zygote.run("kill_zygote", {}, timeout_seconds=60)

    assert outcome.exit_code is None
    assert not outcome.timed_out
    assert zygote.run("answer", {}, timeout_seconds=60).exit_code == 0


def test_each_zygote_has_its_own_hash_seed_and_environment_size() -> None:
    """Oracle: two drawings from 2**32 seeds differ but for one case in four thousand million."""
    first, second = Zygote(), Zygote()

    assert first.environment["PYTHONHASHSEED"] != second.environment["PYTHONHASHSEED"]


def test_the_counter_is_read_while_the_child_runs(zygote: Zygote) -> None:
    """Oracle: a hanging child lets at least one tick pass before its limit."""
    ticks: list[int] = []
    zygote.run("hang", {}, timeout_seconds=1.5, tick=ticks.append)

    assert ticks
