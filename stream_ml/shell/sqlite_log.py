"""The embedded log: one SQLite file, kept as `log.Log` promises. `pip install` is all it needs.

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

import math
import secrets
import sqlite3
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from stream_ml.errors import LogChanged, LogError, LogFull, LogLocked, UnknownTopic
from stream_ml.records import Output, Record
from stream_ml.shell.lease import Lease, lease_of
from stream_ml.shell.log import Session, WorkerLog, is_of_clients, not_of_clients
from stream_ml.shell.lying import has_left_over, is_somebody_elses, looks, refuse_special
from stream_ml.shell.tailing import PolledTail
from stream_ml.topics import Topic, embedded, partition_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, Self

    from stream_ml.shell.log import Place

__all__ = ["MEMORY", "Options", "SqliteLog", "SqliteSession"]

# The path of a log that lives as long as its object, for backtests and tests.
MEMORY = ":memory:"

FORMAT = 1
# Says whose file it is, where SQLite keeps such a mark: "SMLg".
APPLICATION_ID = 0x534D4C67
# Predictions outgrow a page of 4,096 bytes; pages of 16,384 make small commits dear.
PAGE_BYTES = 8192
# A read stops after so many bytes: a thousand snapshots at once would be 16 GiB.
READ_BYTES_MAX = 64 * 1024 * 1024
# Looked at per partition and call of `expire`, so that publishers never wait long for it.
EXPIRE_RECORDS_MAX = 10_000
# A clock that is set back by no more is waited for; by more, it was wrong before, or is now.
SETBACK_MS = 60_000
# Making a log takes some milliseconds; whoever makes the same one at once asks again after so long.
RETRY_S = 0.005

_SCHEMA = """
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    number INTEGER NOT NULL,
    first INTEGER NOT NULL DEFAULT 0,       -- what lies before was removed by retention
    next INTEGER NOT NULL DEFAULT 0,        -- the offset of the next record
    append_ms INTEGER NOT NULL DEFAULT 0,   -- the last record's
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
) STRICT
"""
# Which log this is. Files of former releases get it from the first that may write to them.
_IDENTITY = "CREATE TABLE IF NOT EXISTS identity (value TEXT NOT NULL) STRICT"
_HAS_IDENTITY = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'identity'"

# Of one partition: its own table stands for "$", see `_sql`.
_CREATE = "CREATE TABLE $ (at INTEGER PRIMARY KEY, key BLOB, value BLOB, append_ms INTEGER) STRICT"
_CREATE_KEYS = "CREATE INDEX $_keys ON $ (key)"
_APPEND = "INSERT INTO $ VALUES (?, ?, ?, ?)"
_READ = "SELECT at, key, value, append_ms FROM $ WHERE at >= ? ORDER BY at LIMIT ?"
_FIRST_SINCE = "SELECT at FROM $ WHERE append_ms >= ? ORDER BY at LIMIT 1"
_FIRST_YOUNG = "SELECT min(at) FROM $ WHERE at >= ? AND at < ? AND append_ms BETWEEN ? AND ?"
_TRIM = "DELETE FROM $ WHERE at < ?"
_CHANGES = "SELECT at, key, value IS NULL FROM $ WHERE at >= ? AND at < ? ORDER BY at LIMIT ?"
_SUPERSEDE = "DELETE FROM $ WHERE key = ? AND at < ?"


class Options(TypedDict, total=False):
    """How a log is opened; each has a default.

    Attributes:
        now_ms: the clock that stamps appends (the system's).
        synchronous: "normal" outlives every death of a process, "full" a loss of power too.
        busy_timeout_ms: how long to wait for another writer before `LogLocked` (10,000).
        identity: of a log that is made now (random); for tests that compare what two logs hold.
    """

    now_ms: Callable[[], int]
    synchronous: Literal["normal", "full"]
    busy_timeout_ms: int
    identity: str


class SqliteLog(WorkerLog):
    """A log in one SQLite file, or in memory. Got by `create`, `open` or `open_or_create`.

    Use it in the thread that opened it; other threads and processes open their own. Close it, or
    use it as a context manager.

    >>> with SqliteLog.create(MEMORY) as log:
    ...     placed = log.append([Output("events", b"JFK", b'{"event_id":"e1","ts":1}')])
    ...     log.read("events", 0, 0, limit=10) == placed
    True
    """

    def __init__(self, file: _File, topics: Mapping[str, Topic], options: Options) -> None:
        self._file = file
        self._topics = topics
        self._now_ms = options.get("now_ms", _system_ms)
        self._layout = _Layout(file, topics)
        self._stages_own = {name for name, each in topics.items() if not is_of_clients(each)}
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
            if not file.make(topics, partitions, options.get("identity")):
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
            LogError: there is no log, or it is of another format.
        """
        if not Path(path).exists():
            raise LogError(f"{path}: expected a log, given no file; make one with `create`")
        with _opening(path, "rw", options) as file:
            if not file.is_log():
                raise LogError(
                    f"{path}: expected a log, given an empty file; make one with `create`"
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
            file.make(topics, partitions, options.get("identity"))
            return cls(file, topics, options)

    # --- publishing and reading -----------------------------------------------------------

    @property
    def path(self) -> str:
        """Where it is; `MEMORY` if nowhere."""
        return self._file.path

    @property
    def identity(self) -> str:
        """Which log this is; see `log.Log.identity`."""
        return self._file.identity()

    @property
    def partitions(self) -> Mapping[str, int]:
        """How many partitions each topic has, by topic."""
        return self._layout.counts

    def append(self, outputs: Sequence[Output]) -> list[Record]:
        """Appends `outputs` in one transaction; see `log.Log.append`."""
        for output in outputs:
            if output.topic in self._stages_own:
                raise not_of_clients(self._topics[output.topic])
        return self._append(outputs)

    def _append(self, outputs: Sequence[Output]) -> list[Record]:
        places = [self._layout.place(output) for output in outputs]
        if not places:
            return []
        file = self._file
        with file.transaction():
            tails = {place.id: file.tail(place) for place in set(places)}
            now_ms = self._now_ms()
            records = [
                tails[place.id].extend(output, now_ms, SETBACK_MS)
                for place, output in zip(places, outputs, strict=True)
            ]
            file.write_rows(tails.values())
        return records

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """Up to `limit` records from `offset` on; see `log.Log.read`.

        It stops after 64 MiB, so fewer than `limit` need not mean the end; none does.
        """
        place = self._layout.partition(topic, partition)
        records = []
        budget = READ_BYTES_MAX
        with self._file.query(place.read, (offset, limit)) as rows:
            for at, key, value, append_ms in rows:
                records.append(Record(topic, partition, at, key, value, append_ms))
                if value is not None:
                    budget -= len(value)
                    if budget <= 0:
                        break
        return records

    def first_offset(self, topic: str, partition: int) -> int:
        """The offset before which retention has removed all; see `log.Log.first_offset`."""
        place = self._layout.partition(topic, partition)
        (first,) = self._file.row("SELECT first FROM partitions WHERE id = ?", place.id)
        return int(first)

    def end_offset(self, topic: str, partition: int) -> int:
        """One past the offset of the last record; see `log.Log.end_offset`."""
        return self._file.tail(self._layout.partition(topic, partition)).next

    def post(self, outputs: Sequence[Output]) -> None:
        """Appends `outputs` at once; see `log.Log.post`."""
        self.append(outputs)

    def flush(self) -> None:
        """Has nothing to wait for; see `log.Log.flush`."""

    def offset_at(self, topic: str, partition: int, append_ms: int) -> int:
        """The offset of the first record appended then or later; see `log.Log.offset_at`."""
        place = self._layout.partition(topic, partition)
        end = self._file.tail(place).next
        row = self._file.row(_sql(_FIRST_SINCE, place.id), append_ms)
        return end if row is None else int(row[0])

    def tail(self, topic: str, offsets: Mapping[int, int]) -> PolledTail:
        """Reads on from `offsets`; see `log.Log.tail`."""
        return PolledTail(self, topic, offsets)

    def version(self) -> tuple[int, int]:
        """A token that differs if anything was written since; see `log.Log.version`.

        The first number counts the commits of others, the second the rows written here.
        """
        self._file.look_again()
        (others,) = self._file.row("PRAGMA data_version")
        # Each connection counts from anew.
        return others + (self._file.times_opened << 32), self._file.rows_written()

    def committed(self, group: str) -> dict[Place, int]:
        """Where `group` goes on, by partition."""
        sql = "SELECT topic, partition, next FROM positions WHERE reader = ?"
        return {(topic, partition): at for topic, partition, at in self._file.rows(sql, group)}

    def state(self, group: str) -> list[tuple[str, bytes]]:
        """The state pieces of `group`, by key in order."""
        return self._file.rows("SELECT key, piece FROM state WHERE owner = ? ORDER BY key", group)

    def piece(self, group: str, key: str) -> bytes | None:
        """One of the state pieces of `group`; see `log.Log.piece`."""
        row = self._file.row("SELECT piece FROM state WHERE owner = ? AND key = ?", group, key)
        return None if row is None else bytes(row[0])

    def written_ms(self, group: str) -> None:
        """None: state goes with every commit, and is as new as the positions."""
        del group

    # --- the worker, retention, the end ---------------------------------------------------

    def session(self) -> SqliteSession:
        """Becomes the worker; see `log.Log.session`."""
        if self._session is not None and not self._session.closed:
            raise LogLocked(f"{self.path}: expected one session at a time; close the other first")
        lease = None if self.path == MEMORY else Lease(lease_of(Path(self.path)))
        try:
            self._session = SqliteSession(self._file, self._layout, self._now_ms, lease)
        except BaseException:
            if lease is not None:
                lease.release()
            raise
        return self._session

    def expire(self, now_ms: int, records_max: int = EXPIRE_RECORDS_MAX) -> int:
        """Removes what need be kept no longer at `now_ms`; returns how many records went.

        Of topics with a retention, what was appended longer ago; of compacted topics, what a newer
        record of the same key supersedes, and tombstones. Nothing goes that a group which reads
        the topic has yet to consume.

        At most `records_max` records of each partition are looked at, each partition in a short
        transaction of its own: call again while something goes. The file does not shrink; what was
        removed makes room for what comes.
        """
        removed = 0
        for place in self._layout.all():
            topic = self._topics.get(place.topic)
            if place.compact:
                removed += _compact(self._file, place, records_max)
            elif topic is not None and topic.retention_ms is not None:
                young = now_ms - topic.retention_ms, now_ms
                removed += _trim(self._file, place, young, records_max)
        return removed

    def close(self) -> None:
        """Closes the file, and the session if there is one; what was not committed is gone."""
        if self._session is not None:
            self._session.close()
        self._file.close()


class SqliteSession(Session):
    """The worker's hold on a `SqliteLog`, got by its `session`; see `log.Session`."""

    def __init__(
        self, file: _File, layout: _Layout, now_ms: Callable[[], int], lease: Lease | None
    ) -> None:
        self._file = file
        self._layout = layout
        self._now_ms = now_ms
        self._lease = lease
        self._tails = {place.id: file.tail(place) for place in layout.all()}
        self.closed = False

    @property
    def staged(self) -> int:
        """How many outputs wait for a commit."""
        return sum(len(tail.rows) for tail in self._tails.values())

    def stage(self, outputs: Sequence[Output]) -> list[Record]:
        """Takes `outputs` into the next commit; see `log.Session.stage`."""
        places = [self._layout.place(output) for output in outputs]
        now_ms = self._now_ms()
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
        if self.closed:
            raise LogError(f"{self._file.path}: expected an open session, given a closed one")
        following = [
            (group, topic, self._layout.partition(topic, partition).number, at)
            for group, places in (positions or {}).items()
            for (topic, partition), at in places.items()
        ]
        # Of a piece given twice the last one counts.
        pieces = {(group, key): piece for group, key, piece in state}
        with self._file.transaction():
            self._file.write_rows(self._tails.values())
            self._file.write_positions(following)
            self._file.write_state(pieces)
        for tail in self._tails.values():
            tail.written()

    def close(self) -> None:
        """Gives up the worker's place; what was not committed is gone."""
        if not self.closed:
            self.closed = True
            self._tails = {}
            if self._lease is not None:
                self._lease.release()


# --- partitions -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Partition:
    """A partition, and the table that holds it."""

    id: int
    topic: str
    number: int
    compact: bool
    record_bytes_max: int
    append: str
    read: str

    @classmethod
    def of(cls, number: int, topic: str, partition: int, described: Topic | None) -> Self:
        # A topic that the catalogue no longer has is kept as it is, and may be read.
        compact = described is not None and described.cleanup == "compact"
        record_bytes_max = READ_BYTES_MAX if described is None else described.record_bytes_max
        append, read = _sql(_APPEND, number), _sql(_READ, number)
        return cls(number, topic, partition, compact, record_bytes_max, append, read)


def _sql(template: str, number: int) -> str:
    return template.replace("$", f"records_{number}")


class _Layout:
    """Which partitions the file has, and where a record belongs."""

    def __init__(self, file: _File, topics: Mapping[str, Topic]) -> None:
        self._path = file.path
        self._places: dict[str, list[_Partition]] = {}
        for number, topic, partition in file.rows(
            "SELECT id, topic, number FROM partitions ORDER BY topic, number"
        ):
            place = _Partition.of(number, topic, partition, topics.get(topic))
            self._places.setdefault(topic, []).append(place)
        self.counts = MappingProxyType({topic: len(p) for topic, p in self._places.items()})

    def all(self) -> list[_Partition]:
        return [place for places in self._places.values() for place in places]

    def partition(self, topic: str, partition: int) -> _Partition:
        places = self._places.get(topic)
        if places is None:
            known = ", ".join(self._places)
            raise UnknownTopic(f"{self._path}: expected one of {known}, given {topic!r}")
        if not 0 <= partition < len(places):
            raise UnknownTopic(
                f"{self._path}: expected a partition of {topic} below {len(places)}, "
                f"given {partition}"
            )
        return places[partition]

    def place(self, output: Output) -> _Partition:
        """The partition that `output` belongs to, once it is known to be a record of its topic."""
        topic, key, value = output.topic, output.key, output.value
        places = self._places.get(topic)
        if places is None:
            return self.partition(topic, 0)
        place = places[0 if key is None else partition_of(key, len(places))]
        if value is not None and len(value) > place.record_bytes_max:
            raise LogError(
                f"{topic}: expected a record of at most {place.record_bytes_max} bytes, "
                f"given {len(value)}"
            )
        if key is None and place.compact:
            raise LogError(f"{topic}: expected a key, by which it is compacted, given none")
        return place


@dataclass(slots=True)
class _Tail:
    """The end of a partition, and the rows that are to follow it."""

    place: _Partition
    start: int
    next: int
    append_ms: int
    rows: list[tuple[int, bytes | None, bytes | None, int]] = field(default_factory=list)

    def extend(self, output: Output, now_ms: int, setback_ms: float = math.inf) -> Record:
        """The record that `output` becomes; its row waits to be written.

        Its stamp is no less than the last one, though the clock may have been set back: by up to
        `setback_ms`. If by more, the last one came from a clock that was ahead of this one, and
        the next must not all be stamped by it.
        """
        at = self.next
        self.next = at + 1
        if now_ms < self.append_ms <= now_ms + setback_ms:
            now_ms = self.append_ms
        else:
            self.append_ms = now_ms
        key, value, place = output.key, output.value, self.place
        self.rows.append((at, key, value, now_ms))
        return Record(place.topic, place.number, at, key, value, now_ms, output.memo)

    def written(self) -> None:
        self.start = self.next
        self.rows.clear()


# --- retention --------------------------------------------------------------------------------


def _trim(file: _File, place: _Partition, young_ms: tuple[int, int], records_max: int) -> int:
    first, end, _ = _bounds(file, place)
    end = min(end, first + records_max)
    # Stamps hardly fall within a partition, so the first young one is where to stop. One that is
    # still to come is of a clock that was ahead: it must not keep all that follows.
    (young,) = file.row(_sql(_FIRST_YOUNG, place.id), first, end, *young_ms)
    end = end if young is None else young
    if end <= first:
        return 0
    with file.transaction():
        removed = file.write(_sql(_TRIM, place.id), [(end,)])
        file.write("UPDATE partitions SET first = ? WHERE id = ?", [(end, place.id)])
    return removed


def _compact(file: _File, place: _Partition, records_max: int) -> int:
    _, end, start = _bounds(file, place)
    changes = file.rows(_sql(_CHANGES, place.id), start, end, records_max)
    if not changes:
        return 0
    # What came before under the same key goes; of a tombstone the record itself goes as well.
    before = [(key, at + 1 if gone else at) for at, key, gone in changes]
    with file.transaction():
        removed = file.write(_sql(_SUPERSEDE, place.id), before)
        done = changes[-1][0] + 1
        file.write("UPDATE partitions SET compacted = ? WHERE id = ?", [(done, place.id)])
    return removed


def _bounds(file: _File, place: _Partition) -> tuple[int, int, int]:
    """Where a partition begins, up to where every group has read it, how far it is compacted."""
    first, end, compacted = file.row(
        "SELECT first, next, compacted FROM partitions WHERE id = ?", place.id
    )
    # A group that reads the topic, but nothing of this partition yet, has all of it before it.
    consumed = file.rows(
        "SELECT max(CASE WHEN partition = ? THEN next ELSE 0 END) FROM positions "
        "WHERE topic = ? GROUP BY reader",
        place.number,
        place.topic,
    )
    return first, min([end, *(at for (at,) in consumed)]), compacted


# --- the file ---------------------------------------------------------------------------------


def _system_ms() -> int:
    return time.time_ns() // 1_000_000


@contextmanager
def _opening(path: str | Path, mode: str, options: Options) -> Iterator[_File]:
    """The file at `path`, closed again if what it is opened for fails."""
    synchronous = options.get("synchronous", "normal")
    if synchronous not in {"normal", "full"}:
        raise LogError(f"synchronous: expected 'normal' or 'full', given {synchronous!r}")
    file = _File(path, mode, options.get("busy_timeout_ms", 10_000))
    try:
        file.row(f"PRAGMA synchronous = {synchronous}")
        yield file
    except BaseException:
        file.close()
        raise


class _File:
    """The SQLite file: what is asked of it, and what its errors mean."""

    def __init__(self, path: str | Path, mode: str, busy_timeout_ms: int) -> None:
        self.path = str(path)
        self._busy_timeout_ms = busy_timeout_ms
        self._identity: str | None = None
        # Of a file that is read as it lies there: what it looked like when it was opened.
        self._still: tuple[object, ...] | None = None
        self.times_opened = 1
        try:
            self._connection = self._opened(mode)
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _opened(self, mode: str) -> sqlite3.Connection:
        """Opens it, for reading only where this user may not write what writing takes."""
        if self.path == MEMORY:
            return self._connected(MEMORY)
        path = Path(self.path)
        refuse_special(path)
        if mode != "rw":
            return self._connected(f"mode={mode}")
        if is_somebody_elses(path):
            return self._as_it_lies(path)
        connection = self._connected("mode=rw")
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}:
                connection.close()
                return self._as_it_lies(path)
        except sqlite3.Error:
            pass  # whatever it is, who asks next is told
        return connection

    def _as_it_lies(self, path: Path) -> sqlite3.Connection:
        """Opens a file beside which nothing can be made, so that nobody is at work on it.

        What a killed worker has left beside it is read too: without a place for the index that
        processes share, which this connection keeps for itself.
        """
        self._still = looks(path)
        if not has_left_over(path):
            return self._connected("mode=ro&immutable=1")
        connection = self._connected("mode=ro&vfs=unix-none")
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        return connection

    def _connected(self, how: str) -> sqlite3.Connection:
        return sqlite3.connect(
            how if how == MEMORY else f"{Path(self.path).absolute().as_uri()}?{how}",
            timeout=self._busy_timeout_ms / 1000,
            isolation_level=None,
            uri=True,
        )

    def look_again(self) -> None:
        """Opens a file anew that is read as it lies there, if somebody has changed it."""
        if self._still is not None and self._still != looks(Path(self.path)):
            self._still = None
            self.times_opened += 1
            self._connection.close()
            self._connection = self._opened("rw")

    def rows(self, sql: str, *values: object) -> list[Any]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def row(self, sql: str, *values: object) -> Any:
        try:
            return self._connection.execute(sql, values).fetchone()
        except sqlite3.Error as error:
            raise self._explained(error) from error

    @contextmanager
    def query(self, sql: str, values: tuple[object, ...]) -> Iterator[sqlite3.Cursor]:
        """Rows one by one; a read that is left early ends, lest it hold up the checkpoint."""
        try:
            cursor = self._connection.execute(sql, values)
            yield cursor
            cursor.close()
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def write(self, sql: str, rows: Sequence[tuple[object, ...]]) -> int:
        """Runs `sql` for each of `rows`, inside a transaction; how many rows that changed."""
        return self._connection.executemany(sql, rows).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything that is written inside, or nothing."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("COMMIT")
        except BaseException as error:
            # A full disk may have ended it already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self._explained(error) from error
            raise

    def rows_written(self) -> int:
        return self._connection.total_changes

    def close(self) -> None:
        self._connection.close()

    # --- records, positions, state --------------------------------------------------------

    def tail(self, place: _Partition) -> _Tail:
        end, append_ms = self.row("SELECT next, append_ms FROM partitions WHERE id = ?", place.id)
        return _Tail(place, end, end, append_ms)

    def write_rows(self, tails: Iterable[_Tail]) -> None:
        for tail in tails:
            if not tail.rows:
                continue
            moved = self.write(
                "UPDATE partitions SET next = ?, append_ms = ? WHERE id = ? AND next = ?",
                [(tail.next, tail.append_ms, tail.place.id, tail.start)],
            )
            if moved != 1:
                raise LogChanged(
                    f"{self.path}: expected only the worker to write to {tail.place.topic}-"
                    f"{tail.place.number} after offset {tail.start}, given another writer, "
                    "straight into the file; nothing of ours was written, and the worker starts "
                    "anew from its last commit"
                )
            self.write(tail.place.append, tail.rows)

    def write_positions(self, positions: list[tuple[str, str, int, int]]) -> None:
        self.write(
            "INSERT INTO positions VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET next = excluded.next",
            positions,
        )

    def write_state(self, pieces: Mapping[tuple[str, str], bytes | None]) -> None:
        self.write(
            "INSERT INTO state VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET piece = excluded.piece",
            [(*place, piece) for place, piece in pieces.items() if piece is not None],
        )
        self.write(
            "DELETE FROM state WHERE owner = ? AND key = ?",
            [place for place, piece in pieces.items() if piece is None],
        )

    # --- what it is -----------------------------------------------------------------------

    def is_log(self) -> bool:
        """Whether it is a log of ours, or else empty.

        Raises:
            LogError: it is neither, or a log of another format.
        """
        # Tables first: if another process makes it a log meanwhile, in one transaction, whoever has
        # seen its tables then sees its marks.
        (tables,) = self.row("SELECT count(*) FROM sqlite_master")
        (application_id,) = self.row("PRAGMA application_id")
        (version,) = self.row("PRAGMA user_version")
        if application_id != APPLICATION_ID and (application_id or tables):
            raise LogError(
                f"{self.path}: expected a log, given another program's SQLite file; "
                "choose another path"
            )
        if application_id == APPLICATION_ID and version != FORMAT:
            raise LogError(
                f"{self.path}: expected a log of format {FORMAT}, given format {version}; "
                "use the release that wrote it, or publish into a new log"
            )
        return bool(application_id == APPLICATION_ID)

    def identity(self) -> str:
        """Which log this is, settled now if it never was; empty if it may not be written to."""
        if self._identity is None:
            if not self.row(_HAS_IDENTITY)[0]:
                try:
                    with self.transaction():
                        self._make_identity(None)
                except LogError:
                    return ""
            (self._identity,) = self.row("SELECT value FROM identity")
        return self._identity

    def _make_identity(self, identity: str | None) -> None:
        self.row(_IDENTITY)
        if self.row("SELECT value FROM identity") is None:
            self.row("INSERT INTO identity VALUES (?)", identity or secrets.token_hex(16))

    def make(self, topics: Mapping[str, Topic], partitions: int, identity: str | None) -> bool:
        """Makes it a log, in one transaction; false if it is one already."""
        if partitions < 1:
            raise LogError(f"{self.path}: expected at least 1 partition, given {partitions}")
        if self.is_log():
            return False
        # Both are settled with the first page, before which there can be no transaction.
        self.row(f"PRAGMA page_size = {PAGE_BYTES}")
        self._use_wal()
        with self.transaction():
            if self.is_log():
                return False
            for statement in _SCHEMA.split(";"):
                self.row(statement)
            self._make_partitions(topics, partitions)
            self._make_identity(identity)
            self.row(f"PRAGMA application_id = {APPLICATION_ID}")
            self.row(f"PRAGMA user_version = {FORMAT}")
        return True

    def _use_wal(self) -> None:
        # SQLite waits for no lock here, where two who wait could do so for each other.
        deadline_s = time.monotonic() + self._busy_timeout_ms / 1000
        while True:
            try:
                self.row("PRAGMA journal_mode = WAL")
            except LogLocked:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(RETRY_S)
            else:
                return

    def _make_partitions(self, topics: Mapping[str, Topic], partitions: int) -> None:
        places = [
            (topic, partition)
            for topic in topics.values()
            for partition in range(partitions if topic.scales else topic.partitions)
        ]
        for number, (topic, partition) in enumerate(places):
            self.row(_sql(_CREATE, number))
            if topic.cleanup == "compact":
                self.row(_sql(_CREATE_KEYS, number))
            self.row(
                "INSERT INTO partitions (id, topic, number) VALUES (?, ?, ?)",
                number,
                topic.name,
                partition,
            )

    def _explained(self, error: sqlite3.Error) -> Exception:
        """What `error` means for the log, and the way out of it."""
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # not SQLite's: a mistake in our use of it
            raise error
        # The low byte is the kind, the rest of it the detail.
        kind, message = _MEANINGS.get(code) or _MEANINGS.get(code & 0xFF) or _UNKNOWN
        return kind(f"{self.path}: {message} ({error.sqlite_errorname}: {error})")


_FULL = (
    LogFull,
    "no space is left, nothing of the transaction was written; free some space and try again",
)
_LOCKED = (
    LogLocked,
    "another process wrote for longer than we wait (`busy_timeout_ms`); find it with `fuser`",
)
_MEANINGS: dict[int, tuple[type[LogError], str]] = {
    sqlite3.SQLITE_FULL: _FULL,
    # A quota, or a limit on the size of files, comes as a write that failed.
    sqlite3.SQLITE_IOERR_WRITE: _FULL,
    sqlite3.SQLITE_IOERR_SHMSIZE: _FULL,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
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
        "expected a sound file, given a damaged one; restore a copy, or try `sqlite3 .recover`",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        LogError,
        "expected to open it, could not; see that its folder exists and may be written to",
    ),
}
_UNKNOWN = (LogError, "expected to read and write it, could not; see the disk")
