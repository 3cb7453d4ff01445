"""Writes what lies on a log to an archive: each record once, whoever dies when, hour by hour."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from stream_ml.errors import LogError, UsageError
from stream_ml.shell.archive.manifests import (
    HOUR_MS,
    ROOT,
    ArchivedFile,
    ArchiveRoot,
    Manifests,
    hour_of,
    rows_digest,
)
from stream_ml.shell.export.parquet import records_file, require_pyarrow
from stream_ml.shell.log.reading import read_all
from stream_ml.topics import embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stream_ml.records import Record
    from stream_ml.shell.archive.storage import Storage
    from stream_ml.shell.log.port import Log

__all__ = ["Archiver", "Written"]

READ_RECORDS = 5_000
# A file holds no more, and nor does the memory: of a history that is replayed, all is of one hour.
FILE_BYTES, FILE_RECORDS = 32 * 1024 * 1024, 200_000
# What comes to an hour after its end: a log's stamps may be set back by so much.
GRACE_MS = 60_000
# Who works on an embedded log stamps anew what is dated further ahead, before it is worked on.
AHEAD_MS = 60_000


@dataclass(slots=True)
class Written:
    """What was archived.

    Attributes:
        files: how many were written.
        rows: of them all.
        record_bytes: the keys and values in them.
        file_bytes: what they take.
        gaps: offsets that were removed from the log before they were archived, in words.
        ahead: partitions with a record that is dated ahead, which is left for later, in words.
    """

    files: int = 0
    rows: int = 0
    record_bytes: int = 0
    file_bytes: int = 0
    gaps: list[str] = field(default_factory=list)
    ahead: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Archiver:
    """Brings an archive up to what lies on a log.

    Args:
        log: to read from.
        storage: to write to.
        now_ms: the clock that says which hours are over, UTC milliseconds.

    Raises:
        UsageError: the archive is of another log, or Parquet lacks its library.
        LogError: what is there cannot be read.
    """

    def __init__(self, log: Log, storage: Storage, now_ms: Callable[[], int]) -> None:
        require_pyarrow()
        self._log, self._storage, self._now_ms = log, storage, now_ms
        self._topics = {name: log.partitions[name] for name in embedded() if name in log.partitions}
        root = ArchiveRoot.read(storage)
        if root is not None and root.log != log.identity:
            raise UsageError(
                f"{storage.address}: expected an archive of the log {log.identity}, given one of "
                f"{root.log} ({root.pipeline or 'no pipeline'}); name another address"
            )
        self._root = root
        self._manifests = Manifests.read(storage)
        self.written = Written()
        # Of the partition that is being read, up to where there are no other records.
        self._end = 0

    @property
    def remaining(self) -> int:
        """How many offsets are still to be archived."""
        return sum(
            max(0, self._log.end_offset(topic, partition) - self._begin(topic, partition))
            for topic, count in self._topics.items()
            for partition in range(count)
        )

    def run(
        self,
        *,
        only_past: bool = False,
        on_progress: Callable[[int], object] | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Archive what lies on the log now.

        Args:
            only_past: leave the hour that is not over for later, unless it fills a file.
            on_progress: is told how many records were archived by this archiver.
            is_stopped: whether to end after the file that is being written.

        Raises:
            LogError: a file could not be written, or the log not be read.
        """
        self._write_root()
        self._write_files(only_past, on_progress, is_stopped)
        self._write_root()

    def _write_files(
        self,
        only_past: bool,
        on_progress: Callable[[int], object] | None,
        is_stopped: Callable[[], bool],
    ) -> None:
        self.written.ahead = []
        for topic, count in self._topics.items():
            for partition in range(count):
                if only_past and self._is_open(topic, partition):
                    continue
                for records, is_last in self._stretches(topic, partition):
                    if is_stopped():
                        return
                    if is_last and only_past and not self._is_over(records[-1].append_ms):
                        break
                    end = self._end if is_last else records[-1].offset + 1
                    self._write(topic, partition, records, end)
                    if on_progress is not None:
                        on_progress(self.written.rows)

    def _write_root(self) -> None:
        """Say what the archive is of, as far as that is known by now."""
        pipeline = next((record.key for record in read_all(self._log, "registry")), None)
        name = None if pipeline is None else pipeline.decode(errors="replace")
        if name is None and self._root is not None:
            name = self._root.pipeline
        # Where a partition began stays known, whatever becomes of its files.
        begins = {f"{t}-{p}": files[0].first for (t, p), files in self._manifests.files.items()}
        if self._root is not None:
            begins |= self._root.begins
        root = ArchiveRoot(self._log.identity, name, self._topics, begins)
        if root != self._root:
            self._storage.write(ROOT, root.encode())
            self._root = root

    def _begin(self, topic: str, partition: int) -> int:
        """Where to go on: what is archived, or retention has taken, is not read."""
        first = self._log.first_offset(topic, partition)
        return max(first, self._manifests.end(topic, partition) or 0)

    def _is_over(self, append_ms: int) -> bool:
        return self._now_ms() >= (append_ms // HOUR_MS + 1) * HOUR_MS + GRACE_MS

    def _is_open(self, topic: str, partition: int) -> bool:
        """Whether there is nothing but records of an hour that is not over, less than a file."""
        begin, end = self._begin(topic, partition), self._log.end_offset(topic, partition)
        if end - begin >= FILE_RECORDS:
            return False
        records = self._log.read(topic, partition, begin, 1) if begin < end else []
        return not records or not self._is_over(records[0].append_ms)

    def _stretches(self, topic: str, partition: int) -> Iterator[tuple[list[Record], bool]]:
        """Records of one hour in a row, none larger than a file; whether they are the last ones."""
        begin, end = self._begin(topic, partition), self._log.end_offset(topic, partition)
        archived = self._manifests.end(topic, partition)
        if archived is not None and end < archived:
            raise LogError(
                f"{topic}-{partition}: expected at least the {archived} offsets that are archived "
                f"in {self._storage.address}, given {end}: the topic was made anew; archive it "
                "elsewhere"
            )
        if archived is not None and archived < begin < end:
            words = f"offsets {archived} to {begin} were removed before they were archived"
            self.written.gaps.append(f"{topic}-{partition}: {words}")
        stretch: list[Record] = []
        size, hour = 0, -1
        for record in self._records(topic, partition, begin, end):
            its_hour = record.append_ms // HOUR_MS
            is_full = size >= FILE_BYTES or len(stretch) >= FILE_RECORDS
            if stretch and (its_hour != hour or is_full):
                yield stretch, False
                stretch, size = [], 0
            hour = its_hour
            stretch.append(record)
            size += len(record.key or b"") + len(record.value or b"")
        if stretch:
            yield stretch, True

    def _records(self, topic: str, partition: int, begin: int, end: int) -> Iterator[Record]:
        """The records up to one that is dated ahead, whose stamp may still change."""
        while begin < end and (
            records := self._log.read(topic, partition, begin, min(READ_RECORDS, end - begin))
        ):
            if records[0].offset > begin < self._log.first_offset(topic, partition):
                return  # retention has overtaken us: the next run begins behind the gap
            for record in records:
                if record.offset >= end:
                    return
                self._end = record.offset + 1
                if record.append_ms > self._now_ms() + AHEAD_MS:
                    self.written.ahead.append(
                        f"{topic}-{partition}: offset {record.offset} is dated ahead; it and what "
                        "follows is archived once its time has come, or a worker has stamped it"
                    )
                    self._end = record.offset
                    return
                yield record
            begin = records[-1].offset + 1
        # What follows is no record (the mark of a transaction), and never will be.
        self._end = end

    def _write(self, topic: str, partition: int, records: Sequence[Record], end: int) -> None:
        """Write a file that covers all up to `end`, and then the manifest that names it."""
        data = records_file(records)
        first = self._log.first_offset(topic, partition)
        archived = self._manifests.end(topic, partition)
        # What is no record between two files (a mark of a transaction) is covered by the later one.
        begins_behind = archived is not None and first <= archived
        file = ArchivedFile(
            topic,
            partition,
            hour_of(records[0].append_ms),
            archived if archived is not None and begins_behind else records[0].offset,
            end,
            len(records),
            len(data),
            hashlib.sha256(data).hexdigest(),
            rows_digest(records),
        )
        self._storage.write(file.name, data)
        self._manifests.add(file)
        written = self.written
        written.files += 1
        written.rows += len(records)
        written.record_bytes += sum(len(r.key or b"") + len(r.value or b"") for r in records)
        written.file_bytes += len(data)
