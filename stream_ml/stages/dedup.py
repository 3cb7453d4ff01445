"""Ids met before, kept as long as a repeat could still come: dedupe with bounded memory.

Ids are held in chunks by event time. A chunk is written once when it is full and once more each
time it has grown until then, so that a checkpoint costs what is new, not what is known.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import orjson

from stream_ml.stages.task import DirtyKeys

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SeenIds"]

# A full chunk is some 15 kB: small beside a transaction, large beside the cost of a piece.
CHUNK_IDS_MAX = 512
# Ids are dropped a bucket at a time; sixteen to a span keep at most 1/16 more than is needed.
BUCKETS_PER_SPAN = 16


class SeenIds:
    """A set of ids, each with its event time, that forgets what is older than a bound.

    Args:
        span_ms: how far back from the bound's clock ids matter, in milliseconds.

    >>> seen = SeenIds(span_ms=16_000)
    >>> seen.add("a", 500)
    >>> seen.get("a"), seen.get("b")
    (500, None)
    >>> seen.forget_before(10_000)
    >>> seen.get("a") is None
    True
    """

    def __init__(self, span_ms: int) -> None:
        self._width_ms = max(1, span_ms // BUCKETS_PER_SPAN)
        self._ts: dict[str, int] = {}
        self._buckets: dict[int, list[list[tuple[str, int]]]] = {}
        # The numbers of the buckets, as a heap.
        self._order: list[int] = []
        # By bucket and number of the chunk.
        self._dirty = DirtyKeys[tuple[int, int]]()
        # Ids mostly go where the one before went: that chunk, while it is known to have changed.
        self._bucket = -1
        self._chunk: list[tuple[str, int]] = []

    def __len__(self) -> int:
        return len(self._ts)

    def get(self, event_id: str) -> int | None:
        """The event time under which `event_id` was added, or None."""
        return self._ts.get(event_id)

    def add(self, event_id: str, ts: int) -> None:
        """Remember `event_id`; where it was known, under its new time.

        Args:
            event_id: of an event that was taken.
            ts: its time, UTC milliseconds.
        """
        self._ts[event_id] = ts
        bucket = ts // self._width_ms
        if bucket != self._bucket or len(self._chunk) >= CHUNK_IDS_MAX:
            self._open(bucket)
        self._chunk.append((event_id, ts))

    def _open(self, bucket: int) -> None:
        """Let ids go to the newest chunk of a bucket from now on, or to one more if it is full."""
        chunks = self._buckets.get(bucket)
        if chunks is None:
            chunks = self._buckets[bucket] = [[]]
            heapq.heappush(self._order, bucket)
        if len(chunks[-1]) >= CHUNK_IDS_MAX:
            chunks.append([])
        self._bucket, self._chunk = bucket, chunks[-1]
        self._dirty.put((bucket, len(chunks) - 1), new=not self._chunk)

    def forget_before(self, bound_ms: int) -> None:
        """Drop the buckets that hold nothing at or after `bound_ms`."""
        order = self._order
        while order and (order[0] + 1) * self._width_ms <= bound_ms:
            bucket = heapq.heappop(order)
            for number, chunk in enumerate(self._buckets.pop(bucket)):
                self._dirty.delete((bucket, number))
                for event_id, ts in chunk:
                    if self._ts.get(event_id) == ts:
                        del self._ts[event_id]
            self._bucket = -1

    def dirty(self) -> list[tuple[str, bytes | None]]:
        """What changed since the last call, as pieces of state; None drops a piece."""
        self._bucket = -1
        pieces: list[tuple[str, bytes | None]] = []
        for bucket, number in self._dirty.drain():
            chunks = self._buckets.get(bucket, [])
            value = orjson.dumps(chunks[number]) if number < len(chunks) else None
            pieces.append((f"{bucket}:{number}", value))
        return pieces

    def oldest_ms(self) -> int:
        """The least event time of all ids; -1 where there are none."""
        return min(self._ts.values(), default=-1)

    def restore(self, pieces: Iterable[tuple[str, bytes]]) -> bool:
        """Take up the state that `pieces` hold, also of another span: it is written anew then.

        Returns:
            Whether it is of this span.
        """
        restored = [
            (*_numbers(name), [(event_id, ts) for event_id, ts in orjson.loads(value)])
            for name, value in pieces
        ]
        restored.sort()
        is_of_this_span = all(
            ids[0][1] // self._width_ms == bucket == ids[-1][1] // self._width_ms
            for bucket, _, ids in restored
            if ids
        )
        for bucket, number, ids in restored:
            if is_of_this_span:
                self._ts.update(ids)
                self._buckets.setdefault(bucket, []).append(ids)
            else:
                self._dirty.put((bucket, number), new=False)
        self._order = sorted(self._buckets)
        if not is_of_this_span:
            for event_id, ts in sorted(
                (each for _, _, ids in restored for each in ids), key=lambda each: each[1]
            ):
                self.add(event_id, ts)
        return is_of_this_span


def _numbers(name: str) -> tuple[int, int]:
    bucket, _, number = name.partition(":")
    return int(bucket), int(number)
