"""Reads a partition again, beside the consumers that follow it: at any offset, now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiokafka import TopicPartition

__all__ = ["POLL_MS", "PartitionReader"]

POLL_MS = 500
FETCH_BYTES = 4 << 20


class PartitionReader:
    """A consumer of its own, which is connected when it is first needed.

    Args:
        tp: what is read.
        options: how to connect.
    """

    def __init__(self, tp: TopicPartition, options: Mapping[str, Any]) -> None:
        self._tp = tp
        self._options = options
        self._consumer: AIOKafkaConsumer | None = None

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
