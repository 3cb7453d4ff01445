"""The buffers that answer windows of event time.

Theory of operation
-------------------

A window of length w, asked by an event at t, holds every event of the same key that came before
it in the log and whose time is in [t - w, t), in integer milliseconds. The asking event and
others at equal t are out.

A *series* is what windows can share: the same sub-group (`by`), the same filters, the same
value. A `Buffer` is one series of one key (and group): times and values, sorted by time, ties in
the order of the log, with a moment `as_of_ms` up to which it has moved:

    times     3    5    5    8    9   12   12
    index     0    1    2    3    4    5    6
                        ^tail               ^head         as_of_ms = 12, w = 7: [5, 12)
              (start = 0)                                 index 5 and 6 are pending

1. `head` is the first index whose time is not below `as_of_ms`. All events from there on are at
   exactly `as_of_ms`, or ahead of it (rule 4). There is one head per buffer.
2. `tails[k]` is the first index whose time is not below `as_of_ms - w_k`. The aggregates of window
   k hold exactly [tails[k], head).
3. `as_of_ms` rises by an insertion, or by a question. Moving adds what was pending and evicts
   what the tails pass, each event once per window: O(1) per event and aggregate, amortised.
4. A question or an insertion before `as_of_ms` is late. A late insertion goes to its place; an
   aggregate that may take it in any order does, another is filled anew. A late question leaves
   the buffer as it was: an aggregate that may go in any order is moved to where the question is
   and back, for another a fresh one is filled. At worst that is O(events in the window). But where
   `as_of_ms` is ahead of the watermark the question moves the buffer back, for good: what took it
   ahead may be one wrong clock, and all that is asked until then would be late.
5. Windows that are not sliding are held by a `FramedBuffer`, which has a head for each.
6. Events before `watermark - lateness - longest window` are dropped as the buffer moves: no event
   that is not too late can ask for them. The newest stays until the whole buffer is dropped,
   which is when the watermark has passed it by as much (`FeatureState.advance`). Over
   `window_events_max` the oldest event is dropped, and counted.
7. What is stored are the aggregates' own states, as they are, but for those that take as much
   room as the window (`refilled`): they are filled anew when a buffer is restored. Physical
   details (the room before `start`) are not stored.

A buffer changes in `move`, `insert` and `load`, here and in `FramedBuffer`, and in nothing else.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Self

from stream_ml.features.guarded import GuardedAggregate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_ml.features.aggregates import Aggregate
    from stream_ml.features.transforms import Evaluator
    from stream_ml.features.windows.reach import Reach
    from stream_ml.features.windows.window_feature import WindowFeature

__all__ = ["RECLAIM_MIN", "Buffer", "Clock", "Series", "Span"]

# The indices of the events that a window holds: the first, and the first behind them.
Span = tuple[int, int]

# Reclaiming the room of dropped events moves what remains: not worth it for fewer.
RECLAIM_MIN = 64


@dataclass(slots=True)
class Series:
    """The part that is the same for all buffers of one series. It never changes.

    Attributes:
        id: what it is, as a short text: stored with every buffer.
        filters: fields and the values of them that are let in.
        evaluate: an event's value; None leaves the event out.
        windows: per window its length and which of a buffer's aggregates are its own; empty where
            some are not sliding.
        frames: per window its reach and which of a buffer's aggregates are its own.
        kind: the class of its buffers.
        makers: makes those aggregates.
        readings: per answer the aggregate's method and which aggregate to ask.
        features: the features that are answered, in the order of `readings`.
        keep_ms: how long before the newest moment an event can matter.
        lateness_ms: how much older than the watermark an event may be.
        empty: the answers where there is no buffer.
        is_valueless: whether the value is always 1.
        fallible: whether `evaluate` may raise.
        window_events_max: how many events a buffer holds at most.
    """

    id: str
    filters: tuple[tuple[str, frozenset[Any]], ...]
    evaluate: Evaluator
    windows: tuple[tuple[int, tuple[int, ...]], ...]
    frames: tuple[tuple[Reach, tuple[int, ...]], ...]
    kind: type[Buffer]
    makers: tuple[Callable[[], Aggregate], ...]
    readings: tuple[tuple[Callable[[Any, int], float | None], int], ...]
    features: tuple[WindowFeature, ...]
    keep_ms: int
    lateness_ms: int
    empty: tuple[float | None, ...]
    is_valueless: bool
    fallible: bool
    window_events_max: int

    def admits(self, fields: Mapping[str, Any]) -> bool:
        """Whether the filters let an event in."""
        for name, values in self.filters:  # noqa: SIM110 - a loop is twice as fast as `all`
            if fields[name] not in values:
                return False
        return True


@dataclass(slots=True)
class Clock:
    """The watermark that all buffers of a partition drop by."""

    watermark_ms: int = -1


class Buffer:
    """One series of one key and group. The header of this module has the rules.

    Args:
        series: what it looks at.
        entity: see below.
        as_of_ms: the moment it starts from.
        clock: its partition's.

    Attributes:
        entity: the key, or a tuple of the key and its group.
        live: whether it is still held (not dropped).
        is_dirty: whether it has changed since it was last stored.
    """

    __slots__ = (
        "aggregates",
        "as_of_ms",
        "clock",
        "entity",
        "head",
        "is_dirty",
        "live",
        "series",
        "start",
        "tails",
        "times",
        "values",
    )

    def __init__(self, series: Series, entity: Any, as_of_ms: int, clock: Clock) -> None:
        self.series = series
        self.entity = entity
        self.clock = clock
        self.as_of_ms = as_of_ms
        self.times: list[int] = []
        self.values: list[Any] = []
        self.start = 0
        self.head = 0
        self.tails = [0] * len(series.frames)
        self.aggregates: list[Any] = [make() for make in series.makers]
        self.live = True
        self.is_dirty = False

    @property
    def keep_until(self) -> int:
        """The last watermark at which an event that is not too late can still ask for it."""
        return self.times[-1] + self.series.keep_ms

    def move(self, t: int) -> None:
        """Rise to `t`, which is above `as_of_ms`."""
        times, values, aggregates = self.times, self.values, self.aggregates
        head, end = self.head, len(times)
        while head < end and (time := times[head]) < t:
            value = values[head]
            for aggregate in aggregates:
                aggregate.add(time, value)
            head += 1
        self.as_of_ms = t
        self.head = head
        tails = self.tails
        for k, (duration_ms, members) in enumerate(self.series.windows):
            first, tail = t - duration_ms, tails[k]
            while tail < head and (time := times[tail]) < first:
                value = values[tail]
                for member in members:
                    aggregates[member].evict(time, value)
                tail += 1
            tails[k] = tail
        oldest, start = min(t, self.clock.watermark_ms) - self.series.keep_ms, self.start
        if start < head and times[start] < oldest:
            self._release(bisect_left(times, oldest, start))

    def _release(self, start: int) -> None:
        """Drop the events before an index, which no window needs."""
        # The newest stays, whatever its age: it tells when the buffer as a whole can go.
        self.start = min(start, self.head - 1)
        if self.start >= RECLAIM_MIN and self.start * 2 >= self.head:
            self._reclaim()

    def _reclaim(self) -> None:
        start = self.start
        del self.times[:start], self.values[:start]
        self.start = 0
        self.head -= start
        self.tails = [tail - start for tail in self.tails]

    def insert(self, t: int, x: Any) -> int:
        """Take an event in; gives how many the limit made it drop (0 or 1).

        Args:
            t: the event's time in milliseconds.
            x: its value, as the series evaluates it.
        """
        if t >= self.as_of_ms:
            if t > self.as_of_ms:
                self.move(t)
            # After all, unless some are ahead of `as_of_ms`.
            index = bisect_right(self.times, t, self.head)
            self.times.insert(index, t)
            self.values.insert(index, x)
        else:
            self._insert_late(t, x)
        if len(self.times) - self.start <= self.series.window_events_max:
            return 0
        self._drop_oldest()
        return 1

    def _place_late(self, t: int, x: Any) -> int:
        """Put an event before `head`; gives its index."""
        index = bisect_right(self.times, t, self.start)
        self.times.insert(index, t)
        self.values.insert(index, x)
        self.head += 1
        return index

    def _insert_late(self, t: int, x: Any) -> None:
        self._place_late(t, x)
        for k, (duration_ms, members) in enumerate(self.series.windows):
            if t < self.as_of_ms - duration_ms:
                self.tails[k] += 1
                continue
            for member in members:
                if self.aggregates[member].any_order:
                    self.aggregates[member].add(t, x)
                else:
                    self.aggregates[member] = self._refill(member, self.tails[k], self.head)

    def _drop_oldest(self) -> None:
        start = self.start
        for k, (_, members) in enumerate(self.series.windows):
            if self.tails[k] == start:
                if start < self.head:
                    for member in members:
                        self.aggregates[member].evict(self.times[start], self.values[start])
                self.tails[k] += 1
        self._drop_first()

    def _drop_first(self) -> None:
        """Hold the first event no more, which is in no aggregate."""
        self.start += 1
        self.head = max(self.head, self.start)
        if self.start >= RECLAIM_MIN and self.start * 2 >= len(self.times):
            self._reclaim()

    def _refill(self, member: int, tail: int, head: int) -> Any:
        aggregate: Any = self.series.makers[member]()
        if type(aggregate) is GuardedAggregate:
            aggregate.failures = self.aggregates[member].failures
        aggregate.fill(self.times[tail:head], self.values[tail:head])
        return aggregate

    def listen(self, failures: list[str]) -> None:
        """Have users' aggregates say there what they raise."""
        for aggregate in self.aggregates:
            if type(aggregate) is GuardedAggregate:
                aggregate.listen(failures)

    def read(self, t: int, answers: list[float | None]) -> None:
        """Append the answers for an event at `t`.

        Args:
            t: the time of the event that asks, in milliseconds.
            answers: gets one answer for each feature of the series, in the order of its `readings`.
        """
        if t > self.as_of_ms:
            self.move(t)
        elif t < self.as_of_ms:
            if self.as_of_ms <= self.clock.watermark_ms:
                self._read_late(t, answers)
                return
            self._move_back(t)
        aggregates = self.aggregates
        answers += [value(aggregates[member], t) for value, member in self.series.readings]

    def _read_late(self, t: int, answers: list[float | None]) -> None:
        """As `read`, for a moment that is past; nothing is changed by it."""
        present = list(self.aggregates)
        shifts = []
        for members, new, old in self._spans(t):
            for member in members:
                if present[member].any_order and _is_near(new, old):
                    gain, loss = (new[0], old[0]), (new[1], old[1])
                    self._shift(present[member], gain, loss)
                    shifts.append((present[member], loss, gain))
                else:
                    present[member] = self._refill(member, *new)
        answers += [value(present[member], t) for value, member in self.series.readings]
        for aggregate, gain, loss in shifts:
            self._shift(aggregate, gain, loss)

    def _move_back(self, t: int) -> None:
        """Fall to `t`, which is below `as_of_ms`."""
        spans = self._spans(t)
        for members, new, old in spans:
            for member in members:
                aggregate = self.aggregates[member]
                if aggregate.any_order and _is_near(new, old):
                    self._shift(aggregate, (new[0], old[0]), (new[1], old[1]))
                else:
                    self.aggregates[member] = self._refill(member, *new)
        self._place([new for _, new, _ in spans])
        self.head = bisect_left(self.times, t, self.start, self.head)
        self.as_of_ms = t

    def _spans(self, t: int) -> list[tuple[tuple[int, ...], Span, Span]]:
        """Per window its aggregates, what it holds for an event at `t`, and what it holds now."""
        head = bisect_left(self.times, t, self.start, self.head)
        return [
            (
                members,
                (bisect_left(self.times, t - duration_ms, self.start, head), head),
                (self.tails[k], self.head),
            )
            for k, (duration_ms, members) in enumerate(self.series.windows)
        ]

    def _place(self, spans: list[Span]) -> None:
        """Note what the windows hold from now on."""
        self.tails = [tail for tail, _ in spans]

    def _shift(self, aggregate: Aggregate, gain: Span, loss: Span) -> None:
        times, values = self.times, self.values
        for i in range(*gain):
            aggregate.add(times[i], values[i])
        for i in range(*loss):
            aggregate.evict(times[i], values[i])

    def rename(self, is_meant: Callable[[str], bool], name: str) -> bool:
        """Let another name stand for the values that are meant; whether there were any.

        Args:
            is_meant: whether a text is.
            name: for those.
        """
        texts = {x for x in self.values if type(x) is str}
        meant = {x for x in texts if is_meant(x)}
        if not meant:
            return False
        self.values = [name if type(x) is str and x in meant else x for x in self.values]
        for members, _, span in self._spans(self.as_of_ms):
            for member in members:
                self.aggregates[member] = self._refill(member, *span)
        return True

    def dump(self) -> list[Any]:
        """All of it as JSON values."""
        start = self.start
        times = self.times[start:]
        return [
            self.as_of_ms,
            # Differences are a third of the size.
            [*times[:1], *(later - earlier for earlier, later in pairwise(times))],
            None if self.series.is_valueless else self.values[start:],
            self.head - start,
            [tail - start for tail in self.tails],
            [None if aggregate.refilled else aggregate.dump() for aggregate in self.aggregates],
        ]

    @classmethod
    def load(cls, series: Series, entity: Any, state: list[Any], clock: Clock) -> Self:
        """The buffer that `dump` described.

        Args:
            series: the one that it was a buffer of.
            entity: the key, or a tuple of the key and its group.
            state: what `dump` gave.
            clock: its partition's.
        """
        as_of_ms, differences, values, head, tails, aggregates, *rest = state
        buffer = cls(series, entity, as_of_ms, clock)
        buffer.times = list(accumulate(differences))
        buffer.values = [1.0] * len(differences) if values is None else values
        buffer.head = head
        spans = [*zip(tails, *(rest or [[head] * len(tails)]), strict=True)]
        buffer._place(spans)
        for (_, members), (tail, upper) in zip(series.frames, spans, strict=True):
            for member in members:
                aggregate, aggregate_state = buffer.aggregates[member], aggregates[member]
                if aggregate_state is None and aggregate.refilled:
                    aggregate.fill(buffer.times[tail:upper], buffer.values[tail:upper])
                else:  # as all were stored once
                    aggregate.load(aggregate_state)
        return buffer


def _is_near(new: Span, old: Span) -> bool:
    """Whether it takes fewer steps to shift from one span to an older one than to fill it."""
    is_older = new[0] <= old[0] <= new[1] <= old[1]
    return is_older and old[1] - new[1] + old[0] - new[0] < new[1] - new[0]
