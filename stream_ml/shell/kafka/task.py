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
5. Whatever goes wrong (fenced, a broker that does not answer, an exception in a stage) ends the
   process: what is not committed is folded again by whoever takes over. Nothing is skipped.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_ml.differences import agreed, folded
from stream_ml.errors import UsageError
from stream_ml.sealing import SEALED_TOPICS, Marker
from stream_ml.shell.kafka.changelog import message, read_changelog
from stream_ml.shell.kafka.records import origin_headers, to_records
from stream_ml.shell.kafka.security import async_options
from stream_ml.shell.kafka.transactions import NEVER, Committed, Message
from stream_ml.shell.restoration import (
    TakenUp,
    changed_notice,
    foreign_alert,
    remade_alert,
    take_up,
)
from stream_ml.stages.inputs import open_sealed
from stream_ml.stages.learn import Learn, quarantined_in
from stream_ml.stages.partitioning import places_of
from stream_ml.stages.parts import read_piece
from stream_ml.stages.positions import ACCEPT, Extent, Notice, Resumed, resumed
from stream_ml.stages.task import Task

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
    from stream_ml.sealing import Entry, Restored, Seals
    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.shell.kafka.transactions import Transactions
    from stream_ml.shell.kafka.transport import Batch
    from stream_ml.shell.log.port import Place
    from stream_ml.stages.task import Positions, Stage

__all__ = ["Home", "KafkaTask", "Work"]

# A stage folds so many at a time: what arrives meanwhile, and other tasks, wait no longer.
SLICE_RECORDS = 256
# More than this in a task's inbox, and no more is fetched for it.
INBOX_RECORDS = 8_000
INBOX_BYTES = 64 << 20
# A replay folds some 30,000 records a second: a checkpoint is due after so many at the latest.
CHECKPOINT_RECORDS = 100_000
CHECKPOINT_SPREAD = 8
PROGRESS_S = 2.0
# By when a leader knows where its partition ends.
ENDS_S = 3.0
ENDS_POLL_S = 0.2


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
        transactions: what they write with, already started.
        partitions: of each topic that outputs may go to, by its name in the catalogue.
        checkpoint_s: how often state is written, in seconds.
        say: told what happens, as a kind and members.
        failed: told what ended a task that should not have ended.
        seals: of what is written, and what is read must have.
        declared: the declaration, as its checkpoints keep it.
        accept_unsealed: whether what a former release wrote, which did not seal, is believed.
        topics: the id of each topic, by its name in the catalogue.
        accepted: topics that are taken for what they are, whatever positions say.
        restart_lines: quarantined lines that start anew, be it by another recipe.
        go_to: has records fetched from other offsets on; returns the epoch in which they come.
    """

    cluster: Cluster
    transactions: Transactions
    partitions: dict[str, int]
    checkpoint_s: float
    say: Callable[..., None]
    failed: Callable[[BaseException], None]
    seals: Seals
    declared: Mapping[str, str] = field(default_factory=dict)
    accept_unsealed: bool = False
    topics: Mapping[str, str] = field(default_factory=dict)
    accepted: frozenset[str] = frozenset()
    go_to: Callable[[Mapping[Place, int]], Awaitable[int]] | None = None
    restart_lines: Collection[str] = ()


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
        self._state = home.seals.state(self._task.name)
        # Up to where a former release wrote the inputs, where that is believed.
        self._unsealed_before: dict[str, int] = {}
        self._inbox: deque[list[Record]] = deque()
        self.waiting = self.waiting_bytes = 0
        self._batches: dict[str, tuple[int, int]] = {}
        # What comes while other records are sent for, and may be some of those.
        self._aside: list[tuple[str, Batch]] | None = None
        self._woken = asyncio.Event()
        self._parking = self._leaving = False
        self._taken_over = False
        # Who commits what is new at the start, and tells it, is not called off between the two.
        self._news = asyncio.Lock()
        self._closed_epoch = -1
        self._runner: asyncio.Task[None] | None = None
        # What may be sent only together with the state, and when that is looked at, on the clock.
        self._held: list[Output] = []
        self._look_at = NEVER
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

        Args:
            topic: one of its inputs, as the catalogue has it.
            batch: records in their order, with the offsets that they cover.

        Raises:
            AssertionError: a batch before this one was lost.
        """
        if self._aside is not None:
            self._aside.append((topic, batch))
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
        records = to_records(topic, batch.records, self._home.topics.get(topic, ""))
        last = self._inbox[-1] if self._inbox else []
        if last and last[0].topic == topic and len(last) < SLICE_RECORDS:
            last += records
        else:
            self._inbox.append(records)
        self.waiting += len(records)
        self.waiting_bytes += _size(records)
        self._woken.set()

    @property
    def full(self) -> bool:
        """Whether it has enough before it."""
        return self.waiting >= INBOX_RECORDS or self.waiting_bytes >= INBOX_BYTES

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
            async with self._news:
                if not self._taken_over:
                    runner.cancel()
            await asyncio.wait([runner])
        self._inbox.clear()
        self.waiting = self.waiting_bytes = 0
        self._closed_epoch = epoch
        return self._taken_over

    async def may_go_on(self) -> bool:
        """Whether nobody has committed for it since it was parked."""
        committed = await self._committed()
        ours = {place: Committed(at, True) for place, at in self._task.positions.items() if at}
        return committed == ours

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
        committed = await self._committed()
        restored = await self._read_changelog()
        read_s = time.monotonic() - started
        extents = await self._extents({at: found.offset for at, found in committed.items()})
        taken = self._take_up(restored, extents)
        self._fresh = taken.positions is None
        going_on = self._resumed(committed, taken, extents)
        changes = self._agreed(taken, going_on)
        self._task.positions = dict(going_on.state)
        if taken.remade is not None:
            # All of it again, from the beginning.
            self._state.begin_anew()
            self._task.positions = {}
        elif taken.positions is not None:
            # A thread of its own: other tasks go on while thousands of keys are decoded.
            await asyncio.to_thread(_restore, self._task, taken.pieces)
        replayed = await self._replay(going_on.read)
        # What dies before its checkpoint time and again must not replay more each time.
        self._since_checkpoint = replayed
        self._task.positions = dict(going_on.read)
        await self._work.ready()
        # Tasks that begin together do not all write down their states at the same time.
        spread = self.partition % CHECKPOINT_SPREAD / CHECKPOINT_SPREAD
        self._checkpointed = time.monotonic() - spread * self._home.checkpoint_s
        seconds = time.monotonic() - started
        alerts = self._strange(restored, taken, replayed)
        async with self._news:
            await self._commit_news(going_on.notices, changes, alerts)
            self._home.say(
                "recovered",
                stage=self._work.stage,
                partition=self.partition,
                pieces=len(taken.pieces),
                changelog_s=round(read_s, 3),
                replayed=replayed,
                seconds=round(seconds, 3),
            )
            self._say_news(going_on.notices, changes)
        await self._send_for(committed)

    async def _commit_news(
        self, notices: Sequence[Notice], changes: Sequence[str], alerts: Sequence[Output]
    ) -> None:
        """Commit what is new at the start, with the state under which it is new no more.

        Before anything is folded, for no task may commit positions where no state lies; and before
        it is said, for what is said and then lost would be said again by the next who starts.
        """
        if self._fresh:
            self._held += self._stage.start()
        self._held += map(self._stage.note, notices)
        if changes and self._tells_changes:
            self._held.append(self._stage.note(changed_notice(changes)))
        self._held += alerts
        if self._fresh or changes or notices or alerts or self._state.must_write:
            self._since_checkpoint += 1
            await self._commit(checkpoint=True)

    def _say_news(self, notices: Sequence[Notice], changes: Sequence[str]) -> None:
        stage, partition = self._work.stage, self.partition
        if isinstance(self._stage, Learn):
            for line, why in self._stage.quarantined.items():
                self._home.say("quarantined", line=line, why=why)
        for each in notices:
            self._home.say(each.kind, stage=stage, partition=partition, message=each.message)
        if changes and self._tells_changes:
            self._home.say("changed", stage=stage, message=changed_notice(changes).message)

    @property
    def _tells_changes(self) -> bool:
        """Whether it tells how the declaration was changed, which is told once, not of all."""
        return self._work.stage == "evaluate"

    def _take_up(self, restored: Restored, extents: Mapping[Place, Extent]) -> TakenUp:
        """What to start from, if anything of it is to be believed."""
        if self._home.accept_unsealed:
            self._unsealed_before = {topic: extent.end for (topic, _), extent in extents.items()}
        taken = take_up(
            self._task.name,
            restored,
            {},
            {place: extent.first for place, extent in extents.items()},
            accept_unsealed=self._home.accept_unsealed,
        )
        if restored.plain:
            self._state.adopt(dict(taken.pieces))
        return taken

    def _agreed(self, taken: TakenUp, going_on: Resumed) -> list[str]:
        """What of the declaration is another than the state's, and is taken up.

        Raises:
            UsageError: something that is not taken up; or what was committed since the state was
                written would have to be folded again, as it was declared then.
        """
        if taken.marker is None:
            return []
        was, now = taken.marker.declared, self._home.declared
        quarantined = self._home.restart_lines
        if self._work.stage == "learn":
            quarantined = quarantined_in(read_piece("", dict(taken.pieces).get))
        cluster = self._home.cluster
        place = (
            f"the state of {self._task.name} on {cluster.topic(f'{self._work.stage}-changelog')}"
        )
        anew = "begin anew under another name of the pipeline"
        changes = agreed(was, now, place, anew, quarantined)
        again = taken.remade is not None or going_on.read != going_on.state
        if again and (paths := folded(was, now)):
            raise UsageError(
                f"{place}: expected, until all that was committed is in it, what it was made "
                f"under, given another {', '.join(paths)}; declare it as it was, start, stop in "
                "order (Ctrl-C or SIGTERM), and change it then"
            )
        return changes

    def _strange(self, restored: Restored, taken: TakenUp, replayed: int) -> list[Output]:
        """What a person should know of what lay on the changelog."""
        alerts = []
        if restored.foreign:
            alerts.append(foreign_alert(self._task.name, restored.foreign))
        if taken.remade is not None:
            alerts.append(remade_alert(self._task.name, taken.remade, replayed))
        return alerts

    def _resumed(
        self,
        committed: Mapping[Place, Committed],
        taken: TakenUp,
        extents: Mapping[Place, Extent],
    ) -> Resumed:
        """Where to go on, as far as that is known.

        Raises:
            UsageError: what was read is not what there is, or the state is gone.
        """
        marker = taken.marker
        if marker is None and taken.positions is not None:
            marker = Marker(taken.positions)
        state: Positions = {} if marker is None else dict(marker.positions)
        # The cluster forgets what a group committed that was idle for long; the marker knows.
        read = {place: at.offset for place, at in committed.items() if at.ours}
        notices = []
        if marker is None and read:
            self._expect_loss(read)
            state = dict(read)
            notices.append(_state_lost(self._work.stage, read))
        by_hand = {place: at.offset for place, at in committed.items() if not at.ours}
        for place, at in by_hand.items():
            if at != state.get(place, 0):
                group = self._home.cluster.group(self._work.stage)
                notices.append(_set_by_hand(group, place, at, state.get(place, 0)))
        found = resumed(
            self._task.name,
            state=state,
            read=read,
            identities={} if marker is None else marker.topics,
            extents=extents,
            accepted=self._home.accepted,
        )
        return replace(found, notices=(*notices, *found.notices))

    def _expect_loss(self, read: Positions) -> None:
        changelog = f"{self._work.stage}-changelog"
        if changelog in self._home.accepted:
            return
        until = ", ".join(
            f"{topic}-{partition} up to {at}" for (topic, partition), at in read.items()
        )
        raise UsageError(
            f"{self._task.name}: expected its state on {self._home.cluster.topic(changelog)}, for "
            f"it has read {until}, given none: the topic was made anew, or lost its beginning. Put "
            "it back, or have the tasks go on from there with an empty state, by starting once "
            f"with {ACCEPT}={changelog}"
        )

    async def _extents(self, read: Positions) -> dict[Place, Extent]:
        """What there is of each input, what lies in open transactions included.

        A partition that seems to end before what was read may have a new leader, which does not
        know yet how far it goes: it is asked again for a while.
        """
        cluster = self._home.cluster
        tps = {
            TopicPartition(cluster.topic(topic), self.partition): topic
            for topic in self._work.inputs
        }
        async with self._reader("read_uncommitted") as consumer:
            firsts = await consumer.beginning_offsets(list(tps))
            until = time.monotonic() + ENDS_S
            while True:
                ends = await consumer.end_offsets(list(tps))
                short = any(ends[tp] < read.get((tps[tp], self.partition), 0) for tp in tps)
                if not short or time.monotonic() > until:
                    break
                await asyncio.sleep(ENDS_POLL_S)
        return {
            (topic, self.partition): Extent(self._home.topics.get(topic, ""), firsts[tp], ends[tp])
            for tp, topic in tps.items()
        }

    async def _send_for(self, committed: Mapping[Place, Committed]) -> None:
        """Have fetched what we go on with, where the consumer began elsewhere."""
        if self._home.go_to is None:
            return
        elsewhere = {
            (self._home.cluster.topic(topic), partition): at
            for (topic, partition), at in self._task.positions.items()
            if at != (committed[topic, partition].offset if (topic, partition) in committed else 0)
        }
        if not elsewhere:
            return
        self._aside = []
        self._inbox.clear()
        self.waiting = self.waiting_bytes = 0
        self._batches.clear()
        self._closed_epoch = await self._home.go_to(elsewhere) - 1
        aside, self._aside = self._aside, None
        for topic, batch in aside:
            self.put(topic, batch)

    def has_read(self, topic: str) -> int | None:
        """Up to where it has read a topic; None while it does not know where to go on."""
        return self._task.positions.get((topic, self.partition), 0) if self._taken_over else None

    async def _committed(self) -> dict[Place, Committed]:
        """What is committed of each input; nothing where nothing was read."""
        places = {
            (self._home.cluster.topic(topic), self.partition): (topic, self.partition)
            for topic in self._work.inputs
        }
        found = await self._home.transactions.committed(places)
        return {places[place]: at for place, at in found.items() if at.offset or not at.ours}

    @asynccontextmanager
    async def _reader(self, isolation: str) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            isolation_level=isolation,
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

    async def _read_changelog(self) -> Restored:
        tp = TopicPartition(self._home.cluster.changelog(self._work.stage), self.partition)
        # Where all ends that was written, be it committed or (a moment longer) open.
        async with self._reader("read_uncommitted") as consumer:
            end = (await consumer.end_offsets([tp]))[tp]
        async with self._reader("read_committed") as consumer:
            return await read_changelog(consumer, tp, end, self._state)

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
        async with self._reader("read_committed") as consumer:
            consumer.assign(list(places))
            for tp, place in places.items():
                consumer.seek(tp, self._task.positions.get(place, 0))
            while behind:
                fetched = await consumer.getmany(timeout_ms=1_000, max_records=SLICE_RECORDS)
                for tp, batch in fetched.items():
                    place = places[tp]
                    records = to_records(place[0], batch, self._home.topics.get(place[0], ""))
                    records = [each for each in records if each.offset < committed[place]]
                    if records:
                        self._open(records)
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

    def _open(self, records: Sequence[Record]) -> None:
        """Take off the seals of what is about to be folded, where its topic has some."""
        topic = records[0].topic
        if topic in SEALED_TOPICS:
            before = self._unsealed_before.get(topic, 0)
            open_sealed(records, self._home.seals.records(topic), unsealed_before=before)

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
        due = min(self._home.transactions.due, self._look_at)
        if not self._since_checkpoint:
            return due
        return min(due, self._checkpointed + self._home.checkpoint_s)

    def _slice(self) -> Sequence[Record]:
        records = self._inbox[0]
        if len(records) <= SLICE_RECORDS:
            self._inbox.popleft()
            part = records
        else:
            part = records[:SLICE_RECORDS]
            self._inbox[0] = records[SLICE_RECORDS:]
        self.waiting -= len(part)
        self.waiting_bytes -= _size(part)
        return part

    async def _fold(self, records: Sequence[Record]) -> None:
        await self._home.transactions.free()
        self._open(records)
        # Nothing is awaited until all is handed over: a commit has all of it, or nothing.
        self._held += self._task.apply(records)
        self._since_checkpoint += len(records)
        if self._stage.needs_checkpoint():
            self._look_at = min(self._look_at, time.monotonic() + self._home.transactions.commit_s)
        else:
            self._send()
        # Whoever else has work in this process gets a turn.
        await asyncio.sleep(0)

    def _send(self, state: Iterable[Message] = ()) -> None:
        """Hand over what is to be sent, behind a state, and where its inputs were read to."""
        home = self._home
        by_topic: dict[str, list[Output]] = {}
        for each in self._held:
            by_topic.setdefault(each.topic, []).append(each)
        self._held = []
        records = [(home.cluster.changelog(self._work.stage), state)]
        for topic, some in by_topic.items():
            hashed = places_of([each.key or b"" for each in some], home.partitions[topic])
            sealed = home.seals.records(topic).sealed if topic in SEALED_TOPICS else _as_it_is
            messages: list[Message] = [
                {
                    "key": each.key,
                    "value": None if each.value is None else sealed(each.value),
                    "partition": 0 if each.key is None else at,
                }
                for each, at in zip(some, hashed, strict=True)
            ]
            for each, record in zip(some, messages, strict=True):
                if each.origin is not None:
                    topic_id = home.topics.get(topic, "")
                    record["headers"] = origin_headers(each.origin, topic_id)
            records.append((home.cluster.topic(topic), messages))
        # Of all inputs, also those of which nothing was read: that we may commit at all is seen by
        # positions.
        at = self._task.positions
        positions = {
            (home.cluster.topic(topic), self.partition): at.get((topic, self.partition), 0)
            for topic in self._work.inputs
        }
        home.transactions.write(records, positions)

    async def _commit(self, *, checkpoint: bool = False) -> None:
        stage, now = self._stage, time.monotonic()
        due = (
            checkpoint
            or self._fresh
            or now - self._checkpointed >= self._home.checkpoint_s
            or self._since_checkpoint >= CHECKPOINT_RECORDS
        )
        self._look_at = NEVER
        if stage.needs_checkpoint():
            due = due or stage.must_checkpoint()
            # It may stay behind: after a crash it folds the same again.
            if not due and self._since_checkpoint:
                self._look_at = now + self._home.transactions.commit_s
        if due and (self._since_checkpoint or self._fresh):
            await self._write_state()
        await self._home.transactions.commit()

    async def _write_state(self) -> None:
        alone = self._fresh or self._stage.needs_checkpoint()
        entries = await asyncio.to_thread(self._entries)
        if not alone:
            # Writing down a large state takes seconds, in which few should wait for outputs, nor
            # their transaction run out. State and its positions are whole by themselves.
            await self._home.transactions.commit()
        await self._home.transactions.free()
        self._send(message(entry, self.partition) for entry in entries)
        self._fresh = False
        self._checkpointed = time.monotonic()
        self._since_checkpoint = 0

    def _entries(self) -> list[Entry]:
        """What the next checkpoint consists of."""
        topics = {name: self._home.topics.get(name, "") for name in self._work.inputs}
        return self._state.write(
            self._task.dirty(),
            self._task.positions,
            topics=topics,
            declared=self._home.declared,
        )


def _as_it_is(value: bytes) -> bytes:
    return value


def _state_lost(stage: str, read: Positions) -> Notice:
    places = {f"{topic}-{partition}": at for (topic, partition), at in read.items()}
    return Notice(
        "state_lost",
        f"the state of {stage} was gone: it goes on with an empty one from {places}, as {ACCEPT} "
        "says",
        {"positions": places},
    )


def _set_by_hand(group: str, place: Place, at: int, state: int) -> Notice:
    topic, partition = place
    return Notice(
        "group_reset",
        f"{topic}-{partition}: {at} is committed for {group}, and not by a worker; what was read "
        f"is known from the state, which goes on from {state}",
        {"topic": topic, "partition": partition, "committed": at, "position": state},
    )


def _size(records: Sequence[Record]) -> int:
    return sum([len(record.value) for record in records if record.value is not None])


def _restore(task: Task, pieces: Sequence[tuple[str, bytes]]) -> None:
    """Have a task take up a state, which the collector of cycles then need not look at again.

    It holds none, and with 100,000 keys looking took half of the time (3.8 s of processor time
    instead of 1.9), and a quarter of that of the replay behind it.
    """
    gc.disable()
    try:
        task.restore(pieces)
        gc.freeze()
    finally:
        gc.enable()
