"""A tail of a log that has to be looked at: what comes is given out, in order, and waited for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream_ml.records import Output
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.log.tail import PolledTail

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class _Time:
    """A clock that sleeping moves on; something may happen meanwhile."""

    seconds: float = 0.0
    slept: list[float] = field(default_factory=list)
    meanwhile: Callable[[], object] = lambda: None

    def now(self) -> float:
        return self.seconds

    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        self.slept.append(seconds)
        self.meanwhile()


def events(log: SqliteLog, *names: str) -> None:
    """Publish some."""
    log.append([Output("events", name.encode(), b"{}") for name in names])


def test_what_comes_is_waited_for() -> None:
    """A poll ends as soon as there is something; until then it looks less and less often."""
    with SqliteLog.create(MEMORY, partitions=2) as log:
        clock = _Time()
        tail = PolledTail(log, "events", {0: 0, 1: 0}, clock.now, clock.wait)
        clock.meanwhile = lambda: events(log, "a", "b") if len(clock.slept) == 3 else None

        assert {record.key for record in tail.poll(1.0)} == {b"a", b"b"}
        assert [0.005, 0.01, 0.02] == clock.slept
        assert tail.poll(0.0) == []


def test_a_poll_waits_no_longer_than_it_may() -> None:
    """Where nothing comes, nothing is given out, and the wait is what was asked for."""
    with SqliteLog.create(MEMORY) as log:
        clock = _Time()
        tail = PolledTail(log, "events", {0: 0}, clock.now, clock.wait)

        assert tail.poll(0.2) == []
        assert round(clock.seconds, 9) == 0.2
        assert max(clock.slept) <= 0.05


def test_records_of_all_partitions_come_as_they_were_taken_in() -> None:
    """Between partitions the log's clock tells what came first."""
    ticks = [0]

    def now_ms() -> int:
        ticks[0] += 1
        return ticks[0]

    with SqliteLog.create(MEMORY, partitions=2, now_ms=now_ms) as log:
        for name in ("JFK", "LGA", "EWR", "BOS", "SFO", "LAX"):
            events(log, name)
        tail = PolledTail(log, "events", {0: 0, 1: 0})

        keys = [record.key for record in tail.poll(0.0)]

    assert keys == [b"JFK", b"LGA", b"EWR", b"BOS", b"SFO", b"LAX"]


def test_a_tail_knows_what_it_has_reached() -> None:
    """It has reached the ends it is asked about once all before them was given out."""
    with SqliteLog.create(MEMORY) as log:
        events(log, "a", "b", "c")
        ends = {0: log.end_offset("events", 0)}
        tail = PolledTail(log, "events", {0: 1})

        assert not tail.has_reached(ends)
        assert len(tail.poll(0.0)) == 2
        assert tail.has_reached(ends)
