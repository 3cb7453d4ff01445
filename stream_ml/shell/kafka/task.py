"""A task on the cluster: one stage, one partition number.

Theory of operation:

1. **Transactions** (see `transactions`) are shared by the tasks of a worker; each holds everything
   that a stretch of input led to: outputs, state where it is due, and the positions of every input.
   A task that recovers or idles adds nothing to one. Outputs are sent at once: readers of
   uncommitted records see them within milliseconds, the others once it commits.
2. **Taking over**, in this order: (1) read what is committed, which is final only when no former
   owner is about to commit; (2) the changelog, to its end; (3) replay the inputs from where the
   state is valid to what was committed, writing nothing; (4) wait until what all tasks share (the
   models that serve) is as new as it was for the former owner. Then (5) the first batch, of which
   what lies below (1) is passed over. Between (2) and (3) all positions are held against what the
   topics have (see `positions`), and what somebody has set by hand is not believed: the state
   knows better. Where the two differ, the task has the records fetched that it goes on with.
3. **State** goes to a changelog: at a checkpoint the pieces that changed, and behind them a marker
   with the positions at which all of them are valid. They are in one transaction, so a reader has
   all of a checkpoint or nothing of it, and no piece needs a stamp of its own. Where a stage's
   outputs follow from its inputs alone, commits go on between checkpoints; where they do not
   (`needs_checkpoint`), they are held back until its state goes with them.
4. **Parked** over a rebalance, a task keeps its state. If it gets its partition back and nobody has
   committed meanwhile, it goes on; else it is dropped, and taken over anew.
5. **Learners** are asked in a thread of the task's own (`_call`), when they are restored and
   written down as well: while one keeps learn or evaluate waiting, its worker answers the brokers,
   and its other tasks go on. The task goes on when the call has ended: nothing of it is committed
   before, and no other begins; nor does it park, or end.
6. Whatever goes wrong (fenced, a broker that does not answer, an exception in a stage) ends the
   process: what is not committed is folded again by whoever takes over. Nothing is skipped.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_ml.errors import UsageError
from stream_ml.sealing import SEALED_TOPICS, Marker
from stream_ml.shell.kafka.backlog import BacklogReader
from stream_ml.shell.kafka.changelog import message, prefix_of, read_changelog, restore_task
from stream_ml.shell.kafka.declared import declared_changes
from stream_ml.shell.kafka.entity_turn import EntityTurn, turn_of
from stream_ml.shell.kafka.extents import has_more, read_extents
from stream_ml.shell.kafka.line_feed import LineFeed
from stream_ml.shell.kafka.notices import lost_state, set_by_hand, state_lost
from stream_ml.shell.kafka.records import origin_headers, size_of, to_records
from stream_ml.shell.kafka.security import async_options
from stream_ml.shell.kafka.task_thread import TaskThread
from stream_ml.shell.kafka.transactions import NEVER, CommittedOffset, Message
from stream_ml.shell.restoration import (
    TakenUp,
    changed_notice,
    foreign_alert,
    remade_alert,
    take_up,
)
from stream_ml.stages.evaluate import Evaluate
from stream_ml.stages.handover import features_differ
from stream_ml.stages.inputs import open_sealed
from stream_ml.stages.learn import Learn
from stream_ml.stages.partitioning import partitions_of
from stream_ml.stages.positions import Extent, ResumePoint, find_resume_point
from stream_ml.stages.predict import Predict
from stream_ml.stages.task import Task
from stream_ml.stages.topology import task_name

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Collection,
        Iterable,
        Mapping,
        Sequence,
    )

    from stream_ml.records import Output, Record
    from stream_ml.sealing import RestoredState, Seals, StateEntry
    from stream_ml.shell.handover import Handover
    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.shell.kafka.regeneration import TaskFeatures
    from stream_ml.shell.kafka.transactions import Transactions
    from stream_ml.shell.kafka.transport import Batch
    from stream_ml.shell.log.port import PartitionId
    from stream_ml.stages.positions import Notice
    from stream_ml.stages.task import Positions, Stage

__all__ = ["KafkaTask", "TaskContext", "TaskSpec"]

# A stage folds so many at a time: what arrives meanwhile, and other tasks, wait no longer.
SLICE_RECORDS = 256
# More than this in a task's inbox, and no more is fetched for it.
INBOX_RECORDS = 8_000
INBOX_BYTES = 64 << 20
# A replay folds some 30,000 records a second: a checkpoint is due after so many at the latest.
CHECKPOINT_RECORDS = 100_000
CHECKPOINT_SPREAD = 8
PROGRESS_S = 2.0

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class TaskSpec:
    """The stage whose tasks a worker runs, and how one is made.

    Args:
        stage: its name.
        inputs: the topics it reads; a task has the partition of its number of each.
        make: a fresh stage for a partition number.
        ready: waits until what the tasks of a process share is as new as it is now.
        read_snapshot: gives what lies at an offset of `models`, for a stage that wants some.
        lines: where each is a task of its own, which reads partition 0: those, in the order of the
            numbers of their tasks.
        features: what makes features again, where they were changed in flight; None: nothing does.
        idle_s: after how long without a record a partition is silent.
    """

    stage: str
    inputs: tuple[str, ...]
    make: Callable[[int], Stage]
    ready: Callable[[], Awaitable[None]]
    read_snapshot: Callable[[int], Awaitable[bytes | None]] | None = None
    lines: Sequence[str] = ()
    features: Callable[[], TaskFeatures] | None = None
    idle_s: float = NEVER


@dataclass(frozen=True)
class TaskContext:
    """All that the tasks of a worker share: cluster, transactions, settings, callbacks.

    Args:
        cluster: the pipeline's place.
        transactions: what they write with, already started.
        partitions: of each topic that outputs may go to, by its name in the catalogue.
        checkpoint_s: how often state is written, in seconds.
        say: told what happens, as a kind and members.
        on_failure: told what ended a task that should not have ended.
        seals: of what is written, and what is read must have.
        declaration: the declaration, as its checkpoints keep it.
        accept_unsealed: whether what a former release wrote, which did not seal, is believed.
        topics: the id of each topic, by its name in the catalogue.
        accepted_topics: topics that are taken for what they are, whatever positions say.
        restart_lines: quarantined lines that start anew, be it by another recipe.
        applied_lines: lines whose recipes of today were applied.
        seek: has records fetched from other offsets on; returns the epoch in which they come.
        make_task: makes the task of a name and a stage.
        handover: the declaration as it runs, and what of it begins or was begun; None: nothing was.
    """

    cluster: Cluster
    transactions: Transactions
    partitions: dict[str, int]
    checkpoint_s: float
    say: Callable[..., None]
    on_failure: Callable[[BaseException], None]
    seals: Seals
    declaration: Mapping[str, str] = field(default_factory=dict)
    accept_unsealed: bool = False
    topics: Mapping[str, str] = field(default_factory=dict)
    accepted_topics: frozenset[str] = frozenset()
    seek: Callable[[Mapping[PartitionId, int]], Awaitable[int]] | None = None
    restart_lines: Collection[str] = ()
    applied_lines: Collection[str] = ()
    make_task: Callable[[str, Stage], Task] = Task
    handover: Handover | None = None


class KafkaTask:
    """A task that takes over, folds what is put before it, commits, and parks."""

    def __init__(self, context: TaskContext, spec: TaskSpec, number: int) -> None:
        self._context = context
        self._spec = spec
        line = spec.lines[number] if spec.lines else None
        self.partition = number if line is None else 0
        self._prefix = prefix_of(line)
        # What is said names the task so.
        self._members: dict[str, Any] = {"stage": spec.stage, "partition": self.partition}
        if line is not None:
            self._members["line"] = line
        name = task_name(spec.stage, self.partition, line)
        self._task = context.make_task(name, spec.make(number))
        self._stage = self._task.stage
        self._asks_learners = isinstance(self._stage, Learn | Evaluate)
        self._thread = TaskThread(name)
        self._options = {
            "bootstrap_servers": context.cluster.bootstrap,
            **async_options(context.cluster.security),
        }
        self._feed = None
        if line is not None:
            inputs = {
                TopicPartition(context.cluster.topic(topic), 0): topic for topic in spec.inputs
            }
            self._feed = LineFeed(self._reader, inputs, self.enqueue, lambda: self.is_full)
        examples = TopicPartition(context.cluster.topic("examples"), self.partition)
        self._backlog = BacklogReader(examples, self._options)
        self._features = None if spec.features is None else spec.features()
        events = TopicPartition(context.cluster.topic("events"), self.partition)
        self._turn = turn_of(self._stage, spec.idle_s, partial(has_more, self._reader, events))
        self._state = context.seals.state(self._task.name)
        # Up to where a former release wrote the inputs, where that is believed.
        self._unsealed_before: dict[str, int] = {}
        self._inbox: deque[list[Record]] = deque()
        self.waiting = self.waiting_bytes = 0
        self._batches: dict[str, tuple[int, int]] = {}
        # Batches that come while a seek is under way; None while there is none.
        self._deferred_batches: list[tuple[str, Batch]] | None = None
        self._wakeup = asyncio.Event()
        self._is_suspending = self._is_leaving = False
        self._has_taken_over = False
        # Held from the first commit until it is told: a suspension waits, and never comes between.
        self._news_lock = asyncio.Lock()
        self._closed_epoch = -1
        self._runner: asyncio.Task[None] | None = None
        # Outputs that may be sent only with the state, and the time to ask whether it is due.
        self._pending_outputs: list[Output] = []
        self._next_check_s = NEVER
        # No checkpoint lies on the changelog yet: the first commit must hold one.
        self._needs_first_checkpoint = False
        self._last_checkpoint_s = 0.0
        self._records_since_checkpoint = 0

    # --- what a host does with a task ----------------------------------------------------------

    def start(self) -> None:
        """Begin, or go on after `suspend`."""
        self._is_suspending = False
        self._runner = asyncio.create_task(self._run(), name=self._task.name)
        self._runner.add_done_callback(self._on_runner_end)

    def enqueue(self, topic: str, batch: Batch) -> None:
        """Put a batch of one of its inputs before it.

        Args:
            topic: one of its inputs, as the catalogue has it.
            batch: records in their order, with the offsets that they cover.

        Raises:
            AssertionError: a batch before this one was lost.
        """
        if self._deferred_batches is not None:
            self._deferred_batches.append((topic, batch))
            return
        epoch, number = self._batches.get(topic, (-1, -1))
        if batch.epoch < epoch or batch.epoch <= self._closed_epoch:
            return
        follows = number + 1 if batch.epoch == epoch else 0
        assert batch.number == follows, (
            f"{self._task.name}: batch {batch.number} of epoch {batch.epoch} of {topic} came where "
            f"{follows} was expected, after {number} of {epoch}"
        )
        self._batches[topic] = (batch.epoch, batch.number)
        records = to_records(topic, batch.records, self._context.topics.get(topic, ""))
        last = self._inbox[-1] if self._inbox else []
        if last and last[0].topic == topic and len(last) < SLICE_RECORDS:
            last += records
        else:
            self._inbox.append(records)
        self.waiting += len(records)
        self.waiting_bytes += size_of(records)
        self._wakeup.set()

    @property
    def is_full(self) -> bool:
        """Whether the inbox is full, so that nothing more should be fetched for it."""
        return self.waiting >= INBOX_RECORDS or self.waiting_bytes >= INBOX_BYTES

    async def suspend(self, epoch: int, *, checkpoint: bool = False) -> bool:
        """Commit what was folded, forget what was not, and stop; whether its state is whole.

        Args:
            epoch: of the batches that end now; none of it will be taken any more.
            checkpoint: write down the state too, so that whoever takes over has it all.
        """
        runner, self._runner = self._runner, None
        if runner is not None:
            self._is_suspending, self._is_leaving = True, checkpoint
            self._wakeup.set()
            async with self._news_lock:
                if not self._has_taken_over:
                    runner.cancel()
            await asyncio.wait([runner])
        if self._feed is not None:
            await self._feed.stop()
        self._thread.stop()
        if self._features is not None:
            self._features.stop()
        self._inbox.clear()
        self.waiting = self.waiting_bytes = 0
        self._closed_epoch = epoch
        return self._has_taken_over

    async def can_resume(self) -> bool:
        """Tell whether nobody has committed for it since it was suspended.

        Of the task of one line only its changelog knows, so it is taken over anew.
        """
        if self._feed is not None:
            return False
        committed_offsets = await self._committed_offsets()
        own_offsets = {
            partition: CommittedOffset(offset, True)
            for partition, offset in self._task.positions.items()
            if offset
        }
        return committed_offsets == own_offsets

    def _on_runner_end(self, runner: asyncio.Task[None]) -> None:
        if not runner.cancelled() and (error := runner.exception()) is not None:
            self._context.on_failure(error)

    # --- taking over ---------------------------------------------------------------------------

    async def _run(self) -> None:
        if not self._has_taken_over:
            await self._take_over()
            self._has_taken_over = True
            if self._feed is not None:
                self._feed.start(self._task.positions, self._context.on_failure)
        while not self._is_suspending:
            if self._may_fold:
                await self._fold(self._slice())
            elif not await self._bring_backlog():
                await self._wait()
            if self._turn is not None:
                await self._answer_waiting(self._turn)
            await self._commit_if_due()
        await self._backlog.stop()
        # A stage whose outputs do not follow from its inputs alone commits only with its state.
        await self._commit(checkpoint=self._is_leaving or self._stage.needs_checkpoint())

    async def _take_over(self) -> None:
        started_s = time.monotonic()
        self._context.say("recovering", **self._members)
        committed_offsets = await self._committed_offsets()
        changelog = await self._read_changelog()
        read_s = time.monotonic() - started_s
        extents = await self._extents(
            {partition: entry.offset for partition, entry in committed_offsets.items()}
        )
        start_state = self._choose_start_state(changelog, extents)
        self._needs_first_checkpoint = start_state.positions is None
        resume_point = self._resume_point(committed_offsets, start_state, extents)
        changes = declared_changes(self._task, self._context, start_state, resume_point)
        self._task.positions = dict(resume_point.state)
        if start_state.remade is not None:
            # All of it again, from the beginning.
            self._state.begin_anew()
            self._task.positions = {}
        elif start_state.positions is not None:
            await self._restore_state(start_state)
        replay_count = await self._replay(resume_point.read)
        # A task that dies before its checkpoint, again and again, must not replay more each time.
        self._records_since_checkpoint = replay_count
        self._task.positions = dict(resume_point.read)
        await self._spec.ready()
        if self._turn is not None:
            self._turn.begin()
        # Tasks that begin together do not all write down their states at the same time.
        spread = self.partition % CHECKPOINT_SPREAD / CHECKPOINT_SPREAD
        self._last_checkpoint_s = time.monotonic() - spread * self._context.checkpoint_s
        seconds = time.monotonic() - started_s
        alerts = self._state_alerts(changelog, start_state, replay_count)
        async with self._news_lock:
            await self._commit_news(resume_point.notices, changes, alerts)
            self._context.say(
                "recovered",
                **self._members,
                pieces=len(start_state.pieces),
                changelog_s=round(read_s, 3),
                replayed=replay_count,
                seconds=round(seconds, 3),
            )
            self._say_news(resume_point.notices, changes)
        await self._refetch(committed_offsets)

    async def _restore_state(self, start_state: TakenUp) -> None:
        """Give the stage its state; where features were changed since, predict's new windows."""
        stage, handover = self._stage, self._context.handover
        former = {} if start_state.marker is None else start_state.marker.declaration
        if isinstance(stage, Predict):
            stage.former_declaration = former
        if (
            isinstance(stage, Predict)
            and self._features is not None
            and handover is not None
            and features_differ(former, handover.pipeline)
        ):
            end = self._task.positions.get(("events", self.partition), 0)
            pieces = self._task.entries(start_state.pieces)
            await self._features.rebuild(stage, pieces, self.partition, end)
        else:
            # A thread of its own: other tasks go on while thousands of keys are decoded.
            await self._call_in_thread(restore_task, self._task, start_state.pieces)

    async def _commit_news(
        self, notices: Sequence[Notice], changes: Sequence[str], alerts: Sequence[Output]
    ) -> None:
        """Commit what is new at the start, with the state under which it is new no more.

        Before anything is folded, for no task may commit positions where no state lies; and before
        it is said, for what is said and then lost would be said again by the next who starts.
        """
        handover = self._context.handover
        if handover is not None and handover.generation and isinstance(self._stage, Evaluate):
            begun = self._stage.begin_generation(handover.generation, handover.reason)
            self._pending_outputs.append(begun)
        if self._needs_first_checkpoint:
            self._pending_outputs += await self._call(self._stage.start)
        self._pending_outputs += map(self._stage.note, notices)
        if changes and self._tells_changes:
            self._pending_outputs.append(self._stage.note(changed_notice(changes)))
        self._pending_outputs += alerts
        has_news = bool(self._pending_outputs or changes)
        if has_news or self._needs_first_checkpoint or self._state.must_write:
            self._records_since_checkpoint += 1
            await self._commit(checkpoint=True)

    def _say_news(self, notices: Sequence[Notice], changes: Sequence[str]) -> None:
        stage, partition = self._spec.stage, self.partition
        if isinstance(self._stage, Learn):
            for line, reason in self._stage.quarantine_reasons.items():
                self._context.say("quarantined", line=line, why=reason)
        for notice in notices:
            self._context.say(notice.kind, stage=stage, partition=partition, message=notice.message)
        if changes and self._tells_changes:
            self._context.say("changed", stage=stage, message=changed_notice(changes).message)
        handover = self._context.handover
        if handover is not None and handover.generation and isinstance(self._stage, Evaluate):
            number, lines = handover.generation.number, handover.generation.begun
            champion = self._stage.champion
            self._context.say("applied", generation=number, champion=champion, lines=lines)

    @property
    def _tells_changes(self) -> bool:
        """Whether this task tells how the declaration was changed: one stage does, not all."""
        return self._spec.stage == "evaluate"

    def _choose_start_state(
        self, changelog: RestoredState, extents: Mapping[PartitionId, Extent]
    ) -> TakenUp:
        """Choose the state to start from, as far as it is to be believed."""
        if self._context.accept_unsealed:
            self._unsealed_before = {topic: extent.end for (topic, _), extent in extents.items()}
        start_state = take_up(
            self._task.name,
            changelog,
            {},
            {partition: extent.first for partition, extent in extents.items()},
            accept_unsealed=self._context.accept_unsealed,
        )
        if changelog.plain:
            self._state.adopt(dict(start_state.pieces))
        return start_state

    def _state_alerts(
        self, changelog: RestoredState, start_state: TakenUp, replay_count: int
    ) -> list[Output]:
        """Alerts about what lay on the changelog, for a person to read."""
        alerts = []
        if changelog.foreign:
            alerts.append(foreign_alert(self._task.name, changelog.foreign))
        if start_state.remade is not None:
            alerts.append(remade_alert(self._task.name, start_state.remade, replay_count))
        return alerts

    def _resume_point(
        self,
        committed_offsets: Mapping[PartitionId, CommittedOffset],
        start_state: TakenUp,
        extents: Mapping[PartitionId, Extent],
    ) -> ResumePoint:
        """Decide where to go on, from the state, the group's offsets, and what the topics have.

        Raises:
            UsageError: what was read is not what there is, or the state is gone.
        """
        marker = start_state.marker
        if marker is None and start_state.positions is not None:
            marker = Marker(start_state.positions)
        state: Positions = {} if marker is None else dict(marker.positions)
        # Brokers forget the offsets of a group that was idle for long (KIP-211); the marker knows.
        read = {
            partition: entry.offset
            for partition, entry in committed_offsets.items()
            if entry.is_ours
        }
        notices = []
        if marker is None and read:
            changelog = f"{self._spec.stage}-changelog"
            if changelog not in self._context.accepted_topics:
                topic = self._context.cluster.topic(changelog)
                raise lost_state(self._task.name, topic, changelog, read)
            state = dict(read)
            notices.append(state_lost(self._spec.stage, read))
        by_hand = {
            partition: entry.offset
            for partition, entry in committed_offsets.items()
            if not entry.is_ours
        }
        for partition, offset in by_hand.items():
            if offset != state.get(partition, 0):
                group = self._context.cluster.group(self._spec.stage)
                notices.append(set_by_hand(group, partition, offset, state.get(partition, 0)))
        resume_point = find_resume_point(
            self._task.name,
            state=state,
            read=read,
            identities={} if marker is None else marker.topics,
            extents=extents,
            accepted_topics=self._context.accepted_topics,
        )
        return replace(resume_point, notices=(*notices, *resume_point.notices))

    async def _extents(self, read: Positions) -> dict[PartitionId, Extent]:
        """The offsets that each input has, those of open transactions included."""
        cluster, topics = self._context.cluster, self._context.topics
        names = {TopicPartition(cluster.topic(t), self.partition): t for t in self._spec.inputs}
        async with self._reader("read_uncommitted") as consumer:
            return await read_extents(consumer, names, topics, read)

    async def _refetch(self, committed_offsets: Mapping[PartitionId, CommittedOffset]) -> None:
        """Have fetched what we go on with, where the consumer began elsewhere."""
        if self._context.seek is None or self._feed is not None:
            return
        offsets = {
            (self._context.cluster.topic(topic), partition): offset
            for (topic, partition), offset in self._task.positions.items()
            if offset
            != (
                committed_offsets[topic, partition].offset
                if (topic, partition) in committed_offsets
                else 0
            )
        }
        if not offsets:
            return
        self._deferred_batches = []
        self._inbox.clear()
        self.waiting = self.waiting_bytes = 0
        self._batches.clear()
        self._closed_epoch = await self._context.seek(offsets) - 1
        batches, self._deferred_batches = self._deferred_batches, None
        for topic, batch in batches:
            self.enqueue(topic, batch)

    def read_offset(self, topic: str) -> int | None:
        """Up to where it has read a topic; None while it does not know where to go on."""
        return (
            self._task.positions.get((topic, self.partition), 0) if self._has_taken_over else None
        )

    async def _committed_offsets(self) -> dict[PartitionId, CommittedOffset]:
        """The group's offset of each input; none where nothing was read."""
        partitions = {
            (self._context.cluster.topic(topic), self.partition): (topic, self.partition)
            for topic in self._spec.inputs
        }
        # Waits until nobody is about to commit there, whatever it was that was read.
        offsets = await self._context.transactions.committed_offsets(partitions)
        if self._feed is not None:
            return {}  # of all lines' tasks: where this one was its state alone says
        return {
            partitions[tp]: entry
            for tp, entry in offsets.items()
            if entry.offset or not entry.is_ours
        }

    @asynccontextmanager
    async def _reader(
        self, isolation: str, reset: str = "earliest"
    ) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            isolation_level=isolation,
            enable_auto_commit=False,
            auto_offset_reset=reset,
            max_partition_fetch_bytes=4 << 20,
            **self._options,
        )
        try:
            await consumer.start()
            yield consumer
        finally:
            await consumer.stop()

    async def _read_changelog(self) -> RestoredState:
        tp = TopicPartition(self._context.cluster.changelog(self._spec.stage), self.partition)
        # The end of all that was written, be it committed or (a moment longer) open.
        async with self._reader("read_uncommitted") as consumer:
            end = (await consumer.end_offsets([tp]))[tp]
        async with self._reader("read_committed") as consumer:
            first = 0
            if self._features is not None:
                self._state, first = self._features.changelog(self.partition, self._state)
            return await read_changelog(consumer, tp, end, self._state, self._prefix, start=first)

    async def _replay(self, end_offsets: Positions) -> int:
        """Fold what was committed after the state was written; how many records it was."""
        targets = {
            partition: offset
            for partition, offset in end_offsets.items()
            if offset > self._task.positions.get(partition, 0)
        }
        if not targets:
            return 0
        cluster = self._context.cluster
        partitions = {TopicPartition(cluster.topic(topic), p): (topic, p) for topic, p in targets}
        started_s = reported_s = time.monotonic()
        replay_count = 0
        async with self._reader("read_committed") as consumer:
            consumer.assign(list(partitions))
            for tp, partition in partitions.items():
                consumer.seek(tp, self._task.positions.get(partition, 0))
            while targets:
                batches = await consumer.getmany(timeout_ms=1_000, max_records=SLICE_RECORDS)
                for tp, batch in batches.items():
                    partition = partitions[tp]
                    records = to_records(
                        partition[0], batch, self._context.topics.get(partition[0], "")
                    )
                    records = [
                        record for record in records if record.offset < end_offsets[partition]
                    ]
                    if records:
                        self._unseal(records)
                        await self._supply(records)
                        await self._call(self._task.replay, records)
                        replay_count += len(records)
                for tp, partition in partitions.items():
                    if partition in targets and await consumer.position(tp) >= targets[partition]:
                        del targets[partition]
                        consumer.pause(tp)
                await asyncio.sleep(0)
                now_s = time.monotonic()
                if now_s - reported_s >= PROGRESS_S:
                    reported_s = now_s
                    self._say_progress(end_offsets, replay_count, now_s - started_s)
        return replay_count

    def _say_progress(self, end_offsets: Positions, replay_count: int, seconds: float) -> None:
        remaining = sum(
            offset - self._task.positions.get(partition, 0)
            for partition, offset in end_offsets.items()
        )
        self._context.say(
            "replaying",
            **self._members,
            replayed=replay_count,
            per_second=round(replay_count / seconds),
            remaining=max(0, remaining),
        )

    # --- work ----------------------------------------------------------------------------------

    def _unseal(self, records: Sequence[Record]) -> None:
        """Take off the seals of what is about to be folded, where its topic has some."""
        topic = records[0].topic
        if topic in SEALED_TOPICS:
            unsealed_before = self._unsealed_before.get(topic, 0)
            open_sealed(
                records, self._context.seals.records(topic), unsealed_before=unsealed_before
            )

    async def _wait(self) -> None:
        """Until something comes, or a commit is due."""
        self._wakeup.clear()
        if self._may_fold or self._is_suspending:
            return
        due = self._due() - time.monotonic()
        try:
            async with asyncio.timeout(None if due == NEVER else max(0.0, due)):
                await self._wakeup.wait()
        except TimeoutError:
            return

    def _due(self) -> float:
        """The time (monotonic) of the next commit or checkpoint, also if nothing more comes."""
        due = min(self._context.transactions.due, self._next_check_s)
        if self._turn is not None:
            due = min(due, self._turn.due_s)
        if not self._records_since_checkpoint:
            return due
        return min(due, self._last_checkpoint_s + self._context.checkpoint_s)

    @property
    def _may_fold(self) -> bool:
        return bool(self._inbox) and not (self._turn is not None and self._turn.holds_back)

    def wake(self) -> None:
        """Have it look whether something need wait no longer."""
        self._wakeup.set()

    async def _answer_waiting(self, turn: EntityTurn) -> None:
        """Write what need wait no longer for other partitions."""
        outputs = await turn.outputs(lambda: not self._inbox)
        if outputs:
            self._pending_outputs += outputs
            self._records_since_checkpoint += 1
            if self._stage.needs_checkpoint():
                await self._commit(checkpoint=True)
            else:
                await self._context.transactions.wait_until_writable()
                self._send()

    def _slice(self) -> Sequence[Record]:
        records = self._inbox[0]
        if len(records) <= SLICE_RECORDS:
            self._inbox.popleft()
            part = records
        else:
            part = records[:SLICE_RECORDS]
            self._inbox[0] = records[SLICE_RECORDS:]
        self.waiting -= len(part)
        self.waiting_bytes -= size_of(part)
        return part

    async def _fold(self, records: Sequence[Record]) -> None:
        await self._context.transactions.wait_until_writable()
        self._unseal(records)
        if isinstance(self._stage, Learn) and self._stage.backlog() is not None:
            await self._bring_backlog()
            while self._stage.must_catch_up(records):
                if self._is_suspending:
                    return  # whoever goes on reads these again
                await self._bring_backlog()
                await self._commit_if_due()
        await self._supply(records)
        self._pending_outputs += await self._call(self._task.apply, records)
        self._expect_own_features()
        self._records_since_checkpoint += len(records)
        if self._stage.needs_checkpoint():
            self._next_check_s = min(
                self._next_check_s, time.monotonic() + self._context.transactions.commit_s
            )
        else:
            # Nothing was awaited since it was writable, so a commit has all of it, or nothing.
            assert not self._asks_learners, "the transaction may have ended during their call"
            self._send()
        # Other tasks of this process get a turn.
        await asyncio.sleep(0)

    def _expect_own_features(self) -> None:
        """Make sure that learn has read of no features but its own: a worker began amid `apply`.

        Raises:
            UsageError: other features were applied.
        """
        if isinstance(self._stage, Learn) and self._stage.is_outdated:
            registry = self._context.cluster.topic("registry")
            raise UsageError(
                f"{self._task.name}: expected the features that this worker was started with, "
                f"given others that were applied since, as {registry} says; start it under the "
                "declaration that was applied"
            )

    async def _bring_backlog(self) -> bool:
        """Bring learn a stretch of what a line has still to be taught; whether there was one."""
        stage = self._stage
        offset = stage.backlog() if isinstance(stage, Learn) else None
        if offset is None or not isinstance(stage, Learn):
            return False
        end = self._task.positions.get(("examples", self.partition), 0)
        stretch = await self._backlog.read(offset, end)
        records = to_records("examples", stretch, self._context.topics.get("examples", ""))
        if records:
            self._unseal(records)
        if self._features is not None:
            await self._features.supply_past(stage, records)
        self._pending_outputs += await self._call(stage.catch_up, records)
        if self._features is not None and stage.backlog() is None:
            await self._features.end_past(stage)
        self._records_since_checkpoint += 1
        self._next_check_s = min(
            self._next_check_s, time.monotonic() + self._context.transactions.commit_s
        )
        return True

    async def _supply(self, records: Sequence[Record]) -> None:
        """Bring learn features, and evaluate the snapshots that it needs, which answer then."""
        stage, read = self._stage, self._spec.read_snapshot
        if records[0].topic != "examples":
            return
        if isinstance(stage, Learn) and self._features is not None:
            await self._features.supply_recent(stage, records)
        if not isinstance(stage, Evaluate):
            return
        for offset in await self._call(stage.wanted, records):
            value = None if read is None else await read(offset)
            await self._call(stage.supply, offset, value)

    async def _call(self, call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call a stage: in the task's own thread where it may ask learners, which take their time.

        Cancelled, it waits for the end of the call, so that nobody else is at work on the stage,
        or on its lines' processes, in the place of this task.
        """
        if not self._asks_learners:
            return call(*arguments, **options)
        return await self._thread.call_to_end(call, *arguments, **options)

    async def _call_in_thread(
        self, call: Callable[P, T], *arguments: P.args, **options: P.kwargs
    ) -> T:
        """As `_call`, of what takes long in any stage: in a thread, whichever stage it is."""
        if self._asks_learners:
            return await self._thread.call_to_end(call, *arguments, **options)
        return await asyncio.to_thread(call, *arguments, **options)

    def _send(self, state: Iterable[Message] = ()) -> None:
        """Hand over what is to be sent, behind a state, and where its inputs were read to."""
        context = self._context
        by_topic: dict[str, list[Output]] = {}
        for output in self._pending_outputs:
            by_topic.setdefault(output.topic, []).append(output)
        self._pending_outputs = []
        records = [(context.cluster.changelog(self._spec.stage), state)]
        for topic, outputs in by_topic.items():
            partitions = partitions_of(
                [output.key or b"" for output in outputs], context.partitions[topic]
            )
            seal = context.seals.records(topic).seal if topic in SEALED_TOPICS else bytes
            messages: list[Message] = [
                {
                    "key": output.key,
                    "value": None if output.value is None else seal(output.value),
                    "partition": 0 if output.key is None else partition,
                }
                for output, partition in zip(outputs, partitions, strict=True)
            ]
            for output, record in zip(outputs, messages, strict=True):
                if output.origin is not None:
                    topic_id = context.topics.get(topic, "")
                    record["headers"] = origin_headers(output.origin, topic_id)
            records.append((context.cluster.topic(topic), messages))
        # Of all inputs, also those of which nothing was read: that we may commit at all is seen by
        # positions.
        read_to = self._task.positions
        positions = {
            (context.cluster.topic(topic), self.partition): read_to.get((topic, self.partition), 0)
            for topic in self._spec.inputs
        }
        context.transactions.write(records, positions)

    async def _commit_if_due(self) -> None:
        if self._due() <= time.monotonic():
            await self._commit()

    async def _commit(self, *, checkpoint: bool = False) -> None:
        stage, now_s = self._stage, time.monotonic()
        is_due = (
            checkpoint
            or self._needs_first_checkpoint
            or now_s - self._last_checkpoint_s >= self._context.checkpoint_s
            or self._records_since_checkpoint >= CHECKPOINT_RECORDS
        )
        self._next_check_s = NEVER
        if stage.needs_checkpoint():
            is_due = is_due or stage.must_checkpoint()
            # It may stay behind: after a crash it folds the same again.
            if not is_due and self._records_since_checkpoint:
                self._next_check_s = now_s + self._context.transactions.commit_s
        if is_due and (self._records_since_checkpoint or self._needs_first_checkpoint):
            await self._write_state()
        await self._context.transactions.commit()

    async def _write_state(self) -> None:
        alone = self._needs_first_checkpoint or self._stage.needs_checkpoint()
        entries = await self._call_in_thread(self._entries)
        if not alone:
            # Writing down a large state takes seconds, in which few should wait for outputs, nor
            # their transaction run out. State and its positions are whole by themselves.
            await self._context.transactions.commit()
        await self._context.transactions.wait_until_writable()
        self._send(message(entry, self.partition, self._prefix) for entry in entries)
        self._needs_first_checkpoint = False
        self._last_checkpoint_s = time.monotonic()
        self._records_since_checkpoint = 0

    def _entries(self) -> list[StateEntry]:
        """The entries of the next checkpoint."""
        topics = {name: self._context.topics.get(name, "") for name in self._spec.inputs}
        return self._state.write(
            self._task.dirty(),
            self._task.positions,
            topics=topics,
            declaration=self._context.declaration,
        )
