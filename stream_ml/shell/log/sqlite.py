"""The embedded log: one SQLite file, kept as `log.port.Log` promises; `pip install` is enough.

Theory of operation.

**One table per partition.** `partitions` has a row for each, with the offset that the next record
gets; its records are in the table `records_<id>`, by offset. So an append goes to the right end of
a tree of its own, pages are full, reading is a scan, and what retention removes is a range.
Measured against one table keyed by (topic, partition, offset) WITHOUT ROWID: events are appended
a third faster, predictions take less than a third of the space in pages of 4,096 bytes.

**Writers take turns, readers never wait.** The file is in WAL mode. A write begins with
`BEGIN IMMEDIATE` and is short, for everything that can be done before it is; another writer waits
up to `busy_timeout_ms`. A reader sees the last commit.

**The worker stages in memory.** Between commits its session holds no lock and no transaction: the
ends of the partitions are known from when it took its place, and asserted in the commit. Dying
therefore leaves nothing to clean up, and publishers get in between commits.

**What a commit outlives.** The death of any process, at any instant, always: a commit is in the
operating system's hands when it returns. With `synchronous="normal"` (the default) a loss of
*power* may undo the last commits, newest first, back to a consistent state, because the WAL is
synced at checkpoints only; with "full" it undoes none, at a sync per commit.

**The worker's place** is a lock of the operating system on `PATH.worker`, which nothing survives
holding. The file stays, and means nothing without its lock.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from stream_ml.errors import LogError, LogLocked, UnknownTopic, UsageError
from stream_ml.records import FORGOTTEN, Output, Record
from stream_ml.shell.log.lease import Lease, is_leased, lease_of, leased_ms
from stream_ml.shell.log.port import OwnWrites, Session, WorkerLog, is_of_clients, not_of_clients
from stream_ml.shell.log.sqlite_file import (
    MEMORY,
    READ_BYTES_MAX,
    SETBACK_MS,
    File,
    Partition,
    PartitionTail,
    sql,
)
from stream_ml.shell.log.tail import PolledTail
from stream_ml.stages.topology import STAGES
from stream_ml.task_names import MAIN_TASK, SEPARATOR, SHARED_TOPICS
from stream_ml.topics import Topic, embedded, needed, partition_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from typing import Self

    from stream_ml.shell.log.port import PartitionId, Range

__all__ = ["MEMORY", "Options", "SqliteLog", "SqliteSession"]


# Looked at per partition and call of `expire`, so that publishers never wait long for it.
EXPIRE_RECORDS_MAX = 10_000
# Erased in one transaction, so that publishers never wait long.
ERASE_RECORDS = 1_000
# Of how many stretches of a compacted partition it is kept that they are ours; others interrupt.
RANGES_MAX = 100

_FIRST_SINCE = "SELECT at FROM $ WHERE append_ms >= ? ORDER BY at LIMIT 1"
_FIRST_YOUNG = "SELECT min(at) FROM $ WHERE at >= ? AND at < ? AND append_ms BETWEEN ? AND ?"
_TRIM = "DELETE FROM $ WHERE at < ?"
_CHANGES = "SELECT at, key, value IS NULL FROM $ WHERE at >= ? AND at < ? ORDER BY at LIMIT ?"
_STAMP = "UPDATE $ SET append_ms = ? WHERE at = ? AND append_ms > ?"
_ERASE = "UPDATE $ SET key = ?, value = NULL WHERE at = ?"
_SUPERSEDE = "DELETE FROM $ WHERE key = ? AND at < ?"


class Options(TypedDict, total=False):
    """How a log is opened; each has a default.

    Attributes:
        now_ms: the clock that stamps appends (the system's).
        synchronous: "normal" outlives every death of a process, "full" a loss of power too.
        busy_timeout_ms: how long to wait for another writer before `LogLocked` (10,000).
        identity: of a log that is made now (random); for tests that compare what two logs hold.
        task: whose topics are seen, and made where there are none yet; None: the pipeline's own.
    """

    now_ms: Callable[[], int]
    synchronous: Literal["normal", "full"]
    busy_timeout_ms: int
    identity: str
    task: str | None


class SqliteLog(WorkerLog):
    """A log in one SQLite file, or in memory. Got by `create`, `open` or `open_or_create`.

    Use it in the thread that opened it; other threads and processes open their own. Close it, or
    use it as a context manager.

    >>> with SqliteLog.create(MEMORY) as log:
    ...     placed = log.append([Output("events", b"JFK", b'{"event_id":"e1","ts":1}')])
    ...     log.read("events", 0, 0, limit=10) == placed
    True
    """

    def __init__(self, file: File, topics: Mapping[str, Topic], options: Options) -> None:
        self._file = file
        self._topics = topics
        self._now_ms = options.get("now_ms", _system_ms)
        self._layout = _Layout(file, topics)
        self._stages_own = {
            name for name, definition in topics.items() if not is_of_clients(definition)
        }
        self._session: SqliteSession | None = None

    # --- making and opening ---------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: str | Path,
        topics: Mapping[str, Topic] | None = None,
        *,
        partitions: int = 1,
        **options: Unpack[Options],
    ) -> Self:
        """Makes a new log at `path`, or in memory at `MEMORY`.

        Args:
            path: where no log is yet.
            topics: what it holds, and for how long; by default what the catalogue has for it.
            partitions: how many the topics that scale have. One process needs one.
            options: see `Options`.

        Raises:
            LogError: there is a log already, or something else, or it cannot be made.
        """
        topics = topics or embedded()
        with _opening(path, "rwc", options) as file:
            if not file.make(needed(topics), partitions, options.get("identity")):
                raise LogError(
                    f"{path}: expected no log there yet, given one; open it, or choose another path"
                )
            return cls(file, topics, options)

    @classmethod
    def open(
        cls,
        path: str | Path,
        topics: Mapping[str, Topic] | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """Opens the log at `path`; parameters as `create` has them.

        Raises:
            UsageError: it has no such task.
            LogError: there is no log, or it is of another format.
        """
        if not Path(path).exists():
            raise LogError(f"{path}: expected a log, given no file; make one with `create`")
        with _opening(path, "rw", options) as file:
            if not file.is_log():
                raise LogError(
                    f"{path}: expected a log, given an empty file; make one with `create`"
                )
            if file.task is not None and file.task not in file.tasks():
                raise UsageError(
                    f"{path}: expected one of the tasks {', '.join([MAIN_TASK, *file.tasks()])}, "
                    f"given {file.task!r}; `stream-ml up` makes those that are declared"
                )
            return cls(file, topics or embedded(), options)

    @classmethod
    def open_or_create(
        cls,
        path: str | Path,
        topics: Mapping[str, Topic] | None = None,
        *,
        partitions: int = 1,
        **options: Unpack[Options],
    ) -> Self:
        """Opens the log at `path`, made as `create` does if there is none; any number may at once.

        Raises:
            LogError: something else is there, or a log of another format, or it cannot be made.
        """
        topics = topics or embedded()
        with _opening(path, "rwc", options) as file:
            is_new = file.make(needed(topics), partitions, options.get("identity"))
            if not is_new and file.task is not None:
                file.add_topics(needed(topics))
            return cls(file, topics, options)

    # --- publishing and reading -----------------------------------------------------------

    @property
    def path(self) -> str:
        """Where it is; `MEMORY` if nowhere."""
        return self._file.path

    @property
    def identity(self) -> str:
        """Which log this is; see `log.port.Log.identity`."""
        return self._file.identity()

    @property
    def partitions(self) -> Mapping[str, int]:
        """How many partitions each topic has, by topic."""
        return self._layout.counts

    def append(self, outputs: Sequence[Output]) -> list[Record]:
        """Appends `outputs` in one transaction; see `log.port.Log.append`."""
        for output in outputs:
            if output.topic in self._stages_own:
                raise not_of_clients(self._topics[output.topic])
        return self._append(outputs)

    def append_whole(self, writer: str, prepare: Callable[[], Sequence[Output]]) -> None:
        """Appends all or nothing, while nobody else can; see `log.port.Log.append_whole`."""
        del writer
        with self._file.transaction():
            self.append(prepare())

    def _append(self, outputs: Sequence[Output]) -> list[Record]:
        partitions = [self._layout.partition_for(output) for output in outputs]
        if not partitions:
            return []
        file = self._file
        with file.transaction():
            tails = {partition.id: file.tail(partition) for partition in set(partitions)}
            now_ms = self._now_ms()
            records = [
                tails[partition.id].extend(output, now_ms)
                for partition, output in zip(partitions, outputs, strict=True)
            ]
            file.write_rows(tails.values())
        return records

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """Up to `limit` records from `offset` on; see `log.port.Log.read`.

        It stops after 64 MiB, so fewer than `limit` need not mean the end; none does.
        """
        table = self._layout.partition(topic, partition)
        records = []
        budget = READ_BYTES_MAX
        with self._file.query(table.read, (offset, limit)) as rows:
            for record_offset, key, value, append_ms in rows:
                records.append(Record(topic, partition, record_offset, key, value, append_ms))
                if value is not None:
                    budget -= len(value)
                    if budget <= 0:
                        break
        return records

    def first_offset(self, topic: str, partition: int) -> int:
        """The offset before which retention has removed all; see `log.port.Log.first_offset`."""
        table = self._layout.partition(topic, partition)
        (first,) = self._file.row("SELECT first FROM partitions WHERE id = ?", table.id)
        return int(first)

    def end_offset(self, topic: str, partition: int) -> int:
        """One past the offset of the last record; see `log.port.Log.end_offset`."""
        return self._file.tail(self._layout.partition(topic, partition)).next

    def post(self, outputs: Sequence[Output]) -> None:
        """Appends `outputs` at once; see `log.port.Log.post`."""
        self.append(outputs)

    def flush(self) -> None:
        """Has nothing to wait for; see `log.port.Log.flush`."""

    def offset_at(self, topic: str, partition: int, append_ms: int) -> int:
        """The offset of the first record appended then or later; see `log.port.Log.offset_at`."""
        table = self._layout.partition(topic, partition)
        end = self._file.tail(table).next
        row = self._file.row(sql(_FIRST_SINCE, table.id), append_ms)
        return end if row is None else int(row[0])

    def tail(self, topic: str, offsets: Mapping[int, int]) -> PolledTail:
        """Reads on from `offsets`; see `log.port.Log.tail`."""
        return PolledTail(self, topic, offsets)

    def version(self) -> tuple[int, int]:
        """A token that differs if anything was written since; see `log.port.Log.version`.

        The first number counts the commits of others, the second the rows written here.
        """
        self._file.look_again()
        (data_version,) = self._file.row("PRAGMA data_version")
        # Each connection counts from anew.
        return data_version + (self._file.times_opened << 32), self._file.rows_written()

    def committed(self, group: str) -> dict[PartitionId, int]:
        """Where `group` goes on, by partition."""
        sql = "SELECT topic, partition, next FROM positions WHERE reader = ?"
        rows = self._file.rows(sql, self._file.owner(group))
        named = ((self._file.topic(stored), p, offset) for stored, p, offset in rows)
        return {(topic, p): offset for topic, p, offset in named if topic is not None}

    def state(self, group: str) -> list[tuple[str, bytes]]:
        """The state pieces of `group`, by key in order."""
        owner = self._file.owner(group)
        return self._file.rows("SELECT key, piece FROM state WHERE owner = ? ORDER BY key", owner)

    def piece(self, group: str, key: str) -> bytes | None:
        """One of the state pieces of `group`; see `log.port.Log.piece`."""
        owner = self._file.owner(group)
        row = self._file.row("SELECT piece FROM state WHERE owner = ? AND key = ?", owner, key)
        return None if row is None else bytes(row[0])

    def written_ms(self, group: str) -> None:
        """None: state goes with every commit, and is as new as the positions."""
        del group

    # --- the worker, retention, the end ---------------------------------------------------

    def stages_at_work(self) -> frozenset[str]:
        """All stages where somebody has the worker's place, else none."""
        if self.path == MEMORY:
            is_at_work = self._session is not None and not self._session.is_closed
        else:
            is_at_work = is_leased(self._lease_file())
        return frozenset(STAGES) if is_at_work else frozenset()

    def worker_since_ms(self, stage: str) -> int | None:
        """When the place was taken last, of all stages, by the clock of the file system."""
        del stage
        return None if self.path == MEMORY else leased_ms(self._lease_file())

    def _lease_file(self) -> Path:
        return lease_of(Path(self.path), self._file.task)

    def session(self, extra_topics: Collection[str] = ()) -> SqliteSession:
        """Becomes the worker; see `log.port.Log.session`."""
        if self._session is not None and not self._session.is_closed:
            raise LogLocked(f"{self.path}: expected one session at a time; close the other first")
        lease = None if self.path == MEMORY else Lease(self._lease_file())
        try:
            if self._file.add_topics(needed(self._topics, extra_topics)):
                self._layout = _Layout(self._file, self._topics)
            self._session = SqliteSession(self, self._file, self._layout, self._now_ms, lease)
        except BaseException:
            if lease is not None:
                lease.release()
            raise
        return self._session

    def tasks(self) -> list[str]:
        """The tasks that have topics here, declared or not, beside the pipeline's own."""
        return self._file.tasks()

    def expire(
        self,
        now_ms: int,
        records_max: int = EXPIRE_RECORDS_MAX,
        *,
        tasks: Collection[str] | None = None,
    ) -> int:
        """Removes what need be kept no longer at `now_ms`; returns how many records went.

        Of topics with a retention, what was appended longer ago; of compacted topics, what a newer
        record of the same key supersedes, and tombstones. Nothing goes that a group which reads
        the topic has yet to consume.

        While a worker is at work that knows what it has written (`Session.resume`), only that
        supersedes: what somebody else puts there under a key of ours removes nothing.

        At most `records_max` records of each partition are looked at, each partition in a short
        transaction of its own: call again while something goes. The file does not shrink; what was
        removed makes room for what comes.

        Args:
            now_ms: the time, UTC milliseconds.
            records_max: how many records of a partition are looked at.
            tasks: that are declared, as the pipeline's own worker knows: for no other one that has
                no worker are events kept. None: for all that have ever read them.
        """
        removed_count, gone = 0, self._gone(tasks)
        session = None if self._session is None or self._session.is_closed else self._session
        for partition in self._layout.all_partitions():
            topic = self._topics.get(partition.topic)
            if partition.compact:
                own_ranges = None if session is None else session.ranges(partition)
                removed_count += _compact(self._file, partition, records_max, own_ranges)
            elif topic is not None and topic.retention_ms is not None:
                young = now_ms - topic.retention_ms, now_ms
                removed_count += _trim(self._file, partition, young, records_max, gone)
        return removed_count

    def _gone(self, tasks: Collection[str] | None) -> frozenset[str]:
        """The tasks that are declared no more, nor worked on under a former declaration."""
        if tasks is None:
            return frozenset()
        path = Path(self.path)
        return frozenset(
            task
            for task in self._file.tasks()
            if task not in tasks and not (self.path != MEMORY and is_leased(lease_of(path, task)))
        )

    def erase(
        self,
        offsets: Mapping[PartitionId, Sequence[int]],
        subject: str,
        tasks: Collection[str] | None = None,
    ) -> int:
        """Takes key and value from records, which stay where they are, as forgotten.

        Only what every group has read that reads the partition, and nothing of what is compacted.
        What was there may still lie in the file until `scrub`.

        Args:
            offsets: by topic and partition, which records.
            subject: what stands for whose they were.
            tasks: that are declared, as `expire` has them.

        Returns:
            How many were erased; the others are yet to be read.

        Raises:
            LogError: it could not be done, `LogLocked` among the reasons; some may be erased.
        """
        erased_count, key, gone = 0, FORGOTTEN + subject.encode(), self._gone(tasks)
        for (topic, number), of_partition in offsets.items():
            partition = self._layout.partition(topic, number)
            if partition.compact:
                raise LogError(f"{topic}: expected a topic that is not compacted, given one")
            _, read_end, _ = _bounds(self._file, partition, gone)
            rows = [(key, offset) for offset in of_partition if offset < read_end]
            for first in range(0, len(rows), ERASE_RECORDS):
                with self._file.transaction():
                    part = rows[first : first + ERASE_RECORDS]
                    erased_count += self._file.write(sql(_ERASE, partition.id), part)
        return erased_count

    def scrub(self) -> None:
        """Writes the file anew, without what was erased or deleted; takes its size beside it.

        Whoever writes meanwhile waits, and fails after `busy_timeout_ms`.

        Raises:
            LogLocked: others were at work in the file; what was erased may still lie in it.
        """
        if self.path != MEMORY:
            self._file.scrub()

    def close(self) -> None:
        """Closes the file, and the session if there is one; what was not committed is gone."""
        if self._session is not None:
            self._session.close()
        self._file.close()


class SqliteSession(Session):
    """The worker's hold on a `SqliteLog`, got by its `session`; see `log.port.Session`."""

    def __init__(
        self,
        log: SqliteLog,
        file: File,
        layout: _Layout,
        now_ms: Callable[[], int],
        lease: Lease | None,
    ) -> None:
        self._log = log
        self._file = file
        self._layout = layout
        self._now_ms = now_ms
        self._lease = lease
        self._tails = {partition.id: file.tail(partition) for partition in layout.all_partitions()}
        self.is_closed = False
        # Until the worker says what it has given: of what lies there, what can be ours.
        bound_ms = now_ms() + SETBACK_MS
        stamps = [tail.append_ms for tail in self._own_tails() if tail.append_ms <= bound_ms]
        self._stamp_ms = max(stamps, default=0)
        # Of compacted partitions, what is ours before what we began to write now; None until said.
        self._ranges: dict[int, list[Range]] | None = None
        self.ahead: tuple[Record, int] | None = None

    def _own_tails(self) -> list[PartitionTail]:
        return [tail for tail in self._tails.values() if not tail.partition.of_clients]

    # --- what is ours ---------------------------------------------------------------------

    @property
    def setback_ms(self) -> int:
        """How far the clock is behind what the worker has stamped; see `log.port.Session`."""
        setback_ms = self._stamp_ms - self._now_ms()
        return setback_ms if setback_ms > SETBACK_MS else 0

    def resume(self, own_writes: OwnWrites | None) -> None:
        """Goes on from what the worker has written; see `log.port.Session.resume`."""
        self._ranges = {}
        if own_writes is not None:
            self._stamp_ms = own_writes.stamp_ms
        for tail in self._own_tails():
            if not tail.partition.compact:
                continue
            if own_writes is None:
                tail.begin = 0
                continue
            topic_partition = (tail.partition.topic, tail.partition.number)
            *_, compacted_end = _bounds(self._file, tail.partition)
            ranges = [
                offsets
                for offsets in own_writes.ranges.get(topic_partition, ())
                if offsets[1] > compacted_end
            ]
            if ranges and ranges[-1][1] == tail.start:
                tail.begin = ranges.pop()[0]
            self._ranges[tail.partition.id] = ranges[-RANGES_MAX:]

    def ranges(self, partition: Partition) -> list[Range] | None:
        """Which offsets of a compacted partition are ours; None where that was never said."""
        if self._ranges is None:
            return None
        tail = self._tails[partition.id]
        return [*self._ranges.get(partition.id, ()), (tail.begin, tail.start)]

    def own_writes(self) -> OwnWrites:
        """As `log.port.Session.own_writes`: what it will have written with the next commit."""
        ends, ranges = {}, {}
        for tail in self._own_tails():
            topic_partition = (tail.partition.topic, tail.partition.number)
            ends[topic_partition] = tail.next
            if tail.partition.compact:
                former = (self._ranges or {}).get(tail.partition.id, ())
                ranges[topic_partition] = [*former, (tail.begin, tail.next)]
        return OwnWrites(self._stamp_ms, ends, ranges)

    # --- work -----------------------------------------------------------------------------

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """Records that are worked on for the first time; see `log.port.Session.read`."""
        records = self._log.read(topic, partition, offset, limit)
        newest_ms = max([record.append_ms for record in records], default=0)
        if newest_ms <= self._stamp_ms:
            return records
        now_ms = self._now_ms()
        bound_ms = now_ms + SETBACK_MS
        # By a clock that is behind what it gave before nobody else's is judged.
        if newest_ms > bound_ms and self._stamp_ms <= bound_ms:
            self._stamp_anew(self._layout.partition(topic, partition), records, now_ms)
            newest_ms = max(record.append_ms for record in records)
        # What is made of a record is stamped no earlier than that.
        self._stamp_ms = max(self._stamp_ms, min(newest_ms, bound_ms))
        return records

    def _stamp_anew(self, partition: Partition, records: Sequence[Record], now_ms: int) -> None:
        ahead = [record for record in records if record.append_ms > now_ms + SETBACK_MS]
        with self._file.transaction():
            rows = [(now_ms, record.offset, now_ms + SETBACK_MS) for record in ahead]
            self._file.write(sql(_STAMP, partition.id), rows)
        if self.ahead is None:
            self.ahead = ahead[0], ahead[0].append_ms - now_ms
        for record in ahead:
            record.append_ms = now_ms

    @contextmanager
    def exclusive(self) -> Iterator[list[tuple[PartitionId, int, int]]]:
        """Keeps all others from writing; see `log.port.Session.exclusive`."""
        assert not self.staged_count, "what is staged has its offsets already"
        with self._file.transaction():
            foreign = []
            for tail in self._own_tails():
                end = self._file.tail(tail.partition).next
                if end != tail.next:
                    foreign.append(((tail.partition.topic, tail.partition.number), tail.next, end))
                    self._pass_over(tail, end)
            yield foreign
        for tail in self._tails.values():
            tail.mark_written()

    def _pass_over(self, tail: PartitionTail, end: int) -> None:
        if self._ranges is not None and tail.begin < tail.next:
            self._ranges.setdefault(tail.partition.id, []).append((tail.begin, tail.next))
        tail.begin = tail.start = tail.next = end

    @property
    def staged_count(self) -> int:
        """How many outputs wait for a commit."""
        return sum(len(tail.rows) for tail in self._tails.values())

    def stage(self, outputs: Sequence[Output]) -> list[Record]:
        """Takes `outputs` into the next commit; see `log.port.Session.stage`."""
        partitions = [self._layout.partition_for(output) for output in outputs]
        now_ms = self._stamp_ms = max(self._stamp_ms, self._now_ms())
        tails = self._tails
        return [
            tails[partition.id].follow(output, now_ms)
            for partition, output in zip(partitions, outputs, strict=True)
        ]

    def commit(
        self,
        positions: Mapping[str, Mapping[PartitionId, int]] | None = None,
        state: Iterable[tuple[str, str, bytes | None]] = (),
    ) -> None:
        """Writes all that was staged, `positions` and `state`; see `log.port.Session.commit`."""
        if self.is_closed:
            raise LogError(f"{self._file.path}: expected an open session, given a closed one")
        following = [
            (group, topic, self._layout.partition(topic, partition).number, offset)
            for group, next_offsets in (positions or {}).items()
            for (topic, partition), offset in next_offsets.items()
        ]
        # Of a piece given twice the last one counts.
        pieces = {(group, key): piece for group, key, piece in state}
        with self._file.transaction():
            self._file.write_rows(self._tails.values())
            self._file.write_positions(following)
            self._file.write_state(pieces)
        for tail in self._tails.values():
            tail.mark_written()

    def close(self) -> None:
        """Gives up the worker's place; what was not committed is gone."""
        if not self.is_closed:
            self.is_closed = True
            self._tails = {}
            if self._lease is not None:
                self._lease.release()


# --- partitions -------------------------------------------------------------------------------


class _Layout:
    """Which partitions the file has, and where a record belongs."""

    def __init__(self, file: File, topics: Mapping[str, Topic]) -> None:
        self._path = file.path
        self._partitions: dict[str, list[Partition]] = {}
        for number, stored, partition in file.rows(
            "SELECT id, topic, number FROM partitions ORDER BY topic, number"
        ):
            topic = file.topic(stored)
            if topic is None:
                continue
            table = Partition.from_topic(number, topic, partition, topics.get(topic))
            self._partitions.setdefault(topic, []).append(table)
        self.counts = MappingProxyType({topic: len(p) for topic, p in self._partitions.items()})

    def all_partitions(self) -> list[Partition]:
        return [partition for partitions in self._partitions.values() for partition in partitions]

    def partition(self, topic: str, partition: int) -> Partition:
        partitions = self._partitions.get(topic)
        if partitions is None:
            topics = ", ".join(self._partitions)
            raise UnknownTopic(f"{self._path}: expected one of {topics}, given {topic!r}")
        if not 0 <= partition < len(partitions):
            raise UnknownTopic(
                f"{self._path}: expected a partition of {topic} below {len(partitions)}, "
                f"given {partition}"
            )
        return partitions[partition]

    def partition_for(self, output: Output) -> Partition:
        """The partition that `output` belongs to, once it is known to be a record of its topic."""
        topic, key, value = output.topic, output.key, output.value
        partitions = self._partitions.get(topic)
        if partitions is None:
            return self.partition(topic, 0)
        partition = partitions[0 if key is None else partition_of(key, len(partitions))]
        if value is not None and len(value) > partition.record_bytes_max:
            raise LogError(
                f"{topic}: expected a record of at most {partition.record_bytes_max} bytes, "
                f"given {len(value)}"
            )
        if key is None and partition.compact:
            raise LogError(f"{topic}: expected a key, by which it is compacted, given none")
        return partition


# --- retention --------------------------------------------------------------------------------


def _trim(
    file: File,
    partition: Partition,
    young_ms: tuple[int, int],
    records_max: int,
    gone: Collection[str],
) -> int:
    first, end, _ = _bounds(file, partition, gone)
    end = min(end, first + records_max)
    # Stamps hardly fall within a partition, so the first young one is where to stop. One that is
    # still to come is of a clock that was ahead: it must not keep all that follows.
    (young,) = file.row(sql(_FIRST_YOUNG, partition.id), first, end, *young_ms)
    end = end if young is None else young
    if end <= first:
        return 0
    with file.transaction():
        removed_count = file.write(sql(_TRIM, partition.id), [(end,)])
        # Another task's worker may have removed more of the events meanwhile.
        file.write(
            "UPDATE partitions SET first = max(first, ?) WHERE id = ?", [(end, partition.id)]
        )
    return removed_count


def _compact(
    file: File, partition: Partition, records_max: int, own_ranges: list[Range] | None
) -> int:
    _, end, start = _bounds(file, partition)
    changes = file.rows(sql(_CHANGES, partition.id), start, end, records_max)
    if not changes:
        return 0
    # What came before under the same key goes; of a tombstone the record itself goes as well.
    superseding = [
        (key, offset + 1 if is_tombstone else offset)
        for offset, key, is_tombstone in changes
        if own_ranges is None or any(first <= offset < last for first, last in own_ranges)
    ]
    with file.transaction():
        removed_count = file.write(sql(_SUPERSEDE, partition.id), superseding)
        compacted_end = changes[-1][0] + 1
        file.write(
            "UPDATE partitions SET compacted = ? WHERE id = ?", [(compacted_end, partition.id)]
        )
    return removed_count


def _bounds(file: File, partition: Partition, gone: Collection[str] = ()) -> tuple[int, int, int]:
    """Where a partition begins, up to where every group has read it, how far it is compacted.

    Groups of tasks that are gone, whose state stays, are waited for no more.
    """
    first, end, compacted_end = file.row(
        "SELECT first, next, compacted FROM partitions WHERE id = ?", partition.id
    )
    # A group that reads the topic, but nothing of this partition yet, has all of it before it.
    reader_offsets = file.rows(
        "SELECT reader, max(CASE WHEN partition = ? THEN next ELSE 0 END) FROM positions "
        "WHERE topic = ? GROUP BY reader",
        partition.number,
        file.stored(partition.topic),
    )
    is_shared = partition.topic in SHARED_TOPICS
    awaited = [
        offset
        for reader, offset in reader_offsets
        if not (is_shared and reader.partition(SEPARATOR)[0] in gone)
    ]
    return first, min([end, *awaited]), compacted_end


# --- the file ---------------------------------------------------------------------------------


def _system_ms() -> int:
    return time.time_ns() // 1_000_000


@contextmanager
def _opening(path: str | Path, mode: str, options: Options) -> Iterator[File]:
    """The file at `path`, closed again if what it is opened for fails."""
    synchronous = options.get("synchronous", "normal")
    if synchronous not in {"normal", "full"}:
        raise LogError(f"synchronous: expected 'normal' or 'full', given {synchronous!r}")
    file = File(path, mode, options.get("busy_timeout_ms", 10_000), options.get("task"))
    try:
        file.row(f"PRAGMA synchronous = {synchronous}")
        yield file
    except BaseException:
        file.close()
        raise
