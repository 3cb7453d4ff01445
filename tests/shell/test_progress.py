"""Progress: silent when short, one line on a terminal, few lines elsewhere."""

from __future__ import annotations

import io

import pytest

from stream_ml.shell.processes.progress import Progress, duration, with_progress


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """What it shows."""
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It does."""
        return True


def test_short_work_says_nothing() -> None:
    """What is done within two seconds is not worth a line."""
    for stream in (Terminal(), io.StringIO()):
        clock = Clock()
        with Progress("working", 100, stream=stream, clock=clock) as progress:
            clock.now += 1.9
            progress(100)

        assert stream.getvalue() == ""


def test_a_file_gets_a_line_every_five_seconds() -> None:
    """Elsewhere than on a terminal there is a plain line every five seconds, and one at the end."""
    stream, clock = io.StringIO(), Clock()
    with Progress("working", 2_000, stream=stream, clock=clock) as progress:
        for second in range(1, 13):
            clock.now += 1
            progress(100 * second)

    assert stream.getvalue().splitlines() == [
        "working: 25% of 2,000 records, 100/s, 15 s left",
        "working: 50% of 2,000 records, 100/s, 10 s left",
        "working: 1,200 records in 12 s, 100/s",
    ]


def test_a_terminal_has_one_line_drawn_over() -> None:
    """On a terminal the line is drawn over the one before, and ended at the end."""
    stream, clock = Terminal(), Clock()
    with Progress("working", 2_000, stream=stream, clock=clock) as progress:
        clock.now += 3
        progress(300)
        clock.now += 0.1
        progress(310)  # too soon to be drawn
        clock.now += 0.9
        progress(400)

    first = "working: 15% of 2,000 records, 100/s, 17 s left"
    second = "working: 20% of 2,000 records, 100/s, 16 s left"
    last = "working: 400 records in 4 s, 100/s"
    assert stream.getvalue() == f"\r{first}\r{second}\r{last:<{len(second)}}\n"


def test_an_error_begins_on_its_own_line() -> None:
    """Where work fails, the line is ended and no summary claims that it was done."""
    stream, clock = Terminal(), Clock()

    def fail() -> None:
        with Progress("working", 10, stream=stream, clock=clock) as progress:
            clock.now += 4
            progress(4)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()

    assert stream.getvalue() == "\rworking: 40% of 10 records, 1/s, 6 s left\n"


def test_without_a_total_there_is_no_time_left() -> None:
    """Where nobody knows how much there is, the count and the rate are shown."""
    stream, clock = io.StringIO(), Clock()
    with Progress("publishing", stream=stream, clock=clock) as progress:
        clock.now += 5
        progress(12_345)

    assert stream.getvalue().splitlines()[0] == "publishing: 12,345 records, 2,469/s"


def test_nothing_done_yet_is_no_division_by_zero() -> None:
    """Before the first record, and for work of no records, there is still a line."""
    stream, clock = io.StringIO(), Clock()
    for total, line in (
        (0, "working: 100% of 0 records, 0/s"),
        (9, "working: 0% of 9 records, 0/s"),
    ):
        with Progress("working", total, stream=stream, clock=clock) as progress:
            clock.now += 5
            progress(0)

        assert line in stream.getvalue().splitlines()


def test_watched_records_pass_unchanged() -> None:
    """What is watched comes through, and the progress knows how much that was."""
    progress = Progress("reading", stream=io.StringIO())

    assert list(with_progress(range(1_234), progress)) == list(range(1_234))
    assert progress.count == 1_234


def test_durations_carry_over() -> None:
    """A rounding never shows sixty of anything."""
    assert [duration(s) for s in (0, 59.9, 119.7, 3_599.9, 86_399.6)] == [
        "0.0 s",
        "1 min",
        "2 min",
        "1 h",
        "1 d",
    ]
