"""Whether records lie in the partition of their key: any producer may use any partitioner.

Theory of operation. Where a record belongs follows from its value alone: the key in it and the
number of partitions, by Kafka's default partitioner (`topics.partition_of`). One that lies
elsewhere, a stray, is forwarded once by who reads it, and says from where; it touches no state
where it lay. A second time it is refused, so that none can wander for ever.

Windows of an entity other than the key hold events of all keys, in the order of the log: there is
one only within a partition, so that such a declaration needs all events in one.

Murmur2 costs 1.4 to 3.6 µs a key in Python, as much as the rest of a small record. So places are
remembered, and what is not known of a batch is hashed at once (0.3 to 0.8 µs a key, from 64 on).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_ml.errors import BadRecord, UsageError
from stream_ml.records import Output, Record, Source
from stream_ml.topics import partition_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.pipeline import Pipeline

__all__ = [
    "Partitioner",
    "forward",
    "partitions_of",
    "partitions_of_batch",
    "refuse_partitions",
]

# Below, arrays cost more than they save.
BATCH_MIN = 64
# Some 15 MB when full of ids; keys of entities are fewer and come again.
REMEMBERED_MAX = 65_536

_M = np.uint32(0x5BD1E995)
_SEED = 0x9747B28C


def refuse_partitions(pipeline: Pipeline, partitions: int, *, is_embedded: bool = False) -> None:
    """Refuse a log whose events lie in several partitions, where they have to lie in one.

    Args:
        pipeline: the declaration.
        partitions: of the log's events.
        is_embedded: whether the log is a file, in which partitions do not tell each other.

    Raises:
        UsageError: there are several, and windows of entities are declared.
    """
    if partitions > 1 and is_embedded and pipeline.feature_set.delay_ms is not None:
        raise UsageError(
            f"features: expected an embedded log with one partition of events, as windows with a "
            f"`delay` are declared, given one with {partitions}; they are over several partitions "
            "on Kafka"
        )
    if partitions > 1 and pipeline.feature_set.entities:
        raise UsageError(
            f"features: expected all events in one partition, as windows of "
            f"{', '.join(pipeline.feature_set.entities)} hold events of all keys in the order of "
            f"the log, given a log with {partitions} partitions of events; give the pipeline "
            "another name, for which `stream-ml topics apply` makes one, and publish there, or "
            "declare these windows with a `delay`, or with `by` in place of `entity`"
        )


class Partitioner:
    """Tells what lies wrong in a topic of so many partitions."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._cache: dict[str, int] = {}

    def strays(self, records: Sequence[Record], keys: Sequence[str | None]) -> dict[int, str]:
        """The keys of those of `records` that belong elsewhere, by their numbers in the batch.

        Args:
            records: a batch of one partition as it was read.
            keys: the key in each one's value; None where there is none: it belongs anywhere.
        """
        cache = self._cache
        unknown = [key for key in keys if key is not None and key not in cache]
        if unknown:
            if len(cache) + len(unknown) > REMEMBERED_MAX:
                cache.clear()
                unknown = [key for key in keys if key is not None]
            self._learn(unknown)
        partition = records[0].partition
        return {i: key for i, key in enumerate(keys) if key is not None and cache[key] != partition}

    def _learn(self, keys: list[str]) -> None:
        partitions = partitions_of([key.encode() for key in keys], self._partitions)
        self._cache.update(zip(keys, partitions, strict=True))


def forward(record: Record, key: str, member: str) -> Output:
    """What sends a stray to where it belongs.

    Args:
        record: a stray.
        key: by which it belongs into another partition.
        member: that holds the key, for the path in the error.

    Raises:
        BadRecord: it was forwarded before, and still lies wrong.
    """
    if record.origin is not None:
        raise BadRecord(
            "stray",
            f"$.{member}",
            f"it was forwarded from partition {record.origin.partition}, offset "
            f"{record.origin.offset}, and does not belong in {record.partition} either",
        )
    origin = Source(record.partition, record.offset)
    return Output(record.topic, key.encode(), record.value, origin=origin)


def partitions_of(keys: Sequence[bytes], partitions: int) -> list[int]:
    """What `partition_of` gives each of `keys`, hashed one by one or at once, as costs less.

    >>> partitions_of([b"JFK", b"LAX"], 4) == [partition_of(b"JFK", 4), partition_of(b"LAX", 4)]
    True

    Args:
        keys: of records, as bytes.
        partitions: how many the topic has.
    """
    if partitions == 1 or len(keys) < BATCH_MIN:
        return [partition_of(key, partitions) for key in keys]
    return partitions_of_batch(keys, partitions)


def partitions_of_batch(keys: Sequence[bytes], partitions: int) -> list[int]:
    """The partitions that Kafka's default partitioner gives `keys`.

    >>> partitions_of_batch([b"JFK", b"LAX", b"ORD"], 4) == [partition_of(key, 4) for key in
    ...     (b"JFK", b"LAX", b"ORD")]
    True

    Args:
        keys: of records, as bytes.
        partitions: how many the topic has.
    """
    of_length: dict[int, list[int]] = {}
    for i, key in enumerate(keys):
        of_length.setdefault(len(key), []).append(i)
    result = [0] * len(keys)
    for length, members in of_length.items():
        hashes = _murmur2(b"".join([keys[i] for i in members]), length, len(members))
        indexes = (hashes & np.uint32(0x7FFFFFFF)) % np.uint32(partitions)
        for i, index in zip(members, indexes.tolist(), strict=True):
            result[i] = index
    return result


def _murmur2(
    key_bytes: bytes, length: int, count: int
) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """`topics._murmur2` of `count` keys of one length; array arithmetic wraps as it must."""
    data = np.frombuffer(key_bytes, np.uint8).reshape(count, length)
    hashes = np.full(count, _SEED ^ length, np.uint32)
    aligned_length = length & ~3
    words = np.ascontiguousarray(data[:, :aligned_length]).view("<u4").astype(np.uint32) * _M
    words = (words ^ (words >> np.uint32(24))) * _M
    for column in words.T:
        hashes = hashes * _M ^ column
    if length > aligned_length:
        tail = np.zeros(count, np.uint32)
        for index in range(length - aligned_length):
            tail |= data[:, aligned_length + index].astype(np.uint32) << np.uint32(8 * index)
        hashes = (hashes ^ tail) * _M
    hashes = (hashes ^ (hashes >> np.uint32(13))) * _M
    return hashes ^ (hashes >> np.uint32(15))
