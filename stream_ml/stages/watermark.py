"""How far time has come: watermarks that no single record can lead.

Theory of operation:

1. Whatever closes for others (an event's lateness, a label's horizon, a block of evidence) closes
   by a watermark, and a watermark is led only by what several independent records support. A
   record's key says whose it is: of the last `2 * breadth - 1` different keys the last time each
   counts, and the `breadth`-th latest of these times is where the watermark may go. So fewer than
   `breadth` keys that are ahead, by a second or by years, move nothing; as many that lag hold
   nothing up; and a burst of one key counts once.
2. A time counts for no more than its record's append time: what is ahead of its own arrival can
   only be wrong, however many agree.
3. A key is forgotten when `REMEMBERED_RECORDS` have come since its last record. Only when that
   many have been read may fewer than `breadth` keys lead: the least of them, and of a key that is
   alone the `breadth`-th latest of its last records.
4. It never goes back, is -1 until it is led, and is a function of the records alone. The price is
   delay: it lags by `breadth - 1` keys, which costs memory, not truth, for all that a watermark
   does is to close.

With a breadth of 1 it is the newest time so far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["REMEMBERED_RECORDS", "ExamplesWatermark", "PredictionsWatermark", "Watermark"]

# How long keys that fall silent hold the others up; at least for as long a burst counts once.
REMEMBERED_RECORDS = 64


class Watermark:
    """The time that the records of one log partition support.

    Args:
        breadth: how many different keys must have come as far.

    Attributes:
        ms: the watermark; -1 before any.

    >>> watermark = Watermark(breadth=2)
    >>> [watermark.advance(key, ts, 10_000) for key, ts in [("a", 50), ("b", 70), ("a", 9_000)]]
    [False, True, True]
    >>> watermark.ms
    70
    """

    __slots__ = (
        "_breadth",
        "_keys",
        "_keys_max",
        "_memory_records",
        "_middle",
        "_n",
        "_next_silent",
        "_numbers",
        "_recent",
        "_run",
        "_times",
        "ms",
    )

    def __init__(self, breadth: int) -> None:
        self._breadth = breadth
        self._keys_max = 2 * breadth - 1
        self._middle = breadth - 1
        self._memory_records = max(REMEMBERED_RECORDS, 8 * self._keys_max)
        self.ms = -1
        self._n = 0
        # The record with which the first key that is known would be silent for too long.
        self._next_silent = 0
        # The keys that are known, in the order of their last records; of each the time and the
        # number of that record. (Lists, for there are few: a table costs half as much again.)
        self._keys: list[str] = []
        self._times: list[int] = []
        self._numbers: list[int] = []
        # So many of the last times, if not more, do not fall.
        self._run = 0
        # Of a key that is alone, its last times past the watermark.
        self._recent: list[int] = []

    def advance(self, key: str, ts: int, append_ms: int) -> bool:
        """Take in a record of `key` at `ts`; whether the watermark has risen.

        Args:
            key: the record's: an entity, or an event id.
            ts: the record's time, UTC milliseconds.
            append_ms: when the log took it in; its time counts for no more than that.
        """
        if ts > append_ms and self._breadth > 1:
            ts = append_ms
        keys, times = self._keys, self._times
        if self._run < self._keys_max or ts < times[-1] or key in keys:
            return self._take(key, ts)
        # What nearly all are: another key than those that are known, in the order of time.
        numbers = self._numbers
        self._n = n = self._n + 1
        keys.append(key)
        times.append(ts)
        numbers.append(n)
        del keys[0], times[0], numbers[0]
        if n >= self._next_silent:
            return ts > self.ms and self._lead(ts)
        led = times[self._middle]
        if led <= self.ms:
            return False
        self.ms = led
        return True

    def _take(self, key: str, ts: int) -> bool:
        """As `advance`, of any record, whose time is no later than its arrival."""
        if self._breadth == 1:
            if ts <= self.ms:
                return False
            self.ms = ts
            return True
        self._n += 1
        if key in self._keys:
            self._forget(self._keys.index(key))
        elif len(self._keys) == self._keys_max:
            self._forget(0)
        times = self._times
        self._run = self._run + 1 if times and ts >= times[-1] else 1
        self._keys.append(key)
        times.append(ts)
        self._numbers.append(self._n)
        has_risen = ts > self.ms and self._lead(ts)
        if self._recent:
            self._run = 0  # of a key that was alone something is still to be forgotten
        return has_risen

    def _lead(self, ts: int) -> bool:
        """Let the records so far lead, the last of which is past the watermark."""
        while self._n >= self._next_silent:
            self._next_silent = self._numbers[0] + self._memory_records
            if self._n >= self._next_silent:
                self._forget(0)
        if len(self._times) >= self._breadth:
            led = sorted(self._times)[-self._breadth]
            if self._recent:
                self._recent = []
        else:
            led = self._led_by_few(ts)
        if led <= self.ms:
            return False
        self.ms = led
        return True

    def _forget(self, index: int) -> None:
        if index >= len(self._keys) - self._run:
            self._run -= 1
        del self._keys[index], self._times[index], self._numbers[index]

    def _led_by_few(self, ts: int) -> int:
        """Where fewer keys than `breadth` may lead."""
        if len(self._times) > 1:
            self._recent = []
            return min(self._times) if self._n > self._memory_records else -1
        self._recent = [*self._recent[1 - self._keys_max :], ts]
        if self._n <= self._memory_records or len(self._recent) < self._breadth:
            return -1
        return sorted(self._recent)[-self._breadth]

    def rename(self, is_meant: Callable[[str], bool], name: str) -> None:
        """Let another name stand for the keys that are meant; how far time has come stays.

        Args:
            is_meant: whether a key is.
            name: for those.
        """
        self._keys = [name if is_meant(key) else key for key in self._keys]

    def dump(self) -> list[Any]:
        """The state, as JSON can hold it."""
        keys = list(zip(self._keys, self._times, self._numbers, strict=True))
        return [self.ms, self._n, keys, self._recent]

    def load(self, state: Sequence[Any] | int) -> None:
        """Take up a dumped state, or only how far it had come."""
        if isinstance(state, int):
            self.ms = state
            return
        self.ms, self._n, keys, recent = state
        self._keys = [key for key, _, _ in keys]
        self._times = [ts for _, ts, _ in keys]
        self._numbers = [number for _, _, number in keys]
        self._run, self._next_silent = 0, 0
        self._recent = list(recent)


class PredictionsWatermark:
    """How far predictions have come, from every partition of events that is not idle.

    A partition is idle when `idle_ms` have passed since its last prediction, or since the first
    of any: by append time, for while a history is read partitions go at different speeds, and
    none of them is silent. An append time counts when the next one is as late. Never goes back.

    Args:
        partitions: of how many partitions of events predictions come.
        breadth: as of `Watermark`.
        idle_ms: how long one may be silent and still hold the others up.

    Attributes:
        ms: the least watermark of those that are not idle; -1 before any.
        newest_ms: the greatest of all.
    """

    def __init__(self, partitions: int, breadth: int, idle_ms: int) -> None:
        self._idle_ms = idle_ms
        self._partitions = [Watermark(breadth) for _ in range(partitions)]
        self._alone = partitions == 1
        # By partition: when its last prediction came.
        self._last_append_ms: list[int] = []
        self._append_ms = -1
        self._least = -1
        self._next_idle = -1
        self.ms = -1
        self.newest_ms = -1

    @property
    def idle(self) -> list[int]:
        """The partitions that hold up nothing, as of the last prediction; none where it is one."""
        oldest = max(self._last_append_ms, default=0) - self._idle_ms
        return [number for number, ms in enumerate(self._last_append_ms) if ms < oldest]

    def __len__(self) -> int:
        """Of how many partitions predictions come."""
        return len(self._partitions)

    def advance(self, partition: int, key: str, ts: int, append_ms: int) -> bool:
        """Take in a prediction of this partition of events; whether `ms` has risen.

        Args:
            partition: of `events`, which the prediction is about.
            key: the event's.
            ts: the event's time, UTC milliseconds.
            append_ms: when the log took the prediction in.
        """
        of_partition = self._partitions[partition]
        if self._alone:  # there is nobody to wait for, or to be silent
            if not of_partition.advance(key, ts, append_ms):
                return False
            self.ms = self.newest_ms = of_partition.ms
            return True
        now_ms = append_ms
        if not self._last_append_ms:
            self._last_append_ms = [now_ms] * len(self._partitions)
        elif self._append_ms < now_ms:
            now_ms = self._append_ms
        self._append_ms = append_ms
        self._last_append_ms[partition] = now_ms
        former = of_partition.ms
        rose = of_partition.advance(key, ts, append_ms)
        if rose:
            self.newest_ms = max(self.newest_ms, of_partition.ms)
        # Only if the least rises, or falls silent, may what is least of all rise.
        if (rose and former <= self._least) or now_ms > self._next_idle:
            return self._rise(now_ms)
        return False

    def _rise(self, now_ms: int) -> bool:
        oldest = now_ms - self._idle_ms
        speaking = [
            (watermark.ms, last_ms)
            for watermark, last_ms in zip(self._partitions, self._last_append_ms, strict=True)
            if last_ms >= oldest
        ]
        self._least = min(ms for ms, _ in speaking)
        self._next_idle = min(last_ms for _, last_ms in speaking) + self._idle_ms
        if self._least <= self.ms:
            return False
        self.ms = self._least
        return True

    def dump(self) -> dict[str, Any]:
        """The state, as JSON can hold it."""
        return {
            "ms": self.ms,
            "append_ms": self._append_ms,
            "heard": self._last_append_ms,
            "partitions": [watermark.dump() for watermark in self._partitions],
        }

    def load(self, state: dict[str, Any] | list[int]) -> None:
        """Take up a dumped state, or only how far each partition had come."""
        if isinstance(state, list):
            state = {"ms": min(state), "append_ms": -1, "heard": [], "partitions": state}
        self.ms, self._append_ms, self._last_append_ms = (
            state["ms"],
            state["append_ms"],
            state["heard"],
        )
        for watermark, watermark_state in zip(self._partitions, state["partitions"], strict=True):
            watermark.load(watermark_state)
        self.newest_ms = max(watermark.ms for watermark in self._partitions)


class ExamplesWatermark:
    """How far the truth is known: the least labels' watermark of the join partitions that speak.

    A partition that has fallen behind the newest by more than `silence_ms` is left out, so that
    one without traffic does not hold time still. Never goes back.

    Attributes:
        ms: the watermark; -1 before any.
        newest_ms: of the partition that is furthest.

    >>> watermark = ExamplesWatermark(silence_ms=100, breadth=1)
    >>> for partition, ts in [(0, 1_000), (1, 950), (0, 1_040)]:
    ...     watermark.advance(partition, "e", ts, 10_000)
    1000
    1000
    1000
    >>> watermark.advance(1, "e", 1_030, 10_000), watermark.advance(0, "e", 2_000, 10_000)
    (1030, 2000)
    """

    def __init__(self, silence_ms: int, breadth: int) -> None:
        self._silence_ms = silence_ms
        self._breadth = breadth
        self._partitions: dict[int, Watermark] = {}
        self.ms = -1
        self.newest_ms = -1

    def advance(self, partition: int, event_id: str, label_ts: int, append_ms: int) -> int:
        """The watermark once an example of this join partition and label time was read.

        Args:
            partition: of the join task that wrote the example.
            event_id: the example's.
            label_ts: when its label was known, UTC milliseconds.
            append_ms: when the log took the example in.
        """
        of_partition = self._partitions.get(partition)
        if of_partition is None:
            of_partition = self._partitions[partition] = Watermark(self._breadth)
        if of_partition.advance(event_id, label_ts, append_ms):
            if len(self._partitions) == 1:
                self.ms = self.newest_ms = of_partition.ms
            else:
                self.newest_ms = max(self.newest_ms, of_partition.ms)
                bound = self.newest_ms - self._silence_ms
                speaking = [
                    watermark.ms for watermark in self._partitions.values() if watermark.ms >= bound
                ]
                self.ms = max(self.ms, min(speaking))
        return self.ms

    def dump(self) -> list[object]:
        """The state, as JSON can hold it."""
        return [
            self.ms,
            [(number, watermark.dump()) for number, watermark in self._partitions.items()],
        ]

    def load(self, state: list[Any]) -> None:
        """Take up a dumped state."""
        self.ms, partitions = state
        for number, watermark_state in partitions:
            self._partitions[int(number)] = Watermark(self._breadth)
            self._partitions[int(number)].load(watermark_state)
        self.newest_ms = max((watermark.ms for watermark in self._partitions.values()), default=-1)
