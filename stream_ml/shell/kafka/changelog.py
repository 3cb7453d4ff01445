"""How a task's state lies on its changelog: pieces by name, and a marker behind them.

A checkpoint's records are of one transaction: the pieces that changed since the one before, and
last the marker, with the positions at which all pieces that lie there are valid. The topic is
compacted, so of each piece (and of the marker) the newest is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiokafka import AIOKafkaConsumer, TopicPartition

    from stream_ml.stages.task import Positions

__all__ = ["MARKER", "Marker", "decode_marker", "encode_marker", "fold_changelog", "read_changelog"]

# No piece is called so: their names begin with a letter or are empty.
MARKER = b"\x00marker"


class Marker(NamedTuple):
    """Where a state is valid, and by the id of each topic, of which topics that is."""

    positions: Positions
    topics: Mapping[str, str]


def encode_marker(positions: Positions, topics: Mapping[str, str]) -> bytes:
    """A marker's value.

    >>> encode_marker({("events", 3): 40}, {"events": "AAAAAAAAAAAAAAAAAAAAAQ"})
    b'{"positions":[["events",3,40]],"topics":{"events":"AAAAAAAAAAAAAAAAAAAAAQ"}}'
    """
    at = [(topic, p, at) for (topic, p), at in positions.items()]
    return orjson.dumps({"positions": at, "topics": topics})


def decode_marker(value: bytes) -> Marker:
    """What a marker says; one of a former release names no topics' ids."""
    found = orjson.loads(value)
    positions = {(topic, p): at for topic, p, at in found["positions"]}
    return Marker(positions, found.get("topics", {}))


def fold_changelog(
    records: Iterable[tuple[bytes | None, bytes | None]], state: dict[bytes, bytes]
) -> None:
    """Take further records (keys and values, in order) into the state by name."""
    for key, value in records:
        if value is None:
            state.pop(key or b"", None)
        else:
            state[key or b""] = value


async def read_changelog(
    consumer: AIOKafkaConsumer, tp: TopicPartition, end: int
) -> tuple[list[tuple[str, bytes]], Marker | None]:
    """The pieces that lie on a partition of a changelog, and where they are valid; None: nowhere.

    Args:
        consumer: of committed records, started, with nothing assigned.
        tp: the partition.
        end: up to where; what is open before it is waited for.
    """
    consumer.assign([tp])
    await consumer.seek_to_beginning(tp)
    state: dict[bytes, bytes] = {}
    while await consumer.position(tp) < end:
        for records in (await consumer.getmany(tp, timeout_ms=1_000)).values():
            fold_changelog(((each.key, each.value) for each in records), state)
    marker = state.pop(MARKER, None)
    pieces = [(name.decode(), value) for name, value in state.items()]
    return pieces, None if marker is None else decode_marker(marker)
