"""How many different values there are, and how often each comes."""

# ruff: noqa: ARG002 - few aggregates look at both `t` and `x`, all have the same signature
# ruff: noqa: D102 - an override is documented where it is declared
from __future__ import annotations

from heapq import nlargest
from typing import Any

from stream_ml.features.aggregates.base import Aggregate

__all__ = ["Counts", "Distinct", "TopK"]


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

    __slots__ = ()
    name = "top_k"

    def value(self, t: int, rank: int = 1) -> float | None:
        """The count of the value at a rank.

        Args:
            t: the time of the question, in milliseconds.
            rank: 1 for the most frequent value.
        """
        largest = nlargest(rank, self.counts.values())
        return float(largest[-1]) if len(largest) == rank else 0.0
