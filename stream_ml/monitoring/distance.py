"""How far one column is from another: distances, and how sure they are.

Every distance comes with a score, the square of what it is in units of its own chance, of which
theory bounds how often it is exceeded where nothing has moved:

- Of numbers, the Kolmogorov-Smirnov distance of their sketches: a score of `z²` is exceeded with a
  chance of about 2 exp(-2 z²).
- Of categories, the largest change of one's share; the same bound (Hoeffding's) for each.
- Of what is missing, the change of its share, in units of a binomial's deviation.

Chances are never computed, only compared, by their logarithms: no more than +, -, *, / and a table
of constants decide, so that every platform decides alike.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from stream_ml.monitoring.columns import CATEGORIES_MAX, CategoryColumn, NumberColumn
from stream_ml.monitoring.sketch import coarser

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.monitoring.columns import Column
    from stream_ml.monitoring.sketch import QuantileSketch

__all__ = [
    "Distance",
    "discoveries",
    "distance",
    "largest_share",
    "missing_distance",
    "new_category",
    "rescaled",
]


class Distance(NamedTuple):
    """A distance from 0 to 1, its score, and the category that it is of, if any."""

    value: float
    score: float
    category: str | None = None


def distance(now: Column, usual: Column) -> Distance:
    """How far the values of two columns of one kind are apart.

    Args:
        now: what is asked about.
        usual: what it is compared with.
    """
    if not now.n or not usual.n:
        return Distance(0.0, 0.0)
    size = now.n * usual.n / (now.n + usual.n)
    if isinstance(now, NumberColumn) and isinstance(usual, NumberColumn):
        value = _kolmogorov(now.sketch, usual.sketch)
        return Distance(value, value * value * size)
    assert isinstance(now, CategoryColumn), "a column is compared with one of its kind"
    assert isinstance(usual, CategoryColumn), "a column is compared with one of its kind"
    return _share_distance(now, usual, size)


def _kolmogorov(now: QuantileSketch, usual: QuantileSketch) -> float:
    level = max(now.level, usual.level)
    steps: dict[int, float] = {}
    for sketch, weight in ((now, 1 / now.n), (usual, -1 / usual.n)):
        shift = level - sketch.level
        # In one order, whether the sketch was added to or loaded: sums are rounded.
        for place, count in sorted(sketch.counts.items()):
            at = coarser(place, shift)
            steps[at] = steps.get(at, 0.0) + count * weight
    gap = widest = 0.0
    for place in sorted(steps):
        gap += steps[place]
        widest = max(widest, abs(gap))
    return min(widest, 1.0)


def _share_distance(now: CategoryColumn, usual: CategoryColumn, size: float) -> Distance:
    shares = [
        (abs(now.counts.get(name, 0) / now.n - usual.counts.get(name, 0) / usual.n), name)
        for name in sorted({*now.counts, *usual.counts})
    ]
    value, name = max(shares, default=(0.0, None))
    return Distance(value, value * value * size, name)


def missing_distance(now: Column, usual: Column) -> Distance:
    """How far the shares of what is missing are apart; the score is that of a normal deviate.

    Args:
        now: what is asked about.
        usual: what it is compared with.
    """
    rows, usual_rows = now.n + now.missing, usual.n + usual.missing
    if not rows or not usual_rows:
        return Distance(0.0, 0.0)
    gap = now.missing / rows - usual.missing / usual_rows
    share = (usual.missing + 1) / (usual_rows + 2)
    variance = share * (1 - share) * (1 / rows + 1 / usual_rows)
    # Two exponents alike: exp(-z²/2) here, exp(-2 z²) above.
    return Distance(abs(gap), gap * gap / variance / 4)


def discoveries(scores: Sequence[float], chance: float) -> float:
    """The least score that counts, of many: Benjamini and Hochberg's bound on false discoveries.

    Args:
        scores: of all that were looked at, as `distance` gives them.
        chance: the share of false ones among those found, at most.

    >>> discoveries([0.3, 9.0], 0.01), discoveries([0.3, 0.2], 0.01)
    (9.0, inf)
    """
    found = math.inf
    for rank, score in enumerate(sorted(scores, reverse=True), 1):
        # A score that ties with a logarithm to its last bit does not happen.
        if score >= math.log(2 * len(scores) / (chance * rank)) / 2:
            found = score
    return found


def rescaled(column: NumberColumn, factor: float) -> NumberColumn:
    """The column as it were if every number were `factor` times as large, as exact as buckets."""
    scaled = NumberColumn()
    scaled.n, scaled.missing = column.n, column.missing
    for value, count in column.sketch.weights():
        scaled.sketch.add_many(value * factor, count)
    return scaled


def largest_share(column: Column) -> float:
    """The share of the most frequent bucket or category."""
    counts = (column.sketch.counts if isinstance(column, NumberColumn) else column.counts).values()
    return max(counts, default=0) / column.n if column.n else 0.0


def new_category(now: CategoryColumn, usual: CategoryColumn) -> tuple[str, float] | None:
    """The most frequent category that never came before, with its share; None where there is none.

    Where the past has more categories than are counted, none is known to be new.

    Args:
        now: what is asked about.
        usual: what came before.
    """
    if usual.others or len(usual.counts) >= CATEGORIES_MAX or not now.n:
        return None
    new = [(count, name) for name, count in now.counts.items() if name not in usual.counts]
    if not new:
        return None
    count, name = max(new)
    return name, count / now.n
