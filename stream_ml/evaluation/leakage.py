"""How much one column alone tells of the label: what is too good to be known beforehand.

A column that nearly gives the label away is most often made after the fact: a refund that follows
the complaint, a count over a span that includes what comes. Here a column is looked at by itself:

- Numbers against a label of two classes by the area under the ROC curve (AUC), with the standard
  error of Hanley and McNeil 1982 ("The meaning and use of the area under a receiver operating
  characteristic (ROC) curve", Radiology 143), and against a number by the square of Spearman's
  rank correlation, which no outlier makes, with Fisher's interval.
- Categories, which by themselves have no order, by the mean label of each among every other row,
  tried on the rows between: a category that comes once tells nothing.
- Missing values by whether they all, or all others, are of one class, and by how unlikely that is.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

__all__ = ["ROWS_MIN", "Filling", "Strength", "filling", "strength"]

ROWS_MIN = 100
# As many of a class, or of present and missing values, are needed to say anything.
CLASS_MIN = 20
ERRORS = 3.0
LUCK_MAX = 1e-6
# Where nearly all are of one class anyway, that a few of them are tells nothing.
SHARE_MAX = 0.9
_BETTER_THAN = 1 - 1e-12


@dataclass(frozen=True, slots=True)
class Strength:
    """How well one column tells the label.

    Attributes:
        measure: `AUC` (0.5 to 1) or `rank R2` (0 to 1).
        value: of the measure.
        low: three standard errors less.
        n: rows.
        label: the class that it tells, where there are more than two.
    """

    measure: str
    value: float
    low: float
    n: int
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Filling:
    """A column that is filled, or missing, for one class alone.

    Attributes:
        label: that class.
        is_filled: whether it is filled for this class alone, or missing.
        n: rows of which that is so.
        others: rows of other classes, of none of which it is so.
    """

    label: str
    is_filled: bool
    n: int
    others: int


def strength(values: Sequence[Any], labels: Sequence[Any]) -> Strength | None:
    """How well a column tells the label; None where there are too few rows to say.

    Args:
        values: numbers (or flags), or texts; None: missing.
        labels: of the same rows: flags, texts or numbers.
    """
    rows = [(x, y) for x, y in zip(values, labels, strict=True) if x is not None]
    if any(isinstance(x, str) for x, _ in rows):
        return max(
            (_of_categories(rows, label) for label in _questions(labels)),
            key=_value,
            default=None,
        )
    return max((_of_numbers(rows, label) for label in _questions(labels)), key=_value, default=None)


def _value(found: Strength | None) -> float:
    return -1.0 if found is None else found.value


def _questions(labels: Sequence[Any]) -> list[Any]:
    """What is asked about: a class by itself, where there are more than two, or all there is."""
    kinds = sorted({y for y in labels if isinstance(y, str)})
    return [*kinds[1:]] if len(kinds) == 2 else kinds or [None]  # noqa: PLR2004 - one of two


def _truths(rows: Sequence[tuple[Any, Any]], label: Any) -> list[float]:
    """The labels as numbers: 0 and 1 of a class."""
    return [float(y if label is None else y == label) for _, y in rows]


def _is_number(labels: Sequence[tuple[Any, Any]]) -> bool:
    return bool(labels) and all(type(y) in {int, float} for _, y in labels)


def _of_numbers(rows: Sequence[tuple[Any, Any]], label: Any) -> Strength | None:
    scores = [float(x) for x, _ in rows]
    return _measured(scores, _truths(rows, label), label, is_regression=_is_number(rows))


def _of_categories(rows: Sequence[tuple[Any, Any]], label: Any) -> Strength | None:
    truths = _truths(rows, label)
    sums: dict[Hashable, list[float]] = {}
    for (x, _), truth in zip(rows[::2], truths[::2], strict=True):
        cell = sums.setdefault(x, [0.0, 0])
        cell[0] += truth
        cell[1] += 1
    total = math.fsum(truths[::2]) / max(len(rows[::2]), 1)
    means = {x: (sum_ + total) / (n + 1) for x, (sum_, n) in sums.items()}
    scores = [means.get(x, total) for x, _ in rows[1::2]]
    return _measured(scores, truths[1::2], label, is_regression=_is_number(rows))


def _measured(
    scores: Sequence[float], truths: Sequence[float], label: Any, *, is_regression: bool
) -> Strength | None:
    if is_regression:
        return _rank_correlation(scores, truths)
    positives = int(sum(truths))
    if len(truths) < ROWS_MIN or min(positives, len(truths) - positives) < CLASS_MIN:
        return None
    area = _area(scores, truths, positives)
    area = max(area, 1 - area)
    error = _area_error(area, positives, len(truths) - positives)
    return Strength("AUC", area, area - ERRORS * error, len(truths), label)


def _ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value, from 1 on; equal ones share the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for place in order[start:end]:
            ranks[place] = (start + 1 + end) / 2
        start = end
    return ranks


def _area(scores: Sequence[float], truths: Sequence[float], positives: int) -> float:
    ranks = _ranks(scores)
    total = math.fsum(rank for rank, truth in zip(ranks, truths, strict=True) if truth)
    pairs = positives * (len(truths) - positives)
    return (total - positives * (positives + 1) / 2) / pairs


def _area_error(area: float, positives: int, negatives: int) -> float:
    """The standard error of an area (Hanley and McNeil 1982, equation 2)."""
    q1, q2 = area / (2 - area), 2 * area * area / (1 + area)
    spread = area * (1 - area) + (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
    return math.sqrt(max(spread, 0.0) / (positives * negatives))


def _rank_correlation(scores: Sequence[float], truths: Sequence[float]) -> Strength | None:
    n = len(truths)
    if n < ROWS_MIN or len(set(scores)) == 1 or len(set(truths)) == 1:
        return None
    x, y = _ranks(scores), _ranks(truths)
    middle = (n + 1) / 2
    products = math.fsum((a - middle) * (b - middle) for a, b in zip(x, y, strict=True))
    spreads = [math.fsum((a - middle) ** 2 for a in ranks) for ranks in (x, y)]
    r = min(abs(products) / math.sqrt(spreads[0] * spreads[1]), 1.0)
    low = math.tanh(max(math.atanh(min(r, _BETTER_THAN)) - ERRORS / math.sqrt(n - 3), 0.0))
    return Strength("rank R2", r * r, low * low, n)


def filling(values: Sequence[Any], labels: Sequence[Any]) -> Filling | None:
    """Whether a column is filled, or missing, for one class alone; None where it is not.

    Args:
        values: of a column; None: missing.
        labels: flags or texts, of the same rows.
    """
    totals = Counter(map(str, labels))
    for is_filled in (True, False):
        counts = Counter(
            str(y) for x, y in zip(values, labels, strict=True) if (x is not None) == is_filled
        )
        if len(counts) != 1:
            continue
        ((label, n),) = counts.items()
        others = len(labels) - totals[label]
        share = totals[label] / len(labels)
        is_luck = n * math.log(share) > math.log(LUCK_MAX)
        if min(n, others) >= CLASS_MIN and share <= SHARE_MAX and not is_luck:
            return Filling(label, is_filled, n, others)
    return None
