"""How values rise or fall over time."""

# ruff: noqa: ARG002 - few aggregates look at both `t` and `x`, all have the same signature
# ruff: noqa: D102 - an override is documented where it is declared
from __future__ import annotations

from typing import Any

from stream_ml.features.aggregates.base import UNITS_PER_ONE, exact, quotient
from stream_ml.features.aggregates.moments import Mean

__all__ = ["Slope"]

SECOND_MS = 1_000


class Slope(Mean):
    """The slope of the least-squares line through the values over time; none without two times.

    Times are whole milliseconds and values exact, so the sums are, and a slope is not lost in
    differences of large numbers.
    """

    __slots__ = ("products", "time_squares", "time_total")
    name = "slope"
    any_order = True

    def __init__(self) -> None:
        super().__init__()
        self.time_total = 0
        self.time_squares = 0
        self.products = 0

    def add(self, t: int, x: float) -> None:
        units = exact(x)
        self.n += 1
        self.total += units
        self.time_total += t
        self.time_squares += t * t
        self.products += t * units

    def evict(self, t: int, x: float) -> None:
        units = exact(x)
        self.n -= 1
        self.total -= units
        self.time_total -= t
        self.time_squares -= t * t
        self.products -= t * units

    def value(self, t: int, per_ms: int = SECOND_MS) -> float | None:
        """The slope.

        Args:
            t: the time of the question, in milliseconds.
            per_ms: the unit of time that it is per, in milliseconds.
        """
        spread = self.n * self.time_squares - self.time_total * self.time_total
        if not spread:
            return None
        rise = self.n * self.products - self.time_total * self.total
        return quotient(rise * per_ms, spread * UNITS_PER_ONE)

    def dump(self) -> Any:
        return [*super().dump(), self.time_total, f"{self.time_squares:x}", f"{self.products:x}"]

    def load(self, state: Any) -> None:
        super().load(state[:2])
        self.time_total = state[2]
        self.time_squares, self.products = int(state[3], 16), int(state[4], 16)
