"""Reads again what a partition had before, for a line that was declared on a running log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiokafka import TopicPartition
    from aiokafka.structs import ConsumerRecord

__all__ = ["BacklogReader"]

POLL_MS = 500
FETCH_BYTES = 4 << 20
# So many records at a time: others wait for the teaching of no more.
RECORDS = 256


class BacklogReader:
    """A consumer of its own, which is connected when it is first needed.

    Args:
        tp: what is read.
        options: how to connect.
    """

    def __init__(self, tp: TopicPartition, options: Mapping[str, Any]) -> None:
        self._tp = tp
        self._options = options
        self._consumer: AIOKafkaConsumer | None = None

    async def read(self, offset: int, end: int) -> list[ConsumerRecord[Any, Any]]:
        """The next records from an offset on, of those before an end; none if there are none left.

        Args:
            offset: of the first one; what retention has taken is passed over.
            end: one past the offset of the last one, which is committed.
        """
        tp, consumer = self._tp, await self._connected()
        first = (await consumer.beginning_offsets([tp]))[tp]
        if await consumer.position(tp) != max(first, offset):
            consumer.seek(tp, max(first, offset))
        while await consumer.position(tp) < end:
            batches = await consumer.getmany(tp, timeout_ms=POLL_MS, max_records=RECORDS)
            if records := [record for record in batches.get(tp, []) if record.offset < end]:
                return records
        return []

    async def stop(self) -> None:
        """Close the connection, where there is one."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                isolation_level="read_committed",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_partition_fetch_bytes=FETCH_BYTES,
                **self._options,
            )
            await consumer.start()
            consumer.assign([self._tp])
            self._consumer = consumer
        return self._consumer
