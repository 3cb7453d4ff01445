"""What is newest in a window, oldest, or nearest to a moment."""

# ruff: noqa: ARG002 - few aggregates look at both `t` and `x`, all have the same signature
# ruff: noqa: D102 - an override is documented where it is declared
from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any

from stream_ml.features.aggregates.base import Aggregate

__all__ = ["First", "Last", "Nearest", "SecondsSinceFirst", "SecondsSinceLast"]


class Last(Aggregate):
    """The newest value, the later in the log among equal times; none in an empty window."""

    __slots__ = ("n", "x")
    name = "last"

    def __init__(self) -> None:
        self.n = 0
        self.x: float | None = None

    def add(self, t: int, x: float) -> None:
        self.n += 1
        self.x = x

    def evict(self, t: int, x: float) -> None:
        self.n -= 1
        if not self.n:
            self.x = None

    def value(self, t: int) -> float | None:
        return self.x

    def dump(self) -> Any:
        return [self.n, self.x]

    def load(self, state: Any) -> None:
        self.n, self.x = state


class SecondsSinceLast(Aggregate):
    """Seconds from the newest event in the window to the asking one; none in an empty window."""

    __slots__ = ("n", "newest")
    name = "seconds_since_last"
    valued = False

    def __init__(self) -> None:
        self.n = 0
        self.newest = 0

    def add(self, t: int, x: Any) -> None:
        self.n += 1
        self.newest = t

    def evict(self, t: int, x: Any) -> None:
        self.n -= 1
        if not self.n:
            self.newest = 0

    def value(self, t: int) -> float | None:
        return (t - self.newest) / 1000 if self.n else None

    def dump(self) -> Any:
        return [self.n, self.newest]

    def load(self, state: Any) -> None:
        self.n, self.newest = state


class _Queue(Aggregate):
    """The base of what has to know the events themselves, in their order.

    Both are lists with a moving front, as the staircases' are.
    """

    __slots__ = ("first", "times", "values")
    refilled = True

    def __init__(self) -> None:
        self.times: list[int] = []
        self.values: list[Any] = []
        self.first = 0

    def add(self, t: int, x: Any) -> None:
        self.times.append(t)
        self.values.append(x)

    def evict(self, t: int, x: Any) -> None:
        self.first = first = self.first + 1
        if first * 2 > len(self.times):
            del self.times[:first], self.values[:first]
            self.first = 0

    def dump(self) -> Any:
        return [self.times[self.first :], self.values[self.first :]]

    def load(self, state: Any) -> None:
        self.times, self.values = state
        self.first = 0


class First(_Queue):
    """The oldest value, the earlier in the log among equal times; none in an empty window."""

    __slots__ = ()
    name = "first"

    def value(self, t: int) -> float | None:
        oldest: float | None = self.values[self.first] if self.values else None
        return oldest


class SecondsSinceFirst(_Queue):
    """Seconds from the oldest event in the window to the asking one; none in an empty window."""

    __slots__ = ()
    name = "seconds_since_first"
    valued = False

    def value(self, t: int) -> float | None:
        return (t - self.times[self.first]) / 1000 if self.times else None


class Nearest(_Queue):
    """The value of the event that is nearest to a moment before the asking one; none if empty.

    Of two that are equally near it is the newer, of equal times the later in the log.

    Args:
        ago_ms: how long before the asking event that moment is, in milliseconds.
    """

    __slots__ = ("ago_ms",)
    name = "lag"

    def __init__(self, ago_ms: int) -> None:
        super().__init__()
        self.ago_ms = ago_ms

    def value(self, t: int) -> float | None:
        times, first, moment = self.times, self.first, t - self.ago_ms
        after = bisect_left(times, moment, first)
        nearest = after - 1
        if after < len(times) and (
            after == first or times[after] - moment <= moment - times[after - 1]
        ):
            nearest = bisect_right(times, times[after], after) - 1
        answer: float | None = self.values[nearest] if times else None
        return answer
