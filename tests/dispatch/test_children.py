"""Children that take commands: several alive at once, and every way in which one can fall."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bertopt_bench.dispatch.channel import LineReader, send
from bertopt_bench.dispatch.local import Zygote
from bertopt_bench.dispatch.outcomes import ending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bertopt_bench.dispatch.children import Child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="children die with their parent")
LONG = 60.0


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    before = Path.cwd()
    os.chdir(Path(__file__).parent)  # a user's module is found in the working directory
    try:
        with Zygote(threads=1, worker="talking_worker") as started:
            yield started
    finally:
        os.chdir(before)


@pytest.fixture
def fork(zygote: Zygote) -> Iterator[Callable[[], Child]]:
    """Fork children that are closed at the end, and hear who they are."""
    with ExitStack() as stack:

        def one() -> Child:
            child = zygote.fork("talk", {})
            stack.callback(child.close)
            assert child.hear(LONG) is not None
            return child

        yield one


def gone(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_several_children_live_at_once_and_each_hears_its_own(fork: Callable[[], Child]) -> None:
    """Oracle: four processes, four answers, each to its own question in whatever order."""
    children = [fork() for _ in range(4)]

    assert len({child.pid for child in children}) == 4
    for turn in (children, children[::-1], children[1:3]):
        for child in turn:
            answer = child.ask({"do": "echo", "text": str(child.pid)}, LONG)
            assert answer is not None
            assert answer["text"] == str(child.pid)
    answers = [child.ask({"do": "echo"}, LONG) for child in children]
    assert [answer and answer["count"] for answer in answers] == [3, 4, 4, 3]


def test_an_answer_larger_than_any_buffer_comes_whole(fork: Callable[[], Child]) -> None:
    """Oracle: the text itself."""
    text = "x" * 3_000_000
    answer = fork().ask({"do": "echo", "text": text}, LONG)

    assert answer is not None
    assert answer["text"] == text


def test_a_child_that_dies_is_told_by_its_exit_and_the_others_live_on(
    fork: Callable[[], Child],
) -> None:
    """Oracle: the code that it exits with; asked again it is still dead, and nothing hangs."""
    dying, living = fork(), fork()

    assert dying.ask({"do": "die"}, LONG) is None
    assert dying.outcome.exit_code == 9
    assert dying.ask({"do": "echo"}, LONG) is None
    assert ending(dying.outcome, LONG)["status"] == "failed"
    assert "exited with 9" in ending(dying.outcome, LONG)["reason"]
    assert living.ask({"do": "echo"}, LONG) is not None


def test_a_child_that_is_killed_between_two_commands_is_told(fork: Callable[[], Child]) -> None:
    """Oracle: the signal's number."""
    child = fork()
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)

    assert child.ask({"do": "echo"}, LONG) is None
    assert child.outcome.exit_code == -signal.SIGKILL
    assert "SIGKILL" in ending(child.outcome, LONG)["reason"]


def test_a_child_that_raises_leaves_its_last_words(fork: Callable[[], Child]) -> None:
    """Oracle: exit code 1 for an exception that escaped, and what it printed."""
    child = fork()

    assert child.ask({"do": "raise"}, LONG) is None
    assert child.outcome.exit_code == 1
    assert "not a word of it" in child.outcome.stderr_tail


def test_a_failure_is_heard_and_ends_the_child(fork: Callable[[], Child]) -> None:
    """Oracle: the child's own reason; no process is left."""
    child = fork()

    assert child.ask({"do": "fail"}, LONG) is None
    assert ending(child.outcome, LONG) == {"status": "failed", "reason": "it was asked to"}
    assert gone(child.pid)


def test_a_child_over_its_limit_is_killed_and_the_others_live_on(
    fork: Callable[[], Child],
) -> None:
    """Oracle: the outcome's flag, the signal; the other child's answer."""
    hanging, living = fork(), fork()

    assert hanging.ask({"do": "hang"}, 0.05) is None
    assert hanging.outcome.timed_out
    assert hanging.outcome.exit_code == -signal.SIGKILL
    assert ending(hanging.outcome, 0.05)["status"] == "timed_out"
    assert living.ask({"do": "echo"}, LONG) is not None


def test_closing_kills_and_reaps_and_may_be_done_twice(fork: Callable[[], Child]) -> None:
    """Oracle: the kernel knows the number no more: not even a zombie is left."""
    children = [fork(), fork()]
    for child in children:
        child.close()
        child.kill()
        child.close()

    assert all(gone(child.pid) for child in children)


def test_a_zygote_that_dies_takes_every_child_along(
    fork: Callable[[], Child], zygote: Zygote
) -> None:
    """Oracle: channels that close; the parent's death is the reason that is told."""
    killer, idle = fork(), fork()

    assert killer.ask({"do": "kill_parent"}, LONG) is None
    assert idle.ask({"do": "echo"}, LONG) is None
    for child in (killer, idle):
        assert not child.outcome.timed_out
        assert child.outcome.exit_code is None
        assert "preloaded parent" in ending(child.outcome, LONG)["reason"]
    assert fork().ask({"do": "echo"}, LONG) is not None  # a new parent was started


def test_an_orphan_is_nothing_to_a_parent_started_in_its_place(
    fork: Callable[[], Child], zygote: Zygote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the numbers that are signalled: an orphan's may by now be anybody's."""
    orphan = fork()
    assert zygote.process is not None
    zygote.process.kill()
    zygote.process.wait()
    heir = fork()
    signalled: list[Any] = []
    monkeypatch.setattr(os, "kill", lambda *of: signalled.append(of))
    orphan.kill()
    orphan.close()
    monkeypatch.undo()

    assert signalled == []
    assert orphan.outcome.exit_code is None
    answer = heir.ask({"do": "echo"}, LONG)  # the new parent was not asked to reap a stranger
    assert answer is not None
    assert zygote.alive()


def test_messages_are_cut_where_lines_end_however_they_arrive() -> None:
    """Oracle: the messages as they were sent, whole or byte by byte."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        messages: list[dict[str, Any]] = [{"a": 1}, {"text": "two\nlines"}, {"n": [1.5, None]}]
        for message in messages:
            send(theirs, message)
        reader = LineReader(ours)
        assert reader.next() == messages[0]
        assert [reader.next(), reader.next()] == messages[1:]
        for byte in b'{"b": 2}\n{"c"':
            theirs.sendall(bytes([byte]))
            if byte == ord("2"):
                assert reader.read() == []
        assert reader.next() == {"b": 2}
        theirs.close()
        assert reader.next() is None  # a torn last message is none
        assert reader.ended
