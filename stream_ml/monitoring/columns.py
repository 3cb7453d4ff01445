"""What a block of time says of one column: how many values, how many missing, which ones."""

from __future__ import annotations

from collections import Counter
from math import fsum, isfinite
from typing import TYPE_CHECKING, Any

from stream_ml.monitoring.sketch import QuantileSketch
from stream_ml.records import ColumnSummary

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CATEGORIES_MAX", "CategoryColumn", "Column", "NumberColumn", "category_name", "column"]

CATEGORIES_MAX = 64
# Longer names are cut: those that begin alike count as one.
CATEGORY_LENGTH_MAX = 64
_FORGOTTEN = 1 / 8


class NumberColumn:
    """The numbers of a column.

    Attributes:
        n: how many values there were.
        missing: how many there were not.
        sketch: how they are distributed.
    """

    __slots__ = ("missing", "n", "sketch")

    def __init__(self) -> None:
        self.n: float = 0
        self.missing: float = 0
        self.sketch = QuantileSketch()

    def add(self, values: Sequence[Any]) -> None:
        """Take in values; None, and what is no finite number, is missing."""
        present = [value for value in values if value is not None] if None in values else values
        if present and not isfinite(sum(present)):
            present = [value for value in present if isfinite(value)]
        self.n += len(present)
        self.missing += len(values) - len(present)
        self.sketch.add(present)

    def merge(self, other: NumberColumn) -> None:
        """Take in what another column holds."""
        self.n += other.n
        self.missing += other.missing
        self.sketch.merge(other.sketch)

    def halve(self) -> None:
        """Let all that came so far count half as much."""
        self.sketch.halve_counts()
        self.n, self.missing = self.sketch.n, self.missing / 2

    def dump(self) -> list[Any]:
        """The column, as JSON can hold it."""
        return [self.n, self.missing, *self.sketch.dump()]

    def load(self, state: Sequence[Any]) -> None:
        """Take up what `dump` gave."""
        self.n, self.missing, *sketch = state
        self.sketch = QuantileSketch.load(sketch)

    def summary(self) -> ColumnSummary:
        """The column as it is written; of whole counts."""
        level, low, high, places, counts = self.sketch.dump()
        return ColumnSummary(
            int(self.n), int(self.missing), low, high, level, tuple(places), tuple(counts)
        )

    def take(self, summary: ColumnSummary) -> None:
        """Take in what was written of such a column."""
        other = NumberColumn()
        other.n, other.missing = summary.n, summary.missing
        other.sketch = QuantileSketch.load(
            (summary.level, summary.low, summary.high, summary.places, summary.counts)
        )
        self.merge(other)


class CategoryColumn:
    """The categories of a column: the first that came, each with its count, and all others.

    Attributes:
        n: how many values there were.
        missing: how many there were not.
        counts: how often each category came, of the first `CATEGORIES_MAX`.
        others: how many values were of none of these.
    """

    __slots__ = ("counts", "missing", "n", "others")

    def __init__(self) -> None:
        self.n: float = 0
        self.missing: float = 0
        self.counts: dict[str, float] = {}
        self.others: float = 0

    def add(self, values: Sequence[Any]) -> None:
        """Take in texts or flags, in the order in which they came; None is missing."""
        for value, count in Counter(values).items():
            if value is None:
                self.missing += count
            else:
                self.n += count
                self._count(category_name(value), count)

    def _count(self, category: str, count: float) -> None:
        former = self.counts.get(category)
        if former is not None:
            self.counts[category] = former + count
        elif len(self.counts) < CATEGORIES_MAX:
            self.counts[category] = count
        else:
            self.others += count

    def merge(self, other: CategoryColumn) -> None:
        """Take in what another column holds."""
        self.n += other.n
        self.missing += other.missing
        self.others += other.others
        for category, count in other.counts.items():
            self._count(category, count)

    def halve(self) -> None:
        """Let all that came so far count half as much."""
        self.missing, self.others = self.missing / 2, self.others / 2
        self.counts = {name: n / 2 for name, n in self.counts.items() if n > _FORGOTTEN}
        self.n = fsum((*self.counts.values(), self.others))

    def dump(self) -> list[Any]:
        """The column, as JSON can hold it."""
        return [self.n, self.missing, self.counts, self.others]

    def load(self, state: Sequence[Any]) -> None:
        """Take up what `dump` gave."""
        self.n, self.missing, self.counts, self.others = state

    def summary(self) -> ColumnSummary:
        """The column as it is written; of whole counts."""
        counts: Any = dict(self.counts)
        return ColumnSummary(
            int(self.n), int(self.missing), categories=counts, others=int(self.others)
        )

    def take(self, summary: ColumnSummary) -> None:
        """Take in what was written of such a column."""
        other = CategoryColumn()
        other.n, other.missing = summary.n, summary.missing
        other.counts = dict(summary.categories or {})
        other.others = summary.others
        self.merge(other)


Column = NumberColumn | CategoryColumn


def category_name(value: Any) -> str:
    """A text or a flag as it is counted; None, of a field that is not there, is `null`."""
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    return str(value)[:CATEGORY_LENGTH_MAX]


def column(*, is_number: bool) -> Column:
    """An empty column, of numbers or of categories."""
    return NumberColumn() if is_number else CategoryColumn()
