"""Reads single snapshots from `models`, where evaluate needs one that it has let go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_ml.shell.kafka.records import to_records
from stream_ml.shell.kafka.security import async_options

if TYPE_CHECKING:
    from stream_ml.shell.kafka.cluster import Cluster

__all__ = ["SnapshotReader"]

POLL_MS = 500
FETCH_BYTES = 4 << 20


class SnapshotReader:
    """A consumer of its own, which is connected when it is first needed.

    Args:
        cluster: the pipeline's place.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._models = TopicPartition(cluster.topic("models"), 0)
        self._consumer: AIOKafkaConsumer | None = None

    async def read(self, offset: int) -> bytes | None:
        """What lies at an offset; None where compaction or retention has taken it.

        Args:
            offset: of `models`.
        """
        consumer, models = await self._connected(), self._models
        first = (await consumer.beginning_offsets([models]))[models]
        end = (await consumer.end_offsets([models]))[models]
        if not first <= offset < end:
            return None
        consumer.seek(models, offset)
        while await consumer.position(models) <= offset:
            batches = await consumer.getmany(models, timeout_ms=POLL_MS, max_records=1)
            for record in to_records("models", batches.get(models, [])):
                # Of what was compacted the next one comes.
                return record.value if record.offset == offset else None
        return None

    async def stop(self) -> None:
        """Close the connection, where there is one."""
        if self._consumer is not None:
            await self._consumer.stop()

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._cluster.bootstrap,
                isolation_level="read_committed",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_partition_fetch_bytes=FETCH_BYTES,
                **async_options(self._cluster.security),
            )
            await consumer.start()
            consumer.assign([self._models])
            self._consumer = consumer
        return self._consumer
