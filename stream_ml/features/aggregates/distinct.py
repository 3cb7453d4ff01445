"""How many different values there are."""

# ruff: noqa: ARG002 - few aggregates look at both `t` and `x`, all have the same signature
# ruff: noqa: D102 - an override is documented where it is declared
from __future__ import annotations

from typing import Any

from stream_ml.features.aggregates.base import Aggregate

__all__ = ["Distinct"]


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
