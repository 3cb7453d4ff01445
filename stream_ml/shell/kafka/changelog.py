"""The layout of a task's state on its changelog: pieces by name, and a marker behind them.

A checkpoint's records are of one transaction: the pieces that changed since the one before, and
last the marker, with the positions at which all pieces that lie there are valid. The topic is
compacted, so of each piece (and of the marker) the newest is kept. All are sealed (see `sealing`):
what anybody else has put there is passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiokafka import AIOKafkaConsumer, TopicPartition

    from stream_ml.sealing import RestoredState, SealedState, StateEntry

__all__ = ["SEAL", "fold_changelog", "message", "read_changelog"]

# The header of a tombstone of ours, which has no value to be sealed in.
SEAL = "stream-ml-seal"


def message(entry: StateEntry, partition: int) -> dict[str, Any]:
    """Make the message, as librdkafka takes it, of an entry of state.

    >>> from stream_ml.sealing import StateEntry
    >>> message(StateEntry(b"wana", None, b"seal"), 2)["headers"]
    [('stream-ml-seal', b'seal')]

    Args:
        entry: of a task's state.
        partition: of the changelog: the task's number.
    """
    record: dict[str, Any] = {"key": entry.name, "value": entry.value, "partition": partition}
    if entry.seal is not None:
        record["headers"] = [(SEAL, entry.seal)]
    return record


def fold_changelog(
    records: Iterable[tuple[bytes | None, bytes | None]], state: dict[bytes, bytes]
) -> None:
    """Take further records (keys and values, in order) into the state by name, unchecked.

    Args:
        records: keys and values, in their order; a value of None takes the entry away.
        state: by name; it is changed.
    """
    for key, value in records:
        if value is None:
            state.pop(key or b"", None)
        else:
            state[key or b""] = value


async def read_changelog(
    consumer: AIOKafkaConsumer, tp: TopicPartition, end: int, state: SealedState
) -> RestoredState:
    """Read a partition of a changelog, and restore the state that is to be believed.

    Args:
        consumer: of committed records, started, with nothing assigned.
        tp: the partition.
        end: up to where; what is open before it is waited for.
        state: takes the records in.
    """
    consumer.assign([tp])
    await consumer.seek_to_beginning(tp)
    # The position passes marks of transactions and gaps of compaction, which give no records.
    while await consumer.position(tp) < end:
        for records in (await consumer.getmany(tp, timeout_ms=1_000)).values():
            for record in records:
                state.take(record.key, record.value, _seal(record.headers))
    return state.result()


def _seal(headers: Iterable[tuple[str, bytes]]) -> bytes | None:
    return next((value for name, value in headers if name == SEAL), None)
