"""Buffers of windows that are not all sliding: each has an upper end of its own.

The rules are those of `Buffer`, and these:

1. The aggregates of window k hold exactly [tails[k], heads[k]), as its reach has it for an event
   at `as_of_ms`. Where the two spans before and after a move overlap, events are added and
   evicted, each once; where they do not, as when a day has begun, aggregates begin afresh.
2. A late insertion changes where a session or the last events begin: where more than one event
   has come into a window or left it, its aggregates are filled anew. For the last n events that
   is O(n), for a session O(events in it).
3. Besides what is too old for every window, what none of them can reach is dropped, whenever the
   buffer has grown to a power of two: of the last 20 events within a month some 20 are held, and
   those that came within the lateness.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from stream_ml.features.windows.buffer import Buffer, Clock, Series, Span

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FramedBuffer"]

# Fewer events are not worth a look at who needs them. It is a power of two.
LOOK_MIN = 32


class FramedBuffer(Buffer):
    """One series of one key and group, where some windows are not sliding.

    Args:
        series: what it looks at.
        entity: the key, or a tuple of the key and its group.
        as_of_ms: the moment it starts from.
        clock: its partition's.

    Attributes:
        heads: per window the first index behind the events that it holds.
    """

    __slots__ = ("heads",)

    def __init__(self, series: Series, entity: Any, as_of_ms: int, clock: Clock) -> None:
        super().__init__(series, entity, as_of_ms, clock)
        self.heads = [0] * len(series.frames)

    def move(self, t: int) -> None:
        """As `Buffer.move`.

        Args:
            t: a moment above `as_of_ms`, in milliseconds.
        """
        times, start, former_head = self.times, self.start, self.head
        head = bisect_left(times, t, former_head)
        for k, (reach, members) in enumerate(self.series.frames):
            tail = self.tails[k]
            self._hold(k, members, reach.follow(times, (start, head), t, (tail, former_head)))
        self.as_of_ms = t
        self.head = head
        oldest = min(t, self.clock.watermark_ms) - self.series.keep_ms
        if start < head and times[start] < oldest:
            self._release(bisect_left(times, oldest, start))

    def insert(self, t: int, x: Any) -> int:
        """As `Buffer.insert`.

        Args:
            t: the event's time in milliseconds.
            x: its value, as the series evaluates it.
        """
        dropped = super().insert(t, x)
        held = len(self.times) - self.start
        if held >= LOOK_MIN and not held & (held - 1) and self.start < self.head:
            self._release(self._first_needed())
        return dropped

    def _first_needed(self) -> int:
        """The first index that a window can still reach, asked by what is not too late."""
        moment = min(self.as_of_ms, self.clock.watermark_ms) - self.series.lateness_ms
        times, start = self.times, self.start
        head = bisect_left(times, moment, start, self.head)
        return min(reach.find(times, start, head, moment)[0] for reach, _ in self.series.frames)

    def _hold(self, k: int, members: Sequence[int], span: Span) -> None:
        """Have a window's aggregates hold another span."""
        (tail, head), (former_tail, former_head) = span, (self.tails[k], self.heads[k])
        self.tails[k], self.heads[k] = span
        if tail == head and former_tail == former_head:
            return
        times, values = self.times, self.values
        if not former_tail <= tail < former_head <= head:
            for member in members:
                self.aggregates[member] = self._refill(member, tail, head)
            return
        for member in members:
            aggregate = self.aggregates[member]
            for i in range(former_head, head):
                aggregate.add(times[i], values[i])
            for i in range(former_tail, tail):
                aggregate.evict(times[i], values[i])

    def _insert_late(self, t: int, x: Any) -> None:
        index = self._place_late(t, x)
        for k, (reach, members) in enumerate(self.series.frames):
            former_count = self.heads[k] - self.tails[k]
            span = reach.find(self.times, self.start, self.head, self.as_of_ms)
            self.tails[k], self.heads[k] = tail, head = span
            is_in = tail <= index < head
            is_one_more = head - tail == former_count + is_in
            if is_one_more and not is_in:
                continue
            for member in members:
                if is_one_more and self.aggregates[member].any_order:
                    self.aggregates[member].add(t, x)
                else:
                    self.aggregates[member] = self._refill(member, tail, head)

    def _drop_oldest(self) -> None:
        start = self.start
        for k, (_, members) in enumerate(self.series.frames):
            if self.tails[k] == start:
                if start < self.heads[k]:
                    for member in members:
                        self.aggregates[member].evict(self.times[start], self.values[start])
                self.tails[k] += 1
                self.heads[k] = max(self.heads[k], start + 1)
        self._drop_first()

    def _reclaim(self) -> None:
        start = self.start
        super()._reclaim()
        self.heads = [head - start for head in self.heads]

    def _spans(self, t: int) -> list[tuple[tuple[int, ...], Span, Span]]:
        head = bisect_left(self.times, t, self.start, self.head)
        return [
            (
                members,
                reach.find(self.times, self.start, head, t),
                (self.tails[k], self.heads[k]),
            )
            for k, (reach, members) in enumerate(self.series.frames)
        ]

    def _place(self, spans: list[Span]) -> None:
        super()._place(spans)
        self.heads = [head for _, head in spans]

    def dump(self) -> list[Any]:
        """As `Buffer.dump`, with the upper ends."""
        return [*super().dump(), [head - self.start for head in self.heads]]
