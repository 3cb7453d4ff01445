"""The embedded log: one SQLite file, kept as `log.Log` promises. `pip install` is all it needs.

Theory of operation.

**One table per partition.** `partitions` has a row for each, with the offset that the next record
gets; its records are in the table `records_<id>`, by offset. So an append goes to the right end of
a tree of its own, pages are full, reading is a scan, and what retention removes is a range.
Measured against one table keyed by (topic, partition, offset) WITHOUT ROWID: appends a third
faster, 12 times fewer pages where records outgrow a quarter of a page.

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

import fcntl
import os
import sqlite3
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from stream_ml.errors import LogError, LogFull, LogLocked, UnknownTopic
from stream_ml.records import Output, Record
from stream_ml.topics import Topic, catalogue, partition_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Self

    from stream_ml.shell.log import Place

__all__ = ["MEMORY", "Options", "SqliteLog", "SqliteSession"]

# The path of a log that lives as long as its object, for backtests and tests.
MEMORY = ":memory:"

FORMAT = 1
# Says whose file it is, where SQLite keeps such a mark: "SMLg".
APPLICATION_ID = 0x534D4C67
# Events fit a page of 4,096 bytes and predictions overflow it; 16,384 makes small commits dear.
PAGE_BYTES = 8192
# A read stops after so many bytes: a thousand snapshots at once would be 16 GiB.
READ_BYTES_MAX = 64 * 1024 * 1024
# Rows removed per partition and call of `expire`, so that publishers never wait long for it.
EXPIRE_RECORDS_MAX = 10_000

_SCHEMA = """
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    number INTEGER NOT NULL,
    first INTEGER NOT NULL DEFAULT 0,       -- what lies before was removed by retention
    next INTEGER NOT NULL DEFAULT 0,        -- the offset of the next record
    append_ms INTEGER NOT NULL DEFAULT 0,   -- the last record's, below which none may fall
    compacted INTEGER NOT NULL DEFAULT 0,   -- what lies before was looked at by compaction
    UNIQUE (topic, number)
) STRICT;
CREATE TABLE positions (
    reader TEXT NOT NULL,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    next INTEGER NOT NULL,
    PRIMARY KEY (reader, topic, partition)
) STRICT, WITHOUT ROWID;
CREATE TABLE state (
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    piece BLOB NOT NULL,
    UNIQUE (owner, key)
) STRICT;
"""
_RECORDS = (
    "CREATE TABLE records_{id} "
    "(at INTEGER PRIMARY KEY, key BLOB, value BLOB, append_ms INTEGER NOT NULL) STRICT;"
)
_RECORDS_BY_KEY = "CREATE INDEX keys_{id} ON records_{id} (key);"


class Options(TypedDict, total=False):
    """How a log is opened; each has a default.

    Attributes:
        now_ms: the clock that stamps appends (default: the system's).
        synchronous: "normal" outlives every death of a process, "full" a loss of power too.
        busy_timeout_ms: how long to wait for another writer before `LogLocked` (10,000).
    """

    now_ms: Callable[[], int]
    synchronous: Literal["normal", "full"]
    busy_timeout_ms: int


class SqliteLog:
    """A log in one SQLite file, or in memory.

    Use it in the thread that opened it; other threads and processes open their own. Close it, or
    use it as a context manager.

    >>> with SqliteLog.create(MEMORY) as log:
    ...     placed = log.append([Output("events", b"JFK", b'{"event_id":"e1","ts":1}')])
    ...     log.read("events", 0, 0, limit=10) == placed
    True
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        name: str,
        topics: Mapping[str, Topic],
        **options: Unpack[Options],
    ) -> None:
        """For `create`, `open` and `open_or_create`, which are how one gets a log."""
        self.name = name
        self.topics = topics
        self._now_ms = options.get("now_ms", _system_ms)
        self._connection = connection
        self._session: SqliteSession | None = None
        self._partitions = self._read_partitions()
        self.partitions: Mapping[str, int] = MappingProxyType(
            {topic: len(places) for topic, places in self._partitions.items()}
        )

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
            topics: what it holds; the catalogue by default.
            partitions: how many the topics that scale have. One process needs one.
            options: see `Options`.

        Raises:
            LogError: there is a log already, or something else, or it cannot be made.
        """
        topics = catalogue() if topics is None else topics
        name = str(path)
        connection = _connect(path, "rwc", options)
        try:
            with _explained(name):
                made = _make(connection, name, topics, partitions)
            if not made:
                raise LogError(
                    f"{name}: expected no log there yet, given one; open it, or choose another path"
                )
            return cls(connection, name, topics, **options)
        except BaseException:
            connection.close()
            raise

    @classmethod
    def open(
        cls,
        path: str | Path,
        topics: Mapping[str, Topic] | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """Opens the log at `path`; `topics` says how long its records are kept.

        Raises:
            LogError: there is no log, or it is of another format.
        """
        name = str(path)
        if not Path(path).exists():
            raise LogError(f"{name}: expected a log, given no file; make it with `create`")
        connection = _connect(path, "rw", options)
        try:
            with _explained(name):
                if not _is_log(connection, name):
                    raise LogError(
                        f"{name}: expected a log, given an empty file; remove it and make one"
                    )
            return cls(connection, name, catalogue() if topics is None else topics, **options)
        except BaseException:
            connection.close()
            raise

    @classmethod
    def open_or_create(
        cls,
        path: str | Path,
        topics: Mapping[str, Topic] | None = None,
        *,
        partitions: int = 1,
        **options: Unpack[Options],
    ) -> Self:
        """Opens the log at `path`, made first if it is not there; any number may do so at once.

        Raises:
            LogError: what is there is not a log, or is of another format, or cannot be made.
        """
        topics = catalogue() if topics is None else topics
        name = str(path)
        connection = _connect(path, "rwc", options)
        try:
            with _explained(name):
                _make(connection, name, topics, partitions)
            return cls(connection, name, topics, **options)
        except BaseException:
            connection.close()
            raise

    # --- publishing and reading -----------------------------------------------------------

    def append(self, outputs: Sequence[Output]) -> list[Record]:
        """Appends `outputs` in one transaction; see `log.Log.append`."""
        places = [self._place(output) for output in outputs]
        if not places:
            return []
        with self._transaction():
            tails = {place.id: self._tail(place) for place in set(places)}
            now_ms = self._now_ms()
            records = [
                tails[place.id].extend(output, now_ms)
                for place, output in zip(places, outputs, strict=True)
            ]
            self._write(tails.values())
        return records

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """Up to `limit` records from `offset` on; see `log.Log.read`.

        Fewer than `limit` need not mean the end: a read stops after 64 MiB. None means it.
        """
        place = self._known(topic, partition)
        records = []
        budget = READ_BYTES_MAX
        with _explained(self.name):
            cursor = self._connection.execute(place.select, (offset, limit))
            for at, key, value, append_ms in cursor:
                records.append(Record(topic, partition, at, key, value, append_ms))
                if value is not None:
                    budget -= len(value)
                    if budget <= 0:
                        break
            cursor.close()  # ends the read, which would hold up the checkpoint
        return records

    def first_offset(self, topic: str, partition: int) -> int:
        """The offset before which retention has removed everything."""
        (first,) = self._row(
            "SELECT first FROM partitions WHERE id = ?", self._known(topic, partition).id
        )
        return int(first)

    def end_offset(self, topic: str, partition: int) -> int:
        """One past the offset of the last record."""
        (end,) = self._row(
            "SELECT next FROM partitions WHERE id = ?", self._known(topic, partition).id
        )
        return int(end)

    def version(self) -> tuple[int, int]:
        """A token that differs if anything was written since; see `log.Log.version`.

        The first number counts the commits of others, the second the rows written here.
        """
        (others,) = self._row("PRAGMA data_version")
        return others, self._connection.total_changes

    def committed(self, group: str) -> dict[Place, int]:
        """Where `group` goes on, by partition."""
        rows = self._rows("SELECT topic, partition, next FROM positions WHERE reader = ?", group)
        return {(topic, partition): following for topic, partition, following in rows}

    def state(self, group: str) -> list[tuple[str, bytes]]:
        """The state pieces of `group`, by key in order."""
        return self._rows("SELECT key, piece FROM state WHERE owner = ? ORDER BY key", group)

    # --- the worker -----------------------------------------------------------------------

    def session(self) -> SqliteSession:
        """Becomes the worker; see `log.Log.session`."""
        if self._session is not None:
            raise LogLocked(f"{self.name}: expected one session at a time; close the other first")
        lease = None if self.name == MEMORY else _Lease(Path(f"{self.name}.worker"))
        try:
            places = [place for partitions in self._partitions.values() for place in partitions]
            tails = {place.id: self._tail(place) for place in places}
        except BaseException:
            if lease is not None:
                lease.release()
            raise
        self._session = SqliteSession(self, tails, lease)
        return self._session

    # --- retention ------------------------------------------------------------------------

    def expire(self, now_ms: int, records_max: int = EXPIRE_RECORDS_MAX) -> int:
        """Removes what the catalogue says is kept no longer; returns how many records went.

        By age since the append, and of compacted topics what a newer record of the same key
        supersedes, and tombstones. Nothing that a group which reads the topic has yet to consume
        goes. At most `records_max` records of each partition are looked at, each partition in a
        short transaction of its own: call again while something goes. The file does not shrink;
        what was removed makes room for what comes.
        """
        removed = 0
        for name, places in self._partitions.items():
            topic = self.topics.get(name)
            if topic is None:
                continue
            for place in places:
                if place.compact:
                    removed += self._compact(place, records_max)
                elif topic.retention_ms is not None:
                    removed += self._trim(place, now_ms - topic.retention_ms, records_max)
        return removed

    def _trim(self, place: _Partition, before_ms: int, records_max: int) -> int:
        first, end, _ = self._bounds(place)
        end = min(end, first + records_max)
        # Stamps never fall within a partition, so the first young one is where to stop.
        (young,) = self._row(
            f"SELECT min(at) FROM records_{place.id} WHERE at >= ? AND at < ? AND append_ms >= ?",  # noqa: S608 - our own number
            first,
            end,
            before_ms,
        )
        end = end if young is None else young
        if end <= first:
            return 0
        with self._transaction():
            sql = f"DELETE FROM records_{place.id} WHERE at < ?"  # noqa: S608 - our own number
            removed = self._connection.execute(sql, (end,)).rowcount
            self._connection.execute(
                "UPDATE partitions SET first = ? WHERE id = ?", (end, place.id)
            )
        return removed

    def _compact(self, place: _Partition, records_max: int) -> int:
        _, end, start = self._bounds(place)
        if end <= start:
            return 0
        table = f"records_{place.id}"
        rows = self._rows(
            f"SELECT at, key, value IS NULL FROM {table} WHERE at >= ? AND at < ? ORDER BY at LIMIT ?",  # noqa: S608 - our own number
            start,
            end,
            records_max,
        )
        end = rows[-1][0] + 1 if len(rows) == records_max else end
        superseded = [
            (key, at if keep else at + 1) for at, key, gone in rows for keep in [not gone]
        ]
        with self._transaction():
            sql = f"DELETE FROM {table} WHERE key = ? AND at < ?"  # noqa: S608 - our own number
            removed = self._connection.executemany(sql, superseded).rowcount
            self._connection.execute(
                "UPDATE partitions SET compacted = ? WHERE id = ?", (end, place.id)
            )
        return removed

    def _bounds(self, place: _Partition) -> tuple[int, int, int]:
        """Where a partition begins, up to where every group has read it, where compaction is."""
        first, end, compacted = self._row(
            "SELECT first, next, compacted FROM partitions WHERE id = ?", place.id
        )
        # A group that reads the topic but has nothing of this partition has yet to consume it all.
        rows = self._rows(
            "SELECT max(CASE WHEN partition = ? THEN next ELSE 0 END) FROM positions "
            "WHERE topic = ? GROUP BY reader",
            place.number,
            place.topic,
        )
        return first, min([end, *(consumed for (consumed,) in rows)]), compacted

    # --- closing --------------------------------------------------------------------------

    def close(self) -> None:
        """Closes the file, and the session if there is one; what was not committed is gone."""
        if self._session is not None:
            self._session.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- inside ---------------------------------------------------------------------------

    def _read_partitions(self) -> dict[str, tuple[_Partition, ...]]:
        found: dict[str, list[_Partition]] = {}
        for number, topic, partition in self._rows(
            "SELECT id, topic, number FROM partitions ORDER BY topic, number"
        ):
            found.setdefault(topic, []).append(_Partition.of(number, topic, partition, self.topics))
        return {topic: tuple(places) for topic, places in found.items()}

    def _known(self, topic: str, partition: int) -> _Partition:
        places = self._partitions.get(topic)
        if places is None:
            raise UnknownTopic(
                f"{self.name}: expected one of {', '.join(self._partitions)}, given {topic!r}"
            )
        if not 0 <= partition < len(places):
            raise UnknownTopic(
                f"{self.name}: expected a partition of {topic} below {len(places)}, given {partition}"
            )
        return places[partition]

    def _place(self, output: Output) -> _Partition:
        """The partition that `output` belongs to, once it is known to be a record of its topic."""
        key, value = output.key, output.value
        places = self._partitions.get(output.topic)
        if places is None:
            return self._known(output.topic, 0)
        place = places[0 if key is None else partition_of(key, len(places))]
        if value is not None and len(value) > place.record_bytes_max:
            raise LogError(
                f"{output.topic}: expected a record of at most {place.record_bytes_max} bytes, "
                f"given {len(value)}"
            )
        if key is None and place.compact:
            raise LogError(f"{output.topic}: expected a key, by which it is compacted, given none")
        return place

    def _tail(self, place: _Partition) -> _Tail:
        end, append_ms = self._row("SELECT next, append_ms FROM partitions WHERE id = ?", place.id)
        return _Tail(place, end, end, append_ms)

    def _write(self, tails: Iterable[_Tail]) -> None:
        """Writes the rows of `tails`, inside a transaction."""
        for tail in tails:
            if not tail.rows:
                continue
            moved = self._connection.execute(
                "UPDATE partitions SET next = ?, append_ms = ? WHERE id = ? AND next = ?",
                (tail.next, tail.append_ms, tail.place.id, tail.start),
            )
            # Not an error of anybody outside: the rule that makes staged offsets right is broken.
            assert moved.rowcount == 1, (  # noqa: S101 - a broken invariant of our own is a crash
                f"{self.name}: another writer appended to {tail.place.topic}-{tail.place.number} "
                f"after offset {tail.start}, which is the worker's alone"
            )
            self._connection.executemany(tail.place.insert, tail.rows)

    def _write_positions(self, positions: Mapping[str, Mapping[Place, int]]) -> None:
        self._connection.executemany(
            "INSERT INTO positions VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET next = excluded.next",
            [
                (group, topic, partition, following)
                for group, places in positions.items()
                for (topic, partition), following in places.items()
            ],
        )

    def _write_state(self, state: Iterable[tuple[str, str, bytes | None]]) -> None:
        pieces = {(group, key): piece for group, key, piece in state}
        self._connection.executemany(
            "INSERT INTO state VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET piece = excluded.piece",
            [(*place, piece) for place, piece in pieces.items() if piece is not None],
        )
        self._connection.executemany(
            "DELETE FROM state WHERE owner = ? AND key = ?",
            [place for place, piece in pieces.items() if piece is None],
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _explained(self.name):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # A full disk may have ended it already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _rows(self, sql: str, *values: object) -> list[Any]:
        with _explained(self.name):
            return self._connection.execute(sql, values).fetchall()

    def _row(self, sql: str, *values: object) -> Any:
        with _explained(self.name):
            return self._connection.execute(sql, values).fetchone()


class SqliteSession:
    """The worker's hold on a `SqliteLog`; see `log.Session`."""

    def __init__(self, log: SqliteLog, tails: dict[int, _Tail], lease: _Lease | None) -> None:
        """For `SqliteLog.session`, which is how one gets a session."""
        self._log = log
        self._tails = tails
        self._lease = lease

    @property
    def staged(self) -> int:
        """How many outputs wait for a commit."""
        return sum(len(tail.rows) for tail in self._tails.values())

    def stage(self, outputs: Sequence[Output]) -> list[Record]:
        """Takes `outputs` into the next commit; see `log.Session.stage`."""
        log = self._log
        places = [log._place(output) for output in outputs]
        now_ms = log._now_ms()
        tails = self._tails
        return [
            tails[place.id].extend(output, now_ms)
            for place, output in zip(places, outputs, strict=True)
        ]

    def commit(
        self,
        positions: Mapping[str, Mapping[Place, int]] | None = None,
        state: Iterable[tuple[str, str, bytes | None]] = (),
    ) -> None:
        """Writes what was staged, `positions` and `state` at once; see `log.Session.commit`."""
        log = self._log
        with log._transaction():
            log._write(self._tails.values())
            log._write_positions(positions or {})
            log._write_state(state)
        for tail in self._tails.values():
            tail.start = tail.next
            tail.rows.clear()

    def close(self) -> None:
        """Gives up the worker's place; what was not committed is gone."""
        if self._log._session is self:
            self._log._session = None
            self._tails = {}
            if self._lease is not None:
                self._lease.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Partition:
    """A partition with what is needed to write and read it."""

    id: int
    topic: str
    number: int
    compact: bool
    record_bytes_max: int
    insert: str
    select: str

    @classmethod
    def of(cls, number: int, topic: str, partition: int, topics: Mapping[str, Topic]) -> Self:
        described = topics.get(topic)
        return cls(
            number,
            topic,
            partition,
            described is not None and described.cleanup == "compact",
            READ_BYTES_MAX if described is None else described.record_bytes_max,
            f"INSERT INTO records_{number} VALUES (?, ?, ?, ?)",  # noqa: S608 - our own number
            f"SELECT at, key, value, append_ms FROM records_{number} "  # noqa: S608 - our own number
            "WHERE at >= ? ORDER BY at LIMIT ?",
        )


@dataclass(slots=True)
class _Tail:
    """The end of a partition, and the rows that are to follow it."""

    place: _Partition
    start: int
    next: int
    append_ms: int
    rows: list[tuple[int, bytes | None, bytes | None, int]] = field(default_factory=list)

    def extend(self, output: Output, now_ms: int) -> Record:
        """The record that `output` becomes; its row waits to be written."""
        at = self.next
        self.next = at + 1
        if now_ms < self.append_ms:  # clocks are set back at times, logs are not
            now_ms = self.append_ms
        else:
            self.append_ms = now_ms
        key, value, place = output.key, output.value, self.place
        self.rows.append((at, key, value, now_ms))
        return Record(place.topic, place.number, at, key, value, now_ms, output.memo)


class _Lease:
    """The worker's place: a lock on a file, which the operating system frees when we die."""

    def __init__(self, path: Path) -> None:
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise LogError(f"{path}: expected to open it for writing: {error}") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._handle, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._handle)
            raise LogLocked(
                f"{path}: another worker (process {holder}) holds the log, and there can be one; "
                "stop it, or work on another log"
            ) from None
        # Who holds it is a courtesy to the next one; on a full disk the lock is as good without.
        with suppress(OSError):
            os.ftruncate(self._handle, 0)
            os.write(self._handle, b"%d\n" % os.getpid())

    def release(self) -> None:
        os.close(self._handle)


# --- the file ---------------------------------------------------------------------------------


def _system_ms() -> int:
    return time.time_ns() // 1_000_000


def _connect(path: str | Path, mode: str, options: Options) -> sqlite3.Connection:
    synchronous = options.get("synchronous", "normal")
    if synchronous not in ("normal", "full"):
        raise LogError(f"synchronous: expected 'normal' or 'full', given {synchronous!r}")
    where = MEMORY if str(path) == MEMORY else f"{Path(path).absolute().as_uri()}?mode={mode}"
    with _explained(str(path)):
        connection = sqlite3.connect(
            where,
            timeout=options.get("busy_timeout_ms", 10_000) / 1000,
            isolation_level=None,
            cached_statements=256,
            uri=True,
        )
        connection.execute(f"PRAGMA synchronous = {synchronous}")
    return connection


def _is_log(connection: sqlite3.Connection, name: str) -> bool:
    """Whether the file is a log of ours (true) or empty (false).

    Raises:
        LogError: it is something else, or of another format.
    """
    ((application_id,),) = connection.execute("PRAGMA application_id").fetchall()
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    if application_id == APPLICATION_ID and version == FORMAT:
        return True
    if application_id == APPLICATION_ID:
        raise LogError(
            f"{name}: expected a log of format {FORMAT}, given format {version}; use the release "
            "that wrote it, or publish into a new log"
        )
    if tables or application_id:
        raise LogError(
            f"{name}: expected a log, given another program's SQLite file; choose another path"
        )
    return False


def _make(
    connection: sqlite3.Connection, name: str, topics: Mapping[str, Topic], partitions: int
) -> bool:
    """Makes the file a log in one transaction; false if it is one already."""
    if partitions < 1:
        raise LogError(f"{name}: expected at least 1 partition, given {partitions}")
    if _is_log(connection, name):
        return False
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode = WAL")
    script = [_SCHEMA]
    number = 0
    for topic in topics.values():
        for partition in range(partitions if topic.scales else topic.partitions):
            number += 1
            script.append(_RECORDS.format(id=number))
            if topic.cleanup == "compact":
                script.append(_RECORDS_BY_KEY.format(id=number))
            script.append(
                f"INSERT INTO partitions (id, topic, number) VALUES ({number}, '{topic.name}', {partition});"
            )
    connection.execute("BEGIN IMMEDIATE")
    try:
        made = not _is_log(connection, name)
        if made:
            for statement in "".join(script).split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return made


_WAYS_OUT: dict[int, tuple[type[LogError], str]] = {
    sqlite3.SQLITE_FULL: (
        LogFull,
        "no space is left; nothing of the transaction was written. Free some space and try again",
    ),
    sqlite3.SQLITE_BUSY: (
        LogLocked,
        "another process is writing, and went on for longer than we wait (`busy_timeout_ms`); "
        "find it with `fuser`, or try again",
    ),
    sqlite3.SQLITE_READONLY: (
        LogError,
        "expected to write, given a read-only file or folder; see its owner and mode",
    ),
    sqlite3.SQLITE_NOTADB: (
        LogError,
        "expected a log, given a file that is no SQLite file; choose another path",
    ),
    sqlite3.SQLITE_CORRUPT: (
        LogError,
        "the file is damaged; restore it from a copy, or see `sqlite3 FILE .recover`",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        LogError,
        "expected to open it, could not; see that its folder exists and may be written to",
    ),
}
# A quota or a limit on the size of files comes as a failed write, not as a full disk.
_WAYS_OUT[sqlite3.SQLITE_IOERR_WRITE] = _WAYS_OUT[sqlite3.SQLITE_FULL]
_WAYS_OUT[sqlite3.SQLITE_IOERR_SHMSIZE] = _WAYS_OUT[sqlite3.SQLITE_FULL]
_WAYS_OUT[sqlite3.SQLITE_LOCKED] = _WAYS_OUT[sqlite3.SQLITE_BUSY]


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turns what SQLite says into what it means for the log called `name`."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # a mistake in our own use of it
            raise
        # The low byte is the kind, the rest of it the detail.
        kind, message = _WAYS_OUT.get(code) or _WAYS_OUT.get(
            code & 0xFF, (LogError, "the file cannot be read or written; see the disk")
        )
        raise kind(f"{name}: {message} ({error.sqlite_errorname}: {error})") from error
