"""Reading on as records come, from a log that cannot say when they do: it is looked at.

The log's version is asked, which costs microseconds: soon after there was something, then less and
less often, so that a busy stream is followed within milliseconds and an idle one costs next to
nothing.
"""

from __future__ import annotations

import heapq
import time
from typing import TYPE_CHECKING

from stream_ml.shell.log.port import Tail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_ml.records import Record
    from stream_ml.shell.log.port import Log

__all__ = ["Backoff", "PolledTail"]

WAIT_MIN_S = 0.005
WAIT_MAX_S = 0.05
READ_RECORDS = 1_000


class Backoff:
    """How long to wait until one looks again: short at first, twice as long each time.

    >>> backoff = Backoff()
    >>> [round(1000 * backoff.next()) for _ in range(6)]
    [5, 10, 20, 40, 50, 50]
    """

    def __init__(self) -> None:
        self._seconds = WAIT_MIN_S

    def next(self) -> float:
        """The next wait, in seconds."""
        wait_s, self._seconds = self._seconds, min(2 * self._seconds, WAIT_MAX_S)
        return wait_s

    def reset(self) -> None:
        """There was something: look again soon."""
        self._seconds = WAIT_MIN_S


class PolledTail(Tail):
    """A tail of any log that can be read.

    Args:
        log: looked at.
        topic: whose records.
        offsets: where to begin, by partition.
        clock: seconds, from any start.
        sleep: what to wait with.
    """

    def __init__(
        self,
        log: Log,
        topic: str,
        offsets: Mapping[int, int],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._log = log
        self._topic = topic
        self._offsets = dict(offsets)
        self._clock = clock
        self._sleep = sleep
        self._backoff = Backoff()

    def poll(self, wait_s: float) -> list[Record]:
        """What has come; see `log.port.Tail.poll`."""
        deadline = self._clock() + wait_s
        while True:
            version = self._log.version()
            records = self._read()
            left = deadline - self._clock()
            if records or left <= 0:
                return records
            while self._log.version() == version and left > 0:
                self._sleep(min(left, self._backoff.next()))
                left = deadline - self._clock()

    def has_reached(self, ends: Mapping[int, int]) -> bool:
        """Whether everything before `ends` was given out; see `log.port.Tail.has_reached`."""
        # What lies between the last record and the end was removed: nothing more can come of it.
        return all(
            self._offsets[partition] >= end
            or not self._log.read(self._topic, partition, self._offsets[partition], 1)
            for partition, end in ends.items()
        )

    def close(self) -> None:
        """Nothing is held."""

    def _read(self) -> list[Record]:
        read = [
            self._log.read(self._topic, p, offset, READ_RECORDS)
            for p, offset in self._offsets.items()
        ]
        for records in filter(None, read):
            self._offsets[records[0].partition] = records[-1].offset + 1
            self._backoff.reset()
        return list(heapq.merge(*read, key=lambda record: record.append_ms))
