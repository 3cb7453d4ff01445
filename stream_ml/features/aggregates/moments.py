"""Counts, sums and what follows from them."""

# ruff: noqa: ARG002 - few aggregates look at both `t` and `x`, all have the same signature
# ruff: noqa: D102 - an override is documented where it is declared
from __future__ import annotations

from typing import Any

from stream_ml.features.aggregates.base import (
    SCALE,
    UNIT,
    UNITS_PER_ONE,
    UNITS_PER_ONE_SQUARED,
    Aggregate,
    exact,
    quotient,
)

__all__ = ["Count", "Mean", "Sum", "Variance"]


class Count(Aggregate):
    """How many events: 0 in an empty window."""

    __slots__ = ("n",)
    name = "count"
    any_order = True
    valued = False

    def __init__(self) -> None:
        self.n = 0

    def add(self, t: int, x: Any) -> None:
        self.n += 1

    def evict(self, t: int, x: Any) -> None:
        self.n -= 1

    def value(self, t: int) -> float | None:
        return float(self.n)

    def dump(self) -> Any:
        return self.n

    def load(self, state: Any) -> None:
        self.n = state


class Sum(Count):
    """The sum of the values: 0 in an empty window, none beyond the largest float."""

    __slots__ = ("total",)
    name = "sum"
    valued = True

    def __init__(self) -> None:
        self.n = 0
        self.total = 0

    # `exact` is written out in the methods below: they run for every event in every window,
    # and the call would cost as much as the sum.
    def add(self, t: int, x: float) -> None:
        self.n += 1
        try:
            self.total += int(x * SCALE)
        except OverflowError:
            self.total += exact(x)

    def evict(self, t: int, x: float) -> None:
        self.n -= 1
        try:
            self.total -= int(x * SCALE)
        except OverflowError:
            self.total -= exact(x)

    def value(self, t: int) -> float | None:
        try:
            return float(self.total) * UNIT
        except OverflowError:
            return quotient(self.total, UNITS_PER_ONE)

    def dump(self) -> Any:
        return [self.n, f"{self.total:x}"]

    def load(self, state: Any) -> None:
        self.n, self.total = state[0], int(state[1], 16)


class Mean(Sum):
    """The mean of the values; none in an empty window."""

    __slots__ = ()
    name = "mean"

    def value(self, t: int) -> float | None:
        n = self.n
        if not n:
            return None
        try:
            return float(self.total) * UNIT / n
        except OverflowError:
            return quotient(self.total, n * UNITS_PER_ONE)


class Variance(Mean):
    """The sample variance (n - 1) of the values; none under two events."""

    __slots__ = ("squares",)
    name = "variance"

    def __init__(self) -> None:
        self.n = 0
        self.total = 0
        self.squares = 0

    def add(self, t: int, x: float) -> None:
        units = exact(x)
        self.n += 1
        self.total += units
        self.squares += units * units

    def evict(self, t: int, x: float) -> None:
        units = exact(x)
        self.n -= 1
        self.total -= units
        self.squares -= units * units

    def value(self, t: int) -> float | None:
        n = self.n
        if n < 2:  # noqa: PLR2004 - a spread takes two
            return None
        # The textbook formula, ruinous in floats, is exact in integers.
        return quotient(
            n * self.squares - self.total * self.total, n * (n - 1) * UNITS_PER_ONE_SQUARED
        )

    def dump(self) -> Any:
        return [self.n, f"{self.total:x}", f"{self.squares:x}"]

    def load(self, state: Any) -> None:
        self.n, self.total, self.squares = state[0], int(state[1], 16), int(state[2], 16)
