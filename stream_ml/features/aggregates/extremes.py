"""The largest and the smallest value."""

# ruff: noqa: ARG002 - few aggregates look at both `t` and `x`, all have the same signature
# ruff: noqa: D102 - an override is documented where it is declared
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.features.aggregates.base import Aggregate

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Max", "Min"]


class _Staircase(Aggregate):
    """The base of `Max` and `Min`: the values that no later one surpasses, so the first is it.

    Each value is pushed once and leaves once, so the cost is constant per event, amortised: a
    monotonic queue (Lemire 2006, "Streaming maximum-minimum filter using no more than three
    comparisons per element", Nordic Journal of Computing 13).
    """

    __slots__ = ("first", "stairs")
    refilled = True

    def __init__(self) -> None:
        # A list with a moving front: a deque takes 600 bytes even when it is empty, and most
        # staircases are a few steps long.
        self.stairs: list[float] = []
        self.first = 0

    def evict(self, t: int, x: float) -> None:
        first = self.first
        if self.stairs[first] == x:
            self.first = first = first + 1
            if first * 2 > len(self.stairs):
                del self.stairs[:first]
                self.first = 0

    def value(self, t: int) -> float | None:
        return self.stairs[self.first] if self.stairs else None

    def dump(self) -> Any:
        return self.stairs[self.first :]

    def load(self, state: Any) -> None:
        self.stairs, self.first = state, 0


class Max(_Staircase):
    """The largest value; none in an empty window."""

    __slots__ = ()
    name = "max"

    def add(self, t: int, x: float) -> None:
        stairs, first = self.stairs, self.first
        # Equal values stay beside each other, so that each leaves with its own event.
        while len(stairs) > first and stairs[-1] < x:
            stairs.pop()
        stairs.append(x)

    def fill(self, times: Sequence[int], values: Sequence[float]) -> None:
        stairs: list[float] = []
        for x in reversed(values):
            if not stairs or x >= stairs[-1]:
                stairs.append(x)
        stairs.reverse()
        self.stairs = stairs


class Min(_Staircase):
    """The smallest value; none in an empty window."""

    __slots__ = ()
    name = "min"

    def add(self, t: int, x: float) -> None:
        stairs, first = self.stairs, self.first
        while len(stairs) > first and stairs[-1] > x:
            stairs.pop()
        stairs.append(x)

    def fill(self, times: Sequence[int], values: Sequence[float]) -> None:
        stairs: list[float] = []
        for x in reversed(values):
            if not stairs or x <= stairs[-1]:
                stairs.append(x)
        stairs.reverse()
        self.stairs = stairs
