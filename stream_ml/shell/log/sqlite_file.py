"""The SQLite file of the embedded log: its tables, what is asked of them, what its errors mean.

Part of `sqlite`, where the theory of operation stands.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stream_ml.errors import LogChanged, LogError, LogFull, LogLocked
from stream_ml.records import Record
from stream_ml.shell.log.file_state import has_left_over, is_somebody_elses, looks, refuse_special
from stream_ml.shell.log.port import is_of_clients
from stream_ml.task_names import SEPARATOR, SHARED_TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any, Self

    from stream_ml.records import Output
    from stream_ml.topics import Topic

__all__ = [
    "MEMORY",
    "PAGE_BYTES",
    "READ_BYTES_MAX",
    "SETBACK_MS",
    "File",
    "Partition",
    "PartitionTail",
    "sql",
]

# The path of a log that lives as long as its object, for backtests and tests.
MEMORY = ":memory:"
FORMAT = 1
# Says whose file it is, where SQLite keeps such a mark: "SMLg".
APPLICATION_ID = 0x534D4C67
# Predictions outgrow a page of 4,096 bytes; pages of 16,384 make small commits dear.
PAGE_BYTES = 8192
# A read stops after so many bytes: a thousand snapshots at once would be 16 GiB.
READ_BYTES_MAX = 64 * 1024 * 1024
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

# Of one partition: its own table stands for "$", see `sql`.
_CREATE = "CREATE TABLE $ (at INTEGER PRIMARY KEY, key BLOB, value BLOB, append_ms INTEGER) STRICT"
_CREATE_KEYS = "CREATE INDEX $_keys ON $ (key)"
_APPEND = "INSERT INTO $ VALUES (?, ?, ?, ?)"
_READ = "SELECT at, key, value, append_ms FROM $ WHERE at >= ? ORDER BY at LIMIT ?"


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition, and the table that holds it."""

    id: int
    topic: str
    number: int
    compact: bool
    of_clients: bool
    record_bytes_max: int
    append: str
    read: str

    @classmethod
    def from_topic(cls, number: int, topic: str, partition: int, definition: Topic | None) -> Self:
        """The partition of a topic that has this number in the file.

        Args:
            number: of its table in the file.
            topic: that it is of.
            partition: from 0.
            definition: the topic as the catalogue has it; None for one that it no longer has.
        """
        # A topic that the catalogue no longer has is kept as it is, and may be read.
        compact = definition is not None and definition.cleanup == "compact"
        record_bytes_max = READ_BYTES_MAX if definition is None else definition.record_bytes_max
        of_clients = definition is not None and is_of_clients(definition)
        append, read = sql(_APPEND, number), sql(_READ, number)
        return cls(number, topic, partition, compact, of_clients, record_bytes_max, append, read)


def sql(template: str, number: int) -> str:
    """A statement about the table of one partition.

    Args:
        template: with `$` for the table's name.
        number: of the partition in the file.
    """
    return template.replace("$", f"records_{number}")


@dataclass(slots=True)
class PartitionTail:
    """The end of a partition, and the rows that are to follow it."""

    partition: Partition
    start: int
    next: int
    append_ms: int
    # From where on it is the worker's own, without anybody else's between.
    begin: int
    rows: list[tuple[int, bytes | None, bytes | None, int]] = field(default_factory=list)

    def extend(self, output: Output, now_ms: int) -> Record:
        """The record of a client that `output` becomes; its row waits to be written.

        Its stamp is no less than the last one, though the clock may have been set back: by up to
        a minute. If by more, the last one came from a clock that was ahead of this one, and the
        next must not all be stamped by it.

        Args:
            output: what the client appends.
            now_ms: the client's clock, UTC milliseconds.
        """
        if now_ms < self.append_ms <= now_ms + SETBACK_MS:
            now_ms = self.append_ms
        return self.follow(output, now_ms)

    def follow(self, output: Output, now_ms: int) -> Record:
        """The record that `output` becomes, stamped so; its row waits to be written."""
        offset = self.next
        self.next = offset + 1
        self.append_ms = now_ms
        key, value, partition = output.key, output.value, self.partition
        self.rows.append((offset, key, value, now_ms))
        return Record(partition.topic, partition.number, offset, key, value, now_ms, output.memo)

    def mark_written(self) -> None:
        """Go on after the rows were written."""
        self.start = self.next
        self.rows.clear()


class File:
    """The SQLite file: what is asked of it, and what its errors mean.

    Args:
        path: of the file.
        mode: that it is opened with, as SQLite names them.
        busy_timeout_ms: how long another writer is waited for.
        task: whose topics, positions and state are seen: what tasks have in common lies there once,
            all else under the name of its task; None: the pipeline's own.
    """

    def __init__(
        self, path: str | Path, mode: str, busy_timeout_ms: int, task: str | None = None
    ) -> None:
        self.path = str(path)
        self.task = task
        self._prefix = "" if task is None else f"{task}{SEPARATOR}"
        self._busy_timeout_ms = busy_timeout_ms
        self._identity: str | None = None
        # Of a file that is read as it lies there: what it looked like when it was opened.
        self._still: tuple[object, ...] | None = None
        self.times_opened = 1
        try:
            self._connection = self._open(mode)
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def _open(self, mode: str) -> sqlite3.Connection:
        """Opens it, for reading only where this user may not write what writing takes."""
        if self.path == MEMORY:
            return self._connect(MEMORY)
        path = Path(self.path)
        refuse_special(path)
        if mode != "rw":
            return self._connect(f"mode={mode}")
        if is_somebody_elses(path):
            return self._as_it_lies(path)
        connection = self._connect("mode=rw")
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
            return self._connect("mode=ro&immutable=1")
        connection = self._connect("mode=ro&vfs=unix-none")
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        return connection

    def _connect(self, query: str) -> sqlite3.Connection:
        return sqlite3.connect(
            query if query == MEMORY else f"{Path(self.path).absolute().as_uri()}?{query}",
            timeout=self._busy_timeout_ms / 1000,
            isolation_level=None,
            uri=True,
        )

    def stored(self, topic: str) -> str:
        """The name in the file of one of the task's topics.

        Args:
            topic: by its name in the catalogue.
        """
        return topic if topic in SHARED_TOPICS else self._prefix + topic

    def topic(self, stored: str) -> str | None:
        """The topic that a name in the file is; None for another task's.

        Args:
            stored: the name in the file.
        """
        name = stored if stored in SHARED_TOPICS else stored.removeprefix(self._prefix)
        return name if SEPARATOR not in name and self.stored(name) == stored else None

    def owner(self, group: str) -> str:
        """The name in the file of one of the task's groups.

        Args:
            group: such as `predict-0`.
        """
        return self._prefix + group

    def tasks(self) -> list[str]:
        """The tasks that have topics here, beside the pipeline's own, in order."""
        rows = self.rows("SELECT DISTINCT topic FROM partitions WHERE instr(topic, ?)", SEPARATOR)
        return sorted({topic.partition(SEPARATOR)[0] for (topic,) in rows})

    def look_again(self) -> None:
        """Opens a file anew that is read as it lies there, if somebody has changed it."""
        if self._still is not None and self._still != looks(Path(self.path)):
            self._still = None
            self.times_opened += 1
            self._connection.close()
            self._connection = self._open("rw")

    def rows(self, sql: str, *values: object) -> list[Any]:
        """All rows of a query.

        Args:
            sql: the query, with `?` for values.
            values: in their order.
        """
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def row(self, sql: str, *values: object) -> Any:
        """The first row of a query; None if it has none.

        Args:
            sql: the query, with `?` for values.
            values: in their order.
        """
        try:
            return self._connection.execute(sql, values).fetchone()
        except sqlite3.Error as error:
            raise self._explain(error) from error

    @contextmanager
    def query(self, sql: str, values: tuple[object, ...]) -> Iterator[sqlite3.Cursor]:
        """Rows one by one; a read that is left early ends, lest it hold up the checkpoint.

        Args:
            sql: the query, with `?` for values.
            values: in their order.
        """
        try:
            cursor = self._connection.execute(sql, values)
            yield cursor
            cursor.close()
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def write(self, sql: str, rows: Sequence[tuple[object, ...]]) -> int:
        """Runs `sql` for each of `rows`, inside a transaction; how many rows that changed."""
        return self._connection.executemany(sql, rows).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything that is written inside, or nothing; inside of another it is part of that."""
        connection = self._connection
        if connection.in_transaction:
            yield
            return
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("COMMIT")
        except BaseException as error:
            # A full disk may have ended it already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self._explain(error) from error
            raise

    def scrub(self) -> None:
        """Write the file anew, and empty its journal: nothing stays of what was deleted.

        Raises:
            LogLocked: others were at work in it.
        """
        self.row("VACUUM")
        deadline = time.monotonic() + self._busy_timeout_ms / 1_000
        while True:
            (is_busy, _, _) = self.row("PRAGMA wal_checkpoint(TRUNCATE)")
            if not is_busy:
                return
            if time.monotonic() > deadline:
                raise LogLocked(
                    f"{self.path}: expected nobody at work in it for a moment, given others; what "
                    "was forgotten may still lie in its journal: try again, or stop the worker"
                )
            time.sleep(RETRY_S)

    def rows_written(self) -> int:
        """How many rows this connection has written."""
        return self._connection.total_changes

    def close(self) -> None:
        """Let go of it."""
        self._connection.close()

    # --- records, positions, state --------------------------------------------------------

    def tail(self, partition: Partition) -> PartitionTail:
        """The end of a partition, with no rows to follow it yet."""
        end, append_ms = self.row(
            "SELECT next, append_ms FROM partitions WHERE id = ?", partition.id
        )
        return PartitionTail(partition, end, end, append_ms, end)

    def write_rows(self, tails: Iterable[PartitionTail]) -> None:
        """Write the rows that are to follow, inside a transaction.

        Raises:
            LogChanged: somebody else has written behind where they are to follow.
        """
        for tail in tails:
            if not tail.rows:
                continue
            updated_count = self.write(
                "UPDATE partitions SET next = ?, append_ms = ? WHERE id = ? AND next = ?",
                [(tail.next, tail.append_ms, tail.partition.id, tail.start)],
            )
            if updated_count != 1:
                raise LogChanged(
                    f"{self.path}: expected only the worker to write to {tail.partition.topic}-"
                    f"{tail.partition.number} after offset {tail.start}, given another writer, "
                    "straight into the file; nothing of ours was written, and the worker starts "
                    "anew from its last commit"
                )
            self.write(tail.partition.append, tail.rows)

    def write_positions(self, positions: list[tuple[str, str, int, int]]) -> None:
        """Write where readers go on: by reader, topic and partition."""
        self.write(
            "INSERT INTO positions VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET next = excluded.next",
            [
                (self.owner(reader), self.stored(topic), partition, offset)
                for reader, topic, partition, offset in positions
            ],
        )

    def write_state(self, pieces: Mapping[tuple[str, str], bytes | None]) -> None:
        """Write pieces of state by owner and key; None takes one away."""
        prefix = self._prefix  # there are some pieces for each event
        self.write(
            "INSERT INTO state VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET piece = excluded.piece",
            [
                (prefix + owner, key, piece)
                for (owner, key), piece in pieces.items()
                if piece is not None
            ],
        )
        self.write(
            "DELETE FROM state WHERE owner = ? AND key = ?",
            [(prefix + owner, key) for (owner, key), piece in pieces.items() if piece is None],
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
        """Makes it a log, in one transaction; false if it is one already.

        Args:
            topics: that it is to hold.
            partitions: of those that scale.
            identity: of the log; made at random, if None.
        """
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

    def add_topics(self, topics: Mapping[str, Topic]) -> bool:
        """Makes the topics that the release which made the file did not have; whether there were.

        A task's are made with as many partitions as the events have.

        Args:
            topics: that it should hold.
        """
        if not self._missing(topics):
            return False
        with self.transaction():
            (number,) = self.row("SELECT max(id) + 1 FROM partitions")
            (events,) = self.row("SELECT count(*) FROM partitions WHERE topic = 'events'")
            partitions = 1 if self.task is None else events
            self._make_partitions(self._missing(topics), partitions, number)
        return True

    def _missing(self, topics: Mapping[str, Topic]) -> dict[str, Topic]:
        present = {topic for (topic,) in self.rows("SELECT DISTINCT topic FROM partitions")}
        return {name: t for name, t in topics.items() if self.stored(name) not in present}

    def _make_partitions(
        self, topics: Mapping[str, Topic], partitions: int, first_number: int = 0
    ) -> None:
        topic_partitions = [
            (topic, partition)
            for topic in topics.values()
            for partition in range(partitions if topic.scales else topic.partitions)
        ]
        for number, (topic, partition) in enumerate(topic_partitions, first_number):
            self.row(sql(_CREATE, number))
            if topic.cleanup == "compact":
                self.row(sql(_CREATE_KEYS, number))
            self.row(
                "INSERT INTO partitions (id, topic, number) VALUES (?, ?, ?)",
                number,
                self.stored(topic.name),
                partition,
            )

    def _explain(self, error: sqlite3.Error) -> Exception:
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
_LOCK_TIMEOUT = (
    LogLocked,
    "another process wrote for longer than we wait (`busy_timeout_ms`); find it with `fuser`",
)
_MEANINGS: dict[int, tuple[type[LogError], str]] = {
    sqlite3.SQLITE_FULL: _FULL,
    # A quota, or a limit on the size of files, comes as a write that failed.
    sqlite3.SQLITE_IOERR_WRITE: _FULL,
    sqlite3.SQLITE_IOERR_SHMSIZE: _FULL,
    sqlite3.SQLITE_BUSY: _LOCK_TIMEOUT,
    sqlite3.SQLITE_LOCKED: _LOCK_TIMEOUT,
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
