"""What is newest in a window."""

# ruff: noqa: ARG002 - few aggregates look at both `t` and `x`, all have the same signature
# ruff: noqa: D102 - an override is documented where it is declared
from __future__ import annotations

from typing import Any

from stream_ml.features.aggregates.base import Aggregate

__all__ = ["Last", "SecondsSinceLast"]


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
