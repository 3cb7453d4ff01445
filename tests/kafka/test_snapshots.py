"""What evaluate reads again on Kafka: the snapshot at a place, or that nothing is there now."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaProducer

from stream_ml.shell.kafka.snapshots import SnapshotReader
from tests.kafka.world import DEADLINE_S, lying, place

if TYPE_CHECKING:
    from stream_ml.shell.kafka.cluster import Cluster

VALUES = [b"%d" % number for number in range(4)]


def test_a_snapshot_is_read_where_it_lies_in_any_order(kafka_broker: str) -> None:
    """Transactions leave gaps: in those, and past the end, there is none, and nobody waits."""
    with place(kafka_broker, 1, "evaluate", "models") as cluster:
        places, found = asyncio.run(asyncio.wait_for(_read(cluster), DEADLINE_S))

    assert VALUES == list(places.values())
    assert [0, 2, 4, 6] == list(places)
    assert {offset: places.get(offset) for offset in range(10)} == found


async def _read(cluster: Cluster) -> tuple[dict[int, bytes | None], dict[int, bytes | None]]:
    """What lies where, each put there by a transaction, and what is read, the last place first."""
    producer = AIOKafkaProducer(
        bootstrap_servers=cluster.bootstrap, transactional_id=cluster.topic("learner")
    )
    await producer.start()
    reader = SnapshotReader(cluster)
    try:
        for value in VALUES:
            async with producer.transaction():
                await producer.send(cluster.topic("models"), value, value, 0)
        lies = (await lying(cluster, ("models", 0)))["models", 0]
        found = {offset: await reader.read(offset) for offset in reversed(range(10))}
    finally:
        await reader.stop()
        await producer.stop()
    return {record.offset: record.value for record in lies}, found
