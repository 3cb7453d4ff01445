"""Whether numbers came in another unit: the same shape, some times as large."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.monitoring.distance import distance, largest_share, rescaled

if TYPE_CHECKING:
    from stream_ml.monitoring.columns import NumberColumn

__all__ = ["unit_factor"]

# What people take for each other: parts of money, metric prefixes, times, bytes, feet and inches.
FACTORS = (10.0, 12.0, 24.0, 25.4, 60.0, 100.0, 1e3, 1_024.0, 1_440.0, 3_600.0, 86_400.0, 1e6, 1e9)
# No world grows by so much from one block to the next, and keeps its shape; less than that it may.
FACTOR_MIN = 8.0
KNOWN_WITHIN = 0.3
REMAINING_MAX = 0.25
# What is mostly one value has no shape to be known by.
ONE_VALUE_MAX = 0.5


def unit_factor(now: NumberColumn, usual: NumberColumn) -> float | None:
    """The factor by which the numbers are larger than usual, if that is all that differs.

    Args:
        now: a block's numbers.
        usual: those of the past.

    Returns:
        The factor, a well-known one where it is near one; None where it is no matter of units.
    """
    if largest_share(usual) >= ONE_VALUE_MAX:
        return None
    middle, usual_middle = now.sketch.quantile(0.5), usual.sketch.quantile(0.5)
    if middle * usual_middle <= 0:
        return None
    ratio = middle / usual_middle
    size = max(ratio, 1 / ratio)
    if size < FACTOR_MIN:
        return None
    known = min(FACTORS, key=lambda factor: abs(factor - size) / factor)
    if abs(known - size) <= KNOWN_WITHIN * known:
        size = known
    factor = size if ratio > 1 else 1 / size
    remaining = distance(now, rescaled(usual, factor)).value
    return factor if remaining <= REMAINING_MAX else None
