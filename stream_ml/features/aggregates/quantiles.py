"""Quantiles of the values in a window, by a sketch whose error is bounded."""

# ruff: noqa: ARG002 - few aggregates look at both `t` and `x`, all have the same signature
# ruff: noqa: D102 - an override is documented where it is declared
from __future__ import annotations

from bisect import bisect_left, insort
from math import frexp, ldexp
from typing import TYPE_CHECKING, Any

from stream_ml.features.aggregates.base import Aggregate
from stream_ml.schema import brief

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Median", "Quantile"]

# Buckets between one power of two and the next, all of one width: the middle of a bucket is off
# by at most 1/128 of any value in it.
BUCKETS_BITS = 6
BUCKETS = 1 << BUCKETS_BITS
# Above any exponent of a double, so that the code of what is above zero is too.
EXPONENT_SHIFT = 1_100


class Quantile(Aggregate):
    """A quantile of the values, off by at most 1/128 (0.8 %) of itself; none in an empty window.

    It is of the n values in order the one at the position q (n - 1), rounded down, from 0 on.

    Values are counted in buckets of a relative width, and the bucket's middle is the answer, as
    in DDSketch (Masson, Rim & Lee 2019, "DDSketch: a fast and fully-mergeable quantile sketch
    with relative-error guarantees", PVLDB 12). The bucket is read off the bits of the double
    (exponent, and the first bits of the mantissa), not off a logarithm, so it is the same on every
    machine; counts of two windows add up, and are taken out as exactly as they were put in. There
    are at most 64 buckets for each power of two and sign that occurs, and no more than events.
    """

    __slots__ = ("_octave_counts", "_octaves", "counts")
    name = "quantile"
    any_order = True
    refilled = True

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        # By power of two: a question then looks at few of the buckets.
        self._octaves: list[int] = []
        self._octave_counts: dict[int, int] = {}

    @classmethod
    def question_mistakes(cls, q: Any = 0.5) -> Iterator[tuple[str, str]]:
        if type(q) not in (int, float) or not 0 <= q <= 1:
            yield "`q` to be a number from 0 to 1", brief(q)

    def add(self, t: int, x: float) -> None:
        self._add(_code(x), 1)

    def _add(self, code: int, count: int) -> None:
        octave = code >> BUCKETS_BITS
        self.counts[code] = self.counts.get(code, 0) + count
        if octave in self._octave_counts:
            self._octave_counts[octave] += count
        else:
            self._octave_counts[octave] = count
            insort(self._octaves, octave)

    def evict(self, t: int, x: float) -> None:
        code = _code(x)
        octave = code >> BUCKETS_BITS
        self.counts[code] -= 1
        if not self.counts[code]:
            del self.counts[code]
        self._octave_counts[octave] -= 1
        if not self._octave_counts[octave]:
            del self._octave_counts[octave]
            del self._octaves[bisect_left(self._octaves, octave)]

    def value(self, t: int, q: float = 0.5) -> float | None:
        """The quantile.

        Args:
            t: the time of the question, in milliseconds.
            q: which one, from 0 (the smallest) to 1 (the largest).
        """
        position = int(q * (sum(self._octave_counts.values()) - 1))
        for octave in self._octaves:
            count = self._octave_counts[octave]
            if position >= count:
                position -= count
                continue
            for code in range(octave << BUCKETS_BITS, (octave + 1) << BUCKETS_BITS):
                position -= self.counts.get(code, 0)
                if position < 0:
                    return _middle(code)
        return None

    def dump(self) -> Any:
        return sorted(self.counts.items())

    def load(self, state: Any) -> None:
        for code, count in state:
            self._add(code, count)


class Median(Quantile):
    """The median of the values, with the error of `Quantile`: of an even number the lower one."""

    __slots__ = ()
    name = "median"


def _code(x: float) -> int:
    """The bucket of a value: larger for larger values, 0 for 0."""
    if not x:
        return 0
    mantissa, exponent = frexp(x)
    code = (exponent + EXPONENT_SHIFT << BUCKETS_BITS) + int(abs(mantissa) * 2 * BUCKETS) - BUCKETS
    return code if x > 0 else -code


def _middle(code: int) -> float:
    """The middle of a bucket."""
    if not code:
        return 0.0
    exponent, step = divmod(abs(code), BUCKETS)
    middle = ldexp((BUCKETS + step + 0.5) / (2 * BUCKETS), exponent - EXPONENT_SHIFT)
    return middle if code > 0 else -middle
