"""Answers in which newer values weigh more."""

# ruff: noqa: ARG002 - few aggregates look at both `t` and `x`, all have the same signature
# ruff: noqa: D102 - an override is documented where it is declared
from __future__ import annotations

from typing import Any

from stream_ml.features.aggregates.base import (
    FRACTION_BITS,
    Aggregate,
    exact,
    quotient,
)

__all__ = ["DecayedMean", "DecayedVariance"]

# A variance below 2**-128 of the mean square is none: sums hold 2**-192 of it.
NOISE_BITS = 128


class DecayedMean(Aggregate):
    """The mean in which a value counts half as much for every half-life of its age.

    None in an empty window. Weights are 2**(t / half_life) rather than of the age: what they
    are multiplied by cancels in a mean, and they never have to be touched again. The whole
    half-lives in the exponent are bits to shift by; once in a while the sums move up to the
    present, and what has decayed by more than 2**-192 falls off their end. The idea is forward
    decay (Cormode, Shkapenyuk, Srivastava & Xu 2009, "Forward decay: a practical time decay model
    for streaming systems", ICDE).

    Args:
        half_life_ms: the age at which a value counts half as much, in milliseconds.
    """

    __slots__ = ("half_life_ms", "n", "total", "weight", "zero")
    name = "decayed_mean"
    rounded = True

    def __init__(self, half_life_ms: int) -> None:
        self.half_life_ms = half_life_ms
        self.n = 0
        self.zero = 0
        self.weight = 0
        self.total = 0

    def _terms(self, t: int, x: float) -> tuple[int, int, int]:
        halvings, remainder = divmod(t, self.half_life_ms)
        weight = 2.0 ** (remainder / self.half_life_ms)
        # The product of two floats is rounded; of their exact integers it is not.
        units = exact(weight)
        return halvings, units, units * exact(x) >> FRACTION_BITS

    def add(self, t: int, x: float) -> None:
        halvings, weight, total = self._terms(t, x)
        if not self.n:
            self.zero = halvings
        self.n += 1
        shift = halvings - self.zero
        if shift > FRACTION_BITS:
            self.zero = halvings
            self.weight >>= shift
            self.total >>= shift
            shift = 0
        self.weight += weight << shift
        self.total += total << shift

    def evict(self, t: int, x: float) -> None:
        self.n -= 1
        if not self.n:
            self.zero = self.weight = self.total = 0
            return
        halvings, weight, total = self._terms(t, x)
        shift = halvings - self.zero
        if shift >= 0:
            self.weight -= weight << shift
            self.total -= total << shift
        else:
            self.weight -= weight >> -shift
            self.total -= total >> -shift

    def value(self, t: int) -> float | None:
        return quotient(self.total, self.weight) if self.n else None

    def dump(self) -> Any:
        return [self.n, self.zero, f"{self.weight:x}", f"{self.total:x}"]

    def load(self, state: Any) -> None:
        self.n, self.zero = state[:2]
        self.weight, self.total = int(state[2], 16), int(state[3], 16)


class DecayedVariance(DecayedMean):
    """The variance about the decayed mean, with its weights; none under two events.

    It is the weighted mean of the squared distances from the weighted mean: what `ewm_variance`
    or a biased exponentially weighted variance is elsewhere.

    Args:
        half_life_ms: the age at which a value counts half as much, in milliseconds.
    """

    __slots__ = ("squares",)
    name = "decayed_variance"

    def __init__(self, half_life_ms: int) -> None:
        super().__init__(half_life_ms)
        # In multiples of 2**-384, as `total` is in those of 2**-192.
        self.squares = 0

    def _square(self, t: int, x: float) -> tuple[int, int]:
        halvings, weight, _ = self._terms(t, x)
        units = exact(x)
        return halvings, weight * units * units >> FRACTION_BITS

    def add(self, t: int, x: float) -> None:
        zero = self.zero if self.n else None
        super().add(t, x)
        halvings, square = self._square(t, x)
        if zero is not None:
            self.squares >>= self.zero - zero
        self.squares += square << halvings - self.zero

    def evict(self, t: int, x: float) -> None:
        super().evict(t, x)
        if not self.n:
            self.squares = 0
            return
        halvings, square = self._square(t, x)
        shift = halvings - self.zero
        self.squares -= square << shift if shift >= 0 else square >> -shift

    def value(self, t: int) -> float | None:
        if self.n < 2:  # noqa: PLR2004 - a spread takes two
            return None
        whole = self.weight * self.squares
        surplus = whole - (self.total * self.total << FRACTION_BITS)
        # How much has fallen off the ends depends on when the sums moved up: it may leave less than
        # nothing, or what is left of a value 2**-192 of which counts. Neither is a spread.
        if surplus <= whole >> NOISE_BITS:
            return 0.0
        return quotient(surplus, self.weight * self.weight << FRACTION_BITS)

    def dump(self) -> Any:
        return [*super().dump(), f"{self.squares:x}"]

    def load(self, state: Any) -> None:
        super().load(state[:-1])
        self.squares = int(state[-1], 16)
