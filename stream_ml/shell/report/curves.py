"""The points of curves over all answers of a model: ranking, calibration, classes, forecasts."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_ml.monitoring.agreement import share_interval
from stream_ml.shell.report.measures import mean

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "TOP_SHARES",
    "CalibrationPoint",
    "ClassScores",
    "RankingPoint",
    "average_precision",
    "calibration",
    "class_scores",
    "confusion",
    "likeliest",
    "precision_recall",
    "top_shares",
]

CALIBRATION_BINS = 10
CALIBRATION_PAIRS_MIN = 50
# Which part of all, the highest answers first, somebody may have the time to look at.
TOP_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
# Of a 95 % interval.
Z = 1.96


@dataclass(frozen=True, slots=True)
class RankingPoint:
    """Those with the highest answers: how many, the share that is true, and of all true ones."""

    count: int
    threshold: float
    precision: float
    recall: float


def precision_recall(pairs: Sequence[tuple[bool, float]]) -> list[RankingPoint]:
    """Precision and recall at each threshold, the highest first; empty without true labels.

    Equal answers are told apart by nobody: they count together.

    >>> [(p.precision, p.recall) for p in precision_recall([(True, .9), (False, .8), (True, .8)])]
    [(1.0, 0.5), (0.6666666666666666, 1.0)]

    Args:
        pairs: of a label and the probability of a true one.
    """
    total = sum(label for label, _ in pairs)
    if not total:
        return []
    ordered = sorted(pairs, key=lambda pair: -pair[1])
    points, hits = [], 0
    for index, (label, answer) in enumerate(ordered, start=1):
        hits += label
        if index == len(ordered) or ordered[index][1] != answer:
            points.append(RankingPoint(index, answer, hits / index, hits / total))
    return points


def average_precision(points: Sequence[RankingPoint]) -> float:
    """The mean precision over recall, without interpolation.

    >>> average_precision(precision_recall([(True, .9), (False, .8), (True, .8)]))
    0.8333333333333333

    Args:
        points: of `precision_recall`.
    """
    area, before = 0.0, 0.0
    for point in points:
        area += (point.recall - before) * point.precision
        before = point.recall
    return area


def top_shares(points: Sequence[RankingPoint]) -> list[tuple[float, RankingPoint]]:
    """Where the first point lies that takes in at least a share of all, for each of `TOP_SHARES`.

    Args:
        points: of `precision_recall`.
    """
    if not points:
        return []
    found: list[tuple[float, RankingPoint]] = []
    total, index = points[-1].count, 0
    for share in TOP_SHARES:
        wanted = math.ceil(share * total)
        while points[index].count < wanted:
            index += 1
        if wanted < CALIBRATION_PAIRS_MIN // 5:
            continue  # luck
        if found and found[-1][1] is points[index]:
            found.pop()  # equal answers, which nobody tells apart
        found.append((share, points[index]))
    return found


@dataclass(frozen=True, slots=True)
class CalibrationPoint:
    """Examples with answers alike: their mean answer, the mean truth, and its 95 % interval."""

    count: int
    answer: float
    truth: float
    low: float
    high: float


def calibration(pairs: Sequence[tuple[float, float]]) -> list[CalibrationPoint]:
    """The mean truth by answer, over tenths of the examples, the lowest answers first.

    Tenths hold as many examples each, so that rare high answers, and many low ones, are seen. The
    interval of a share is Wilson's (1927), which is one where none is true as well: 200 examples
    without a true one are no sign of a share of 0.

    Args:
        pairs: of the truth as a number and the answer.
    """
    ordered = sorted(pairs, key=lambda pair: pair[1])
    size = max(CALIBRATION_PAIRS_MIN, math.ceil(len(ordered) / CALIBRATION_BINS))
    is_share = all(label in {0.0, 1.0} for label, _ in ordered)
    points = []
    for begin in range(0, len(ordered), size):
        group = ordered[begin : begin + size]
        if len(group) < CALIBRATION_PAIRS_MIN:
            continue
        truths, answer = [label for label, _ in group], mean(answer for _, answer in group)
        interval = share_interval(sum(truths), len(truths)) if is_share else mean_interval(truths)
        points.append(CalibrationPoint(len(group), answer, mean(truths), *interval))
    return points


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean, by the normal distribution."""
    centre = mean(values)
    error = Z * math.sqrt(mean((value - centre) ** 2 for value in values) / len(values))
    return centre - error, centre + error


def likeliest(answer: dict[str, float]) -> str:
    """The class with the highest probability; at a tie the one that sorts first.

    >>> likeliest({"b": 0.5, "a": 0.5})
    'a'
    """
    return min(answer, key=lambda name: (-answer[name], name))


def confusion(pairs: Sequence[tuple[str, dict[str, float]]]) -> Counter[tuple[str, str]]:
    """How often each true class was taken for each.

    Args:
        pairs: of the true class and the probabilities.
    """
    return Counter((label, likeliest(answer)) for label, answer in pairs)


@dataclass(frozen=True, slots=True)
class ClassScores:
    """How well a class is told: how many there were; None where nothing was answered, or true."""

    name: str
    count: int
    precision: float | None
    recall: float | None
    f1: float | None


def class_scores(counts: Counter[tuple[str, str]]) -> list[ClassScores]:
    """The scores of each class, the most frequent first.

    >>> [s] = class_scores(Counter({("a", "a"): 3}))
    >>> (s.precision, s.recall, s.f1)
    (1.0, 1.0, 1.0)

    Args:
        counts: of `confusion`.
    """
    truths: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    for (label, answer), count in counts.items():
        truths[label] += count
        answers[answer] += count
    results = []
    for name in sorted(truths.keys() | answers.keys(), key=lambda name: (-truths[name], name)):
        hits = counts[name, name]
        precision = hits / answers[name] if answers[name] else None
        recall = hits / truths[name] if truths[name] else None
        f1 = 2 * hits / (truths[name] + answers[name])
        results.append(ClassScores(name, truths[name], precision, recall, f1))
    return results
