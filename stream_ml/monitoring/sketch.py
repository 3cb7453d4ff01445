"""A sketch of numbers: counts in buckets whose width is a share of the value, of bounded size.

Sources: Masson, Rim & Lee, "DDSketch" (VLDB 2019), for buckets that merge exactly; Epicoco et al.,
"UDDSketch" (2020), for halving the resolution of all buckets where they become too many.

Theory of operation:

1. A number's bucket is its exponent and the first bits of its mantissa, 256 buckets to an octave:
   exact arithmetic, no logarithm, so that every machine finds the same bucket. Buckets stand in
   the order of the numbers: negative ones below 0, zero in bucket 0.
2. Where more than `BUCKETS_MAX` buckets would be taken, neighbours become one (`level` counts
   how often). The level is the least at which all that was added fits: so a sketch is a function
   of the numbers alone, in whatever order and in whatever batches they came, or were merged.
"""

from __future__ import annotations

from math import frexp, fsum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["BUCKETS_MAX", "LEVEL_MAX", "QuantileSketch", "coarser"]

# Some 1 kB as JSON; numbers over four octaves are told apart to 3 %, over one to less than 1 %.
BUCKETS_MAX = 128
# At this level all doubles lie in less than `BUCKETS_MAX` buckets.
LEVEL_MAX = 14
_PER_OCTAVE = 256
# Above the buckets of the smallest double, so that all of positive numbers are positive.
_ORIGIN = 1_100 * _PER_OCTAVE
# A mantissa is at least one half.
_FIRST = _ORIGIN - _PER_OCTAVE
# From so many numbers on arrays are faster.
_VECTOR_MIN = 64
_FORGOTTEN = 1 / 8


class QuantileSketch:
    """How numbers are distributed.

    Attributes:
        level: how often the resolution was halved.
        counts: how many numbers lie in each bucket that is taken, by its place.

    >>> sketch = QuantileSketch()
    >>> sketch.add([1.0, 2.0, 2.0, 400.0])
    >>> sketch.n, round(sketch.quantile(0.5), 1), sketch.low, sketch.high
    (4.0, 2.0, 1.0, 400.0)
    """

    __slots__ = ("counts", "high", "level", "low")

    def __init__(self) -> None:
        self.level = 0
        # Whole numbers, until they are halved.
        self.counts: dict[int, float] = {}
        self.low: float | None = None
        self.high: float | None = None

    @property
    def n(self) -> float:
        """How many numbers were added."""
        # Counts that were halved for a year fill all bits: their order must leave no mark.
        return fsum(self.counts.values())

    def add(self, values: Sequence[float]) -> None:
        """Take in numbers, all finite."""
        if not values:
            return
        if len(values) < _VECTOR_MIN:
            self._widen(min(values), max(values))
            level, counts = self.level, self.counts
            for value in values:
                place = coarser(_place(value), level)
                counts[place] = counts.get(place, 0) + 1
            self._add_counts(())
            return
        numbers = np.array(values, np.float64)
        self._widen(float(numbers.min()), float(numbers.max()))
        mantissas, exponents = np.frexp(np.abs(numbers))
        places = exponents.astype(np.int64) * _PER_OCTAVE + _FIRST
        places += (mantissas * (2 * _PER_OCTAVE)).astype(np.int64)
        places >>= self.level
        places = np.where(numbers > 0, places, -places)
        places[numbers == 0] = 0
        taken, counted = np.unique(places, return_counts=True)
        self._add_counts(zip(taken.tolist(), counted.tolist(), strict=True))

    def add_many(self, value: float, count: float) -> None:
        """Take in a number so many times.

        Args:
            value: the number.
            count: how often.
        """
        self._widen(value, value)
        self._add_counts([(coarser(_place(value), self.level), count)])

    def halve_counts(self) -> None:
        """Let all that came so far count half as much; what counts next to nothing is forgotten."""
        self.counts = {place: n / 2 for place, n in self.counts.items() if n > _FORGOTTEN}

    def merge(self, other: QuantileSketch) -> None:
        """Take in what another sketch holds; it stays as it is."""
        if other.low is None or other.high is None:
            return
        self._widen(other.low, other.high)
        while self.level < other.level:
            self._halve()
        shift = self.level - other.level
        self._add_counts((coarser(place, shift), n) for place, n in sorted(other.counts.items()))

    def _widen(self, low: float, high: float) -> None:
        # One zero, and one kind of number: which of two equal ones came first must leave no mark.
        low, high = float(low) + 0.0, float(high) + 0.0
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)

    def _add_counts(self, counts: Iterable[tuple[int, float]]) -> None:
        own = self.counts
        for place, n in counts:
            own[place] = own.get(place, 0) + n
        while len(self.counts) > BUCKETS_MAX and self.level < LEVEL_MAX:
            self._halve()

    def _halve(self) -> None:
        halved: dict[int, float] = {}
        for place, n in sorted(self.counts.items()):
            half = coarser(place, 1)
            halved[half] = halved.get(half, 0) + n
        self.counts = halved
        self.level += 1

    def quantile(self, share: float) -> float:
        """The number below which `share` of all lie, as exact as its bucket is wide.

        Args:
            share: from 0 to 1.

        Raises:
            ValueError: nothing was added.
        """
        if self.low is None or self.high is None:
            raise ValueError("a sketch of no numbers has no quantiles")
        rank, seen = share * self.n, 0.0
        for place in sorted(self.counts):
            seen += self.counts[place]
            if seen >= rank:
                return min(max(_middle(place, self.level), self.low), self.high)
        return self.high

    def weights(self) -> list[tuple[float, float]]:
        """The middle of each bucket with how many lie in it, in order."""
        return [(_middle(place, self.level), self.counts[place]) for place in sorted(self.counts)]

    def dump(self) -> list[Any]:
        """The sketch, as JSON can hold it: level, range, places and their counts."""
        places = sorted(self.counts)
        return [self.level, self.low, self.high, places, [self.counts[place] for place in places]]

    @classmethod
    def load(cls, state: Sequence[Any]) -> QuantileSketch:
        """The sketch that `dump` gave."""
        sketch = cls()
        sketch.level, sketch.low, sketch.high, places, counts = state
        sketch.counts = dict(zip(places, counts, strict=True))
        return sketch


def _place(value: float) -> int:
    if not value:
        return 0
    mantissa, exponent = frexp(abs(value))
    place = exponent * _PER_OCTAVE + _FIRST + int(mantissa * (2 * _PER_OCTAVE))
    return place if value > 0 else -place


def coarser(place: int, times: int) -> int:
    """The bucket that one lies in where the resolution is halved some more times.

    Args:
        place: of the finer bucket.
        times: how often it is halved.
    """
    return place >> times if place >= 0 else -(-place >> times)


def _middle(place: int, level: int) -> float:
    """The number in the middle of a bucket."""
    if place == 0:
        return 0.0
    first = (abs(place) << level) - _ORIGIN
    ends = []
    for fine in (first, first + (1 << level)):
        exponent, part = divmod(fine, _PER_OCTAVE)
        # Past what doubles can say are only the ends of the outermost buckets.
        ends.append((0.5 + part / (2 * _PER_OCTAVE)) * 2.0 ** min(max(exponent, -1_000), 1_000))
    middle = (ends[0] + ends[1]) / 2
    return middle if place > 0 else -middle
