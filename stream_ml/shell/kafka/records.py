"""Kafka's records and ours: what a fetched one is to a stage, and what headers say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.records import Record, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["ORIGIN", "origin_headers", "origin_of", "size_of", "to_records"]

# The header (KIP-82) that tells where a record lay before it was forwarded to the partition of its
# key: `PARTITION:OFFSET:TOPIC`, with the topic's id: a mirror copies headers, and a
# record that was forwarded there may lie wrong here.
ORIGIN = "stream-ml-origin"
# Any producer may set it, and of thousands of digits Python refuses to make a number.
DIGITS_MAX = 19


def to_records(topic: str, messages: Iterable[Any], identity: str = "") -> list[Record]:
    """Fetched records of one partition as the stages know them.

    Args:
        topic: its name in the catalogue.
        messages: as either client library gives them.
        identity: the topic's id, as whoever forwards knows it.
    """
    return [
        Record(
            topic,
            message.partition,
            message.offset,
            message.key,
            message.value,
            message.timestamp,
            None,
            origin_of(message.headers, identity) if message.headers else None,
        )
        for message in messages
    ]


def origin_headers(origin: Source, identity: str = "") -> list[tuple[str, bytes]]:
    """The headers of a record that was forwarded within a topic of this id.

    >>> origin_headers(Source(2, 40), "AAAAAAAAAAAAAAAAAAAAAQ")
    [('stream-ml-origin', b'2:40:AAAAAAAAAAAAAAAAAAAAAQ')]

    Args:
        origin: the partition and offset where it lay.
        identity: the topic's id.
    """
    value = f"{origin.partition}:{origin.offset}:{identity}"
    return [(ORIGIN, value.encode())]


def size_of(records: Sequence[Record]) -> int:
    """The bytes of the values of records.

    Args:
        records: tombstones have none.
    """
    return sum([len(record.value) for record in records if record.value is not None])


def origin_of(headers: Sequence[tuple[str, bytes]], identity: str = "") -> Source | None:
    """The record's first position; None where nobody has forwarded it in the topic of this id.

    What a record comes with is not sent on: forwarded by us, it has our header and no other, so it
    is forwarded once, whatever it came with.

    Args:
        headers: of the record.
        identity: the topic's id, as whoever forwards knows it.
    """
    for name, value in headers:
        position, _, topic = (value or b"").rpartition(b":")
        if name == ORIGIN and topic == identity.encode():
            partition, _, offset = position.partition(b":")
            if _is_number(partition) and _is_number(offset):
                return Source(int(partition), int(offset))
            # A header of ours without a position: forwarded all the same, from nowhere we know.
            return Source(-1, -1)
    return None


def _is_number(digits: bytes) -> bool:
    return digits.isdigit() and len(digits) <= DIGITS_MAX
