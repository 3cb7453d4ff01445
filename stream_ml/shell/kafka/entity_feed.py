"""Follows what all predict tasks tell each other about entities (`entities`).

Every predict worker reads the topic whole, without a group: at a start from where an event of the
windows can lie, then as it grows.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_ml.errors import BadRecord
from stream_ml.shell.kafka.security import async_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ml.sealing import RecordSeal
    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.stages.entity_windows import EntityWindows

__all__ = ["EntityFeed"]

POLL_MS = 500
FETCH_BYTES = 4 << 20
# The newest facts of all partitions are looked for among so many records.
TAIL_RECORDS = 2_000


class EntityFeed:
    """Feeds the windows of entities for the life of a worker, on the loop that `start` ran on.

    Args:
        cluster: the pipeline's place.
        windows: what the tasks ask.
        reach_ms: how much older than the time that is asked about a fact's record may be.
        seal: what facts must be sealed with.
        say: told what happens, as a kind and members.
        on_progress: called when the windows have come further.
    """

    def __init__(
        self,
        cluster: Cluster,
        windows: EntityWindows,
        *,
        reach_ms: int,
        seal: RecordSeal,
        say: Callable[..., None],
        on_progress: Callable[[], None],
    ) -> None:
        self.windows, self._reach_ms = windows, reach_ms
        self._seal, self._say, self._on_progress = seal, say, on_progress
        self._tp = TopicPartition(cluster.topic("entities"), 0)
        self._options = {"bootstrap_servers": cluster.bootstrap, **async_options(cluster.security)}
        self._consumer = AIOKafkaConsumer(
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=POLL_MS,
            **self._options,
        )
        self._has_refused = False
        self._progress = asyncio.Condition()

    async def start(self) -> None:
        """Read what is there by now, from where an event of the windows can lie."""
        await self._consumer.start()
        self._consumer.assign([self._tp])
        end = await self._end()
        self._consumer.seek(self._tp, await self._first(end))
        while await self._consumer.position(self._tp) < end:
            await self._poll(self.windows)

    async def _first(self, end: int) -> int:
        """From where to read: the newest facts of each partition say what is still asked about.

        Where some have told nothing for long, all is read.
        """
        consumer, tp = self._consumer, self._tp
        first = int((await consumer.beginning_offsets([tp]))[tp])
        if end - TAIL_RECORDS <= first:
            return first
        consumer.seek(tp, end - TAIL_RECORDS)
        tail = self.windows.fresh()
        while await consumer.position(tp) < end:
            await self._poll(tail)
        # No fact lies on the log before its event, whose time is at most `skew` ahead.
        needed_ms = tail.oldest_question_ms - self._reach_ms
        if needed_ms <= 0:
            return first
        found = (await consumer.offsets_for_times({tp: needed_ms}))[tp]
        return first if found is None else int(found.offset)

    async def follow(self) -> None:
        """Go on reading, until cancelled."""
        while True:
            if await self._poll(self.windows):
                self._on_progress()
            async with self._progress:
                self._progress.notify_all()

    async def caught_up(self) -> None:
        """Wait until all has been read that is there now, what is about to be committed as well."""
        end = await self._end()
        async with self._progress:
            while await self._consumer.position(self._tp) < end:
                await self._progress.wait()

    async def stop(self) -> None:
        """Close the connection."""
        await self._consumer.stop()

    async def _end(self) -> int:
        """The end of all that was written, be it committed or (a moment longer) open."""
        consumer = AIOKafkaConsumer(
            isolation_level="read_uncommitted", enable_auto_commit=False, **self._options
        )
        try:
            await consumer.start()
            return int((await consumer.end_offsets([self._tp]))[self._tp])
        finally:
            await consumer.stop()

    async def _poll(self, windows: EntityWindows) -> bool:
        """Have windows take what has come; whether they have come further."""
        batches = await self._consumer.getmany(timeout_ms=POLL_MS)
        has_risen = False
        for message in batches.get(self._tp, ()):
            try:
                has_risen |= windows.read(self._seal.unseal(message.value))
            except BadRecord as error:
                # Nobody else is to write here: what somebody did is said once, and passed over.
                if not self._has_refused:
                    place = {"topic": self._tp.topic, "offset": message.offset}
                    self._say("refused", **place, why=str(error))
                self._has_refused = True
        return has_risen
