"""Streams of server-sent events over a topic: each at its reader's own pace, resumed at will.

A topic is read once for all streams, into a ring of its last records. A stream keeps its own place,
the next offset of each partition, and takes from the ring what lies there; what is older it reads
from the log, in pieces. So a stream that starts far back, or whose reader is slow, holds up nobody:
it is fed when it can take more, and is ended when its reader takes nothing for a while.

The `id` of each event is that place after it, `123.45.0` for three partitions: a browser sends the
last one back when it connects again (`Last-Event-ID`), and misses nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from stream_ml.errors import StreamMLError
from stream_ml.shell.log.port import read_between
from stream_ml.web.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

    from stream_ml.records import Record
    from stream_ml.shell.log.port import Log
    from stream_ml.web.log_threads import LogPool

__all__ = ["EventStream", "Feed", "feed_messages", "parse_position"]

RING_RECORDS = 5_000
# Read from the log, and sent, in one go.
CHUNK = 500
HEARTBEAT_S = 15.0
# A reader that takes nothing for so long is gone.
SEND_S = 30.0
_POSITION = re.compile(r"\d{1,16}(\.\d{1,16})*", re.ASCII)


class Feed:
    """The last records of a topic, and what waits for the next. To be used in the event loop.

    Args:
        topic: which one.
        pool: reads from the log what is no longer here.
    """

    def __init__(self, topic: str, pool: LogPool) -> None:
        self.topic = topic
        self._pool = pool
        self._ring: deque[Record] = deque()
        # How many records have left the ring.
        self._gone = 0
        # The next offsets, by partition, after what has left the ring, and after all there is.
        self._start: dict[int, int] = {}
        self._end: dict[int, int] = {}
        self._news = asyncio.Event()

    def begin(self, offsets: dict[int, int]) -> None:
        """Take in where the records that come begin.

        Args:
            offsets: by partition.
        """
        self._start, self._end = dict(offsets), dict(offsets)

    def add(self, records: Sequence[Record]) -> None:
        """Take in what has come.

        Args:
            records: in their order.
        """
        ring = self._ring
        for record in records:
            ring.append(record)
            self._end[record.partition] = record.offset + 1
        while len(ring) > RING_RECORDS:
            record = ring.popleft()
            self._start[record.partition] = record.offset + 1
            self._gone += 1
        news, self._news = self._news, asyncio.Event()
        news.set()

    @property
    def end(self) -> list[int]:
        """The place after all there is: the next offset of each partition."""
        return [self._end[partition] for partition in sorted(self._end)]

    async def beginning(self) -> list[int]:
        """The place before all that retention has left."""
        topic, partitions = self.topic, sorted(self._end)
        return await self._pool.run(lambda log: [log.first_offset(topic, p) for p in partitions])

    async def batches(self, place: list[int]) -> AsyncIterator[list[Record]]:
        """The records from a place on, as they come; an empty batch where none came for a while.

        Args:
            place: the next offset of each partition; it goes on with what is given out.
        """
        while True:
            async for records in self._older(place):
                yield records
            number = self._gone
            while number >= self._gone:
                records = self._newer(number)
                number += len(records)
                records = [r for r in records if r.offset >= place[r.partition]]
                for record in records:
                    place[record.partition] = record.offset + 1
                if records:
                    yield records
                elif number >= self._gone + len(self._ring) and not await self._has_news():
                    yield []

    def _newer(self, number: int) -> list[Record]:
        """Of the ring, up to a piece from the record of a number on."""
        first = number - self._gone
        return [self._ring[i] for i in range(first, min(first + CHUNK, len(self._ring)))]

    async def _older(self, place: list[int]) -> AsyncIterator[list[Record]]:
        """What lies before the ring, read from the log until the place is in it."""
        while True:
            behind = [p for p, offset in enumerate(place) if offset < self._start.get(p, 0)]
            if not behind:
                return
            partition = behind[0]
            start, end = place[partition], self._start[partition]
            records = await self._pool.run(partial(_piece, self.topic, partition, start, end))
            # Where there is nothing, retention or compaction has removed it.
            place[partition] = records[-1].offset + 1 if records else end
            if records:
                yield records

    async def _has_news(self) -> bool:
        """Wait until something has come, but not for long."""
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await self._news.wait()
        except TimeoutError:
            return False
        return True


def _piece(topic: str, partition: int, start: int, end: int, log: Log) -> list[Record]:
    records = []
    for record in read_between(log, topic, partition, start, end):
        records.append(record)
        if len(records) >= CHUNK:
            break
    return records


def parse_position(text: str, partitions: int) -> list[int]:
    """The place that an id names.

    >>> parse_position("12.0", 2)
    [12, 0]

    Args:
        text: as events have it.
        partitions: how many the topic has.

    Raises:
        Refusal: it is no place of this topic.
    """
    if _POSITION.fullmatch(text):
        place = [int(part) for part in text.split(".")]
        if len(place) == partitions:
            return place
    raise Refusal(
        400,
        f"expected the id of an event of this stream, {partitions} offsets with points between, "
        f"given {text[:100]!r}",
        "position",
    )


class EventStream(Response):
    """An answer of server-sent events that ends with its reader, or with the server.

    Args:
        messages: to send, the first at once.
        closing: set when the server ends.
        on_end: called when the stream has ended.
    """

    def __init__(
        self,
        messages: AsyncGenerator[bytes],
        *,
        closing: asyncio.Event,
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(media_type="text/event-stream")
        self._messages = messages
        self._closing = closing
        self._on_end = on_end

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send what comes, until the reader leaves or takes nothing any more."""
        del scope
        tasks = [
            asyncio.create_task(self._send_all(send)),
            asyncio.create_task(_until_gone(receive)),
            asyncio.create_task(self._closing.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            try:
                for task in tasks:
                    task.cancel()
                # Where the log cannot be read the stream ends, and its reader comes again.
                with suppress(
                    asyncio.CancelledError, TimeoutError, OSError, StreamMLError, Refusal
                ):
                    await tasks[0]
            finally:
                self._on_end()
        if self._closing.is_set():
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(1):
                    await send({"type": "http.response.body", "body": b""})

    async def _send_all(self, send: Any) -> None:
        # Nobody knows how long it will be.
        headers = [(name, v) for name, v in self.raw_headers if name != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with aclosing(self._messages):
            async for message in self._messages:
                async with asyncio.timeout(SEND_S):
                    await send({"type": "http.response.body", "body": message, "more_body": True})


async def _until_gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def feed_messages(
    feed: Feed,
    place: list[int],
    render: Callable[[Record], list[bytes]],
    name: str,
    ready: Callable[[], Awaitable[None]] | None = None,
) -> AsyncGenerator[bytes]:
    """The records of a feed as server-sent events.

    Args:
        feed: whose records.
        place: where to begin.
        render: the JSON of each event that a record has, none of one that is not ours.
        name: what the events are called.
        ready: waits until records can be rendered; None where they can.
    """
    yield b": the log goes on from here\n\n"
    async for records in feed.batches(place):
        if not records:
            yield b": still here\n\n"
            continue
        if ready is not None:
            await ready()
        if body := _events(records, place, render, name):
            yield body


def _events(
    records: Sequence[Record],
    end: Sequence[int],
    render: Callable[[Record], list[bytes]],
    name: str,
) -> bytes:
    """The events of a batch; each has the place after it as its id."""
    place = list(end)
    # Back to before the batch, for the ids in it.
    for record in reversed(records):
        place[record.partition] = record.offset
    parts = []
    for record in records:
        place[record.partition] = record.offset + 1
        position = ".".join(map(str, place))
        parts += [
            f"id: {position}\nevent: {name}\ndata: ".encode() + data + b"\n\n"
            for data in render(record)
        ]
    return b"".join(parts)
