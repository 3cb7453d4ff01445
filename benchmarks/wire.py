"""What a benchmark does on a broker itself: topics, a quick feed, and a count of what comes out.

None of it is a contestant's: it uses aiokafka's record batches, which cost next to nothing.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from stream_ml.topics import partition_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

__all__ = ["PARTITIONS", "Count", "create", "delete", "feed", "pairs", "wait_until_worked_off"]

PARTITIONS = 4
FEED_BATCH_BYTES = 1 << 19
SETTLE_S = 1.0
POLL_S = 0.1

# A record to be fed: key and value.
Pair = tuple[bytes, bytes]


def pairs(members: Iterable[dict[str, Any]], key: str) -> list[Pair]:
    """Records as a producer makes them: JSON, keyed by a member."""
    return [(record[key].encode(), orjson.dumps(record)) for record in members]


@asynccontextmanager
async def _admin(broker: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def create(broker: str, topics: Sequence[str]) -> None:
    """Make topics."""
    async with _admin(broker) as admin:
        await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in topics])
    # A topic is known before its partitions have a leader; whoever is too early asks again.
    await asyncio.sleep(SETTLE_S)


async def delete(broker: str, prefix: str) -> None:
    """Delete every topic that begins so."""
    async with _admin(broker) as admin:
        names = [name for name in await admin.list_topics() if name.startswith(prefix)]
        if names:
            await admin.delete_topics(names)


async def feed(broker: str, chunks: Sequence[tuple[str, Sequence[Pair]]]) -> None:
    """Append records as fast as the broker takes them, each to the partition of its key.

    Args:
        broker: where.
        chunks: a topic and records each, in order.
    """
    async with AIOKafkaProducer(
        bootstrap_servers=broker, acks="all", max_batch_size=FEED_BATCH_BYTES
    ) as producer:
        futures: list[asyncio.Future[Any]] = []
        for topic, records in chunks:
            batches = [producer.create_batch() for _ in range(PARTITIONS)]
            for key, value in records:
                partition = partition_of(key, PARTITIONS)
                if batches[partition].append(key=key, value=value, timestamp=None) is None:
                    raise ValueError(f"{topic}: a chunk of {len(records)} records is too large")
            for partition, batch in enumerate(batches):
                if batch.record_count():
                    futures.append(await producer.send_batch(batch, topic, partition=partition))
        await asyncio.gather(*futures)


class Count:
    """How many records some topics have, as a committed reader sees them.

    Args:
        broker: where.
        topics: which, with their numbers of partitions.
    """

    def __init__(self, broker: str, topics: dict[str, int]) -> None:
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=broker, isolation_level="read_committed", auto_offset_reset="earliest"
        )
        self._topics = topics
        self.counts = dict.fromkeys(topics, 0)

    async def start(self) -> None:
        """Read from the first record on."""
        await self._consumer.start()
        self._consumer.assign(
            [
                TopicPartition(topic, p)
                for topic, count in self._topics.items()
                for p in range(count)
            ]
        )

    async def stop(self) -> None:
        """Close the connection."""
        await self._consumer.stop()

    async def reach(self, targets: dict[str, int], timeout_s: float) -> float:
        """Wait until each topic has as many records; returns the moment (monotonic seconds).

        Raises:
            TimeoutError: they did not come; says how many did.
        """
        deadline = time.monotonic() + timeout_s
        while any(self.counts[topic] < count for topic, count in targets.items()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"expected {targets} within {timeout_s} s, given {self.counts}")
            for tp, records in (await self._consumer.getmany(timeout_ms=100)).items():
                self.counts[tp.topic] += len(records)
        return time.monotonic()


async def wait_until_worked_off(
    broker: str, topic: str, groups: Sequence[str], slack: int, timeout_s: float
) -> float:
    """Wait until groups have committed all but `slack` offsets of a topic of one partition.

    Returns:
        The moment (monotonic seconds).

    Raises:
        TimeoutError: they did not.
    """
    deadline = time.monotonic() + timeout_s
    tp = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(bootstrap_servers=broker) as consumer, _admin(broker) as admin:
        end = (await consumer.end_offsets([tp]))[tp]
        while time.monotonic() < deadline:
            answer = [(await admin.list_consumer_group_offsets(group))[tp] for group in groups]
            if all(metadata.offset >= end - slack for metadata in answer):
                return time.monotonic()
            await asyncio.sleep(POLL_S)
    raise TimeoutError(f"expected {groups} at {end} within {timeout_s} s, given {answer}")
