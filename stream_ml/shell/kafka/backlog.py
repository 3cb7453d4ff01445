"""Reads again what a partition had before, for a line that was declared on a running log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.shell.kafka.partition_reader import POLL_MS, PartitionReader

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

__all__ = ["BacklogReader"]

# So many records at a time: others wait for the teaching of no more.
RECORDS = 256


class BacklogReader(PartitionReader):
    """Stretches of a partition, the oldest first."""

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
