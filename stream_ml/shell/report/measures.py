"""Scores of pairs of a label and an answer, by kind of task."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from stream_ml.evaluation.scores import absolute_error, brier, log_loss, roc_auc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["GAP_MEASURES", "LOSS_NAMES", "MEASURES", "Pairs", "mean"]

Pairs = list[tuple[Any, Any]]


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean of at least one value."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)


def _rmse(pairs: Pairs) -> float:
    return math.sqrt(mean(absolute_error(label, answer) ** 2 for label, answer in pairs))


def _accuracy(pairs: Pairs) -> float:
    # Of equally probable classes, the one that sorts first: the same on every run.
    return mean(
        float(label == min(answer, key=lambda name: (-answer[name], name)))
        for label, answer in pairs
    )


def _log_loss(pairs: Pairs) -> float:
    return mean(log_loss(label, answer) for label, answer in pairs)


def _brier(pairs: Pairs) -> float:
    return mean(brier(label, answer) for label, answer in pairs)


def _mae(pairs: Pairs) -> float:
    return mean(absolute_error(label, answer) for label, answer in pairs)


# By kind of task: each measure's name and how it is computed; None: not defined on these pairs.
MEASURES: dict[str, dict[str, Callable[[Pairs], float | None]]] = {
    "binary": {"ROC AUC": roc_auc, "log loss": _log_loss, "Brier": _brier},
    "multiclass": {"accuracy": _accuracy, "log loss": _log_loss},
    "regression": {"MAE": _mae, "RMSE": _rmse},
}
# By kind of task: the name that people know its loss by.
LOSS_NAMES = {"binary": "Brier", "multiclass": "Brier", "regression": "absolute error"}
# By kind of task: the measure of the gap between never updated and live.
GAP_MEASURES = {"binary": "log loss", "multiclass": "log loss", "regression": "MAE"}
