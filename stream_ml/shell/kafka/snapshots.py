"""Reads single snapshots from `models`, where evaluate needs one that it has let go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiokafka import TopicPartition

from stream_ml.shell.kafka.partition_reader import POLL_MS, PartitionReader
from stream_ml.shell.kafka.records import to_records
from stream_ml.shell.kafka.security import async_options

if TYPE_CHECKING:
    from stream_ml.shell.kafka.cluster import Cluster

__all__ = ["SnapshotReader"]


class SnapshotReader(PartitionReader):
    """The snapshots of a pipeline, one at a time.

    Args:
        cluster: the pipeline's place.
    """

    def __init__(self, cluster: Cluster) -> None:
        options = {
            "bootstrap_servers": cluster.bootstrap,
            **async_options(cluster.security),
        }
        super().__init__(TopicPartition(cluster.topic("models"), 0), options)

    async def read(self, offset: int) -> bytes | None:
        """What lies at an offset; None where compaction or retention has taken it.

        Args:
            offset: of `models`.
        """
        consumer, models = await self._connected(), self._tp
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
