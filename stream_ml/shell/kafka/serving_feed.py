"""Follows what all predict tasks share: the registry, and the models that it names.

Every worker reads both topics whole, as broadcast, without a group. On start the registry is read
to its end, then only the snapshots that its newest set names, then both as they grow.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_ml.errors import UsageError
from stream_ml.shell.kafka.records import to_records
from stream_ml.shell.kafka.security import async_options
from stream_ml.stages.positions import ACCEPT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.stages.serving import Serving

__all__ = ["ServingFeed"]

POLL_MS = 500
FETCH_BYTES = 4 << 20


class ServingFeed:
    """Feeds `serving` for the life of a worker; everything happens on the loop that `start` ran on.

    Args:
        cluster: the pipeline's place.
        serving: what the tasks ask.
        serves: told whenever another model serves.
        strict: whether to refuse `models` that lacks what serves, rather than wait for the next.
    """

    def __init__(
        self,
        cluster: Cluster,
        serving: Serving,
        serves: Callable[[str], None],
        *,
        strict: bool = True,
    ) -> None:
        self._strict = strict
        self._serving = serving
        self._serves = serves
        self._champion = ""
        self._registry = TopicPartition(cluster.topic("registry"), 0)
        self._models = TopicPartition(cluster.topic("models"), 0)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=cluster.bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=POLL_MS,
            **async_options(cluster.security),
        )
        self._progress = asyncio.Condition()

    async def start(self) -> None:
        """Read what serves now, as far as anything does."""
        consumer, registry, models = self._consumer, self._registry, self._models
        await consumer.start()
        consumer.assign([registry, models])
        consumer.pause(models)
        await consumer.seek_to_beginning(registry)
        end = (await consumer.end_offsets([registry]))[registry]
        while await consumer.position(registry) < end:
            await self._poll()
        if self._serving.is_outdated:
            raise self.outdated()
        consumer.pause(registry)
        consumer.resume(models)
        newest = 0
        for offset in await self._available(sorted(self._serving.missing())):
            consumer.seek(models, offset)
            record = await consumer.getone(models)
            self._serving.apply(to_records("models", [record]))
            newest = max(newest, record.offset + 1)
        consumer.seek(models, newest)
        consumer.resume(registry)
        self._report_champion()

    async def _available(self, offsets: Sequence[int]) -> list[int]:
        """Those of the offsets that `models` has.

        Raises:
            UsageError: `models` was made anew, emptied or cut off.
        """
        models = self._models
        if not offsets:
            return []
        first = (await self._consumer.beginning_offsets([models]))[models]
        end = (await self._consumer.end_offsets([models]))[models]
        available = [offset for offset in offsets if first <= offset < end]
        absent = [offset for offset in offsets if offset not in available]
        if absent and self._strict:
            raise UsageError(
                f"{models.topic}: expected the snapshots at {', '.join(map(str, absent))}, which "
                f"the newest decision on {self._registry.topic} names, given a topic that begins "
                f"at {first} and ends at {end}: it was made anew or emptied. Put its records back, "
                f"or wait for the next snapshots, by starting once with {ACCEPT}=models"
            )
        return available

    async def follow(self) -> None:
        """Go on reading, until cancelled, or other features were applied."""
        while not self._serving.is_outdated:
            await self._poll()
            self._report_champion()
            async with self._progress:
                self._progress.notify_all()

    def outdated(self) -> UsageError:
        """The error to end with where other features were applied."""
        return UsageError(
            "predict: expected the features that this worker was started with, given others "
            f"that were applied since, as {self._registry.topic} says; start it under the "
            "declaration that was applied"
        )

    async def caught_up(self) -> None:
        """Wait until everything has been read that is there now, and something serves."""
        ends = await self._consumer.end_offsets([self._registry, self._models])
        async with self._progress:
            while self._serving.current() is None or not await self._has_passed(ends):
                await self._progress.wait()

    async def stop(self) -> None:
        """Close the connection."""
        await self._consumer.stop()

    async def _has_passed(self, ends: dict[TopicPartition, int]) -> bool:
        for tp, end in ends.items():
            if await self._consumer.position(tp) < end:
                return False
        return True

    async def _poll(self) -> None:
        batches = await self._consumer.getmany(timeout_ms=POLL_MS)
        # The registry last: it names snapshots that lie on the models by then.
        for tp in (self._models, self._registry):
            if records := batches.get(tp):
                name = "models" if tp == self._models else "registry"
                self._serving.apply(to_records(name, records))
        if forgotten := self._serving.forgotten():
            await self._bring(forgotten)

    async def _bring(self, offsets: Sequence[int]) -> None:
        """Read again the snapshots that a set returns to, and go on where we were."""
        position = await self._consumer.position(self._models)
        for offset in await self._available(offsets):
            self._consumer.seek(self._models, offset)
            record = await self._consumer.getone(self._models)
            if record.offset == offset:
                self._serving.apply(to_records("models", [record]))
        self._consumer.seek(self._models, position)

    def _report_champion(self) -> None:
        serving_set = self._serving.current()
        if serving_set is not None and serving_set.champion.ref.model != self._champion:
            self._champion = serving_set.champion.ref.model
            self._serves(self._champion)
