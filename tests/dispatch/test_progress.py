"""What a run shows, on a terminal and in a log."""

from __future__ import annotations

import io

from bertopt_bench.dispatch.progress import LiveDisplay, PlainDisplay, format_seconds, open_display


def test_no_terminal_gets_plain_lines_one_a_trial() -> None:
    """Oracle: the lines written out by hand; no escape sequence among them."""
    stream = io.StringIO()
    with open_display(stream) as display:
        display.begin(2, 2, "adamw", 10)
        display.tick(5)
        display.end("ok", ", held-out loss 5.0000")

    assert isinstance(display, PlainDisplay)
    assert stream.getvalue() == "[2/2] adamw: ok, held-out loss 5.0000\n"


def test_a_label_with_markup_is_shown_as_it_is() -> None:
    """Oracle: the label itself; a user's path may hold brackets."""
    stream = io.StringIO()
    with LiveDisplay(stream) as display:
        display.begin(1, 1, "corpus [red]x", 10)
        display.end("failed", ": why [bold]")

    assert "corpus [red]x: failed: why [bold]" in stream.getvalue()


def test_after_the_last_trial_no_time_is_left() -> None:
    """Oracle: the bar's own note, which is empty once every trial is done."""
    with LiveDisplay(io.StringIO()) as display:
        for number in (1, 2):
            display.begin(number, 2, "adamw", 10)
            display.tick(10)
            display.end("ok", "")
        assert display.progress.tasks[0].fields["note"] == ""
        assert display.progress.tasks[0].completed == 2


def test_durations_are_said_as_a_person_says_them() -> None:
    """Oracle: hand-written."""
    assert [format_seconds(s) for s in (3.2, 75, 3700)] == ["3 s", "1 min 15 s", "1 h 01 min"]
