"""How many different values there are, and how often each comes."""

# ruff: noqa: ARG002 - few aggregates look at both `t` and `x`, all have the same signature
# ruff: noqa: D102 - an override is documented where it is declared
from __future__ import annotations

from heapq import nlargest
from typing import TYPE_CHECKING, Any

from stream_ml.features.aggregates.base import Aggregate

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Counts", "Distinct", "TopK"]


# Where there are no more counts than this, or more are asked for than that, sorting all is cheaper.
FEW, RANKS = 128, 10


class Distinct(Aggregate):
    """How many different values: exact, 0 in an empty window."""

    __slots__ = ("counts",)
    name = "distinct"
    any_order = True
    numeric = False
    refilled = True

    def __init__(self) -> None:
        self.counts: dict[Any, int] = {}

    def add(self, t: int, x: Any) -> None:
        counts = self.counts
        counts[x] = counts.get(x, 0) + 1

    def evict(self, t: int, x: Any) -> None:
        counts = self.counts
        remaining = counts[x] - 1
        if remaining:
            counts[x] = remaining
        else:
            del counts[x]

    def value(self, t: int) -> float | None:
        return float(len(self.counts))

    def dump(self) -> Any:
        return sorted(self.counts.items())

    def load(self, state: Any) -> None:
        self.counts = dict(state)


class Counts(Distinct):
    """How many events have one value: 0 in an empty window."""

    __slots__ = ()
    name = "counts"

    def value(self, t: int, category: Any = None) -> float | None:
        """The count of one value.

        Args:
            t: the time of the question, in milliseconds.
            category: the value.
        """
        return float(self.counts.get(category, 0))


class TopK(Counts):
    """How many events have the most frequent value, the second most, ...: 0 where there is none."""

    __slots__ = ("_largest",)
    name = "top_k"

    def __init__(self) -> None:
        super().__init__()
        # The largest counts, as many as were asked for; None since the window has changed.
        self._largest: list[int] | None = None

    def add(self, t: int, x: Any) -> None:
        self._largest = None
        Distinct.add(self, t, x)

    def evict(self, t: int, x: Any) -> None:
        self._largest = None
        Distinct.evict(self, t, x)

    def load(self, state: Any) -> None:
        self._largest = None
        super().load(state)

    def value(self, t: int, rank: int = 1) -> float | None:
        """The count of the value at a rank.

        Args:
            t: the time of the question, in milliseconds.
            rank: 1 for the most frequent value.
        """
        if rank > len(self.counts):
            return 0.0
        largest = self._largest
        # A user's subclass may change the counts by itself.
        if largest is None or len(largest) < rank or type(self) is not TopK:
            self._largest = largest = _largest(self.counts.values(), rank)
        return float(largest[rank - 1])


def _largest(counts: Collection[int], rank: int) -> list[int]:
    """The largest counts down to this rank, or to a later one that will be asked for next."""
    if rank > RANKS or len(counts) <= FEW:
        return sorted(counts, reverse=True)
    return nlargest(RANKS if rank > 1 else 1, counts)
