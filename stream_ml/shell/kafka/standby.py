"""A worker that waits, beside those at work, for its declaration to be applied.

Theory of operation:

1. Other features are begun by a decision (`stream_ml.shell.handover`). A worker that is started
   under them before, as a standby, has all ready that takes long: its process, and of predict the
   windows, which it fills from the first event on and keeps up with what predict has committed,
   and what its changelog holds. It has no place in its stage's group, and writes nothing.
2. Once they are level, it is a member of a group of standbys: so `stream-ml apply` and `up` know
   that predict need not be stopped before, for it ends by itself, in order, when it sees the
   decision (`Worker`). Until then it predicts.
3. Then the standby joins predict's group when those who were there have left. Its task takes over
   as any does; the windows are taken from here, if no more was folded than the state has. Else (who
   was there was killed, and its last checkpoint is older) they are filled from the first event, as
   by a worker that was no standby: what comes out is the same.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream_ml.differences import fold_differences
from stream_ml.errors import LogError, UsageError
from stream_ml.generation import newest_generation
from stream_ml.sealing import Seals
from stream_ml.shell.handover import Preparation
from stream_ml.shell.kafka.changelog import take_record
from stream_ml.shell.kafka.handover import planned_handover, predicted_offsets
from stream_ml.shell.kafka.log import KafkaLog
from stream_ml.shell.kafka.metadata import group_members
from stream_ml.shell.kafka.security import async_options
from stream_ml.shell.kafka.standby_group import STANDBY, standby_client_id
from stream_ml.shell.kafka.task_thread import TaskThread
from stream_ml.shell.views.registry import entries
from stream_ml.stages.topology import task_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_ml.pipeline import Pipeline
    from stream_ml.sealing import SealedState
    from stream_ml.shell.handover import Handover
    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.stages.predict import Predict

__all__ = ["Standby"]

POLL_S = 0.1
# Others get a turn, and a signal to stop is heard, after so many events.
STEP_EVENTS = 1_000
MEMBERS_EVERY_S = 2.0
# A worker that was killed is thought a member for less long than this.
LEAVE_S = 30.0
# So long after the decision each partition has its worker. What others have then is let go of here:
# it takes memory, and a changelog that is read on after a day lacks tombstones that are gone.
HOLD_S = 300.0
SESSION_MS = 6_000


class Standby:
    """Waits for a decision, and has the windows ready that it begins.

    Args:
        cluster: the pipeline's place.
        pipeline: the declaration that is to be applied.
        stage: of the worker.
        key: verifies decisions and state.
        say: told what happens, as a kind and members.
    """

    def __init__(
        self,
        cluster: Cluster,
        pipeline: Pipeline,
        stage: str,
        key: bytes,
        say: Callable[..., None],
    ) -> None:
        self._cluster, self._stage, self._say = cluster, stage, say
        self._client_id = standby_client_id(pipeline)
        self._thread = TaskThread("standby")
        self._windows = _Windows(cluster, pipeline, key)
        # Those of predict before the decision, and when they were asked for.
        self._members: frozenset[str] = frozenset()
        self._asked_s = float("-inf")
        self._place: AIOKafkaConsumer | None = None
        self._changelog: _Changelog | None = None
        self._release: asyncio.Task[None] | None = None

    async def until_applied(self) -> None:
        """Wait for the decision, keeping windows up; at once where there is nothing to be applied.

        Raises:
            UsageError: it cannot be applied, or not beside workers.
        """
        if not await self._thread.call(self._windows.begin):
            return
        self._say("standby", stage=self._stage)
        try:
            while not await self._thread.call(self._windows.is_applied):
                if self._stage == "predict":
                    await self._keep_level()
                await asyncio.sleep(POLL_S)
        finally:
            if self._place is not None:
                await self._place.stop()
            if self._changelog is not None:
                await self._changelog.stop()

    async def _keep_level(self) -> None:
        """Fold what predict has committed, and be known to have done so."""
        while await self._thread.call(self._windows.advance) >= STEP_EVENTS:
            pass
        if self._changelog is None:
            self._changelog = _Changelog(self._cluster, self._windows.states())
            await self._changelog.start()
        await self._changelog.advance()
        if self._place is None:
            self._place = await self._join()
            self._say("level", stage=self._stage, events=self._windows.count)
        if time.monotonic() - self._asked_s > MEMBERS_EVERY_S:
            self._asked_s, members = time.monotonic(), await self._present()
            self._members = self._members if members is None else members

    async def until_left(self) -> None:
        """Wait until those have left who predicted before, or are thought dead."""
        deadline_s = time.monotonic() + LEAVE_S
        while self._members and time.monotonic() < deadline_s:
            members = await self._present()
            if members is not None:
                self._members &= members
        self._release = asyncio.create_task(self._release_rest(HOLD_S), name="standby release")

    async def _release_rest(self, seconds: float) -> None:
        """After so long, let go of what was made ready and has become others'."""
        await asyncio.sleep(seconds)
        self._changelog = None
        await self._thread.call(self._windows.release)

    async def _present(self) -> frozenset[str] | None:
        return await asyncio.to_thread(group_members, self._cluster, self._stage)

    async def _join(self) -> AIOKafkaConsumer:
        """Be a member of the group of standbys, for others to know that there is one."""
        place = AIOKafkaConsumer(
            self._cluster.topic("registry"),
            bootstrap_servers=self._cluster.bootstrap,
            client_id=self._client_id,
            group_id=self._cluster.group(STANDBY),
            enable_auto_commit=False,
            auto_offset_reset="latest",
            session_timeout_ms=SESSION_MS,
            # Nothing is read by it.
            max_poll_interval_ms=2**31 - 1,
            **async_options(self._cluster.security),
        )
        try:
            await place.start()
        except KafkaError as error:
            await place.stop()
            raise LogError(
                f"{self._cluster.group(STANDBY)}: could not be joined: {error}"
            ) from error
        return place

    async def events(self, handover: Handover, partition: int, end: int) -> Predict | None:
        """A stage that has folded the events before an offset; None where there is none.

        Args:
            handover: what begins.
            partition: of the events.
            end: the offset.

        Raises:
            UsageError: not all events of the partition are there.
        """
        return await self._thread.call(self._windows.events, handover, partition, end)

    def changelog(self, partition: int) -> tuple[SealedState, int] | None:
        """The state of a task as far as it was read, and from where on it was not; once.

        Args:
            partition: of the task.
        """
        return None if self._changelog is None else self._changelog.take(partition)

    def stop(self) -> None:
        """Let go of all."""
        if self._release is not None:
            self._release.cancel()
        self._thread.stop(self._windows.close)


class _Changelog:
    """Reads what predict's tasks write down."""

    def __init__(self, cluster: Cluster, states: Mapping[int, SealedState]) -> None:
        name = cluster.changelog("predict")
        self._states = {TopicPartition(name, p): state for p, state in states.items()}
        self._name = name
        self._offsets = dict.fromkeys(self._states, 0)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=cluster.bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=4 << 20,
            **async_options(cluster.security),
        )

    async def start(self) -> None:
        """Begin where the partitions begin."""
        await self._consumer.start()
        self._consumer.assign([*self._states])
        await self._consumer.seek_to_beginning(*self._states)

    async def advance(self) -> None:
        """Read what is there and was not read yet."""
        while batches := await self._consumer.getmany(timeout_ms=0, max_records=STEP_EVENTS):
            for tp, records in batches.items():
                for record in records:
                    take_record(self._states[tp], record.key, record)
                self._offsets[tp] = records[-1].offset + 1
            await asyncio.sleep(0)

    def take(self, partition: int) -> tuple[SealedState, int] | None:
        """See `Standby.changelog`."""
        tp = TopicPartition(self._name, partition)
        state = self._states.pop(tp, None)
        return None if state is None else (state, self._offsets[tp])

    async def stop(self) -> None:
        """Close the connection."""
        await self._consumer.stop()


class _Windows:
    """What the thread of a standby works on, made and used there alone."""

    def __init__(self, cluster: Cluster, pipeline: Pipeline, key: bytes) -> None:
        self._cluster, self._pipeline, self._key = cluster, pipeline, key
        self._log: KafkaLog | None = None
        self._number = 0
        self._planned: Handover | None = None
        self._preparation: Preparation | None = None
        self._registry_end = -1
        self.count = 0

    def begin(self) -> bool:
        """Plan the change; whether there is one.

        Raises:
            UsageError: it cannot be applied, or not beside workers.
        """
        log = self._log = KafkaLog(self._cluster)
        self._number = self._newest_number()
        planned = planned_handover(
            log,
            self._cluster,
            self._pipeline,
            self._key,
            apply="to be prepared",
            offsets=predicted_offsets(log),
        )
        if planned.generation is None:
            return False
        if paths := fold_differences(planned.former, self._pipeline.declaration()):
            raise UsageError(
                f"--standby: expected a change of features and lines, given another "
                f"{', '.join(paths)} as well: stop all workers in order (Ctrl-C or SIGTERM), run "
                "`stream-ml apply`, and start them without it"
            )
        self._planned, self._preparation = planned, Preparation(log, planned)
        return True

    def states(self) -> dict[int, SealedState]:
        """The states of predict's tasks, nothing of which was read."""
        assert self._log is not None, "begun before"
        seals = Seals(self._key, self._pipeline.name, self._log.identity)
        partitions = range(self._log.partitions["events"])
        return {p: seals.state(task_name("predict", p)) for p in partitions}

    def is_applied(self) -> bool:
        """Whether features were changed since; as those are that are declared, or others."""
        assert self._log is not None, "begun before"
        end = self._log.end_offset("registry", 0)
        if end == self._registry_end:
            return False
        self._registry_end = end
        return self._newest_number() != self._number

    def _newest_number(self) -> int:
        assert self._log is not None, "begun before"
        return newest_generation(entry.decision for entry in entries(self._log, self._key)).number

    def advance(self) -> int:
        """Fold a step of what predict has committed; how many events it was."""
        assert self._preparation is not None, "begun before"
        count = self._preparation.advance(STEP_EVENTS)
        self.count += count
        return count

    def events(self, handover: Handover, partition: int, end: int) -> Predict | None:
        """See `Standby.events`."""
        planned, preparation = self._planned, self._preparation
        if planned is None or preparation is None or not _is_same(planned, handover):
            return None
        return None if preparation.is_ahead(partition, end) else preparation.events(partition, end)

    def release(self) -> None:
        """Let go of the windows that nobody has asked for."""
        self._preparation = None

    def close(self) -> None:
        """Close the log, if there is one."""
        if self._log is not None:
            self._log.close()


def _is_same(planned: Handover, begun: Handover) -> bool:
    """Whether what begins folds events as was planned."""
    first, second = planned.pipeline, begun.pipeline
    return (
        first.declaration() == second.declaration()
        and first.generation.lateness == second.generation.lateness
    )
