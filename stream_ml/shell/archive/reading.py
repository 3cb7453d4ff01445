"""Reads an archive as a log is read, alone or before what the log still has.

Theory of operation:

1. Of a topic that is kept for a time the archive gives what the log has removed, and the log the
   rest: no record twice, none left out. Of a compacted one (`models`) the archive gives all that it
   has, for the log has dropped some of it between.
2. Where a stretch is in neither, nothing is read past it: that is an error which names it.
3. A file is believed if its SHA-256 is the manifest's. What is in it is believed as on the log:
   records that stages wrote are sealed or signed, in the archive as well.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import asdict, dataclass, field, replace
from heapq import merge
from typing import TYPE_CHECKING, Any

from stream_ml.errors import LogError, UsageError
from stream_ml.records import is_forgotten
from stream_ml.shell.archive.manifests import ArchiveRoot, Manifests, rows_digest
from stream_ml.shell.export.parquet import read_records
from stream_ml.shell.log.port import Log, read_between
from stream_ml.topics import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    from stream_ml.records import Output, Record
    from stream_ml.shell.archive.manifests import ArchivedFile
    from stream_ml.shell.archive.storage import Storage
    from stream_ml.shell.log.port import PartitionId, Tail

__all__ = ["Archive", "JoinedLog", "Verification", "verify"]

# Topics are read side by side: of each the file that was read last, decoded.
FILES_HELD = 4
READ_RECORDS = 5_000


class Archive:
    """An archive, to be read.

    Args:
        storage: where it lies.

    Raises:
        LogError: there is none, or it cannot be read.
    """

    def __init__(self, storage: Storage) -> None:
        root = ArchiveRoot.read(storage)
        if root is None:
            raise LogError(
                f"{storage.address}: expected an archive, given none; make one with `stream-ml "
                "archive --to`"
            )
        self.address = storage.address
        self.root = root
        self._storage = storage
        self._files = Manifests.read(storage).files
        self._held: OrderedDict[ArchivedFile, list[Record]] = OrderedDict()

    @property
    def files(self) -> Iterator[ArchivedFile]:
        """All files, by topic and partition, in the order of their offsets."""
        for _, files in sorted(self._files.items()):
            yield from files

    def bounds(self, topic: str, partition: int) -> tuple[int, int] | None:
        """The first offset of a partition that is archived, and one past the last; None: none.

        Args:
            topic: of the catalogue.
            partition: from 0.
        """
        files = self._files.get((topic, partition))
        return (files[0].first, files[-1].end) if files else None

    def load(self, file: ArchivedFile) -> list[Record]:
        """The records of a file.

        Args:
            file: one of `files`.

        Raises:
            LogError: it is not there, or not what was written.
        """
        held = self._held.get(file)
        if held is not None:
            self._held.move_to_end(file)
            return held
        data = self._storage.read(file.name)
        digest = hashlib.sha256(data).hexdigest()
        if digest != file.sha256:
            raise LogError(
                f"{self.address}/{file.name}: expected SHA-256 {file.sha256}, as its manifest has "
                f"it, given {digest}: it was altered or damaged"
            )
        try:
            records = read_records(data, file.topic, file.partition)
        except LogError as error:
            raise LogError(f"{self.address}/{file.name}: {error}") from None
        self._held[file] = records
        if len(self._held) > FILES_HELD:
            self._held.popitem(last=False)
        return records

    def read(
        self, topic: str, partition: int, offset: int, limit: int, end: int | None = None
    ) -> list[Record]:
        """Up to so many records from an offset on; none at the end.

        Args:
            topic: of the catalogue.
            partition: from 0.
            offset: of the first record; where there is none, the next one.
            limit: how many at most.
            end: only records before this offset, up to which all must be there; None: all.

        Raises:
            LogError: a stretch was never archived that should come next.
        """
        files: Sequence[ArchivedFile] = self._files.get((topic, partition), ())
        index = max(0, bisect_right(files, offset, key=lambda each: each.first) - 1)
        # Before its first file an archive has nothing, and nothing is missed.
        position = max(offset, files[0].first) if files else offset
        for file in files[index:]:
            if end is not None and position >= end:
                return []
            if file.first > position:
                raise _gap(topic, partition, position, file.first)
            if position < file.end:
                chosen = self._between(file, position, limit, end)
                if chosen:
                    return chosen
                position = file.end
        if end is not None and position < end:
            raise _gap(topic, partition, position, end)
        return []

    def _between(
        self, file: ArchivedFile, offset: int, limit: int, end: int | None
    ) -> list[Record]:
        """Copies, for who takes a seal off must not take it off what is held."""
        records = self.load(file)
        start = bisect_right(records, offset - 1, key=lambda each: each.offset)
        return [
            replace(record)
            for record in records[start : start + limit]
            if end is None or record.offset < end
        ]

    def in_order(self, topic: str) -> Iterator[Record]:
        """All records of a topic, of all partitions in the order in which the log took them in.

        Args:
            topic: of the catalogue.

        Raises:
            LogError: a stretch is missing between two that are there.
        """
        partitions = [partition for name, partition in sorted(self._files) if name == topic]
        yield from merge(
            *(self._partition(topic, partition) for partition in partitions),
            key=lambda record: record.append_ms,
        )

    def _partition(self, topic: str, partition: int) -> Iterator[Record]:
        offset = 0
        while records := self.read(topic, partition, offset, READ_RECORDS):
            yield from records
            offset = records[-1].offset + 1

    def offset_at(self, topic: str, partition: int, append_ms: int) -> int | None:
        """The offset of the first record that was appended then or later; None: none is archived.

        Args:
            topic: of the catalogue.
            partition: from 0.
            append_ms: UTC milliseconds.
        """
        for file in self._files.get((topic, partition), ()):
            for record in self.load(file):
                if record.append_ms >= append_ms:
                    return record.offset
        return None


def _gap(topic: str, partition: int, first: int, end: int) -> LogError:
    """What to say of a stretch that is nowhere."""
    return LogError(
        f"{topic}-{partition}: expected offsets {first} to {end} in the archive or on the log, "
        "given neither: retention removed them before they were archived, or a manifest is gone"
    )


class JoinedLog(Log):
    """A log, and before what it still has what an archive has of it; closing it closes the log.

    Args:
        log: of which the archive is.
        archive: what was on it.

    Raises:
        UsageError: the archive is of another log.
    """

    def __init__(self, log: Log, archive: Archive) -> None:
        if archive.root.log != log.identity:
            raise UsageError(
                f"{archive.address}: expected an archive of the log {log.identity}, given one of "
                f"{archive.root.log} ({archive.root.pipeline or 'no pipeline'}); name the log with "
                "--broker that it is of, or another archive"
            )
        self._log, self._archive = log, archive
        self.forwards_strays = log.forwards_strays

    @property
    def identity(self) -> str:
        """The log's."""
        return self._log.identity

    @property
    def partitions(self) -> Mapping[str, int]:
        """The log's."""
        return self._log.partitions

    def _boundary(self, topic: str, partition: int) -> int:
        """The offset from which on the log is read."""
        bounds = self._archive.bounds(topic, partition)
        if bounds is None:
            return 0
        if catalogue()[topic].cleanup == "compact":
            return bounds[1]
        return self._log.first_offset(topic, partition)

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """From the archive up to where the log begins, from there on from the log.

        Raises:
            LogError: a stretch is in neither.
        """
        boundary = self._boundary(topic, partition)
        if offset < boundary:
            records = self._archive.read(topic, partition, offset, limit, boundary)
            if records:
                return records
            offset = boundary
        records = self._log.read(topic, partition, offset, limit)
        # Retention may have gone on between the question where the log begins, and the reading.
        is_behind = not records or records[0].offset > offset
        if is_behind and self._boundary(topic, partition) > max(offset, boundary):
            return self.read(topic, partition, offset, limit)
        return records

    def first_offset(self, topic: str, partition: int) -> int:
        """The archive's, where it has any of the partition; else the log's."""
        first = self._log.first_offset(topic, partition)
        bounds = self._archive.bounds(topic, partition)
        return first if bounds is None else min(first, bounds[0])

    def end_offset(self, topic: str, partition: int) -> int:
        """The log's."""
        return self._log.end_offset(topic, partition)

    def held_back(self, topic: str, partition: int) -> tuple[int, int] | None:
        """The log's."""
        return self._log.held_back(topic, partition)

    def offset_at(self, topic: str, partition: int, append_ms: int) -> int:
        """In the archive, where that has it before the log begins; else on the log."""
        offset = self._archive.offset_at(topic, partition, append_ms)
        if offset is not None and offset < self._boundary(topic, partition):
            return offset
        return self._log.offset_at(topic, partition, append_ms)

    def append(self, outputs: Sequence[Output]) -> list[Record]:
        """To the log."""
        return self._log.append(outputs)

    def post(self, outputs: Sequence[Output]) -> None:
        """To the log."""
        self._log.post(outputs)

    def flush(self) -> None:
        """The log's."""
        self._log.flush()

    def append_whole(self, writer: str, prepare: Callable[[], Sequence[Output]]) -> None:
        """To the log."""
        self._log.append_whole(writer, prepare)

    def tail(self, topic: str, offsets: Mapping[int, int]) -> Tail:
        """Of the log alone."""
        return self._log.tail(topic, offsets)

    def version(self) -> Hashable:
        """The log's."""
        return self._log.version()

    def committed(self, group: str) -> dict[PartitionId, int]:
        """The log's."""
        return self._log.committed(group)

    def state(self, group: str) -> list[tuple[str, bytes]]:
        """The log's."""
        return self._log.state(group)

    def piece(self, group: str, key: str) -> bytes | None:
        """The log's."""
        return self._log.piece(group, key)

    def written_ms(self, group: str) -> int | None:
        """The log's."""
        return self._log.written_ms(group)

    def stages_at_work(self) -> frozenset[str] | None:
        """The log's."""
        return self._log.stages_at_work()

    def worker_since_ms(self, stage: str) -> int | None:
        """The log's."""
        return self._log.worker_since_ms(stage)

    def close(self) -> None:
        """Closes the log."""
        self._log.close()


# --- whether it is whole -----------------------------------------------------------------------


@dataclass(slots=True)
class Verification:
    """Whether an archive is whole, and equals the log as far as that goes back.

    Attributes:
        files: how many were read.
        rows: in them.
        compared: how many of these were compared with the log, which still has them.
        forgotten: how many of these the log has forgotten since they were archived.
        remaining: how many offsets of the log are not archived yet.
        faults: what is wrong, a sentence each.
    """

    files: int = 0
    rows: int = 0
    compared: int = 0
    forgotten: int = 0
    remaining: int = 0
    faults: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def verify(
    archive: Archive, log: Log, on_progress: Callable[[int], object] | None = None
) -> Verification:
    """Read every file, check its checksums, and compare it with the log where that has its records.

    Args:
        archive: to check.
        log: that it is of.
        on_progress: is told how many rows were read.
    """
    result = Verification()
    _compare_bounds(archive, log, result)
    before: ArchivedFile | None = None
    for file in archive.files:
        is_next = before is not None and (before.topic, before.partition) == (
            file.topic,
            file.partition,
        )
        if before is not None and is_next and file.first > before.end:
            result.faults.append(
                f"{file.topic}-{file.partition}: offsets {before.end} to {file.first} are missing"
            )
        before = file
        result.files += 1
        try:
            records = archive.load(file)
        except LogError as error:
            result.faults.append(str(error))
            continue
        result.rows += len(records)
        if (len(records), rows_digest(records)) != (file.rows, file.rows_sha256):
            result.faults.append(f"{file.name}: its rows are not those that its manifest has")
        if catalogue()[file.topic].cleanup == "delete" and (
            log.first_offset(file.topic, file.partition) <= file.first
        ):
            _compare_rows(file, records, log, result)
        if on_progress is not None:
            on_progress(result.rows)
    return result


def _compare_bounds(archive: Archive, log: Log, result: Verification) -> None:
    """Look for partitions, beginnings and ends that should be archived, and are not."""
    for topic in sorted(archive.root.topics.keys() & log.partitions.keys()):
        for partition in range(log.partitions[topic]):
            name = f"{topic}-{partition}"
            first, end = log.first_offset(topic, partition), log.end_offset(topic, partition)
            begin = archive.root.begins.get(name)
            bounds = archive.bounds(topic, partition)
            if bounds is None:
                result.remaining += end - first
                if begin is not None:
                    result.faults.append(f"{name}: nothing is there of what was archived")
                continue
            result.remaining += max(0, end - max(first, bounds[1]))
            if begin is not None and begin < bounds[0]:
                result.faults.append(f"{name}: offsets {begin} to {bounds[0]} are missing")
            if bounds[1] < first:
                result.faults.append(
                    f"{name}: offsets {bounds[1]} to {first} are missing, and on the log no more"
                )


def _compare_rows(
    file: ArchivedFile, records: Sequence[Record], log: Log, result: Verification
) -> None:
    """Compare a file with what lies on the log, but for what has been forgotten there since."""
    result.compared += len(records)
    lying = list(read_between(log, file.topic, file.partition, file.first, file.end))
    if rows_digest(lying) == file.rows_sha256:
        return
    archived = {record.offset: record for record in records}
    forgotten = {each.offset for each in lying if is_forgotten(each)} & archived.keys()
    others = [[r for r in rows if r.offset not in forgotten] for rows in (lying, records)]
    if not forgotten or rows_digest(others[0]) != rows_digest(others[1]):
        result.faults.append(f"{file.name}: its rows are not those that lie on the log")
        return
    result.forgotten += sum(not is_forgotten(archived[offset]) for offset in forgotten)
