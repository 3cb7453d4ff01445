"""The manifests of an archive: which files it has, of which offsets, with their checksums.

Theory of operation:

1. A file holds the records of one partition that came one behind the other and were taken in
   within one hour (UTC), by the stamp that the log gave them, which does not change. So which hour
   a record is in follows from the record alone, and where it is from its offset.
2. Each partition has a manifest for each day. A file is part of the archive when its manifest says
   so, which is written after it: what a writer that died left behind is no part, and is written
   again. So each record is archived exactly once, whoever dies when.
3. A file covers the offsets from where the one before it ends up to one past its last record:
   between them no offset is missing, though logs have offsets without a record.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.errors import LogError
from stream_ml.records import PARTITIONS_MAX
from stream_ml.topics import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_ml.records import Record
    from stream_ml.shell.archive.storage import Storage

__all__ = [
    "HOUR_MS",
    "ROOT",
    "ArchiveRoot",
    "ArchivedFile",
    "Manifests",
    "day_of",
    "hour_of",
    "rows_digest",
]

HOUR_MS = 3_600_000
FORMAT = 1
ROOT = "archive.json"
MANIFEST = "manifest.json"


def hour_of(append_ms: int) -> str:
    """The hour in which the log took a record in.

    >>> hour_of(1_357_038_000_000)
    '2013-01-01T11'
    """
    return f"{datetime.fromtimestamp(append_ms // 1_000, UTC):%Y-%m-%dT%H}"


def day_of(hour: str) -> str:
    """The day of an hour.

    >>> day_of("2013-01-01T11")
    '2013-01-01'
    """
    return hour[:10]


def rows_digest(records: Iterable[Record]) -> str:
    """The SHA-256 of records as they lay on the log: offsets, stamps, keys and bytes.

    Args:
        records: of one partition, in their order.
    """
    digest = hashlib.sha256()
    for record in records:
        key, value, origin = record.key, record.value, record.origin
        place = (-1, -1) if origin is None else (origin.partition, origin.offset)
        digest.update(
            struct.pack(
                ">qqqqqq",
                record.offset,
                record.append_ms,
                -1 if key is None else len(key),
                -1 if value is None else len(value),
                *place,
            )
        )
        digest.update(key or b"")
        digest.update(value or b"")
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class ArchiveRoot:
    """What an archive is of.

    Attributes:
        log: the identity of the log.
        pipeline: its name, as the registry has it; None where nothing was decided yet.
        topics: by name, how many partitions.
        begins: by topic and partition, as `events-0`, the first offset that was ever archived: a
            partition, or its first days, that are there no more are missed by it.
    """

    log: str
    pipeline: str | None
    topics: dict[str, int]
    begins: dict[str, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The file at the root of the archive."""
        members = {"format": FORMAT, **asdict(self)}
        return orjson.dumps(members, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def read(cls, storage: Storage) -> ArchiveRoot | None:
        """The root of the archive there; None where there is none.

        Raises:
            LogError: something else is there.
        """
        if not storage.has(ROOT):
            return None
        members = _members(storage, ROOT, {"log": str, "topics": dict})
        pipeline = members.get("pipeline")
        topics, begins = members["topics"], members.get("begins", {})
        if not isinstance(begins, dict) or not all(
            type(count) is int for count in (*topics.values(), *begins.values())
        ):
            raise _no_manifest(storage, ROOT, "topics without numbers")
        return cls(members["log"], None if pipeline is None else str(pipeline), topics, begins)


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """A file of an archive.

    Attributes:
        topic: of its records.
        partition: that they lay in.
        hour: in which the log took them in, UTC.
        first: the offset that it begins with.
        end: one past that of its last record.
        rows: how many records.
        size: of the file, in bytes.
        sha256: of the file.
        rows_sha256: of its records, see `rows_digest`.
    """

    topic: str
    partition: int
    hour: str
    first: int
    end: int
    rows: int
    size: int
    sha256: str
    rows_sha256: str

    @property
    def name(self) -> str:
        """Below the address of the archive."""
        folder = _folder(self.topic, self.partition, day_of(self.hour))
        return f"{folder}/{self.hour[11:]}-{self.first:016}-{self.end:016}.parquet"


def _extent(file: ArchivedFile) -> int:
    return file.end - file.first


def _folder(topic: str, partition: int, day: str) -> str:
    return f"{topic}/{partition}/{day}"


_FILE_TYPES: dict[str, type] = {
    "hour": str,
    "first": int,
    "end": int,
    "rows": int,
    "size": int,
    "sha256": str,
    "rows_sha256": str,
}


_HOUR = re.compile(r"\d{4}-\d\d-\d\dT\d\d", re.ASCII)


def _is_entry(entry: dict[str, Any]) -> bool:
    """Whether it is that of a file: members, and an hour that names no other place."""
    return (
        all(type(entry.get(member)) is kind for member, kind in _FILE_TYPES.items())
        and _HOUR.fullmatch(entry["hour"]) is not None
        and 0 <= entry["first"] < entry["end"]
    )


@dataclass(slots=True)
class Manifests:
    """All manifests of an archive.

    Attributes:
        storage: where it lies.
        files: by topic and partition, in the order of their offsets.
    """

    storage: Storage
    files: dict[tuple[str, int], list[ArchivedFile]] = field(default_factory=dict)

    @classmethod
    def read(cls, storage: Storage) -> Manifests:
        """Those that lie there.

        Raises:
            LogError: one cannot be read, or is none.
        """
        manifests = cls(storage)
        for name in storage.names(f"/{MANIFEST}"):
            members = _members(storage, name, {"topic": str, "partition": int, "files": list})
            topic, partition = members["topic"], members["partition"]
            if topic not in catalogue() or not 0 <= partition < PARTITIONS_MAX:
                raise _no_manifest(storage, name, f"the partition {topic!r}-{partition}")
            for entry in members["files"]:
                if not isinstance(entry, dict) or not _is_entry(entry):
                    raise _no_manifest(storage, name, "an entry that is none")
                file = ArchivedFile(topic, partition, **{m: entry[m] for m in _FILE_TYPES})
                manifests.files.setdefault((topic, partition), []).append(file)
        for key, files in manifests.files.items():
            files.sort(key=lambda each: each.first)
            for before, after in pairwise(files):
                if after.first < before.end:
                    raise LogError(
                        f"{storage.address}: expected each record of {key[0]}-{key[1]} once, given "
                        f"offsets {after.first} to {before.end} in {before.name} and {after.name}: "
                        "two archived at once. Way out: of both take the entry that covers fewer "
                        f"offsets, {min(before, after, key=_extent).name}, out of `files` of the "
                        f"{MANIFEST} beside it, archive and --verify again"
                    )
        return manifests

    def end(self, topic: str, partition: int) -> int | None:
        """One past the last offset that is archived of a partition; None: nothing is.

        Args:
            topic: of the catalogue.
            partition: from 0.
        """
        files = self.files.get((topic, partition))
        return files[-1].end if files else None

    def add(self, file: ArchivedFile) -> None:
        """Make a file that was written part of the archive.

        Args:
            file: it begins where the one before it ends, or later where records are gone.

        Raises:
            LogError: the manifest could not be written.
        """
        key, day = (file.topic, file.partition), day_of(file.hour)
        files = [*self.files.get(key, ()), file]
        members: dict[str, Any] = {
            "format": FORMAT,
            "topic": file.topic,
            "partition": file.partition,
            "day": day,
            "files": [
                {"name": each.name, **{member: getattr(each, member) for member in _FILE_TYPES}}
                for each in files
                if day_of(each.hour) == day
            ],
        }
        name = f"{_folder(file.topic, file.partition, day)}/{MANIFEST}"
        data = orjson.dumps(members, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        self.storage.write(name, data)
        self.files[key] = files


def _members(storage: Storage, name: str, types: dict[str, type]) -> dict[str, Any]:
    """The members of a file of ours.

    Raises:
        LogError: it is none.
    """
    try:
        members = orjson.loads(storage.read(name))
    except orjson.JSONDecodeError as error:
        raise _no_manifest(storage, name, str(error)) from None
    if not isinstance(members, dict) or members.get("format") != FORMAT:
        given = members.get("format") if isinstance(members, dict) else type(members).__name__
        raise _no_manifest(storage, name, f"the format {given!r}")
    for member, kind in types.items():
        if type(members.get(member)) is not kind:
            raise _no_manifest(storage, name, f"no {member}")
    return members


def _no_manifest(storage: Storage, name: str, given: str) -> LogError:
    return LogError(
        f"{storage.address}: expected {name} of an archive of format {FORMAT}, given {given}; it "
        "was altered, or another release wrote it"
    )
