"""Kafka's records and ours: what a fetched one is to a stage, and what headers say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.records import Record, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["ORIGIN", "origin_headers", "to_records"]

# Where a record lay before it was forwarded to the partition of its key: `PARTITION:OFFSET`.
ORIGIN = "stream-ml-origin"
# Any producer may set it, and of thousands of digits Python refuses to make a number.
DIGITS_MAX = 19


def to_records(topic: str, fetched: Iterable[Any]) -> list[Record]:
    """Fetched records of one partition as the stages know them.

    Args:
        topic: its name in the catalogue.
        fetched: as either client library gives them.
    """
    return [
        Record(
            topic,
            each.partition,
            each.offset,
            each.key,
            each.value,
            each.timestamp,
            None,
            _origin(each.headers) if each.headers else None,
        )
        for each in fetched
    ]


def origin_headers(origin: Source) -> list[tuple[str, bytes]]:
    """The headers of a record that was forwarded.

    >>> origin_headers(Source(2, 40))
    [('stream-ml-origin', b'2:40')]
    """
    return [(ORIGIN, b"%d:%d" % (origin.partition, origin.offset))]


def _origin(headers: Sequence[tuple[str, bytes]]) -> Source | None:
    for name, value in headers:
        if name == ORIGIN:
            partition, _, offset = (value or b"").partition(b":")
            if _is_number(partition) and _is_number(offset):
                return Source(int(partition), int(offset))
            # Whoever put it there has forwarded it, even if it does not say from where.
            return Source(-1, -1)
    return None


def _is_number(digits: bytes) -> bool:
    return digits.isdigit() and len(digits) <= DIGITS_MAX
