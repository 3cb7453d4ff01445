"""Linear models as tables and loops: river's own operations in river's own order.

On its own or behind a `StandardScaler`, a linear model that learns no more becomes a table of
means, deviations and weights. One that learns goes straight to river's own numbers.
"""

# ruff: noqa: SLF001 - learning as river does changes what river keeps to itself

from __future__ import annotations

import math
from math import exp
from typing import TYPE_CHECKING, Any

from river import compose, linear_model, optim, preprocessing
from river.utils import VectorDict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_ml.models.recipes import Target
    from stream_ml.records import Answer, LabelValue

    Predictor = Callable[[Mapping[str, float]], Answer]
    Learner = Callable[[dict[str, float], LabelValue], None]
    # Mean, standard deviation and weight of each feature; a weight of 0 where it moves nothing.
    Terms = dict[str, tuple[float, float, float]]

__all__ = ["is_plain", "learner_behind", "linear_learner", "linear_predictor", "live_predictor"]

# Past this river's sigmoid gives 0 or 1 and computes nothing.
LOGIT_MAX = 30.0
# The task that each kind of linear model is for, and the loss whose link we know.
_LINEAR: dict[Any, tuple[str, Any]] = {
    linear_model.LogisticRegression: ("binary", optim.losses.Log),
    linear_model.LinearRegression: ("regression", optim.losses.Squared),
}


def linear_predictor(model: Any, target: Target, river_predictor: Predictor) -> Predictor | None:
    """Predicts as a linear model does that learns no more; None where `model` is anything else.

    Args:
        model: any of river's estimators.
        target: the question.
        river_predictor: river's own way, for answers that are certain or no number.
    """
    terms = _terms(model, target)
    if terms is None:
        return None
    form = _classifier if target.kind == "binary" else _regressor
    return form(terms, float(_last(model).intercept), river_predictor)


def _classifier(terms: Terms, intercept: float, river_predictor: Predictor) -> Predictor:
    names, rows = list(terms), list(terms.values())

    def predict(features: Mapping[str, float]) -> Answer:
        logit = 0.0
        if [*features] == names:  # as nearly always: then nothing need be looked up
            for x, (mean, deviation, weight) in zip(features.values(), rows, strict=True):
                logit += (x - mean) / deviation * weight
        else:
            for name, x in features.items():
                if name in terms:
                    mean, deviation, weight = terms[name]
                    logit += (x - mean) / deviation * weight
        logit += intercept
        if -LOGIT_MAX <= logit <= LOGIT_MAX:
            return 1 / (1 + exp(-logit))
        return river_predictor(features)  # certain, or no number: river's to say

    return predict


def _regressor(terms: Terms, intercept: float, river_predictor: Predictor) -> Predictor:
    names, rows = list(terms), list(terms.values())

    def predict(features: Mapping[str, float]) -> Answer:
        value = 0.0
        if [*features] == names:  # as nearly always: then nothing need be looked up
            for x, (mean, deviation, weight) in zip(features.values(), rows, strict=True):
                value += (x - mean) / deviation * weight
        else:
            for name, x in features.items():
                if name in terms:
                    mean, deviation, weight = terms[name]
                    value += (x - mean) / deviation * weight
        value += intercept
        return value if math.isfinite(value) else river_predictor(features)

    return predict


def live_predictor(model: Any, target: Target, river_predictor: Predictor) -> Predictor | None:
    """Predicts as a linear classifier behind a scaler does while it learns; None for all else.

    It reads the model's own numbers at each call.

    Args:
        model: any of river's estimators.
        target: the question.
        river_predictor: river's own way, for answers that are certain or no number.
    """
    scaler, last = _scaler(model), _last(model)
    usual = _LINEAR.get(type(last))
    if scaler is None or not scaler.with_std or target.kind != "binary":
        return None
    if usual is None or usual != (target.kind, type(last.loss)):
        return None
    means, variances = scaler.means, scaler.vars

    def predict(features: Mapping[str, float]) -> Answer:
        logit, weights = 0.0, last._weights
        for name, x in features.items():
            if name in weights:
                variance = variances.get(name, 0.0)
                if variance > 0:  # without any, river scales to 0
                    logit += (x - means[name]) / variance**0.5 * weights[name]
                elif variance < 0:
                    return river_predictor(features)
        logit += last.intercept
        if -LOGIT_MAX <= logit <= LOGIT_MAX:
            return float(1 / (1 + exp(-logit)))
        return river_predictor(features)  # as above

    return predict


def _terms(model: Any, target: Target) -> Terms | None:
    """The table of a linear model for this target; None where `learner` is anything else."""
    scaler, model = _scaler(model), _last(model)
    # Exact types: a subclass may do anything.
    usual = _LINEAR.get(type(model))
    if scaler is None or usual is None or usual != (target.kind, type(model.loss)):
        return None
    terms: Terms = {}
    for name, weight in model.weights.items():
        variance = scaler.vars.get(name, 0.0) if scaler.with_std else 1.0
        if variance < 0:
            return None
        # Without variance river scales to 0. (Not `math.sqrt`, which rounds otherwise at times.)
        terms[name] = (
            (float(scaler.means.get(name, 0.0)), variance**0.5, float(weight))
            if variance > 0
            else (0.0, 1.0, 0.0)
        )
    numbers = [model.intercept, *(number for term in terms.values() for number in term)]
    return terms if all(map(math.isfinite, numbers)) else None


def _last(model: Any) -> Any:
    """The last step: the model itself, without what comes before it."""
    return list(model.steps.values())[-1] if type(model) is compose.Pipeline else model


def _scaler(model: Any) -> Any:
    """The scaler before a model, or one that changes nothing; None if something else is there."""
    if type(model) is not compose.Pipeline:
        return preprocessing.StandardScaler(with_std=False)
    first, *tail = model.steps.values()
    return first if is_plain(first) and len(tail) == 1 else None


def is_plain(step: Any) -> bool:
    """Whether a step of a pipeline is a scaler whose arithmetic we know."""
    return type(step) is preprocessing.StandardScaler and step.window_size is None


def learner_behind(scaler: Any, teach_scaled: Learner) -> Learner:
    """Teaches a scaler, and a model behind it what has been scaled.

    Args:
        scaler: a plain `StandardScaler` of river's; it is changed as it learns.
        teach_scaled: teaches the model, given scaled features and the label.
    """
    counts, means, variances = scaler.counts, scaler.means, scaler.vars

    def teach(features: dict[str, float], label: LabelValue) -> None:
        scaled_features = {}
        for name, x in features.items():
            count = counts[name] = counts[name] + 1
            mean = means[name]
            former_deviation = x - mean
            mean = means[name] = mean + former_deviation / count
            deviation = x - mean
            variance = variances[name]
            variance = variances[name] = (
                variance + (former_deviation * deviation - variance) / count
            )
            scaled_features[name] = deviation / variance**0.5 if variance else 0.0
        teach_scaled(scaled_features, label)

    return teach


def linear_learner(model: Any) -> Learner | None:
    """Teaches a linear model; None where `model` is anything else, or unusual."""
    if type(model) not in _LINEAR or type(model.optimizer) not in _STEPS:
        return None
    if model.l1 != 0 or model.l2 != 0:
        return None
    optimizer, initializer, clip = model.optimizer, model.initializer, model.clip_gradient
    slope, step = model.loss.gradient, _STEPS[type(optimizer)]

    def teach(features: dict[str, float], label: LabelValue) -> None:
        # A view that enters a weight for each feature that has none.
        weights: VectorDict[str, float] = VectorDict(model._weights, initializer, features)
        gradient = slope(label, weights.dot(features) + model.intercept)
        gradient = float(max(min(gradient, clip), -clip))
        model.intercept -= model.intercept_lr.get(optimizer.n_iterations) * gradient
        step(optimizer, weights, features, gradient)
        optimizer.n_iterations += 1

    return teach


def _sgd(optimizer: Any, weights: Any, features: dict[str, float], gradient: float) -> None:
    weights.isub_scaled(VectorDict.from_scaled(features, gradient), optimizer.learning_rate)


def _adagrad(optimizer: Any, weights: Any, features: dict[str, float], gradient: float) -> None:
    squares, eps, rate = optimizer.g2, optimizer.eps, optimizer.learning_rate
    for name, x in features.items():
        slope = x * gradient
        square = squares[name] = squares[name] + slope**2
        weights[name] -= rate / (square + eps) ** 0.5 * slope


_STEPS = {optim.SGD: _sgd, optim.AdaGrad: _adagrad}
