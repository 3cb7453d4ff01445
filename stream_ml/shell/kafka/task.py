"""A task on the cluster: one stage, one partition number, one transactional producer.

Theory of operation:

1. **One transaction** holds everything that a stretch of input led to: outputs, state where it is
   due, and the positions of every input. It begins with the first record folded and ends
   `commit_s` later, so none is open while a task recovers or idles. Outputs are sent at once:
   readers of uncommitted records see them within milliseconds, the others once it commits.
2. **Taking over**, in this order: (1) start the producer, which fences the former owner and ends
   its transaction; (2) read what was committed, which is final only now; (3) the changelog, to its
   end; (4) replay the inputs from where the state is valid to what was committed, writing nothing;
   (5) wait until what all tasks share (the models that serve) is as new as it was for the former
   owner. Then (6) the first batch, of which what lies below (2) is passed over.
3. **State** goes to a changelog: at a checkpoint the pieces that changed, and behind them a marker
   with the positions at which all of them are valid. They are in one transaction, so a reader has
   all of a checkpoint or nothing of it, and no piece needs a stamp of its own. Where a stage's
   outputs follow from its inputs alone, commits go on between checkpoints; where they do not
   (`needs_checkpoint`), it commits only together with its state.
4. **Parked** over a rebalance, a task keeps its state. If it gets its partition back and nobody has
   committed meanwhile, it goes on; else it is closed, and taken over anew.
5. Whatever goes wrong (fenced, a broker that does not answer, an exception in a stage) ends the
   process: what is not committed is folded again by whoever takes over. Nothing is skipped.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from stream_ml.shell.kafka.changelog import MARKER, encode_marker, read_changelog
from stream_ml.shell.kafka.records import origin_headers, to_records
from stream_ml.shell.kafka.security import async_options
from stream_ml.shell.kafka.transactions import Message, Transactions
from stream_ml.stages.placement import places_of
from stream_ml.stages.task import Task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from stream_ml.records import Output, Record
    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.shell.kafka.transport import Batch
    from stream_ml.stages.task import Positions, Stage

__all__ = ["Home", "KafkaTask", "Work"]

# A successor ends an abandoned transaction when it starts; without one, readers of committed
# records wait this long for its partitions (and as long as a transaction gathers beside).
TRANSACTION_TIMEOUT_MS = 5_000
# A stage folds so many at a time: what arrives meanwhile, and other tasks, wait no longer.
SLICE_RECORDS = 256
# More than this in a task's inbox, and no more is fetched for it.
INBOX_RECORDS = 8_000
# A replay folds some 30,000 records a second: a checkpoint is due after so many at the latest.
CHECKPOINT_RECORDS = 100_000
# What one fold writes to a partition shares a request.
LINGER_MS = 1
PROGRESS_S = 2.0
NEVER = float("inf")
# How long a broker that has just started may take until it answers for a group.
COORDINATOR_S = 30.0
RETRY_S = 0.2


@dataclass(frozen=True)
class Work:
    """What the workers of a stage do.

    Args:
        stage: its name.
        inputs: the topics it reads; a task has the partition of its number of each.
        make: a fresh stage for a partition number.
        ready: waits until what the tasks of a process share is as new as it is now.
    """

    stage: str
    inputs: tuple[str, ...]
    make: Callable[[int], Stage]
    ready: Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Home:
    """Where tasks work, and how.

    Args:
        cluster: the pipeline's place.
        partitions: of each topic that outputs may go to, by its name in the catalogue.
        commit_s: how long a transaction gathers, in seconds.
        checkpoint_s: how often state is written, in seconds.
        say: told what happens, as a kind and members.
        failed: told what ended a task that should not have ended.
    """

    cluster: Cluster
    partitions: dict[str, int]
    commit_s: float
    checkpoint_s: float
    say: Callable[..., None]
    failed: Callable[[BaseException], None]


class KafkaTask:
    """A task that takes over, folds what is put before it, commits, and parks."""

    def __init__(self, home: Home, work: Work, partition: int) -> None:
        self._home = home
        self._work = work
        self.partition = partition
        self._task = Task(f"{work.stage}-{partition}", work.make(partition))
        self._stage = self._task.stage
        self._options = {
            "bootstrap_servers": home.cluster.bootstrap,
            **async_options(home.cluster.security),
        }
        self._producer: Transactions | None = None
        self._inbox: deque[list[Record]] = deque()
        self.waiting = 0
        self._batches: dict[str, tuple[int, int]] = {}
        self._woken = asyncio.Event()
        self._parking = self._leaving = False
        self._taken_over = False
        self._closed_epoch = -1
        self._runner: asyncio.Task[None] | None = None
        # When the transaction is to end, on the clock.
        self._commit_due = NEVER
        # No checkpoint lies on the changelog yet: the first commit must hold one.
        self._fresh = False
        self._checkpointed = 0.0
        self._since_checkpoint = 0

    # --- what a host does with a task ----------------------------------------------------------

    def go(self) -> None:
        """Begin, or go on after `park`."""
        self._parking = False
        self._runner = asyncio.create_task(self._run(), name=self._task.name)
        self._runner.add_done_callback(self._ended)

    def put(self, topic: str, batch: Batch) -> None:
        """Put a batch of one of its inputs before it.

        Raises:
            AssertionError: a batch before this one was lost.
        """
        epoch, number = self._batches.get(topic, (-1, -1))
        if batch.epoch < epoch or batch.epoch <= self._closed_epoch:
            return
        follows = number + 1 if batch.epoch == epoch else 0
        assert batch.number == follows, (
            f"{self._task.name}: batch {batch.number} of epoch {batch.epoch} of {topic} came where "
            f"{follows} was expected, after {number} of {epoch}"
        )
        self._batches[topic] = (batch.epoch, batch.number)
        records = to_records(topic, batch.records)
        self._inbox.append(records)
        self.waiting += len(records)
        self._woken.set()

    @property
    def full(self) -> bool:
        """Whether it has enough before it."""
        return self.waiting >= INBOX_RECORDS

    async def park(self, epoch: int, *, checkpoint: bool = False) -> bool:
        """Commit what was folded, forget what was not, and stop; whether its state is whole.

        Args:
            epoch: of the batches that end now; none of it will be taken any more.
            checkpoint: write down the state too, so that whoever takes over has it all.
        """
        runner, self._runner = self._runner, None
        if runner is not None:
            self._parking, self._leaving = True, checkpoint
            self._woken.set()
            if not self._taken_over:
                runner.cancel()
            await asyncio.wait([runner])
        self._inbox.clear()
        self.waiting = 0
        self._closed_epoch = epoch
        return self._taken_over

    async def may_go_on(self) -> bool:
        """Whether nobody has committed for it since it was parked."""
        committed = await self._committed()
        ours = {place: at for place, at in self._task.positions.items() if at}
        return committed == ours

    async def close(self) -> None:
        """Let go of the producer; the state is lost to this process."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await producer.close()

    def _ended(self, runner: asyncio.Task[None]) -> None:
        if not runner.cancelled() and (error := runner.exception()) is not None:
            self._home.failed(error)

    # --- taking over ---------------------------------------------------------------------------

    async def _run(self) -> None:
        if not self._taken_over:
            await self._take_over()
            self._taken_over = True
        while not self._parking:
            if not self._inbox:
                await self._wait()
            else:
                await self._fold(self._slice())
            if self._due() <= time.monotonic():
                await self._commit()
        # What learns and judges commits only with its state.
        await self._commit(checkpoint=self._leaving or self._stage.needs_checkpoint())

    async def _take_over(self) -> None:
        started = time.monotonic()
        self._home.say("recovering", stage=self._work.stage, partition=self.partition)
        self._producer = Transactions(
            self._home.cluster,
            self._home.cluster.transactional_id(self._work.stage, self.partition),
            self._home.cluster.group(self._work.stage),
            timeout_ms=TRANSACTION_TIMEOUT_MS + int(1_000 * self._home.commit_s),
            linger_ms=LINGER_MS,
        )
        await self._producer.start()
        committed = await self._committed()
        pieces, positions = await self._read_changelog()
        read_s = time.monotonic() - started
        self._fresh = positions is None
        assert positions is not None or not committed, (
            f"{self._task.name}: positions were committed, but no state lies on the changelog"
        )
        if positions is not None:
            self._task.positions = dict(positions)
            # A thread of its own: other tasks go on while thousands of keys are decoded.
            await asyncio.to_thread(_restore, self._stage, pieces)
            # The cluster forgets what a group committed that was idle for long; the marker knows.
            committed = {**positions, **committed}
        replayed = await self._replay(committed)
        # What dies before its checkpoint time and again must not replay more each time.
        self._since_checkpoint = replayed
        self._task.positions = dict(committed)
        await self._work.ready()
        self._checkpointed = time.monotonic()
        self._home.say(
            "recovered",
            stage=self._work.stage,
            partition=self.partition,
            pieces=len(pieces),
            changelog_s=round(read_s, 3),
            replayed=replayed,
            seconds=round(time.monotonic() - started, 3),
        )
        if self._fresh:
            await self._send(self._stage.start())
            await self._commit(checkpoint=True)

    async def _committed(self) -> Positions:
        """What is committed of each input; nothing where nothing is."""
        cluster = self._home.cluster
        places = {
            TopicPartition(cluster.topic(topic), self.partition): (topic, self.partition)
            for topic in self._work.inputs
        }
        admin = AIOKafkaAdminClient(**self._options)
        try:  # a rebalance may end us at any await, this one too
            await admin.start()
            async with asyncio.timeout(COORDINATOR_S):
                found = await _until_answered(
                    lambda: admin.list_consumer_group_offsets(
                        cluster.group(self._work.stage), partitions=list(places)
                    )
                )
        finally:
            await admin.close()
        return {places[tp]: each.offset for tp, each in found.items() if each.offset >= 0}

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=4 << 20,
            **self._options,
        )
        try:
            await consumer.start()
            yield consumer
        finally:
            await consumer.stop()

    async def _read_changelog(self) -> tuple[list[tuple[str, bytes]], Positions | None]:
        topic = self._home.cluster.changelog(self._work.stage)
        async with self._reader() as consumer:
            return await read_changelog(consumer, TopicPartition(topic, self.partition))

    async def _replay(self, committed: Positions) -> int:
        """Fold what was committed after the state was written; how many records it was."""
        behind = {
            place: at for place, at in committed.items() if at > self._task.positions.get(place, 0)
        }
        if not behind:
            return 0
        cluster = self._home.cluster
        places = {TopicPartition(cluster.topic(topic), p): (topic, p) for topic, p in behind}
        started = said = time.monotonic()
        replayed = 0
        async with self._reader() as consumer:
            consumer.assign(list(places))
            for tp, place in places.items():
                consumer.seek(tp, self._task.positions.get(place, 0))
            while behind:
                fetched = await consumer.getmany(timeout_ms=1_000, max_records=SLICE_RECORDS)
                for tp, batch in fetched.items():
                    place = places[tp]
                    records = to_records(place[0], batch)
                    records = [each for each in records if each.offset < committed[place]]
                    if records:
                        self._task.replay(records)
                        replayed += len(records)
                for tp, place in places.items():
                    if place in behind and await consumer.position(tp) >= behind[place]:
                        del behind[place]
                        consumer.pause(tp)
                await asyncio.sleep(0)
                now = time.monotonic()
                if now - said >= PROGRESS_S:
                    said = now
                    self._say_progress(committed, replayed, now - started)
        return replayed

    def _say_progress(self, committed: Positions, replayed: int, seconds: float) -> None:
        left = sum(at - self._task.positions.get(place, 0) for place, at in committed.items())
        self._home.say(
            "replaying",
            stage=self._work.stage,
            partition=self.partition,
            replayed=replayed,
            per_second=round(replayed / seconds),
            remaining=max(0, left),
        )

    # --- work ----------------------------------------------------------------------------------

    async def _wait(self) -> None:
        """Until something comes, or a commit is due."""
        self._woken.clear()
        if self._inbox or self._parking:
            return
        due = self._due() - time.monotonic()
        try:
            async with asyncio.timeout(None if due == NEVER else max(0.0, due)):
                await self._woken.wait()
        except TimeoutError:
            return

    def _due(self) -> float:
        """When to commit: what is under way, or the state, also if nothing more comes."""
        if not self._since_checkpoint:
            return self._commit_due
        return min(self._commit_due, self._checkpointed + self._home.checkpoint_s)

    def _slice(self) -> Sequence[Record]:
        records = self._inbox[0]
        if len(records) <= SLICE_RECORDS:
            self._inbox.popleft()
            part = records
        else:
            part = records[:SLICE_RECORDS]
            self._inbox[0] = records[SLICE_RECORDS:]
        self.waiting -= len(part)
        return part

    async def _fold(self, records: Sequence[Record]) -> None:
        outputs = self._task.apply(records)
        self._since_checkpoint += len(records)
        self._commit_due = min(self._commit_due, time.monotonic() + self._home.commit_s)
        await self._send(outputs)
        # Whoever else has work in this process gets a turn.
        await asyncio.sleep(0)

    async def _send(self, outputs: Iterable[Output]) -> None:
        by_topic: dict[str, list[Output]] = {}
        for each in outputs:
            by_topic.setdefault(each.topic, []).append(each)
        for topic, some in by_topic.items():
            hashed = places_of([each.key or b"" for each in some], self._home.partitions[topic])
            messages: list[Message] = [
                {"key": each.key, "value": each.value, "partition": 0 if each.key is None else at}
                for each, at in zip(some, hashed, strict=True)
            ]
            for each, message in zip(some, messages, strict=True):
                if each.origin is not None:
                    message["headers"] = origin_headers(each.origin)
            await self._write(topic, messages)

    async def _write(self, topic: str, messages: list[Message]) -> None:
        assert self._producer is not None, "a task writes only while it has a producer"
        await self._producer.send(self._home.cluster.topic(topic), messages)

    async def _commit(self, *, checkpoint: bool = False) -> None:
        assert self._producer is not None, "a task commits only while it has a producer"
        stage, now = self._stage, time.monotonic()
        due = (
            checkpoint
            or self._fresh
            or now - self._checkpointed >= self._home.checkpoint_s
            or self._since_checkpoint >= CHECKPOINT_RECORDS
        )
        if stage.needs_checkpoint():
            due = due or stage.must_checkpoint()
            if not due:  # it may stay behind: its examples are folded again after a crash
                self._commit_due = now + self._home.commit_s
                return
        if not (self._since_checkpoint or self._producer.open):
            self._commit_due = NEVER
            return
        if due and self._producer.open and not (self._fresh or stage.needs_checkpoint()):
            # Writing down a large state takes seconds, in which none should wait for outputs, nor
            # their transaction run out. State and its positions are whole by themselves. (But what
            # is committed first of all must not be without a state.)
            await self._end_transaction()
        if due:
            await self._write_state()
        await self._end_transaction()
        if due:
            self._fresh = False
            self._checkpointed = time.monotonic()
            self._since_checkpoint = 0

    async def _end_transaction(self) -> None:
        """Commit what was sent, together with the positions that it follows from."""
        assert self._producer is not None, "a task commits only while it has a producer"
        topics = self._home.cluster.topic
        await self._producer.commit(
            {(topics(topic), p): at for (topic, p), at in self._task.positions.items()}
        )
        self._commit_due = NEVER

    async def _write_state(self) -> None:
        pieces = await asyncio.to_thread(self._stage.dirty)
        named = [(name.encode(), value) for name, value in pieces]
        named.append((MARKER, encode_marker(self._task.positions)))
        messages = [{"key": k, "value": v, "partition": self.partition} for k, v in named]
        await self._write(f"{self._work.stage}-changelog", messages)


async def _until_answered(ask: Callable[[], Awaitable[Any]]) -> Any:
    """What `ask` gives, asked again while a broker that has just started is not ready for it."""
    while True:
        try:
            return await ask()
        except KafkaError as error:
            if not error.retriable:
                raise
            await asyncio.sleep(RETRY_S)


def _restore(stage: Stage, pieces: Sequence[tuple[str, bytes]]) -> None:
    """Have a stage take up a state, which the collector of cycles then need not look at again.

    It holds none, and with 100,000 keys looking took half of the time (3.8 s of processor time
    instead of 1.9), and a quarter of that of the replay behind it.
    """
    gc.disable()
    try:
        stage.restore(pieces)
        gc.freeze()
    finally:
        gc.enable()
