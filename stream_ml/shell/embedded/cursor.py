"""What clients write, read ahead of the work: whose record is next is told by times alone."""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, Any

from stream_ml.errors import BadRecord, LogError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_ml.records import Record
    from stream_ml.shell.log.port import Session
    from stream_ml.stages.task import Task

__all__ = ["READ_RECORDS", "Cursor", "Head", "heads_of"]

READ_RECORDS = 2_000
# What the next record is picked by: its time, its topic's rank, its partition.
Head = tuple[int, int, int]
RANKS = {"commands": -1, "labels": 0, "events": 1}


class Cursor:
    """Reads one partition ahead, decoding as it goes; `next` is the offset of the next record.

    Args:
        session: the worker's hold on the log.
        topic: that clients write to.
        partition: of it.
        task: that works on it.
        parse: decodes a record.
    """

    __slots__ = (
        "_fetch_offset",
        "_parse",
        "_read",
        "_session",
        "next",
        "partition",
        "rank",
        "task",
        "topic",
    )

    def __init__(
        self,
        session: Session,
        topic: str,
        partition: int,
        task: Task,
        parse: Callable[[Record], Any],
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.rank = RANKS[topic]
        self.task = task
        self._session = session
        self._parse = parse
        self.next = self._fetch_offset = task.positions.get((topic, partition), 0)
        self._read: deque[tuple[int, Record]] = deque()

    def head(self) -> Head | None:
        """The key that the first unread record is picked by; None at the end of the partition."""
        if not self._read and not self._refill():
            return None
        return (self._read[0][0], self.rank, self.partition)

    def pop(self) -> Record:
        """The first unread record, which counts as read then."""
        record = self._read.popleft()[1]
        self.next = record.offset + 1
        return record

    def _refill(self) -> bool:
        records = self._session.read(self.topic, self.partition, self._fetch_offset, READ_RECORDS)
        for record in records:
            item = self._parse(record)
            # A bad record has no time of its own, and a command's is not event time: at once.
            at_once = self.topic == "commands" or isinstance(item, BadRecord)
            self._read.append((-1 if at_once else item.ts, record))
        if records:
            if records[0].offset > self._fetch_offset:
                raise LogError(
                    f"{self.topic}-{self.partition}: expected to go on from {self._fetch_offset}, "
                    f"given a partition that goes on at {records[0].offset}: records were removed "
                    "before they were read; started again, the worker counts and tells them"
                )
            self._fetch_offset = records[-1].offset + 1
        return bool(records)


def heads_of(cursors: Sequence[Cursor]) -> list[tuple[Head, int]]:
    """What there is to pick from, as a heap: keys, with the places of their cursors.

    Args:
        cursors: of all inputs.
    """
    heads = [(head, i) for i, cursor in enumerate(cursors) if (head := cursor.head())]
    heapq.heapify(heads)
    return heads
