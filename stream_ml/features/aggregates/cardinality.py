"""How many different values there are, about, in bounded room."""

# ruff: noqa: ARG002 - few aggregates look at both `t` and `x`, all have the same signature
# ruff: noqa: D102 - an override is documented where it is declared
from __future__ import annotations

import hashlib
from typing import Any

from stream_ml.features.aggregates.base import Aggregate

__all__ = ["DistinctApprox", "register_code"]

REGISTER_BITS = 10
REGISTERS = 1 << REGISTER_BITS
# Of a hash of 64 bits those that are left: the first that is set is at one of so many places.
RANK_BITS = 64 - REGISTER_BITS
RANK_CODE_BITS = 6
RANK_MASK = (1 << RANK_CODE_BITS) - 1
HALF_OVER_LOG_2 = 0.7213475204444817


def register_code(x: Any) -> int:
    """The register and rank of a value, in one number: all that the sketch looks at.

    Args:
        x: a text, a number, or True or False.
    """
    if type(x) is float and not x:
        x = 0.0  # and not -0.0, which is equal to it
    text = x if type(x) is str else repr(x)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    register, rest = divmod(int.from_bytes(digest, "big"), 1 << RANK_BITS)
    return register << RANK_CODE_BITS | RANK_BITS - rest.bit_length() + 1


class DistinctApprox(Aggregate):
    """How many different values, with a standard error of 3.3 %; 0 in an empty window.

    HyperLogLog (Flajolet, Fusy, Gandouet & Meunier 2007) with 1,024 registers. A register here
    counts its events by rank, so that one that leaves is taken out again, and its maximum is that
    of the window, exactly: the answer depends on what is in the window, not on how it got there.
    The estimator is Ertl's (2017, "New cardinality estimation algorithms for HyperLogLog
    sketches", arXiv:1702.01284), without tables or logarithms; few values are counted nearly
    exactly. It is rounded to a whole number. There are at most 1,024 times 55 counts, and no more
    than events.

    What it is fed are codes of `register_code`.
    """

    __slots__ = ("_histogram", "_ranks", "counts")
    name = "distinct_approx"
    any_order = True
    numeric = False
    refilled = True

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        # Per register a bit for each rank that has a count.
        self._ranks: dict[int, int] = {}
        # Registers by their highest rank, where they have one.
        self._histogram: dict[int, int] = {}

    def add(self, t: int, x: int) -> None:
        count = self.counts.get(x, 0)
        self.counts[x] = count + 1
        if not count:
            self._toggle(x)

    def evict(self, t: int, x: int) -> None:
        count = self.counts[x] - 1
        if count:
            self.counts[x] = count
        else:
            del self.counts[x]
            self._toggle(x)

    def _toggle(self, code: int) -> None:
        """Have a register know of a rank, or no more."""
        register = code >> RANK_CODE_BITS
        former = self._ranks.get(register, 0)
        ranks = former ^ 1 << (code & RANK_MASK)
        if ranks:
            self._ranks[register] = ranks
        else:
            del self._ranks[register]
        highest, former_highest = ranks.bit_length() - 1, former.bit_length() - 1
        if highest != former_highest:
            self._histogram[highest] = self._histogram.get(highest, 0) + 1
            self._histogram[former_highest] = self._histogram.get(former_highest, 0) - 1

    def value(self, t: int) -> float | None:
        if not self._ranks:
            return 0.0
        histogram = self._histogram
        z = REGISTERS * _tau(1 - histogram.get(RANK_BITS + 1, 0) / REGISTERS)
        for rank in range(RANK_BITS, 0, -1):
            z = (z + histogram.get(rank, 0)) / 2
        z += REGISTERS * _sigma((REGISTERS - len(self._ranks)) / REGISTERS)
        return float(round(HALF_OVER_LOG_2 * REGISTERS * REGISTERS / z))

    def dump(self) -> Any:
        return sorted(self.counts.items())

    def load(self, state: Any) -> None:
        for code, count in state:
            self.counts[code] = count
            self._toggle(code)


def _sigma(x: float) -> float:
    """Ertl's correction for registers without a value, of which a share x is."""
    y, z, former = 1.0, x, -1.0
    while z != former:
        x *= x
        former = z
        z += x * y
        y += y
    return z


def _tau(x: float) -> float:
    """Ertl's correction for registers at the highest rank, of which a share 1 - x is."""
    if x in (0.0, 1.0):
        return 0.0
    y, z, former = 1.0, 1 - x, -1.0
    while z != former:
        x **= 0.5
        former = z
        y /= 2
        z -= (1 - x) ** 2 * y
    return z / 3
