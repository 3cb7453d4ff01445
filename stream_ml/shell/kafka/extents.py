"""How far the inputs of a task reach."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from stream_ml.stages.positions import Extent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from aiokafka import AIOKafkaConsumer, TopicPartition

    from stream_ml.shell.log.port import PartitionId
    from stream_ml.stages.task import Positions

__all__ = ["has_more", "read_extents"]

# By when a leader knows where its partition ends.
ENDS_S = 3.0
ENDS_POLL_S = 0.2
# A partition gives what it has within this time.
READ_MS = 300


async def has_more(
    reader: Callable[[str], AbstractAsyncContextManager[AIOKafkaConsumer]],
    tp: TopicPartition,
    offset: int,
) -> bool:
    """Whether a partition has committed records from an offset on, or cannot be asked.

    Args:
        reader: gives a consumer of an isolation.
        tp: the partition.
        offset: there.
    """
    try:
        async with reader("read_committed") as consumer:
            consumer.assign([tp])
            consumer.seek(tp, offset)
            return bool(await consumer.getmany(timeout_ms=READ_MS))
    except KafkaError:
        return True


async def read_extents(
    consumer: AIOKafkaConsumer,
    names: Mapping[TopicPartition, str],
    identities: Mapping[str, str],
    read: Positions,
) -> dict[PartitionId, Extent]:
    """The offsets that partitions have, of those that the consumer may see.

    A partition that seems to end before what was read may have a new leader, which does not know
    yet how far it goes: it is asked again for a while.

    Args:
        consumer: that asks.
        names: the partitions, with what their topics are called in the catalogue.
        identities: the ids of the topics, by these names.
        read: up to where each was read.
    """
    firsts = await consumer.beginning_offsets(list(names))
    deadline_s = time.monotonic() + ENDS_S
    while True:
        ends = await consumer.end_offsets(list(names))
        short = any(ends[tp] < read.get((name, tp.partition), 0) for tp, name in names.items())
        if not short or time.monotonic() > deadline_s:
            break
        await asyncio.sleep(ENDS_POLL_S)
    return {
        (name, tp.partition): Extent(identities.get(name, ""), firsts[tp], ends[tp])
        for tp, name in names.items()
    }
