"""Prequential scores: what was answered at event time, against the truth that came later.

Theory of operation. A model is scored on the answers it gave, as they were stored; nobody
predicts again. Each score comes in three forms, because one number cannot say both how a model
has done and how it is doing (Gama, Sebastião & Rodrigues 2013, "On evaluating stream learning
algorithms", Machine Learning 90):

- *cumulative*: over everything since the start; equal to what river's metrics say of the same
  pairs, wherever they are defined;
- *fading*: S = l + a S over N = 1 + a N, remembering about 1 / (1 - a) examples. Only means of
  losses fade; a rank statistic or R² has no such form and is left out;
- *windowed*: over the last `window` scored pairs, computed exactly from them when asked.

A score that is not defined on what was seen (ROC AUC of one class, R² of equal labels) is left
out, never given a stand-in that could be taken for a value. All sums stay finite whatever comes,
so that state is always JSON.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left, bisect_right
from collections import deque
from itertools import compress
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stream_ml.records import Answer, LabelValue

__all__ = [
    "Delays",
    "Scores",
    "absolute_error",
    "brier",
    "clamp",
    "described",
    "is_scorable",
    "log_loss",
    "loss",
    "loss_of",
    "pair_name",
    "r_squared",
    "roc_auc",
    "uniform_loss",
    "widened_totals",
]

# The clamp of river's LogLoss and CrossEntropy: one certain mistake costs 34.5, not infinity.
PROBABILITY_MIN = 1e-15
PROBABILITY_MAX = 1 - PROBABILITY_MIN
# Normalising carries a probability a few ulp past its bounds; anything further is no probability.
PROBABILITY_SLACK = 1e-9
PROBABILITY_LOWEST, PROBABILITY_HIGHEST = -PROBABILITY_SLACK, 1.0 + PROBABILITY_SLACK
# Squares of what a diverged regression answers must still add up to a finite number.
VALUE_MAX = 1e100
# river's ROCAUC with its default of ten thresholds, moved outwards at the ends as it does.
THRESHOLDS = [-1e-7, *(i / 9 for i in range(1, 9)), 1 + 1e-7]
DELAYS_WINDOW = 1_000
# So many pairs are put aside before they are taken in: in one loop they cost half as much.
FRESH_MAX = 64

# The first answers of a multiclass model, among which the right one may be.
TOP = 3
# How many sums there are of each class.
CLASS_SUMS = 3
# Of more classes each for itself would be a table that nobody reads.
CLASSES_MAX = 16

Losses = tuple[float, ...]


def clamp(value: float) -> float:
    """The value, or the nearest one whose square can be summed without overflow.

    >>> clamp(-1e300), clamp(2.5)
    (-1e+100, 2.5)
    """
    return max(-VALUE_MAX, min(value, VALUE_MAX))


def is_scorable(kind: str, answer: Answer) -> bool:
    """Whether the answer can be scored: there is one, and it is what this kind of task answers.

    >>> is_scorable("binary", 0.5), is_scorable("binary", None), is_scorable("binary", float("nan"))
    (True, False, False)

    Args:
        kind: of the task: `binary`, `multiclass` or `regression`.
        answer: a probability, a mapping of class to probability, a number, or None.
    """
    return _SCORABLE[kind](answer)


def brier(label: LabelValue, answer: float | dict[str, float]) -> float:
    """The squared error of a probability (Brier 1950, "Verification of forecasts", MWR 78).

    Binary: (p - y)², from 0 to 1. Multiclass: the sum of that over classes, from 0 to 2.

    >>> brier(True, 0.75), brier("a", {"a": 0.5, "b": 0.5})
    (0.0625, 0.5)

    Args:
        label: a bool, or a class.
        answer: the probability of True, or a mapping of class to probability.
    """
    if not isinstance(answer, dict):
        error = answer - 1.0 if label else answer
        return error * error
    squares = [p * p if name != label else (1.0 - p) * (1.0 - p) for name, p in answer.items()]
    if label not in answer:
        squares.append(1.0)
    # Rounded once, so that the order of the classes in a record does not matter.
    return math.fsum(squares)


def log_loss(label: LabelValue, answer: float | dict[str, float]) -> float:
    """The negative log-likelihood (Good 1952, "Rational decisions", JRSS B 14), clamped as river.

    A class that the answer leaves out has probability 0 and costs the most. (river's
    CrossEntropy lets it pass at no cost: the two agree on answers that name every class.)

    >>> round(log_loss(True, 0.5), 6), round(log_loss("c", {"a": 1.0}), 1)
    (0.693147, 34.5)

    Args:
        label: a bool, or a class.
        answer: the probability of True, or a mapping of class to probability.
    """
    if isinstance(answer, dict):
        return -math.log(_clamp_probability(answer.get(str(label), 0.0)))
    p = _clamp_probability(answer)
    return -math.log(p if label else 1 - p)


def absolute_error(label: float, answer: float) -> float:
    """The distance from the truth, bounded so that it can be summed.

    >>> absolute_error(3.0, 2.5)
    0.5

    Args:
        label: the truth.
        answer: in the same unit.
    """
    return abs(clamp(answer) - clamp(label))


def loss(kind: str, label: Any, answer: Any) -> float:
    """The loss that models are compared by: Brier, or the absolute error for regression.

    The answer is one that `is_scorable` holds for, of the kind of the task.

    >>> loss("binary", False, 0.5), loss("regression", 1.0, 3.0)
    (0.25, 2.0)

    Args:
        kind: of the task: `binary`, `multiclass` or `regression`.
        label: a bool, a class or a number.
        answer: as the task has it.
    """
    return absolute_error(label, answer) if kind == "regression" else brier(label, answer)


def uniform_loss(kind: str, classes: int) -> float | None:
    """The Brier loss of the answer that has all classes alike, which no label changes.

    >>> uniform_loss("binary", 0), uniform_loss("multiclass", 4), uniform_loss("regression", 0)
    (0.25, 0.75, None)

    Args:
        kind: of the task.
        classes: how many a multiclass task has.
    """
    return {"binary": 0.25, "multiclass": 1.0 - 1.0 / max(1, classes)}.get(kind)


def loss_of(kind: str) -> Callable[[Any, Any], float | None]:
    """The function that gives the `loss` of an answer, or None where it cannot be scored.

    >>> loss_of("binary")(False, 0.5), loss_of("binary")(False, None)
    (0.25, None)
    """
    return _LOSSES[kind]


def roc_auc(pairs: Iterable[tuple[bool, float]]) -> float | None:
    """The chance that a positive outranks a negative, ties half; None where a class is missing.

    Exact, as a rank statistic (Hanley & McNeil 1982, "The meaning and use of the area under a
    receiver operating characteristic (ROC) curve", Radiology 143).

    >>> roc_auc([(False, 0.1), (False, 0.4), (True, 0.35), (True, 0.8)])
    0.75
    """
    by_class: tuple[list[float], list[float]] = ([], [])
    for label, answer in pairs:
        by_class[label].append(answer)
    negatives, positives = by_class
    if not negatives or not positives:
        return None
    negatives.sort()
    # Below plus not above: a negative outranked counts twice, a tied one once, in whole numbers.
    double_count = sum(bisect_left(negatives, p) + bisect_right(negatives, p) for p in positives)
    return double_count / (2 * len(positives) * len(negatives))


def r_squared(pairs: Sequence[tuple[float, float]]) -> float | None:
    """The coefficient of determination; None where the labels do not vary.

    (Wright 1921, "Correlation and causation", J. Agric. Res. 20.)

    >>> r_squared([(1.0, 1.0), (2.0, 2.5), (3.0, 3.0)])
    0.875
    """
    labels = [label for label, _ in pairs]
    if not labels or min(labels) == max(labels):
        return None
    mean = math.fsum(labels) / len(labels)
    total = math.fsum((label - mean) * (label - mean) for label in labels)
    residual = math.fsum((label - answer) * (label - answer) for label, answer in pairs)
    return 1 - residual / total if total else None


class Scores:
    """The scores of one model: cumulative, fading and windowed, with its coverage.

    Binary: `roc_auc`, `log_loss`, `brier`, `accuracy`. Multiclass: the same but `roc_auc`.
    Regression: `mae`, `rmse`, `r2`. No answer (None, `{}`, or what is no number at all) is counted
    in `unanswered_count` and scored nowhere: a model that stays silent must not look bad, or good.

    Conventions are river's: at p = 0.5 the answer is False; of equally likely classes the first
    that the answer names is meant; the cumulative ROC AUC is the trapezoid over ten thresholds.

    Args:
        kind: `binary`, `multiclass` or `regression`.
        classes: the classes of a multiclass task, as declared.
        fading: a in S = l + a S; .999 remembers about 1,000 examples.
        window: how many scored pairs the windowed scores look back on.
        by_class: whether `totals` has sums by class, and of the first answers, as well.
        revisable: whether labels may be corrected: then the ids of the windowed pairs are kept.

    >>> scores = Scores("binary")
    >>> for label, answer in [(True, 0.75), (False, 0.25), (True, None)]:
    ...     scores.update(label, answer)
    >>> scores.report()["windowed"]["brier"], scores.n, round(scores.coverage, 2)
    (0.0625, 2, 0.67)
    """

    __slots__ = (
        "_by_class",
        "_fading",
        "_fresh",
        "_fresh_names",
        "_losses",
        "_measure",
        "_n",
        "_names",
        "_pair_names",
        "_pairs",
        "_statistic",
        "_sums",
        "_sums_fading",
        "_top",
        "_unanswered_count",
        "_weight",
        "classes",
        "kind",
    )

    def __init__(
        self,
        kind: str,
        classes: tuple[str, ...] = (),
        fading: float = 0.999,
        window: int = 1_000,
        *,
        by_class: bool = False,
        revisable: bool = False,
    ) -> None:
        if kind not in _MEASURES:
            raise ValueError(f"kind: expected one of {', '.join(_MEASURES)}, given {kind!r}")
        if window < 1:
            raise ValueError(f"window: expected at least 1, given {window}")
        if not 0.0 < fading <= 1.0:
            raise ValueError(f"fading: expected within (0, 1], given {fading}")
        self.kind = kind
        self.classes = classes
        # Pairs that are not yet taken into all that follows.
        self._fresh: list[tuple[LabelValue, Answer]] = []
        self._n = 0
        self._unanswered_count = 0
        self._names = _NAMES[kind]
        self._measure = _MEASURES[kind]
        self._statistic: _Statistic | None = None
        if kind != "multiclass":
            self._statistic = _Ranking() if kind == "binary" else _Fit()
        self._fading = fading
        self._sums = [0.0] * len(self._names)
        self._sums_fading = [0.0] * len(self._names)
        self._weight = 0.0
        self._losses: deque[Losses] = deque(maxlen=window)
        # By class, the sums of Brier losses and of right answers; None: not asked for.
        self._by_class: dict[Any, list[float]] | None = None
        if by_class and kind != "regression" and len(classes) <= CLASSES_MAX:
            self._by_class = {label: [0.0, 0.0, 0.0] for label in classes or (False, True)}
        self._top = 0.0
        # Of the windowed pairs, where labels may be corrected.
        self._pair_names: deque[str] | None = deque(maxlen=window) if revisable else None
        self._fresh_names: list[str] = []
        # Kept only where the statistic needs them: a thousand answers over classes are many dicts.
        self._pairs: deque[tuple[Any, Any]] = deque(maxlen=window)

    @property
    def n(self) -> int:
        """How many answers were scored."""
        self._settle()
        return self._n

    @property
    def unanswered_count(self) -> int:
        """How many examples had no answer to score."""
        self._settle()
        return self._unanswered_count

    @property
    def coverage(self) -> float:
        """The share of examples that had an answer; 0 before the first example."""
        total = self.n + self.unanswered_count
        return self.n / total if total else 0.0

    def update(self, label: LabelValue, answer: Answer) -> None:
        """Score what was answered against the truth.

        Args:
            label: the truth, of the task's type.
            answer: as the task has it; None, or one that cannot be scored, counts as not answered.
        """
        self._fresh.append((label, answer))
        if len(self._fresh) >= FRESH_MAX:
            self._settle()

    def update_of(self, name: str, label: LabelValue, answer: Answer) -> None:
        """As `update`, where the label may be corrected.

        Args:
            name: of the pair, by its `pair_name`.
            label: the truth, of the task's type.
            answer: as the task has it.
        """
        self._fresh_names.append(name)
        self.update(label, answer)

    def revise(self, name: str, former: LabelValue, label: LabelValue, answer: Answer) -> None:
        """Let a label take the place of another one that was scored.

        What is cumulative becomes what it would be had the label come first, but for rounding;
        what fades and what is windowed as well, for as long as the pair is in the window.

        Args:
            name: of the pair, by its `pair_name`.
            former: the label that was scored.
            label: the one that counts.
            answer: as it was then.
        """
        self._settle()
        old, new = self._measure(former, answer), self._measure(label, answer)
        if old is None or new is None or not self._n:
            return
        if self._statistic is not None and not self._statistic.replace(former, label, answer):
            return
        changes = [after - before for after, before in zip(new, old, strict=True)]
        self._sums = [total + change for total, change in zip(self._sums, changes, strict=True)]
        if self._by_class is not None:
            for sign, said, losses in ((-1.0, former, old), (1.0, label, new)):
                sums = self._by_class[said]
                sums[0] += sign
                sums[1] += sign * losses[1]
                sums[2] += sign * losses[2]
                self._top += sign * self._is_in_top(said, answer)
        if self._pair_names is not None and name in self._pair_names:
            self._revise_recent(name, label, new, changes)

    def _is_in_top(self, label: LabelValue, answer: Answer) -> bool:
        """Whether a label is among the first answers, where there are enough classes to ask."""
        if self._by_class is None or len(self._by_class) <= TOP or not isinstance(answer, dict):
            return False
        own = answer.get(str(label), 0.0)
        return sum(p > own for p in answer.values()) < TOP

    def _revise_recent(
        self, name: str, label: LabelValue, losses: Losses, changes: Sequence[float]
    ) -> None:
        assert self._pair_names is not None, "names are kept where labels may be corrected"
        index = max(i for i, each in enumerate(self._pair_names) if each == name)
        self._losses[index] = losses
        if self._statistic is not None:
            self._pairs[index] = (label, self._pairs[index][1])
        weight = 1.0
        for _ in range(len(self._pair_names) - 1 - index):
            weight *= self._fading  # as often as it has faded; a power may differ in its last bit
        self._sums_fading = [
            total + weight * change
            for total, change in zip(self._sums_fading, changes, strict=True)
        ]

    def _settle(self) -> None:
        """Take in what was put aside; whoever looks at anything here calls this first."""
        fresh, self._fresh = self._fresh, []
        losses_or_none = [self._measure(label, answer) for label, answer in fresh]
        pairs, losses = list(compress(fresh, losses_or_none)), list(filter(None, losses_or_none))
        self._n += len(losses)
        self._unanswered_count += len(fresh) - len(losses)
        fading = self._fading
        for _ in losses:
            self._weight = 1.0 + fading * self._weight
        for i, column in enumerate(zip(*losses, strict=True)):
            total, fading_total = self._sums[i], self._sums_fading[i]
            for value in column:
                total += value
                fading_total = value + fading * fading_total
            self._sums[i], self._sums_fading[i] = total, fading_total
        self._losses += losses
        if self._pair_names is not None:
            fresh_names, self._fresh_names = self._fresh_names, []
            self._pair_names += compress(fresh_names, losses_or_none)
        if self._by_class is not None:
            self._add_by_class(self._by_class, pairs, losses)
        if self._statistic is not None:
            self._statistic.add(pairs)
            self._pairs += pairs

    def _add_by_class(
        self,
        by_class: dict[Any, list[float]],
        pairs: list[tuple[LabelValue, Answer]],
        losses: list[Losses],
    ) -> None:
        for (label, answer), (_, squares, right) in zip(pairs, losses, strict=True):
            sums = by_class[label]
            sums[0] += 1.0
            sums[1] += squares
            sums[2] += right
            if len(by_class) > TOP:
                self._top += self._is_in_top(label, answer)

    def totals(self) -> list[float]:
        """What all that came so far adds up to: sums, whose differences are those of a part.

        See `described`, which tells what they say.
        """
        self._settle()
        counts = self._statistic.dump() if isinstance(self._statistic, _Ranking) else []
        by_class = [] if self._by_class is None else [*self._by_class.values()]
        return [
            float(self._n),
            float(self._unanswered_count),
            *self._sums,
            *(float(count) for row in counts for count in row),
            *(value for sums in by_class for value in sums),
            self._top,
        ]

    def report(self) -> dict[str, dict[str, float]]:
        """The scores by form and name, every one finite; what is undefined is left out."""
        n = self.n
        if not n:
            return {"cumulative": {}, "fading": {}, "windowed": {}}
        cumulative = self._by_name([total / n for total in self._sums])
        fading = self._by_name([total / self._weight for total in self._sums_fading])
        columns = zip(*self._losses, strict=True)
        recent = self._by_name([math.fsum(column) / len(self._losses) for column in columns])
        if self._statistic is not None:
            name = self._statistic.name
            _put(cumulative, name, self._statistic.cumulative())
            _put(recent, name, self._statistic.over_window(self._pairs))
        return {"cumulative": cumulative, "fading": fading, "windowed": recent}

    def _by_name(self, means: list[float]) -> dict[str, float]:
        scores: dict[str, float] = {}
        for name, mean in zip(self._names, means, strict=True):
            _put(scores, name, math.sqrt(mean) if name == "rmse" else mean)
        return scores

    def dump(self) -> dict[str, Any]:
        """The state as plain JSON; the configuration is the constructor's and not in it."""
        self._settle()
        # Losses follow from pairs, so one of the two is enough.
        recent = self._losses if self._statistic is None else self._pairs
        parts = [] if self._by_class is None else list(self._by_class.values())
        return {
            **({"by_class": parts, "top": self._top} if parts else {}),
            "n": self._n,
            "unanswered": self._unanswered_count,
            "sums": list(self._sums),
            "sums_fading": list(self._sums_fading),
            "weight": self._weight,
            "statistic": None if self._statistic is None else self._statistic.dump(),
            "recent": [list(row) for row in recent],
            **({} if self._pair_names is None else {"names": list(self._pair_names)}),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a dump, bit for bit."""
        self._fresh.clear()
        self._fresh_names.clear()
        if self._pair_names is not None:
            # Of a state of before labels could be corrected nobody knows whose they are.
            self._pair_names.clear()
            self._pair_names.extend(_names_in(state))
        self._n = state["n"]
        self._unanswered_count = state["unanswered"]
        self._sums = list(state["sums"])
        self._sums_fading = list(state["sums_fading"])
        self._weight = state["weight"]
        if self._by_class is not None and "by_class" in state:
            # Classes are added behind the others; of few enough each answer is among the first.
            former = [list(sums) for sums in state["by_class"]]
            self._top = state["top"]
            if len(former) <= TOP < len(self._by_class):
                self._top = math.fsum(sums[0] for sums in former)
            self._by_class |= dict(zip(self._by_class, former, strict=False))
        self._losses.clear()
        self._pairs.clear()
        if self._statistic is None:
            self._losses.extend(map(tuple, state["recent"]))
            return
        self._statistic.load(state["statistic"])
        self._pairs.extend((label, answer) for label, answer in state["recent"])
        losses_or_none = (self._measure(label, answer) for label, answer in self._pairs)
        self._losses.extend(losses for losses in losses_or_none if losses is not None)


def pair_name(event_id: str) -> str:
    """What stands for an event's id among the last pairs, so that they hold nobody's data.

    >>> pair_name("e1")
    'e910ca89f7163b53'

    Args:
        event_id: of the event.
    """
    return hashlib.blake2b(event_id.encode(), digest_size=8, person=b"pair").hexdigest()


def _names_in(state: dict[str, Any]) -> list[str]:
    """The names of the last pairs; a state of a former release may have ids, or nothing of them."""
    if "names" in state:
        return list(state["names"])
    return [*map(pair_name, state["ids"])] if "ids" in state else [""] * len(state["recent"])


def widened_totals(
    totals: Sequence[float], kind: str, former_count: int, count: int
) -> list[float]:
    """What a model's totals are where its task has more classes.

    Args:
        totals: as `Scores.totals` gave them, or a difference of two.
        kind: of the task.
        former_count: how many classes it had.
        count: how many it has.

    >>> totals = [2.0, 0.0, 1.4, 1.0, 1.0, 2.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    >>> widened_totals(totals, "multiclass", 2, 3)
    [2.0, 0.0, 1.4, 1.0, 1.0, 2.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    begin = 2 + len(_NAMES[kind])
    head, by_class, top = [*totals[:begin]], [*totals[begin:-1]], totals[-1]
    if not by_class or count > CLASSES_MAX:
        return [*head, 0.0]
    if former_count <= TOP < count:
        top = math.fsum(by_class[::CLASS_SUMS])
    return [*head, *by_class, *[0.0] * (CLASS_SUMS * (count - former_count)), top]


def described(kind: str, classes: tuple[str, ...], totals: Sequence[float]) -> dict[str, Any]:
    """What the totals of a part of the examples say.

    Args:
        kind: of the task.
        classes: of a multiclass task.
        totals: a difference of two that `Scores.totals` gave.

    Returns:
        `n`, `coverage`, and the mean scores by name, of binary tasks `roc_auc` as well (over ten
        thresholds), of more than three classes `top_3`; and `by_class` the number, the mean Brier
        loss and the accuracy, where there are few classes.

    >>> scores = Scores("binary", by_class=True)
    >>> for label, answer in [(True, 0.75), (False, 0.25), (True, None)]:
    ...     scores.update(label, answer)
    >>> found = described("binary", (), scores.totals())
    >>> found["n"], found["brier"], found["roc_auc"], found["by_class"]["true"]
    (2, 0.0625, 1.0, {'n': 1, 'brier': 0.0625, 'accuracy': 1.0})
    """
    names = _NAMES[kind]
    n, unanswered, *rest = totals
    if not n:
        return {"n": 0, "coverage": 0.0}
    found: dict[str, Any] = {"n": round(n), "coverage": n / (n + unanswered)}
    for name, total in zip(names, rest, strict=False):
        _put(found, name, math.sqrt(max(0.0, total) / n) if name == "rmse" else total / n)
    *rest, top = rest[len(names) :]
    if kind == "binary":
        ranking = _Ranking()
        bins = len(THRESHOLDS) + 1
        ranking.load([list(map(round, rest[:bins])), list(map(round, rest[bins : 2 * bins]))])
        _put(found, "roc_auc", ranking.cumulative())
        rest = rest[2 * bins :]
    labels = [*classes] if kind == "multiclass" else ["false", "true"]
    if rest:
        parts = zip(labels, zip(*[iter(rest)] * 3, strict=True), strict=True)
        found["by_class"] = {
            label: {"n": round(count), "brier": squares / count, "accuracy": right / count}
            for label, (count, squares, right) in parts
            if round(count)
        }
        if len(labels) > TOP:
            found[f"top_{TOP}"] = top / n
    return found


class Delays:
    """How long labels took to come: quantiles over the last 1,000 delays.

    >>> delays = Delays()
    >>> for delay_ms in range(1, 101):
    ...     delays.update(delay_ms)
    >>> delays.report()
    {'p50': 50, 'p90': 90, 'p99': 99}
    """

    __slots__ = ("_recent",)

    def __init__(self, window: int = DELAYS_WINDOW) -> None:
        self._recent: deque[int] = deque(maxlen=window)

    def update(self, delay_ms: int) -> None:
        """Take in one label's delay after its prediction."""
        self._recent.append(delay_ms)

    def report(self) -> dict[str, int]:
        """p50, p90 and p99 in milliseconds; empty before the first delay.

        By the inverse of the empirical distribution, type 1 of Hyndman & Fan 1996, "Sample
        quantiles in statistical packages", American Statistician 50: always a delay that was.
        """
        delays = sorted(self._recent)
        if not delays:
            return {}
        # Whole numbers, so that p90 of ten is the ninth and no rounding error makes it the tenth.
        return {f"p{q}": delays[(len(delays) * q + 99) // 100 - 1] for q in (50, 90, 99)}

    def dump(self) -> list[int]:
        """The state as plain JSON."""
        return list(self._recent)

    def load(self, state: list[int]) -> None:
        """Go on from a dump."""
        self._recent = deque(state, maxlen=self._recent.maxlen)


class _Statistic(Protocol):
    """A score that is no mean of losses: it looks at the whole sample."""

    name: str

    def add(self, pairs: Iterable[tuple[Any, Any]]) -> None: ...

    def replace(self, former: Any, label: Any, answer: Any) -> bool: ...

    def cumulative(self) -> float | None: ...

    def over_window(self, pairs: Iterable[tuple[Any, ...]]) -> float | None: ...

    def dump(self) -> list[Any]: ...

    def load(self, state: list[Any]) -> None: ...


class _Ranking:
    """ROC AUC as river's ROCAUC computes it, from counts between thresholds.

    river updates a confusion matrix per threshold; the counts say the same at a tenth of the
    cost, and are plain numbers to dump.
    """

    __slots__ = ("_counts",)
    name = "roc_auc"

    def __init__(self) -> None:
        # By label, then by how many thresholds the answer exceeds.
        self._counts = [[0] * (len(THRESHOLDS) + 1) for _ in (False, True)]

    def add(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        negatives, positives = self._counts
        for label, answer in pairs:
            (positives if label else negatives)[bisect_left(THRESHOLDS, answer)] += 1

    def replace(self, former: Any, label: Any, answer: Any) -> bool:
        """Move a pair to another label; False if it was not counted."""
        place = bisect_left(THRESHOLDS, answer)
        if not self._counts[former][place]:
            return False
        self._counts[former][place] -= 1
        self._counts[label][place] += 1
        return True

    def cumulative(self) -> float | None:
        (fpr, tpr) = (_shares_above(counts) for counts in self._counts)
        if fpr is None or tpr is None:
            return None
        steps = range(len(THRESHOLDS) - 1)
        return sum((fpr[i] - fpr[i + 1]) * (tpr[i] + tpr[i + 1]) / 2 for i in steps)

    def over_window(self, pairs: Iterable[tuple[Any, ...]]) -> float | None:
        return roc_auc(pairs)

    def dump(self) -> list[Any]:
        return [list(counts) for counts in self._counts]

    def load(self, state: list[Any]) -> None:
        self._counts = [list(counts) for counts in state]


class _Fit:
    """R² as river's R2 computes it: residuals over Welford's sum of squares.

    (Welford 1962, "Note on a method for calculating corrected sums of squares and products",
    Technometrics 4.)
    """

    __slots__ = ("_mean", "_n", "_residual", "_total")
    name = "r2"

    def __init__(self) -> None:
        self._n = 0
        self._mean = 0.0
        self._total = 0.0
        self._residual = 0.0

    def add(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        for label, answer in ((clamp(label), clamp(answer)) for label, answer in pairs):
            self._n += 1
            deviation = label - self._mean
            self._mean += deviation / self._n
            self._total += deviation * (label - self._mean)
            self._residual += (label - answer) * (label - answer)

    def replace(self, former: Any, label: Any, answer: Any) -> bool:
        """Give a pair another label; False if there was none."""
        if not self._n:
            return False
        former, label, answer = clamp(former), clamp(label), clamp(answer)
        mean = self._mean
        self._mean = mean + (label - former) / self._n
        # What is left of the sum of squares when one value moves, and the mean with it.
        self._total += (label - former) * (label + former - mean - self._mean)
        self._total = max(0.0, self._total)
        error, former_error = label - answer, former - answer
        self._residual = max(0.0, self._residual + error * error - former_error * former_error)
        return True

    def cumulative(self) -> float | None:
        return 1 - self._residual / self._total if self._total else None

    def over_window(self, pairs: Iterable[tuple[Any, ...]]) -> float | None:
        return r_squared([(clamp(label), clamp(answer)) for label, answer in pairs])

    def dump(self) -> list[Any]:
        return [self._n, self._mean, self._total, self._residual]

    def load(self, state: list[Any]) -> None:
        self._n, self._mean, self._total, self._residual = state


def _shares_above(counts: list[int]) -> list[float] | None:
    total = sum(counts)
    if not total:
        return None
    counts_above = [sum(counts[i + 1 :]) for i in range(len(THRESHOLDS))]
    return [count / total for count in counts_above]


def _put(scores: dict[str, float], name: str, value: float | None) -> None:
    if value is not None and math.isfinite(value):
        scores[name] = value


def _clamp_probability(p: float) -> float:
    if p > PROBABILITY_MAX:
        return PROBABILITY_MAX
    return max(p, PROBABILITY_MIN)


def _is_probability(value: float) -> bool:
    # Also false for NaN, which compares with nothing.
    return PROBABILITY_LOWEST <= value <= PROBABILITY_HIGHEST


def _is_scorable_binary(answer: Any) -> bool:
    return answer is not None and _is_probability(answer)


def _is_scorable_multiclass(answer: Any) -> bool:
    return bool(answer) and all(map(_is_probability, answer.values()))


def _is_scorable_regression(answer: Any) -> bool:
    return answer is not None and math.isfinite(answer)


def _measure_binary(label: LabelValue, answer: Any) -> Losses | None:
    # The functions that say the same, written out: their calls cost as much as what they do.
    if answer is None or not PROBABILITY_LOWEST <= answer <= PROBABILITY_HIGHEST:
        return None
    # False comes first in river's dict of probabilities, so a tie is False.
    right = (answer > 0.5) == label  # noqa: PLR2004 - the middle of [0, 1]
    p = PROBABILITY_MAX if answer > PROBABILITY_MAX else max(answer, PROBABILITY_MIN)
    if label:
        return -math.log(p), (answer - 1.0) * (answer - 1.0), float(right)
    return -math.log(1 - p), answer * answer, float(right)


def _measure_multiclass(label: LabelValue, answer: Any) -> Losses | None:
    if not _is_scorable_multiclass(answer):
        return None
    right = max(answer, key=answer.get) == label
    return log_loss(label, answer), brier(label, answer), float(right)


def _measure_regression(label: Any, answer: Any) -> Losses | None:
    if not _is_scorable_regression(answer):
        return None
    error = absolute_error(label, answer)
    return error, error * error


def _loss_binary(label: LabelValue, answer: Any) -> float | None:
    # `is_scorable` and `brier`, written out as above.
    if answer is None or not PROBABILITY_LOWEST <= answer <= PROBABILITY_HIGHEST:
        return None
    error: float = answer - 1.0 if label else answer
    return error * error


def _loss_multiclass(label: LabelValue, answer: Any) -> float | None:
    return brier(label, answer) if _is_scorable_multiclass(answer) else None


def _loss_regression(label: Any, answer: Any) -> float | None:
    return absolute_error(label, answer) if _is_scorable_regression(answer) else None


_SCORABLE: dict[str, Callable[[Any], bool]] = {
    "binary": _is_scorable_binary,
    "multiclass": _is_scorable_multiclass,
    "regression": _is_scorable_regression,
}
_MEASURES: dict[str, Callable[[Any, Any], Losses | None]] = {
    "binary": _measure_binary,
    "multiclass": _measure_multiclass,
    "regression": _measure_regression,
}
_LOSSES: dict[str, Callable[[Any, Any], float | None]] = {
    "binary": _loss_binary,
    "multiclass": _loss_multiclass,
    "regression": _loss_regression,
}
_NAMES = {
    "binary": ("log_loss", "brier", "accuracy"),
    "multiclass": ("log_loss", "brier", "accuracy"),
    "regression": ("mae", "rmse"),
}
